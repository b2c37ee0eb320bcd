"""What the user types, and what a run says of itself before it starts."""

import argparse
import os

from dreamer.utils.config import CONFIGS
from dreamer.utils.device import describe_device

DESCRIPTION = "Train a world model, and an agent in its imagination, on a task of the DeepMind Control Suite or of gym."
EPILOG = """examples:
  python main.py --config dmc-walker-walk
  python main.py --config dmc-walker-walk operation.seed=1 parameters.dreamer.batch_size=16
  python main.py --config runs/<run>/config.yml     the same run again
  tensorboard --logdir runs                         its curves

Each run makes a folder runs/<date>_<time>_<operation.log_dir> for its TensorBoard events and for
config.yml, its resolved configuration. What cannot be run ends with one line and exit status 2.

configs/dreamer.yml explains every key and gives its default. The configurations in configs/:
  """
CPU_ADVICE = "No GPU is in use. Pixels at full size are meant for one: try --config quick-cartpole-balance on a CPU."


def parse_arguments(arguments=None):
    """The command line's `config` and `overrides`."""
    names = "\n  ".join(sorted(path.stem for path in CONFIGS.glob("*.yml")))
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG + names, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a file in configs/, with or without .yml, or a path")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the configuration, dotted")
    return parser.parse_args(arguments)


def introduce(folder, device, environment, networks):
    """Print where the run goes, what it runs on and how large its networks are.

    device: a torch.device. environment: that sub-tree of the configuration. networks: by name.
    """
    if not environment.from_pixels:
        rendering = "none, the observations are vectors"
    elif environment.benchmark == "gym":
        rendering = "by the environment"
    else:
        rendering = os.environ.get("MUJOCO_GL", "MuJoCo's default")
    sizes = {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
    print(f"run folder  {folder}")
    print(f"device      {describe_device(device)}")
    print(f"rendering   {rendering}")
    print("parameters  " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    if device.type == "cpu" and environment.from_pixels:
        print(CPU_ADVICE)

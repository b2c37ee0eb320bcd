"""Count the functions of ours that one update runs: how far a reader has to walk.

    python experiments/count_functions.py                                        # each version
    python experiments/count_functions.py quick-v3-cartpole-swingup --list
    python experiments/count_functions.py quick-cartpole-swingup parameters.dreamer.slow_critic=target

A function counts once however often it is called, if it stands in dreamer/ and is called during `algorithm.update`;
lambdas, comprehensions and generator expressions belong to the function around them. A line for each configuration
tells how many there are and in how many files; --list names them, in the order of their first calls.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dreamer.algorithms.policy import random_policy  # noqa: E402
from dreamer.build import build_algorithm, build_replay  # noqa: E402
from dreamer.config.load import load_config  # noqa: E402
from dreamer.envs.make import make_train_env  # noqa: E402
from dreamer.errors import ConfigError, EnvError  # noqa: E402
from dreamer.tools.argument_parser import Parser, separate_overrides  # noqa: E402
from dreamer.training.collect import run_episode  # noqa: E402

CONFIGURATIONS = [  # V1 from vectors and from pixels, V2, V3, Plan2Explore
    "quick-cartpole-swingup",
    "quick-pixels-cheetah-run",
    "quick-v2-cartpole-swingup",
    "quick-v3-cartpole-swingup",
    "quick-p2e-pendulum-swingup",
]
TINY = ["environment.frame_skip=50"]
TINY += [f"parameters.dreamer.{key}" for key in ("batch_size=2", "batch_length=6", "horizon_length=3")]


def functions_called_by(call: Callable[[], object]) -> list[tuple[str, str]]:
    """Return (file in dreamer/, name) of the functions that a call runs, in the order of their first calls."""
    package, functions = f"{ROOT / 'dreamer'}/", {}

    def record_call(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package) and not code.co_name.startswith("<"):
            name = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has no co_qualname
            functions[code] = code.co_filename.removeprefix(package), name

    previous_profiler = sys.getprofile()
    sys.setprofile(record_call)
    try:
        call()
    finally:
        sys.setprofile(previous_profiler)
    return list(functions.values())


def functions_of_update(name: str, overrides: list[str]) -> list[tuple[str, str]]:
    """Return the functions that one update of a configuration runs, after a first one that sets everything up.

    Raises ConfigError, EnvError.
    """
    config = load_config(name, [*TINY, *overrides])
    with tempfile.TemporaryDirectory() as folder, closing(make_train_env(config.environment, 0)) as env:
        algorithm = build_algorithm(config, env, torch.device("cpu"))
        replay = build_replay(config, env, folder, 0, algorithm.model.rssm)
        for step in run_episode(env, random_policy(env)):
            replay.add(step)
        replay.finish_episode()
        settings = config.parameters.dreamer
        batch = replay.sample(settings.batch_size, settings.batch_length)
        algorithm.update(batch)
        return functions_called_by(lambda: algorithm.update(batch))


def main(arguments: list[str] | None = None) -> int:
    """Print the counts. Returns the exit status: 0, or 2 for what cannot be built; one line says why."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configurations", nargs="*", metavar="configuration")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--list", action="store_true", help="name the functions")
    options = parser.parse_intermixed_args(arguments)
    separate_overrides(options, arguments, "configurations")
    try:
        for name in options.configurations or CONFIGURATIONS:
            functions = functions_of_update(name, options.overrides)
            print(f"{name:28} {len(functions)} functions in {len({file for file, _ in functions})} files")
            if options.list:
                print("\n".join(f"    {file:32} {function}" for file, function in functions))
    except (ConfigError, EnvError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What runs of quick-p2e-pendulum-swingup have seen, and what their world models are good for.

    python experiments/pendulum_coverage.py runs/<run> … [--fresh 2000] [--figure coverage.png]

Prints a Markdown row for each run: how many of the 40 x 40 cells of angle (from -π to π) and angular
velocity (from -12 to 12 rad/s) the replay visits, the share of its steps in which the pendulum is
upright (within 8 degrees, where the task rewards it), the last ten evaluations of the task's actor, and
with --fresh the evaluation of an actor and a critic that start anew and learn for so many updates in
the imagination of the finished world model, which itself, like the replay, does not change any more.
"""

import argparse
import shutil
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreamer.build import build_algorithm, build_replay  # noqa: E402
from dreamer.config.load import load_config  # noqa: E402
from dreamer.envs.make import make_eval_env  # noqa: E402
from dreamer.errors import CheckpointError, ConfigError, NotFiniteError  # noqa: E402
from dreamer.tools.argument_parser import Parser, positive  # noqa: E402
from dreamer.tools.plot import read_runs  # noqa: E402
from dreamer.training.checkpoint import load_checkpoint, load_networks  # noqa: E402
from dreamer.training.evaluation import Evaluator  # noqa: E402
from dreamer.training.run_folder import CONFIGURATION, find_run, first_folder  # noqa: E402
from dreamer.training.seeding import seed_everything  # noqa: E402

TASK = {"benchmark": "dmc", "domain_name": "pendulum", "task_name": "swingup", "from_pixels": False}
CELLS = 40  # along each axis
FASTEST = 12.0  # rad/s
EPISODES = 10  # in the evaluation of a fresh actor


def read_config(run):
    config = load_config(run / CONFIGURATION)
    if config.algorithm != "plan2explore" or not TASK.items() <= config.environment.items():
        raise ConfigError(f"{run} is not a run of plan2explore on pendulum-swingup from state")
    return config


def read_replay(run, config, env):
    """The replay of a run, from a copy: where one goes on, it reserves space in its files."""
    state = load_checkpoint(run)[1]["replay"]
    with TemporaryDirectory() as copy:
        shutil.copytree(first_folder(run) / "replay", Path(copy) / "replay")
        rssm = build_algorithm(config, env, torch.device("cpu")).model.rssm
        replay = build_replay(config, env, copy, config.operation.seed, rssm)
        replay.load_state_dict(state)
        return replay  # files that are mapped into memory outlast their names


def visited(replay):
    """Angle and angular velocity of every step in it."""
    cosine, sine, velocity = replay.read([replay.start], len(replay)).observation[0].T
    return np.arctan2(sine, cosine), velocity


def count_cells(angle, velocity):
    rows = np.floor((angle + np.pi) / (2 * np.pi) * CELLS).clip(0, CELLS - 1)
    columns = np.floor((velocity + FASTEST) / (2 * FASTEST) * CELLS).clip(0, CELLS - 1)
    return len(np.unique(rows * CELLS + columns))


def last_evaluations(run):
    return read_runs([run], "eval/return")[run].tail(10).mean()


def fresh_return(run, config, env, replay, updates):
    """The mean return of a task actor that starts anew in the finished world model."""
    seed_everything(config.operation.seed)
    settings, dreamer = config.parameters.dreamer, build_algorithm(config, env, torch.device("cpu")).dreamer
    load_networks({"model": dreamer.model}, run)
    for _ in range(updates):
        batch = replay.sample(settings.batch_size, settings.batch_length)
        with torch.no_grad():
            _, posterior = dreamer.model.observe(batch)
        start = posterior.flatten(), batch.is_terminal.flatten()
        dreamer.learn_behavior(dreamer.actor_critic, *start, dreamer.predicted_reward)
    return np.mean(Evaluator(env, dreamer.model, dreamer.actor, config.operation.seed).returns(updates, EPISODES))


def draw(runs, figure):
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, len(runs), figsize=(4 * len(runs), 3.4), sharey=True, squeeze=False)
    for axis, (title, (angle, velocity)) in zip(axes[0], runs.items(), strict=True):
        axis.scatter(angle, velocity, s=1, alpha=0.4, linewidths=0)
        axis.set(title=title, xlabel="angle (0 is upright)", xlim=(-np.pi, np.pi), ylim=(-FASTEST, FASTEST))
    axes[0, 0].set_ylabel("angular velocity (rad/s)")
    plt.tight_layout()
    plt.savefig(figure, dpi=110)


def main(arguments=None):
    """Returns the exit status: 0, or 2 for what cannot be read or drawn; one line says why."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--fresh", type=positive, metavar="UPDATES")
    parser.add_argument("--figure", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        measure(options)
    except (OSError, ValueError, CheckpointError, NotFiniteError) as error:  # ValueError: also what matplotlib says
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(options):
    """Print the table, and draw the figure."""
    configs, drawn = {run: read_config(run) for run in map(find_run, options.runs)}, {}
    print("| explorer | seed | cells visited | upright, % of steps | last 10 evaluations | fresh actor |")
    print("| --- | --- | --- | --- | --- | --- |")
    for run, config in configs.items():
        explorer, seed = config.parameters.plan2explore.explorer, config.operation.seed
        with closing(make_eval_env(config.environment, seed)) as env:
            replay = read_replay(run, config, env)
            angle, velocity = drawn[f"{explorer}, seed {seed}"] = visited(replay)
            fresh = f"{fresh_return(run, config, env, replay, options.fresh):.0f}" if options.fresh else ""
        upright = 100 * np.mean(np.abs(angle) < np.radians(8))
        cells, evaluated = count_cells(angle, velocity), last_evaluations(run)
        print(f"| {explorer} | {seed} | {cells} | {upright:.2f} | {evaluated:.0f} | {fresh} |", flush=True)
    if options.figure:
        draw(drawn, options.figure)


if __name__ == "__main__":
    sys.exit(main())

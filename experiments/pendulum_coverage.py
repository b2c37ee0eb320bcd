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
CELLS_PER_AXIS = 40
MAX_VELOCITY = 12.0  # rad/s
EVALUATION_EPISODES = 10  # of a fresh actor


def read_config(run):
    """Return the configuration of a run. Raises ConfigError if it is not Plan2Explore on this task."""
    config = load_config(run / CONFIGURATION)
    if config.algorithm != "plan2explore" or not TASK.items() <= config.environment.items():
        raise ConfigError(f"{run} is not a run of plan2explore on pendulum-swingup from state")
    return config


def read_replay(run, config, env):
    """Return the replay of a run. It is read from a copy, because opening a replay to go on changes its files."""
    state = load_checkpoint(run)[1]["replay"]
    with TemporaryDirectory() as copy:
        shutil.copytree(first_folder(run) / "replay", Path(copy) / "replay")
        rssm = build_algorithm(config, env, torch.device("cpu")).model.rssm
        replay = build_replay(config, env, copy, config.operation.seed, rssm)
        replay.load_state_dict(state)
        return replay  # files that are mapped into memory outlast their names


def visited_states(replay):
    """Return the angle and the angular velocity of each stored step."""
    cosine, sine, velocity = replay.read([replay.start], len(replay)).observation[0].T
    return np.arctan2(sine, cosine), velocity


def count_cells(angle, velocity):
    """Return the number of cells of the grid that the states visit."""
    rows = np.floor((angle + np.pi) / (2 * np.pi) * CELLS_PER_AXIS).clip(0, CELLS_PER_AXIS - 1)
    columns = np.floor((velocity + MAX_VELOCITY) / (2 * MAX_VELOCITY) * CELLS_PER_AXIS).clip(0, CELLS_PER_AXIS - 1)
    return len(np.unique(rows * CELLS_PER_AXIS + columns))


def last_evaluations(run):
    """Return the mean of the last ten evaluations of a run."""
    return read_runs([run], "eval/return")[run].tail(10).mean()


def fresh_return(run, config, env, replay, updates):
    """Return the mean return of a new task actor that has learned in the finished world model."""
    seed_everything(config.operation.seed)
    settings = config.parameters.dreamer
    dreamer = build_algorithm(config, env, torch.device("cpu")).dreamer
    load_networks({"model": dreamer.model}, run)
    for _ in range(updates):
        batch = replay.sample(settings.batch_size, settings.batch_length)
        with torch.no_grad():
            _, posterior = dreamer.model.observe(batch)
        states, is_terminal = posterior.flatten(), batch.is_terminal.flatten()
        dreamer.learn_behavior(dreamer.actor_critic, states, is_terminal, dreamer.predicted_reward)
    evaluator = Evaluator(env, dreamer.model, dreamer.actor, config.operation.seed)
    return np.mean(evaluator.returns(updates, EVALUATION_EPISODES))


def draw(states_by_title, path):
    """Draw the visited states of each run."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, len(states_by_title), figsize=(4 * len(states_by_title), 3.4), sharey=True, squeeze=False)
    for axis, (title, (angle, velocity)) in zip(axes[0], states_by_title.items(), strict=True):
        axis.scatter(angle, velocity, s=1, alpha=0.4, linewidths=0)
        axis.set(title=title, xlabel="angle (0 is upright)", xlim=(-np.pi, np.pi), ylim=(-MAX_VELOCITY, MAX_VELOCITY))
    axes[0, 0].set_ylabel("angular velocity (rad/s)")
    plt.tight_layout()
    plt.savefig(path, dpi=110)


def main(arguments=None):
    """Print and draw. Return the exit status: 0, or 2 for what cannot be read or drawn; one line says why."""
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
    configs = {run: read_config(run) for run in map(find_run, options.runs)}
    states_by_title = {}
    print("| explorer | seed | cells visited | upright, % of steps | last 10 evaluations | fresh actor |")
    print("| --- | --- | --- | --- | --- | --- |")
    for run, config in configs.items():
        explorer, seed = config.parameters.plan2explore.explorer, config.operation.seed
        with closing(make_eval_env(config.environment, seed)) as env:
            replay = read_replay(run, config, env)
            angle, velocity = visited_states(replay)
            states_by_title[f"{explorer}, seed {seed}"] = angle, velocity
            fresh_actor_return = ""
            if options.fresh:
                fresh_actor_return = f"{fresh_return(run, config, env, replay, options.fresh):.0f}"
        upright = 100 * np.mean(np.abs(angle) < np.radians(8))
        cells, evaluated = count_cells(angle, velocity), last_evaluations(run)
        print(f"| {explorer} | {seed} | {cells} | {upright:.2f} | {evaluated:.0f} | {fresh_actor_return} |", flush=True)
    if options.figure:
        draw(states_by_title, options.figure)


if __name__ == "__main__":
    sys.exit(main())

"""What runs of quick-p2e-pendulum-swingup have seen, and what their world models are good for.

    python experiments/pendulum_coverage.py runs/<run> … [--fresh 2000] [--figure coverage.png]

Prints a Markdown row for each run: how many of the 40 x 40 cells of angle (from -π to π) and angular
velocity (from -12 to 12 rad/s) the replay visits, the share of its steps in which the pendulum is
upright (within 8 degrees, where the task rewards it), the last ten evaluations of the task's actor, and
with --fresh the evaluation of an actor and a critic that start anew and learn for so many updates in
the imagination of the finished world model, which itself, like the replay, does not change any more.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreamer.algorithms.dreamer import imagination_start  # noqa: E402
from dreamer.build import build_algorithm, load_networks  # noqa: E402
from dreamer.checkpoint import load_checkpoint  # noqa: E402
from dreamer.config import load_config  # noqa: E402
from dreamer.envs.make import make_eval_env  # noqa: E402
from dreamer.evaluation import Evaluator  # noqa: E402
from dreamer.plot import read_runs  # noqa: E402
from dreamer.replay import ReplayBuffer  # noqa: E402
from dreamer.seeding import seed_everything  # noqa: E402

CELLS = 40  # along each axis
FASTEST = 12.0  # rad/s
EPISODES = 10  # in the evaluation of a fresh actor


def open_replay(run, config):
    buffer = ReplayBuffer(run, config.parameters.dreamer.buffer.capacity, (3,), np.float32, 1, config.operation.seed)
    buffer.load_state_dict(load_checkpoint(run)[1]["replay"])
    return buffer


def visited(run, config):
    """Angle and angular velocity of every step in the replay."""
    buffer = open_replay(run, config)
    cosine, sine, velocity = buffer.read([buffer.start], len(buffer)).observation[0].T
    return np.arctan2(sine, cosine), velocity


def count_cells(angle, velocity):
    rows = np.floor((angle + np.pi) / (2 * np.pi) * CELLS).clip(0, CELLS - 1)
    columns = np.floor((velocity + FASTEST) / (2 * FASTEST) * CELLS).clip(0, CELLS - 1)
    return len(np.unique(rows * CELLS + columns))


def last_evaluations(run):
    return read_runs([run], "eval/return")[run].tail(10).mean()


def fresh_return(run, config, updates):
    """The mean return of a task actor that starts anew in the finished world model."""
    seed_everything(config.operation.seed)
    env, settings = make_eval_env(config.environment, config.operation.seed), config.parameters.dreamer
    dreamer, replay = build_algorithm(config, env, torch.device("cpu")).dreamer, open_replay(run, config)
    load_networks({"model": dreamer.model}, run)
    for _ in range(updates):
        batch = replay.sample(settings.batch_size, settings.batch_length)
        with torch.no_grad():
            _, posterior = dreamer.model.observe(batch)
        dreamer.behavior.learn(dreamer.model, *imagination_start(batch, posterior), dreamer.predicted_reward)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--fresh", type=int, default=0, metavar="UPDATES")
    parser.add_argument("--figure", metavar="FILE")
    options = parser.parse_args()
    drawn = {}
    print("| explorer | seed | cells visited | upright, % of steps | last 10 evaluations | fresh actor |")
    print("| --- | --- | --- | --- | --- | --- |")
    for run in options.runs:
        config = load_config(run / "config.yml")
        explorer, seed = config.parameters.plan2explore.explorer, config.operation.seed
        angle, velocity = drawn[f"{explorer}, seed {seed}"] = visited(run, config)
        upright = 100 * np.mean(np.abs(angle) < np.radians(8))
        fresh = f"{fresh_return(run, config, options.fresh):.0f}" if options.fresh else ""
        cells, evaluated = count_cells(angle, velocity), last_evaluations(run)
        print(f"| {explorer} | {seed} | {cells} | {upright:.2f} | {evaluated:.0f} | {fresh} |", flush=True)
    if options.figure:
        draw(drawn, options.figure)


if __name__ == "__main__":
    main()

"""The road from Dreamer to DreamerV3, measured: Dreamer's quick start with one of the third paper's changes at a time,
and with all of them.

    python experiments/road.py runs/road --jobs 2                     # runs what is not complete, then tells
    python experiments/road.py runs/road --jobs 0 --figure road.png   # only tells, of what there is

Each run is `main.py --folder runs/road/<task>_<change>_seed<k>`: it can be killed, and the same call goes on (then its
minutes count what it was down). All have the same sizes, batches, learning rates and number of updates. The table has,
for each change, the return after the last of these updates, and the return after as many minutes as Dreamer as it is
took for all of them.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from dreamer.config.load import flatten  # noqa: E402
from dreamer.tools.argument_parser import Parser, positive  # noqa: E402
from dreamer.training.run_folder import CONFIGURATION  # noqa: E402

BASE = "quick-cartpole-swingup"
RETURN = "eval/return_ema20"
TASKS = {  # an iteration has 100 updates
    "cartpole-swingup": {"parameters.dreamer": {"train_iterations": 40}},
    "cartpole-balance": {"environment": {"task_name": "balance"}, "parameters.dreamer": {"train_iterations": 30}},
}
NETWORKS = "encoder decoder rssm.recurrent_model rssm.transition_model rssm.representation_model reward continue_"
NETWORKS = [*NETWORKS.split(), "agent.actor", "agent.critic"]

# Each under parameters.dreamer, but for what has a section of its own.
CHANGES = {
    "Dreamer": {},
    "categorical latents": {"latent": "categorical", "classes": 8, "unimix": 0.01},
    "KL balancing": {"kl_dynamics_scale": 1.0, "kl_representation_scale": 0.1, "free_nats_per_step": True},
    "symlog vectors": {"symlog_inputs": True, "decoder.likelihood": "squared_error"},
    "two-hot rewards and values": {
        f"{head}.{key}": value
        for head in ("reward", "agent.critic")
        for key, value in {"distribution": "two_hot", "outscale": 0.0}.items()
    },
    "block GRU": {"rssm.recurrent_model.cell": "block_gru", "deterministic_size": 128},
    "RMSNorm and SiLU": {
        "norm": "rms",
        "initialization": "truncated_normal",
        **{f"{network}.activation": "SiLU" for network in NETWORKS},
        "rssm.transition_model.num_layers": 2,
    },
    "bounded normal, no noise": {
        "agent.actor": {"distribution": "bounded_normal", "outscale": 0.01, "min_std": 0.1},
        "exploration_noise": 0.0,
        "evaluation.sample": True,
    },
    "normalised returns": {"return_normalization": True, "entropy_scale": 3e-4},
    "REINFORCE": {"actor_gradient": "reinforce", "return_normalization": True, "entropy_scale": 3e-4},
    "slow critic": {"slow_critic": "regularizer", "slow_critic_interval": 1, "slow_critic_fraction": 0.02},
    "LaProp": {"optimizer": "laprop", "warm_up": 100},
    "contexts, new windows first": {"replay_context": True, "buffer.online": True},
    "updates between the steps": {"train_ratio": 153.6, "seed_policy": "actor"},  # 100 an episode, as without it
    "version 3's returns": {"version": 3},
    "the same, and replayed values": {
        "version": 3,
        "replay_critic_scale": 0.3,
        "agent.critic.distribution": "two_hot",  # whose losses are as large as the others, whatever the values
        "agent.critic.outscale": 0.0,
    },
}
ALL = "all: DreamerV3"
CHANGES[ALL] = {key: value for change in CHANGES.values() for key, value in change.items()}


def overrides(task, change):
    """Return the overrides of a run, each a dotted key=value."""
    settings = flatten(TASKS[task])
    for key, value in flatten(CHANGES[change]).items():
        settings[key if key.startswith(("version", "evaluation")) else f"parameters.dreamer.{key}"] = value
    return [f"{key}={value}" for key, value in settings.items()]


def iterations(task):
    """Return the number of iterations of a run."""
    return TASKS[task]["parameters.dreamer"]["train_iterations"]


def folder_of(runs, task, change, seed):
    """Return the folder of a run in the folder `runs`."""
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{task}_{change}")
    return Path(runs) / f"{name}_seed{seed}"


def train(folder, task, change, seed):
    """Make or resume a run. Its output goes to a log beside its folder."""
    command = [sys.executable, ROOT / "main.py", "--config", BASE, *overrides(task, change), f"operation.seed={seed}"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    command += ["--folder", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with folder.with_suffix(".log").open("w") as log:
        result = subprocess.run(command, stdout=log, stderr=log, env=environment)
    outcome = "complete" if result.returncode == 0 else f"exit status {result.returncode}"
    print(f"{folder}: {outcome}", file=sys.stderr)


def read_returns(folder):
    """Return [(minutes since the run's first figures, return)] of its evaluations; [] if there is none yet."""
    if not (folder / CONFIGURATION).exists():
        return []
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    if RETURN not in tags:
        return []
    start_time = min(events.Scalars(tag)[0].wall_time for tag in tags)
    return [((event.wall_time - start_time) / 60, event.value) for event in events.Scalars(RETURN)]


def measure(runs, task, seeds):
    """Return {change: (returns after the last update, returns after Dreamer's minutes, minutes)} of complete runs.

    Each of the three has a value for each seed. Dreamer's minutes are those of the run with the same seed.
    """
    curves = {}
    for change in CHANGES:
        for seed in range(seeds):
            curve = read_returns(folder_of(runs, task, change, seed))
            if len(curve) == iterations(task):
                curves[change, seed] = curve
    rows_by_change = {}
    for (change, seed), curve in curves.items():
        if ("Dreamer", seed) in curves:
            dreamer_minutes, _ = curves["Dreamer", seed][-1]
            minutes, last_return = curve[-1]
            row = last_return, return_after(curve, dreamer_minutes), minutes
            rows_by_change.setdefault(change, []).append(row)
    return {change: tuple(zip(*rows, strict=True)) for change, rows in rows_by_change.items()}


def return_after(curve, minutes):
    """Return the last return of a curve up to these minutes, or its first one if there is none."""
    returns = [value for time, value in curve if time <= minutes]
    return returns[-1] if returns else curve[0][1]


def table(task, measured):
    """Return a Markdown table of a task with a row for each change."""
    titles = ["each seed", "minutes", "after the minutes that Dreamer took", "each seed"]
    lines = [[task, f"after {100 * iterations(task):,} updates", *titles], ["---"] * 6]
    for change, (returns, returns_at_minutes, minutes) in measured.items():
        lines.append([change, *mean_and_each(returns), f"{mean(minutes):.1f}", *mean_and_each(returns_at_minutes)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mean_and_each(values):
    """Return the mean of values and each value as text, for two cells of the table."""
    return [f"{mean(values):.0f}", ", ".join(f"{value:.0f}" for value in values)]


def draw(measured, path):
    """Draw a panel for each task with a row for each change and two points for each seed: filled after equal updates,
    hollow after equal minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(measured) + 1, 4.6), layout="constrained")
    axes = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
    for axis, (task, rows) in zip(axes, measured.items(), strict=True):
        for row, change in enumerate(CHANGES):
            if change not in rows:
                continue
            returns, returns_at_minutes, _ = rows[change]
            below, above = [row - 0.12] * len(returns), [row + 0.12] * len(returns)
            axis.plot(returns, below, "o", color="C0", markersize=4)
            axis.plot(returns_at_minutes, above, "o", color="C1", markersize=4, markerfacecolor="none")
        axis.axvline(mean(rows["Dreamer"][0]), color="grey", linestyle=":", linewidth=1)
        axis.set(title=task, xlabel=RETURN)
        axis.grid(alpha=0.3)
    axes[0].set_yticks(range(len(CHANGES)), CHANGES)
    axes[0].invert_yaxis()
    figure.legend(
        [axes[0].lines[0], axes[0].lines[1]],
        ["after the last update", "after the minutes that Dreamer took for them all"],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    figure.savefig(path, dpi=130)


def main(arguments=None):
    """Make the runs, print the tables and draw them. Return the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", help="the folder of the runs")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, a thread each; 0: none")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="seeds 0 to N-1 (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--figure", metavar="FILE")
    options = parser.parse_args(arguments)
    if options.jobs:
        runs = [(task, change, seed) for seed in range(options.seeds) for task in options.tasks for change in CHANGES]
        try:
            with ThreadPoolExecutor(options.jobs) as executor:
                list(executor.map(lambda run: train(folder_of(options.runs, *run), *run), runs))
        except KeyboardInterrupt:  # the runs have got it, too, and have saved their state
            print("stopped; the same call goes on", file=sys.stderr)
            return 130
    measured = {task: measure(options.runs, task, options.seeds) for task in options.tasks}
    measured = {task: rows for task, rows in measured.items() if rows}
    print("\n\n".join(table(task, rows) for task, rows in measured.items()))
    if options.figure and measured:
        draw(measured, options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())

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
    """key=value of a run."""
    settings = flatten(TASKS[task])
    for key, value in flatten(CHANGES[change]).items():
        settings[key if key.startswith(("version", "evaluation")) else f"parameters.dreamer.{key}"] = value
    return [f"{key}={value}" for key, value in settings.items()]


def iterations(task):
    return TASKS[task]["parameters.dreamer"]["train_iterations"]


def folder_of(runs, task, change, seed):
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{task}_{change}")
    return Path(runs) / f"{name}_seed{seed}"


def run(folder, task, change, seed):
    """One run, or what is left of it; its output goes to a log beside its folder."""
    command = [sys.executable, ROOT / "main.py", "--config", BASE, *overrides(task, change), f"operation.seed={seed}"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("w") as log:
        done = subprocess.run(
            [*command, "--folder", folder], stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    print(f"{folder}: {'complete' if done.returncode == 0 else f'exit status {done.returncode}'}", file=sys.stderr)


def read(folder):
    """[(minutes since the run's first figures, return)] of its evaluations, of which there may be none."""
    if not (folder / CONFIGURATION).exists():
        return []
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    if RETURN not in tags:
        return []
    start = min(events.Scalars(tag)[0].wall_time for tag in tags)
    return [((event.wall_time - start) / 60, event.value) for event in events.Scalars(RETURN)]


def measure(runs, task, seeds):
    """{change: (returns after the last update, returns after Dreamer's minutes, minutes)}, each with a value for each
    seed, of the runs that are complete. Dreamer's minutes are those with the same seed."""
    curves = {
        (change, seed): curve
        for change in CHANGES
        for seed in range(seeds)
        if len(curve := read(folder_of(runs, task, change, seed))) == iterations(task)
    }
    found = {}
    for (change, seed), curve in curves.items():
        if ("Dreamer", seed) in curves:
            minutes = curves["Dreamer", seed][-1][0]
            sooner = [value for when, value in curve if when <= minutes][-1:] or [curve[0][1]]
            found.setdefault(change, []).append((curve[-1][1], *sooner, curve[-1][0]))
    return {change: tuple(zip(*rows, strict=True)) for change, rows in found.items()}


def table(task, measured):
    titles = ["each seed", "minutes", "after the minutes that Dreamer took", "each seed"]
    lines = [[task, f"after {100 * iterations(task):,} updates", *titles], ["---"] * 6]
    for change, (returns, sooner, minutes) in measured.items():
        last, first = ([f"{mean(values):.0f}", ", ".join(f"{x:.0f}" for x in values)] for values in (returns, sooner))
        lines.append([change, *last, f"{mean(minutes):.1f}", *first])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw(measured, path):
    """A panel for each task: a row for each change, a point for each seed, filled at equal updates, hollow at equal
    minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(measured) + 1, 4.6), layout="constrained")
    axes = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
    for axis, (task, rows) in zip(axes, measured.items(), strict=True):
        for row, change in enumerate(CHANGES):
            if change not in rows:
                continue
            returns, sooner, _ = rows[change]
            axis.plot(returns, [row - 0.12] * len(returns), "o", color="C0", markersize=4)
            axis.plot(sooner, [row + 0.12] * len(sooner), "o", color="C1", markersize=4, markerfacecolor="none")
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
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", help="the folder of the runs")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, a thread each; 0: none")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="seeds 0 to N-1 (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--figure", metavar="FILE")
    options = parser.parse_args(arguments)
    if options.jobs:
        each = [(task, change, seed) for seed in range(options.seeds) for task in options.tasks for change in CHANGES]
        try:
            with ThreadPoolExecutor(options.jobs) as executor:
                list(executor.map(lambda one: run(folder_of(options.runs, *one), *one), each))
        except KeyboardInterrupt:  # which the runs under way have had, too, and saved what they had
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

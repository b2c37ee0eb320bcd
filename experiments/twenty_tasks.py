"""One configuration, `quick-v3`, on the twenty tasks of the Control Suite that Dreamer's papers report, from state.

    python experiments/twenty_tasks.py command [--seeds 3]           # prints the sweep that trains all tasks
    python experiments/twenty_tasks.py play runs/twenty-tasks --commit 1a2b3c4    # 20 episodes of each complete run
    python experiments/twenty_tasks.py table [--figure twenty.png]   # what the CSV file says

`play` adds a row for each run to docs/twenty-tasks.csv; a run that is in it is not played again. `table` compares
with random actions and with DreamerV3's published returns at 500,000 env steps, both from docs/reference.csv.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dreamer.config.load import load_config  # noqa: E402
from dreamer.tools.argument_parser import Parser, positive  # noqa: E402
from dreamer.tools.play import evaluate  # noqa: E402
from dreamer.tools.published import RANDOM, read_reference  # noqa: E402
from dreamer.tools.scores import with_interval  # noqa: E402
from dreamer.tools.statistics import interquartile_mean, interval  # noqa: E402
from dreamer.training.run_folder import CONFIGURATION  # noqa: E402

TASKS = [
    *("acrobot-swingup", "ball-in-cup-catch", "cartpole-balance", "cartpole-balance-sparse", "cartpole-swingup"),
    *("cartpole-swingup-sparse", "cheetah-run", "finger-spin", "finger-turn-easy", "finger-turn-hard", "hopper-hop"),
    *("hopper-stand", "pendulum-swingup", "quadruped-run", "quadruped-walk", "reacher-easy", "reacher-hard"),
    *("walker-run", "walker-stand", "walker-walk"),
]
SCORES, REFERENCE = ROOT / "docs/twenty-tasks.csv", ROOT / "docs/reference.csv"
COLUMNS = ["task", "seed", "env_steps", "mean", "std", "episodes", "commit"]
EPISODES = 20
PUBLISHED, PUBLISHED_ENV_STEPS = "dreamer-v3-proprio", 500_000
MIN_ERRORS = 3  # standard errors above random actions, from which on a task counts as learned


def command(seeds: int) -> str:
    """Return the command that trains all tasks."""
    tasks = " ".join(f"dmc-{task}" for task in TASKS)
    return f"python -m dreamer sweep --config {tasks} --with quick-v3 --seeds {seeds} --jobs 2 --name twenty-tasks"


def play(folder: Path, commit: str, path: Path = SCORES) -> None:
    """Play each complete run of a folder that the CSV file does not have, and add its row."""
    scores = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
    played = set(zip(scores["task"], scores["seed"], strict=True))
    for run in sorted(folder.iterdir()):
        if not (run / CONFIGURATION).is_file():
            continue
        config = load_config(run / CONFIGURATION)
        task, seed = f"{config.environment.domain_name}_{config.environment.task_name}", config.operation.seed
        if (task, seed) in played:
            continue
        result = evaluate(run, EPISODES, "cpu")
        if result["iteration"] < config.parameters.dreamer.train_iterations:
            print(f"{run}: not complete, left out", file=sys.stderr)
            continue
        returns = np.array(result["returns"])
        mean, std = round(returns.mean(), 1), round(returns.std(ddof=1), 1)
        row = task, seed, result["env_steps"], mean, std, EPISODES, commit
        scores.loc[len(scores)] = row
        scores.sort_values(["task", "seed"]).to_csv(path, index=False)
        print(*row, flush=True)


def compare(scores: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each task: returns of each seed, their mean, random actions, standard errors above these, and
    what is published (NaN where nothing is)."""
    rows = []
    for task, runs in scores.groupby("task"):
        points = reference[reference["task"] == task]
        is_random = (points["method"] == RANDOM) & (points["action_repeat"] == 4)
        is_published = (points["method"] == PUBLISHED) & (points["env_steps"] == PUBLISHED_ENV_STEPS)
        [random_row] = points[is_random].to_dict("records")
        published_means = points[is_published]["mean"]
        means = runs["mean"].to_numpy()
        if len(means) > 1:
            standard_error = means.std(ddof=1) / np.sqrt(len(means))
        else:  # one seed: the error of its episodes, which knows nothing of other seeds
            standard_error = runs["std"].iloc[0] / np.sqrt(runs["episodes"].iloc[0])
        difference = means.mean() - random_row["mean"]
        random_error = random_row["std"] / np.sqrt(random_row["seeds"])
        standard_errors = difference / max(np.hypot(standard_error, random_error), 1e-9)
        published_return = published_means.iloc[0] if len(published_means) else np.nan
        rows.append((task, means, means.mean(), random_row["mean"], standard_errors, published_return))
    return pd.DataFrame(rows, columns=["task", "each", "mean", "random", "errors", "published"])


def normalised(compared: pd.DataFrame) -> list[np.ndarray]:
    """Return the returns of each published task's runs: 0 as random actions, 1 as published."""
    published_tasks = compared.dropna(subset="published")
    return [(row.each - row.random) / (row.published - row.random) for row in published_tasks.itertuples()]


def table(compared: pd.DataFrame) -> str:
    """Return a Markdown table and the sums below it."""
    lines = ["| task | each seed | mean | random actions | standard errors above | published, half |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for row in compared.itertuples():
        each_return = ", ".join(f"{value:.0f}" for value in row.each)
        errors_text = f"**{row.errors:.1f}**" if row.errors >= MIN_ERRORS else f"{row.errors:.1f}"
        half_text = "" if np.isnan(row.published) else f"{row.published / 2:.0f}"
        mean = f"**{row.mean:.0f}**" if row.mean >= row.published / 2 else f"{row.mean:.0f}"
        lines.append(f"| {row.task} | {each_return} | {mean} | {row.random:.0f} | {errors_text} | {half_text} |")
    scores = normalised(compared)
    mean = with_interval(float(interquartile_mean(np.concatenate(scores))), *map(float, interval(scores)), digits=2)
    clear_count = sum(compared["errors"] >= MIN_ERRORS)
    half_count = sum(compared["mean"] >= compared["published"] / 2)
    lines.append(f"\n{clear_count} of {len(compared)} tasks are {MIN_ERRORS} standard errors above random actions, ")
    lines[-1] += f"{half_count} of "
    lines[-1] += f"{len(scores)} published ones at half of the published return or more. Interquartile mean (95 % "
    lines[-1] += f"interval) of the normalised returns: {mean}."
    return "\n".join(lines)


def draw(compared: pd.DataFrame) -> Figure:
    """Return a figure: each run's return on each task, beside random actions and half of the published return."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panel = figure.add_subplot()
    positions = np.arange(len(compared))
    panel.bar(positions, compared["mean"], color="#8fb3d9", label="quick-v3, mean over seeds")
    for position, returns in zip(positions, compared["each"], strict=True):
        label = "each seed" if position == 0 else None
        panel.plot([position] * len(returns), returns, "o", color="#1f4e79", markersize=4, label=label)
    for column, factor, colour, label in (
        ("random", 1, "#888888", "random actions"),
        ("published", 0.5, "#c0504d", "half of DreamerV3's published return at 500,000 env steps"),
    ):
        level = factor * compared[column]
        panel.hlines(level, positions - 0.45, positions + 0.45, color=colour, linewidth=2, label=label)
    panel.set_xticks(positions, compared["task"], rotation=60, ha="right", rotation_mode="anchor", fontsize="small")
    panel.set(ylabel="return of 20 episodes", ylim=(0, 1000))
    panel.legend(fontsize="small", frameon=False)
    return figure


def main(arguments=None):
    """Print the command, play runs, or print the table. Return the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("command").add_argument("--seeds", type=positive, default=3)
    player = commands.add_parser("play")
    player.add_argument("folder", type=Path)
    player.add_argument("--commit", required=True, help="that the runs were trained at")
    commands.add_parser("table").add_argument("--figure")
    options = parser.parse_args(arguments)
    if options.what == "command":
        print(command(options.seeds))
    elif options.what == "play":
        play(options.folder, options.commit)
    else:
        compared = compare(pd.read_csv(SCORES), read_reference(str(REFERENCE)))
        print(table(compared))
        if options.figure:
            draw(compared).savefig(options.figure, dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())

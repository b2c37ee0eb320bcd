"""Break short runs on purpose, and ask `dreamer explain` what is wrong with them.

    python experiments/explain_breaks.py train breaks                    # every break and every healthy run
    python experiments/explain_breaks.py train breaks reward-scale v3-1  # some of them
    python experiments/explain_breaks.py table breaks                    # what explain says of each
    python experiments/explain_breaks.py record breaks > tests/data/explain.json

A run takes one to two minutes of one core. A break is a mistake of `what_matters.py`, one of those below, or settings
that no task of this size can learn with. The healthy runs are three seeds of each version: no verdict may be an alarm.
"""

import argparse
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from dreamer.replay.buffer import ReplayBuffer  # noqa: E402
from dreamer.tools import commands  # noqa: E402
from dreamer.tools.argument_parser import Parser  # noqa: E402
from dreamer.tools.explain.command import examine  # noqa: E402
from dreamer.tools.explain.verdict import ALARM  # noqa: E402
from dreamer.tools.explain.verdicts import check_run  # noqa: E402
from dreamer.training import collect, evaluation  # noqa: E402
from experiments.what_matters import MISTAKES  # noqa: E402

DREAMER = "parameters.dreamer"
FAST_SETTINGS = ["operation.video_interval=0", "operation.loggers=[jsonl]", "operation.background_evaluation=False"]
FAST_SETTINGS += [f"{DREAMER}.evaluate_interval=2"]


def base_arguments(name, iterations):
    """Return the arguments of main.py for a short run of a configuration."""
    return [f"{DREAMER}.train_iterations={iterations}", *FAST_SETTINGS, "--config", name]


V1 = base_arguments("quick-cartpole-swingup", iterations=5)
V1_SHORT = base_arguments("quick-cartpole-swingup", iterations=2)  # enough where no network is judged
V2 = base_arguments("quick-v2-cartpole-swingup", iterations=5)
V3 = base_arguments("quick-v3-cartpole-swingup", iterations=4)
P2E = base_arguments("quick-p2e-pendulum-swingup", iterations=5)


def reward_scale(replace):
    """Rewards are 10,000 times as large."""
    run_episode = collect.run_episode

    def scaled(env, policy):
        return (step._replace(reward=1e4 * step.reward) for step in run_episode(env, policy))

    for module in (collect, evaluation):
        replace(module, "run_episode", scaled)


def shuffled_observations(replace):
    """The observations of a window are learned from in another order, actions and rewards in the right one."""
    windows = ReplayBuffer.windows

    def shuffled(self, starts, length, *others):
        batch = windows(self, starts, length, *others)
        return batch._replace(observation=batch.observation[:, torch.randperm(length)])

    replace(ReplayBuffer, "windows", shuffled)


def dreamer_settings(*values):
    """Return the overrides that set keys of `parameters.dreamer`. values: key=value without that section."""
    return [f"{DREAMER}.{value}" for value in values]


class Break(NamedTuple):
    """A run that is broken on purpose."""

    verdict: str  # that names it
    mistake: object = None  # as in what_matters.py
    settings: list = []
    base: list = V1


LARGE_RATES = ["model_learning_rate=0.03", "actor_learning_rate=0.009", "critic_learning_rate=0.03"]
NO_EXPLORATION = ["exploration_noise=0.0", "entropy_scale=0.0"]
NO_EXPLORATION += ["agent.actor.min_std=0.0001", "agent.actor.init_std=0.001"]
UNNAMED = "unnamed"  # explain does not see it
BREAKS = {
    "reward-alignment": Break("reward-alignment", MISTAKES["reward-alignment"]),
    "discount-weights": Break("discount-weights", MISTAKES["discount-weights"], base=V1_SHORT),
    "first-frame": Break("first-frame", MISTAKES["first-frame"], base=V1_SHORT),
    "no-reset": Break(UNNAMED, MISTAKES["no-reset"]),
    "exploration-noise": Break("stored-noise", MISTAKES["exploration-noise"], base=V1_SHORT),
    "stored-action": Break("stored-noise", MISTAKES["stored-action"], base=V1_SHORT),
    "free-nats": Break("free-nats", MISTAKES["free-nats"], base=V1_SHORT),
    "kl-sides": Break("latent", MISTAKES["kl-sides"], base=V3),
    "reward-scale": Break("reward-scale", reward_scale),
    "kl-weight": Break("latent", settings=dreamer_settings("kl_divergence_scale=100.0")),
    "learning-rate": Break("learning-rate", settings=dreamer_settings(*LARGE_RATES)),
    "no-exploration": Break("exploration", settings=dreamer_settings(*NO_EXPLORATION)),
    "shuffled-observations": Break("dynamics", shuffled_observations),
    "discount": Break("horizon", settings=dreamer_settings("discount=0.9999"), base=V1_SHORT),
}
HEALTHY = {
    f"{version}-{seed}": [f"operation.seed={seed}", *base]
    for seed in range(3)
    for version, base in (("v1", V1), ("v2", V2), ("v3", V3), ("p2e", P2E))
}


def train(name, root):
    """Make one run in this process, broken as its name says."""
    with replacing() as replace:
        if name in BREAKS and BREAKS[name].mistake:
            BREAKS[name].mistake(replace)
        return commands.main([*arguments_of(name), "--folder", str(root / name)])


@contextmanager
def replacing():
    """Yield a function like `setattr` that the end of the block undoes."""
    replaced = []

    def replace(owner, name, value):
        replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    try:
        yield replace
    finally:
        for original in reversed(replaced):
            setattr(*original)


def table(examined):
    """Return a Markdown table: each run, the verdict that names its break, and what explain says."""
    lines = ["| run | should be named | likeliest cause | further alarms |", "| --- | --- | --- | --- |"]
    named_count = false_alarms = 0
    for name, (config, _, figures) in examined.items():
        alarms = [verdict.name for verdict in check_run(figures, config) if verdict.level == ALARM]
        expected = BREAKS[name].verdict if name in BREAKS else ""
        named_count += bool(expected) and alarms[:1] == [expected]
        false_alarms += not expected and bool(alarms)
        lines.append(f"| {name} | {expected} | {', '.join(alarms[:1])} | {', '.join(alarms[1:])} |")
    broken_count = sum(name in BREAKS for name in examined)
    healthy_count = len(examined) - broken_count
    lines += ["", f"{named_count} of {broken_count} named; {false_alarms} of {healthy_count} healthy runs alarmed"]
    return "\n".join(lines)


def recorded(examined):
    """Return each run's arguments, expected verdict and figures as JSON, for tests/tools/test_explain.py."""
    runs = {}
    for name, (_, _, figures) in examined.items():
        verdict = BREAKS[name].verdict if name in BREAKS else ""
        runs[name] = {"words": arguments_of(name), "verdict": verdict}
        for key, value in sorted(figures.items()):
            if not key.startswith("speed/"):
                runs[name][key] = rounded(value)
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(run)}" for name, run in runs.items()) + "\n}"


def rounded(value):
    """Return a number, or each of a list, with four digits."""
    if isinstance(value, list):
        return [rounded(number) for number in value]
    return float(f"{value:.4g}")


def arguments_of(name):
    """Return the arguments of main.py for a run."""
    return HEALTHY[name] if name in HEALTHY else [*BREAKS[name].settings, *BREAKS[name].base]


def main(arguments=None):
    """Make runs, or explain those that are there. Return the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "table", "record"))
    parser.add_argument("folder", type=Path, help="where the runs are")
    parser.add_argument("names", nargs="*", help="of runs (all)")
    options = parser.parse_args(arguments)
    names = options.names or [*HEALTHY, *BREAKS]
    if options.what != "train":
        examined = {name: examine(options.folder / name) for name in names}
        print(table(examined) if options.what == "table" else recorded(examined))
        return 0
    return max(train(name, options.folder) for name in names)


if __name__ == "__main__":
    sys.exit(main())

"""What a mistake costs: runs the program with one of the errors that re-implementations of Dreamer make.

    python experiments/what_matters.py first-frame operation.seed=1                              # trains
    python experiments/what_matters.py discount-weights --config dmc-walker-walk                 # another task
    python -m dreamer.plot runs/*_right runs/*_first-frame --by-name --table --out first-frame.png

Each mistake is an edit of a line of the program, below. It is made in a copy that is thrown away, so the program
itself needs no switch for it. `right` changes nothing. The run's name is the mistake's.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Edit(NamedTuple):
    """What a mistake means, and the text of a file that it replaces."""

    meaning: str
    file: str
    right: str
    wrong: str


MISTAKES = {
    "reward-alignment": Edit(
        "a state learns the reward of the action that leaves it, which it has not seen",
        "dreamer/algorithms/dreamer.py",
        "self.reward_loss(feature, batch.reward)",
        "self.reward_loss(feature[:, :-1], batch.reward[:, 1:])",
    ),
    "discount-weights": Edit(
        "all imagined steps count the same in the losses of actor and critic",
        "dreamer/algorithms/dreamer.py",
        "weight = torch.cat([start_weight[:, None], discount[:, :-2]], 1).cumprod(1).detach()",
        "weight = torch.ones_like(returns)",
    ),
    "first-frame": Edit(
        "the replay begins with an episode's second frame; acting begins with its first",
        "dreamer/algorithms/dreamer.py",
        "            self.buffer.add(step)\n",
        "            if not step.is_first:\n"
        "                self.buffer.add(step._replace(is_first=float(length == 0)))\n",
    ),
    "exploration-noise": Edit(
        "what collects samples the actor, but adds no noise",
        "dreamer/algorithms/policy.py",
        "(action + self.exploration_noise * torch.randn_like(action)).clamp(-1, 1)",
        "action",
    ),
    "evaluation-by-sampling": Edit(
        "evaluations sample the actor instead of taking its mode; what is learned stays the same",
        "dreamer/algorithms/policy.py",
        "return distribution.mode",
        "return distribution.sample()",
    ),
}


def edited_copy(mistake, folder):
    """The program in `folder`, with a mistake; "right": without one."""
    shutil.copy(ROOT / "main.py", folder)
    for name in ("dreamer", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    if mistake != "right":
        edit = MISTAKES[mistake]
        text = (folder / edit.file).read_text()
        if text.count(edit.right) != 1:
            raise ValueError(f"{edit.file} has {edit.right!r} {text.count(edit.right)} times, not once")
        (folder / edit.file).write_text(text.replace(edit.right, edit.wrong))


def main():
    meanings = "\n".join(f"  {name:24}{edit.meaning}" for name, edit in MISTAKES.items())
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog=f"mistakes:\n{meanings}\n  right",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mistake", choices=[*MISTAKES, "right"], metavar="mistake")
    parser.add_argument("--config", default="quick-cartpole-swingup")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        edited_copy(options.mistake, Path(folder))
        command = [sys.executable, str(Path(folder) / "main.py"), "--config", options.config]
        return subprocess.call([*command, f"operation.log_dir={options.mistake}", *options.overrides])


if __name__ == "__main__":
    sys.exit(main())

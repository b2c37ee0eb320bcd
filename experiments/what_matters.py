"""What a mistake costs: the program with one of the errors that re-implementations of Dreamer make.

    python experiments/what_matters.py first-frame --config quick-cartpole-swingup operation.seed=1
    python experiments/what_matters.py evaluation-by-sampling --evaluate runs/<run> --episodes 50
    python -m dreamer.plot runs/*_quick-cartpole-swingup runs/*_first-frame --by-name --table --out first-frame.png

Each mistake is an edit of a line of the program, below. It is made in a copy that is thrown away, so the program
itself needs no switch for it. What follows the mistake's name goes to main.py; a run is named after its mistake, and
goes on with it by the same script and --resume.
"""

import argparse
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dreamer.command_line import Parser  # noqa: E402
from dreamer.program import DIRECTORY, PYTHON, nearby  # noqa: E402
from dreamer.versions import commit  # noqa: E402


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
        "-model.reward_model(reward_feature).log_prob(reward).mean()",
        "-model.reward_model(reward_feature[:, :-1]).log_prob(reward[:, 1:]).mean()",
    ),
    "discount-weights": Edit(
        "all imagined steps count the same in the losses of actor and critic",
        "dreamer/algorithms/dreamer.py",
        "weight = torch.cat([1 - is_terminal[:, None], discount[:, 1:-2]], 1).cumprod(1).detach()",
        "weight = torch.ones_like(returns)",
    ),
    "first-frame": Edit(
        "the replay begins with an episode's second frame; acting begins with its first",
        "dreamer/trainer.py",
        "            self.replay.add(step)\n",
        "            if not step.is_first:\n"
        "                self.replay.add(step._replace(is_first=float(length == 0)))\n",
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


def edited_copy(edit, folder):
    """The program in `folder`, with an `Edit`. Raises ValueError if its text is not there exactly once."""
    for name in ("main.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("dreamer", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / edit.file).read_text()
    if text.count(edit.right) != 1:
        raise ValueError(f"{edit.file} has {edit.right!r} {text.count(edit.right)} times, not once")
    (folder / edit.file).write_text(text.replace(edit.right, edit.wrong))


def name_mistake(mistake, folder):
    """Let the program in `folder` name this script in what it tells the user to type, and the mistake in what a run was
    made with."""
    call = f"{PYTHON} {shlex.quote(nearby(__file__, DIRECTORY))} {mistake}"
    made_with = f"{commit()} with {mistake}"
    for file, line in {
        "program.py": f"PROGRAM = TRAINER = {call!r}",
        "versions.py": f"def commit(): return {made_with!r}",
    }.items():
        with (folder / "dreamer" / file).open("a") as module:
            module.write(f"\n{line}\n")


def main(arguments=None):
    """Returns the exit status, that of main.py."""
    meanings = "\n".join(f"  {name:24}{edit.meaning}" for name, edit in MISTAKES.items())
    parser = Parser(
        usage="%(prog)s mistake ... (what main.py takes)",
        description=__doc__,
        epilog=f"mistakes:\n{meanings}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mistake", choices=MISTAKES, metavar="mistake")
    options, others = parser.parse_known_args(arguments)
    if "--config" in others:
        others.append(f"operation.log_dir={options.mistake}")
    with tempfile.TemporaryDirectory() as folder:
        edited_copy(MISTAKES[options.mistake], Path(folder))
        name_mistake(options.mistake, Path(folder))
        process = subprocess.Popen([sys.executable, str(Path(folder) / "main.py"), *others])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the program, too, which saves and ends
        signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())

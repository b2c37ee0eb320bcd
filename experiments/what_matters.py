"""What a mistake costs: the program with one of the errors that re-implementations of Dreamer make.

    python experiments/what_matters.py first-frame --config quick-cartpole-swingup operation.seed=1
    python experiments/what_matters.py evaluation-by-sampling --evaluate runs/<run> --episodes 50
    python -m dreamer.plot runs/*_quick-cartpole-swingup runs/*_first-frame --by-name --table --out first-frame.png

Each mistake is an edit of a line or two of the program, below. It is made in a copy that is thrown away, so the program
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
    """The text of a file that a mistake replaces."""

    file: str
    right: str
    wrong: str


class Mistake(NamedTuple):
    """What it means, and how it is made."""

    meaning: str
    edits: list


DREAMER, POLICY = "dreamer/algorithms/dreamer.py", "dreamer/algorithms/policy.py"
LATENTS, COLLECT = "dreamer/modules/latents.py", "dreamer/collect.py"
MISTAKES = {
    "reward-alignment": Mistake(
        "a state learns the reward of the action that leaves it, which it has not seen",
        [
            Edit(
                DREAMER,
                "-model.reward_model(reward_feature).log_prob(reward).mean()",
                "-model.reward_model(reward_feature[:, :-1]).log_prob(reward[:, 1:]).mean()",
            )
        ],
    ),
    "discount-weights": Mistake(
        "all imagined steps count the same in the losses of actor and critic",
        [
            Edit(
                DREAMER,
                "weight = torch.cat([1 - is_terminal[:, None], discount[:, 1:-2]], 1).cumprod(1).detach()",
                "weight = torch.ones_like(returns)",
            )
        ],
    ),
    "first-frame": Mistake(
        "the replay begins with an episode's second frame; acting begins with its first",
        [
            Edit(
                "dreamer/trainer.py",
                "            self.replay.add(step)\n",
                "            if not step.is_first:\n"
                "                self.replay.add(step._replace(is_first=float(length == 0)))\n",
            )
        ],
    ),
    "no-reset": Mistake(
        "windows that cross from one episode into the next do not reset the state there",
        [Edit("dreamer/modules/rssm.py", "is_first.unbind(1), strict=True)", "(0 * is_first).unbind(1), strict=True)")],
    ),
    "exploration-noise": Mistake(
        "what collects samples the actor, but adds no noise",
        [Edit(POLICY, "(action + self.exploration_noise * torch.randn_like(action)).clamp(-1, 1)", "action")],
    ),
    "stored-action": Mistake(
        "the replay holds the action before its noise, the environment takes it after",
        [
            Edit(
                POLICY,
                "            return (action + self.exploration_noise * torch.randn_like(action)).clamp(-1, 1)\n",
                "            self.noise = (self.exploration_noise * torch.randn_like(action)).cpu().numpy()\n"
                "            return action\n",
            ),
            Edit(
                COLLECT,
                "        observation, reward, terminated, truncated, info = env.step(action)\n"
                '        context = getattr(policy, "context", NOTHING)\n'
                "        step = Step(observation, action, float(reward)",
                '        noise = policy.noise[0] if hasattr(policy, "noise") else 0\n'
                "        observation, reward, terminated, truncated, info = env.step((action + noise).clip(-1, 1))\n"
                '        context = getattr(policy, "context", NOTHING)\n'
                "        step = Step(observation, action, float(reward)",
            ),
        ],
    ),
    "free-nats": Mistake(
        "free nats before averaging in place of after it (Dreamer, DreamerV2), or the other way (DreamerV3)",
        [Edit(DREAMER, "if self.config.free_nats_per_step:", "if not self.config.free_nats_per_step:")],
    ),
    "kl-sides": Mistake(
        "the scales of the KL's two sides are swapped (DreamerV2, DreamerV3)",
        [
            Edit(
                DREAMER,
                "loss = config.kl_dynamics_scale * self.above_free_nats(of_prior)\n"
                "            loss = loss + config.kl_representation_scale * self.above_free_nats(of_posterior)",
                "loss = config.kl_representation_scale * self.above_free_nats(of_prior)\n"
                "            loss = loss + config.kl_dynamics_scale * self.above_free_nats(of_posterior)",
            )
        ],
    ),
    "slow-target": Mistake(
        "returns are bootstrapped from the slow critic, which also holds the critic back (DreamerV3)",
        [
            Edit(
                DREAMER,
                'if self.config.slow_critic == "target"',
                'if self.config.slow_critic != "none"',
            )
        ],
    ),
    "unimix-kl": Mistake(
        "samples are drawn with the uniform share, the KL is without it (DreamerV3)",
        [
            Edit(
                LATENTS,
                "return Categorical(mixed_log_probs(self.network(inputs).unflatten(-1, self.shape), self.unimix))",
                "return Categorical(mixed_log_probs(self.network(inputs).unflatten(-1, self.shape), 0))",
            ),
            Edit(
                LATENTS,
                "return self.distribution.rsample().flatten(-2)",
                "return OneHotCategorical(mixed_log_probs(self.log_probs, 0.01), event_dims=2).rsample().flatten(-2)",
            ),
        ],
    ),
    "two-hot-sum": Mistake(
        "the bins of rewards and values are summed from left to right, not from the middle (DreamerV3)",
        [
            Edit(
                "dreamer/modules/distributions.py",
                "        pairs = probs[..., middle + 1 :] - probs[..., :middle].flip(-1)\n"
                "        return (pairs * self.bins[middle + 1 :]).sum(-1)",
                "        return (probs * self.bins).sum(-1)",
            )
        ],
    ),
    "evaluation-by-sampling": Mistake(
        "evaluations sample the actor instead of taking its mode; what is learned stays the same",
        [Edit(POLICY, "return distribution.mode", "return distribution.sample()")],
    ),
}


def edited_copy(edits, folder):
    """The program in `folder`, with `Edit`s. Raises ValueError for one whose text is not there exactly once."""
    for path in (ROOT / "main.py", *ROOT.glob("requirements*.txt")):
        shutil.copy(path, folder)
    for name in ("dreamer", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in edits:
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
    meanings = "\n".join(f"  {name:24}{mistake.meaning}" for name, mistake in MISTAKES.items())
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
        edited_copy(MISTAKES[options.mistake].edits, Path(folder))
        name_mistake(options.mistake, Path(folder))
        process = subprocess.Popen([sys.executable, str(Path(folder) / "main.py"), *others])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the program, too, which saves and ends
        signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())

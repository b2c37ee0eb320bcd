"""What a mistake costs: the program with one of the errors that re-implementations of Dreamer make.

    python experiments/what_matters.py first-frame --config quick-cartpole-swingup operation.seed=1
    python experiments/what_matters.py evaluation-by-sampling --evaluate runs/<run> --episodes 50
    python -m dreamer plot runs/*_quick-cartpole-swingup runs/*_first-frame --by-name --table --out first-frame.png

Each mistake below replaces a function or a class of the program in this process, so the program itself needs no switch
for it. The arguments after the mistake's name go to main.py. A run is named after its mistake and is resumed with it by
the same script and --resume.
"""

import argparse
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dreamer.training import signals  # noqa: E402

if __name__ == "__main__":
    signals.begin()

import torch  # noqa: E402

from dreamer import build  # noqa: E402
from dreamer import main as program_main  # noqa: E402
from dreamer.algorithms import actor_critic, dreamer, losses  # noqa: E402
from dreamer.algorithms.policy import Policy  # noqa: E402
from dreamer.modules import categorical, latents  # noqa: E402
from dreamer.modules.heads import Head  # noqa: E402
from dreamer.modules.rssm import RSSM  # noqa: E402
from dreamer.replay.buffer import ReplayBuffer  # noqa: E402
from dreamer.tools import commands  # noqa: E402
from dreamer.tools.argument_parser import Parser  # noqa: E402
from dreamer.training import collect, program, versions  # noqa: E402

# The mistakes. `replace(owner, name, value)` is `setattr`, or something that undoes it later.


def reward_alignment(replace):
    """A state learns the reward of the action that leaves it, which it has not seen."""
    build_world_model = build.build_world_model

    class Early:
        def __init__(self, distribution):
            self.distribution, self.mean = distribution, distribution.mean

        def log_prob(self, value):
            return self.distribution[:, :-1].log_prob(value[:, 1:])

    class EarlyHead(Head):
        def forward(self, feature):
            return Early(super().forward(feature))

    def build_mistaken(*arguments):
        model = build_world_model(*arguments)
        model.reward_model.__class__ = EarlyHead
        return model

    for module in (build, program_main):
        replace(module, "build_world_model", build_mistaken)


def discount_weights(replace):
    """All imagined steps count the same in the losses of actor and critic (Dreamer)."""
    returns_and_weights = dreamer.returns_and_weights

    def unweighted(*arguments):
        returns, weight = returns_and_weights(*arguments)
        return returns, torch.ones_like(weight)

    replace(dreamer, "returns_and_weights", unweighted)


def first_frame(replace):
    """The replay begins with an episode's second frame; acting begins with its first."""
    add = ReplayBuffer.add

    def add_later(self, step):
        if not step.is_first:
            add(self, step._replace(is_first=self.left_out))
        self.left_out = step.is_first

    replace(ReplayBuffer, "add", add_later)


def no_reset(replace):
    """Windows that cross from one episode into the next do not reset the state there."""
    observe = RSSM.observe

    def observe_on(self, embedding, action, is_first, stored=None):
        return observe(self, embedding, action, 0 * is_first, stored)

    replace(RSSM, "observe", observe_on)


def exploration_noise(replace):
    """The collecting policy samples the actor, but adds no noise (continuous actions)."""
    act = Policy.act

    def act_without_noise(self, distribution):
        if self.exploration_noise is None:
            return act(self, distribution)
        return distribution.sample()

    replace(Policy, "act", act_without_noise)


def stored_action(replace):
    """The replay holds the action before its noise, the environment takes it after (continuous actions)."""
    act, run_episode = Policy.act, collect.run_episode

    def act_before_noise(self, distribution):
        if self.exploration_noise is None:
            return act(self, distribution)
        action = distribution.sample()
        self.noise = (self.exploration_noise * torch.randn_like(action)).cpu().numpy()
        return action

    class NoisyEnv:
        def __init__(self, env, policy):
            self.env, self.policy = env, policy
            self.action_space, self.reset = env.action_space, env.reset

        def step(self, action):
            noise = self.policy.noise[0] if hasattr(self.policy, "noise") else 0
            return self.env.step((action + noise).clip(-1, 1))

    replace(Policy, "act", act_before_noise)
    replace(collect, "run_episode", lambda env, policy: run_episode(NoisyEnv(env, policy), policy))


def free_nats(replace):
    """Free nats before averaging in place of after it (Dreamer, DreamerV2), or the other way (DreamerV3)."""
    above_free_nats = losses.above_free_nats
    replace(losses, "above_free_nats", lambda kl, nats, per_step: above_free_nats(kl, nats, not per_step))


def kl_sides(replace):
    """The scales of the KL's two sides are swapped (DreamerV2, DreamerV3)."""
    kl_loss = losses.kl_loss

    def swapped(posterior, prior, *, dynamics_scale, representation_scale, **free_nats):
        scales = {"dynamics_scale": representation_scale, "representation_scale": dynamics_scale}
        return kl_loss(posterior, prior, **scales, **free_nats)

    replace(losses, "kl_loss", swapped)


def slow_target(replace):
    """Returns are bootstrapped from the slow critic, which also holds the critic back (DreamerV3)."""
    values = actor_critic.ActorCritic.values

    def slow_values(self, feature):
        predicted = values(self, feature)
        return predicted if predicted.slow_value is None else predicted._replace(value=predicted.slow_value)

    replace(actor_critic.ActorCritic, "values", slow_values)


def unimix_kl(replace):
    """Samples are drawn with the uniform share, the KL is without it (DreamerV3)."""
    mixed_log_probs = latents.mixed_log_probs

    def sample(self, noise=None):
        mixed = mixed_log_probs(self.log_probs, 0.01)
        return categorical.OneHotCategorical(mixed, event_dims=2).rsample(noise).flatten(-2)

    replace(latents, "mixed_log_probs", lambda logits, unimix: mixed_log_probs(logits, 0))
    replace(latents.Categorical, "sample", sample)


def two_hot_sum(replace):
    """The bins of rewards and values are summed from left to right, not from the middle (DreamerV3)."""
    mean = property(lambda self: (self.logits.softmax(-1) * self.bins).sum(-1))
    replace(categorical.TwoHot, "mean", mean)


def evaluation_by_sampling(replace):
    """Evaluations sample the actor instead of taking its mode; what is learned stays the same."""
    act = Policy.act

    def act_by_sampling(self, distribution):
        if self.exploration_noise is None:
            return distribution.sample()
        return act(self, distribution)

    replace(Policy, "act", act_by_sampling)


MISTAKES = {
    mistake.__name__.replace("_", "-"): mistake
    for mistake in (
        reward_alignment,
        discount_weights,
        first_frame,
        no_reset,
        exploration_noise,
        stored_action,
        free_nats,
        kl_sides,
        slow_target,
        unimix_kl,
        two_hot_sum,
        evaluation_by_sampling,
    )
}


def main(arguments=None):
    """Run main.py with a mistake. Return its exit status."""
    meanings = "\n".join(f"  {name:24}{mistake.__doc__}" for name, mistake in MISTAKES.items())
    parser = Parser(
        usage="%(prog)s mistake ... (what main.py takes)",
        description=__doc__,
        epilog=f"mistakes:\n{meanings}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mistake", choices=MISTAKES, metavar="mistake")
    options, program_arguments = parser.parse_known_args(arguments)
    name_mistake(options.mistake)
    MISTAKES[options.mistake](setattr)
    if "--config" in program_arguments:
        program_arguments += [f"operation.log_dir={options.mistake}"]
    if "--evaluate" not in program_arguments:
        program_arguments += ["operation.background_evaluation=False"]  # another process would not make the mistake

    signals.ready()
    return commands.main(program_arguments)


def name_mistake(mistake):
    """Name this script in the commands that the program prints, and the mistake in a run's versions file."""
    commit = versions.commit
    call = f"{program.PYTHON} {shlex.quote(program.short_path(__file__, program.DIRECTORY))} {mistake}"
    program.PROGRAM = program.TRAINER = call
    versions.commit = lambda: f"{commit()} with {mistake}"


if __name__ == "__main__":
    sys.exit(main())

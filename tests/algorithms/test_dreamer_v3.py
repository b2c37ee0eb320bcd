"""What DreamerV3 does that the authors' numbers in test_golden_v3.py do not say."""

import math

import pytest
import torch
from torch.nn import functional

from dreamer.algorithms import algorithm, dreamer_v3
from dreamer.algorithms.actor_critic import ReturnScale
from dreamer.algorithms.dreamer_v3 import episode_ends, replay_return
from dreamer.algorithms.losses import actor_loss, critic_loss, imagined_discount, kl_loss
from dreamer.algorithms.prediction import observe
from dreamer.modules.categorical import symlog
from dreamer.modules.latents import Categorical, mixed_log_probs
from dreamer.modules.rssm import State
from tests.toys import changed, parameters, settings_of, spy
from tests.versions import PIXELS, VECTOR, behavior_losses, make, windows

AWAKE = "agent.critic.outscale=1", "reward.outscale=1"  # heads that predict something from the beginning
LEARNS = "warm_up=0", *(f"{part}_learning_rate=1e-3" for part in ("model", "actor", "critic"))


def posteriors(algorithm, batch):
    return observe(algorithm.model, batch)[1].detach()


# The world model


@pytest.mark.parametrize("observations", [PIXELS, VECTOR], ids=["pixels", "a vector"])
def test_at_the_start_rewards_and_values_are_exactly_zero(observations, monkeypatch):
    """So their losses are ln 255, whatever the target."""
    dreamer = make(3, observations=observations)
    batch = windows(dreamer, observations=observations)
    _, posterior, _, metrics = dreamer.model_loss(batch)
    feature, actor_critic = posterior.feature, dreamer.actor_critic
    for head in (dreamer.model.reward_model, actor_critic.critic, actor_critic.slow_critic):
        assert (head(feature).mean == 0).all()
    assert metrics["loss/reward"].item() == pytest.approx(math.log(255), rel=1e-6)
    learned = spy(monkeypatch, dreamer_v3.losses, "critic_loss")
    _, of_critic, *_ = behavior_losses(dreamer, batch, posterior.detach())
    (((_, _, weight, _), _),) = learned
    expected = 2 * weight.mean() * math.log(255)  # to the returns and to the slow critic
    torch.testing.assert_close(of_critic, expected)


def state(logits):
    return State(torch.zeros(len(logits), 1), torch.zeros(len(logits), 1), Categorical(mixed_log_probs(logits, 0.01)))


def test_free_nats_bound_each_step_by_itself():
    """A step below them counts as them and has no gradient; the other one has it all."""
    prior, posterior = torch.zeros(2, 1, 4, requires_grad=True), torch.tensor([[[9.0, 0, 0, 0]], [[0.4, 0, 0, 0]]])
    posterior.requires_grad_()
    settings = settings_of("dreamer-v3")
    scales = settings.kl_dynamics_scale, settings.kl_representation_scale
    loss, _ = kl_loss(state(posterior), state(prior), settings.free_nats, settings.free_nats_per_step, *scales)
    high, low = torch.distributions.kl_divergence(state(posterior).distribution, state(prior).distribution)
    assert high > 1 > low
    torch.testing.assert_close(loss, (1 + 0.1) * (high + 1) / 2)
    for gradient in torch.autograd.grad(loss, [prior, posterior]):
        assert gradient[0].any() and not gradient[1].any()


def test_vectors_are_predicted_as_their_symlog_without_the_half():
    dreamer = make(3)
    batch = windows(dreamer)._replace(observation=1000 * torch.randn(4, 6, 3))
    _, posterior, _, metrics = dreamer.model_loss(batch)
    mean = dreamer.model.decoder(posterior.feature).mean
    torch.testing.assert_close(
        metrics["loss/reconstruction"], (mean - symlog(batch.observation)).square().sum(-1).mean()
    )


def test_the_discount_is_in_what_the_continue_model_learns_and_nowhere_else():
    dreamer = make(3)
    batch = windows(dreamer)
    _, posterior, _, metrics = dreamer.model_loss(batch)
    predicted = dreamer.model.continue_model(posterior.feature).mean
    target = 332 / 333 * (1 - batch.is_terminal)
    torch.testing.assert_close(metrics["loss/continue"], functional.binary_cross_entropy(predicted, target))
    assert torch.equal(imagined_discount(dreamer.model.continue_model, posterior.feature, 332 / 333, True), predicted)
    assert dreamer.config.discount_in_continue


# The behaviour


def reinforced(policy, action, returns, baseline, weight=None, entropy_scale=0.0, scale=1):
    """The actor's loss by REINFORCE."""
    weight = torch.ones_like(returns) if weight is None else weight
    return actor_loss(policy, action, returns, baseline, weight, "reinforce", entropy_scale, scale)[0]


@pytest.mark.parametrize("discrete", [False, True])
def test_the_advantage_is_divided_by_the_range_of_the_returns(discrete):
    """Of whichever actions, and with the percentiles in which this batch is counted already."""
    dreamer = make(3, "entropy_scale=0", discrete=discrete, actions=3)
    returns, baseline = torch.linspace(-500, 500, 101)[:, None], torch.randn(101, 1)
    policy = dreamer.actor(torch.randn(101, 1, 32))
    action = policy.sample()
    loss = reinforced(policy, action, returns, baseline, scale=dreamer.actor_critic.scale(returns))
    scale = 0.01 * 900  # after one update of averages that began at 0; from -450 to 450
    torch.testing.assert_close(loss, -(policy.log_prob(action) * (returns - baseline) / scale).mean())


@pytest.mark.parametrize("discrete", [False, True])
def test_the_actors_gradient_is_that_of_the_probability_of_what_was_drawn(discrete, monkeypatch):
    """Neither the draw nor the advantage carries any."""
    dreamer = make(3, *AWAKE, "entropy_scale=0", discrete=discrete, actions=3)
    batch, imagined = windows(dreamer), spy(monkeypatch, algorithm, "imagine")
    learned, dreamer.actor_critic.return_scale = spy(monkeypatch, dreamer_v3.losses, "actor_loss"), None
    of_actor, *_ = behavior_losses(dreamer, batch, posteriors(dreamer, batch))
    ((_, imagination),), parameters = imagined, list(dreamer.actor.parameters())
    (((_, _, returns, baseline, weight, *_), _),) = learned
    log_prob = dreamer.actor(imagination.feature[:, :-1]).log_prob(imagination.action.detach())
    expected = -(weight * log_prob * (returns - baseline).detach()).mean()
    got, gradients = (torch.autograd.grad(loss, parameters) for loss in (of_actor, expected))
    torch.testing.assert_close(got, gradients, rtol=1e-3, atol=1e-4)
    assert any(gradient.any() for gradient in got)


def test_percentiles_count_every_return_alike():
    scale = ReturnScale()
    scale(torch.linspace(0, 100, 21)[:, None])
    torch.testing.assert_close(scale.range, torch.tensor([0.05, 0.95]))


def test_the_entropy_counts_as_much_as_its_step():
    policy, zeros = make(3).actor(torch.randn(5, 2, 32)), torch.zeros(5, 2)
    weight = torch.tensor([[1.0, 0.0]]).expand(5, 2)
    loss = reinforced(policy, policy.sample(), zeros, zeros, weight, entropy_scale=10)
    torch.testing.assert_close(loss, -10 * policy.entropy()[:, 0].mean() / 2)


def test_the_slow_critic_only_holds_the_critic(monkeypatch):
    """Targets and baselines are the critic's own."""
    dreamer = make(3, *AWAKE)
    batch, learned = windows(dreamer), spy(monkeypatch, dreamer_v3.losses, "actor_loss")
    posterior, actor_critic = posteriors(dreamer, batch), dreamer.actor_critic
    actor_critic.return_scale = None

    def losses():
        """Both losses, the returns and the baseline."""
        of_actor, of_critic, *_ = behavior_losses(dreamer, batch, posterior)
        (_, _, returns, baseline, *_), _ = learned[-1]
        return of_actor, of_critic, returns, baseline

    of_actor, of_critic, *targets = losses()
    with torch.no_grad():
        actor_critic.slow_critic.critic.network[-1].bias[128:].add_(2)
    same, other_critic, *same_targets = losses()
    assert torch.equal(of_actor, same) and all(map(torch.equal, targets, same_targets))
    assert not torch.equal(of_critic, other_critic)
    with torch.no_grad():
        actor_critic.critic.network[-1].bias[128:].add_(2)
    _, _, returns, baseline = losses()
    assert (returns != targets[0]).all() and (baseline != targets[1]).all()


def test_the_critic_is_held_to_the_slow_one_at_the_same_states():
    """The cross entropy to its prediction, weighted as that to the returns."""
    dreamer = make(3, *AWAKE)
    actor_critic, feature = dreamer.actor_critic, torch.randn(5, 4, 32)
    with torch.no_grad():
        actor_critic.slow_critic.critic.network[-1].bias.normal_()
    prediction = actor_critic.critic(feature)
    value, slow, _ = actor_critic.values(feature)
    assert torch.equal(value, prediction.mean) and torch.equal(slow, actor_critic.slow_critic(feature).mean)
    returns, weight = torch.randn(5, 4), torch.rand(5, 4)
    loss = critic_loss(prediction, returns, weight, slow)
    torch.testing.assert_close(loss, -(weight * (prediction.log_prob(returns) + prediction.log_prob(slow))).mean())


def test_the_slow_critic_follows_after_the_step():
    """A copy at first; then 0.98 of itself and 0.02 of the critic as the update has left it."""
    dreamer = make(3, *LEARNS)
    actor_critic = dreamer.actor_critic
    old = [parameter.clone() for parameter in actor_critic.slow_critic.parameters()]
    assert all(map(torch.equal, old, actor_critic.critic.parameters()))
    dreamer.update(windows(dreamer))
    fast, moved = list(actor_critic.critic.parameters()), list(actor_critic.slow_critic.parameters())
    assert any((now != before).any() for now, before in zip(fast, old, strict=True))
    for now, before, new in zip(moved, old, fast, strict=True):
        torch.testing.assert_close(now, 0.98 * before + 0.02 * new, atol=1e-7, rtol=1e-6)


def test_actions_beyond_the_bounds_keep_their_own_probability(monkeypatch):
    """Neither clipped nor squashed on their way to the objective."""
    dreamer = make(3)
    batch, learned = windows(dreamer), spy(monkeypatch, dreamer_v3.losses, "actor_loss")
    behavior_losses(dreamer, batch, posteriors(dreamer, batch))
    (((policy, action, *_), _),) = learned
    distance = (action - policy.mean) / policy.scale
    assert action.abs().max() > 1.2 and distance.abs().max() > 2, "of a normal, none of them clipped"
    assert distance.std().item() == pytest.approx(1, abs=0.1)


def test_only_the_replayed_critic_reaches_the_world_model():
    """Down to the encoder; what is imagined does not, neither through its states nor through rewards and discounts."""
    dreamer = make(3, *AWAKE)
    batch, model = windows(dreamer), dreamer.model
    _, posterior, _, _ = dreamer.model_loss(batch)
    of_actor, of_critic, returns, _ = behavior_losses(dreamer, batch, posterior.detach())
    replayed = dreamer.replay_critic_loss(posterior.feature, returns[:, 0].view(4, 6), batch)

    def gradients(loss, *modules):
        parameters = [parameter for module in modules for parameter in module.parameters()]
        return torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)

    below = model.encoder, model.rssm.recurrent_model, model.rssm.representation_model
    assert all(gradient is not None and gradient.any() for gradient in gradients(replayed, *below))
    for loss, others in (
        (of_actor, [model, dreamer.actor_critic.critic]),
        (of_critic, [model, dreamer.actor]),
        (replayed, [dreamer.actor, model.decoder, model.reward_model, model.continue_model]),
    ):
        assert all(gradient is None for gradient in gradients(loss, *others))


@pytest.mark.parametrize("gradient", ["dynamics", "both"])
def test_world_model_and_critic_learn_the_same_wherever_the_actors_gradient_comes_from(gradient):
    """Else they would learn to please the actor: what it imagines is differentiable then, all the way."""

    def learned(gradient):
        dreamer = make(3, *AWAKE, f"actor_gradient={gradient}")
        dreamer.update(windows(dreamer))
        networks = dreamer.model, dreamer.actor_critic.critic, dreamer.actor
        return [[parameter.grad for parameter in network.parameters()] for network in networks]

    (*expected, by_reinforce), (*others, of_actor) = learned("reinforce"), learned(gradient)
    torch.testing.assert_close(others, expected)
    assert not any(torch.equal(*pair) for pair in zip(of_actor, by_reinforce, strict=True))


# The critic on replayed steps


def test_the_replayed_critic_learns_nothing_at_the_end_of_an_episode():
    """By itself or cut off, as far as the window tells; nor at the last step, of which nothing is known."""
    dreamer = make(3, *AWAKE)
    batch, feature = windows(dreamer), torch.randn(4, 6, 32, requires_grad=True)
    loss = dreamer.replay_critic_loss(feature, torch.randn(4, 6), batch)
    (gradient,) = torch.autograd.grad(loss, feature)
    silent = torch.zeros(4, 6, dtype=torch.bool)
    silent[:, -1] = silent[1, 2] = silent[2, 1] = True
    assert torch.equal((gradient == 0).all(-1), silent)


def test_replayed_returns_by_hand():
    """A task that ends at 2, an episode that is cut off at 1: after it the bootstrap at 1 is all that counts."""
    dreamer = make(3)
    batch = windows(dreamer)
    bootstrap = torch.randn(4, 6)
    is_last = episode_ends(batch)
    assert is_last.nonzero().tolist() == [[1, 2], [2, 1], [3, 5]]
    returns = replay_return(batch, is_last, bootstrap, 0.9, 0.8)
    reward = batch.reward
    for row, t in [(1, 1), (3, 4)]:  # the next step ends the task
        torch.testing.assert_close(returns[row, t], reward[row, t + 1])
    torch.testing.assert_close(returns[2, 0], reward[2, 1] + 0.9 * bootstrap[2, 1])
    last = reward[0, 5] + 0.9 * bootstrap[0, 5]
    torch.testing.assert_close(returns[0, 4], last)
    torch.testing.assert_close(returns[0, 3], reward[0, 4] + 0.9 * (0.2 * bootstrap[0, 4] + 0.8 * last))


@pytest.mark.parametrize("last", [None, 6, 7, 2])
def test_what_is_imagined_from_a_replayed_state_is_its_bootstrap(last, monkeypatch):
    """The return of the start, not its value, and at the state's own place, with the rewards and ends of that place.
    Where imagination starts from the last steps alone, the critic learns from the rewards between these alone."""
    dreamer, count = make(3, *AWAKE, f"imagine_last={last or 'null'}"), last or 6
    imagined, learned = spy(monkeypatch, dreamer, "behavior_losses"), spy(monkeypatch, dreamer_v3.losses, "actor_loss")
    replayed, batch = spy(monkeypatch, dreamer, "replay_critic_loss"), windows(dreamer)
    dreamer.update(batch)
    ((_, (_, _, returns, _)),), (((feature, bootstrap, steps), _),) = imagined, replayed
    assert torch.equal(bootstrap.flatten(), returns[:, 0]) and feature.shape[1] == min(count, 6)
    for name in ("reward", "is_first", "is_terminal"):
        assert torch.equal(getattr(steps, name), getattr(batch, name)[:, -count:])
    (((_, _, _, values, *_), _),) = learned
    baseline = dreamer.actor_critic.critic(feature.flatten(0, 1)).mean
    torch.testing.assert_close(values[:, 0], baseline, msg="of the same states, in the same order")


def test_the_replayed_critics_loss_as_printed():
    dreamer = make(3, *AWAKE)
    actor_critic, batch = dreamer.actor_critic, windows(dreamer)
    with torch.no_grad():
        actor_critic.slow_critic.critic.network[-1].bias.normal_()
    feature, imagined = torch.randn(4, 6, 32), torch.randn(4, 6)
    loss = dreamer.replay_critic_loss(feature, imagined, batch)
    is_last, prediction = episode_ends(batch), actor_critic.critic(feature)[:, :-1]
    returns = replay_return(batch, is_last, imagined, 332 / 333, 0.95)
    log_prob = prediction.log_prob(returns) + prediction.log_prob(actor_critic.slow_critic(feature).mean[:, :-1])
    torch.testing.assert_close(loss, -((1 - is_last[:, :-1]) * log_prob).sum() / (4 * 5))


# One update


def test_one_gradient_of_the_sum_of_all_losses():
    """Each part moves by the gradient of model, actor, critic and 0.3 of the replayed critic's loss."""
    dreamer = make(3, *AWAKE)
    batch = windows(dreamer)
    torch.manual_seed(1)
    metrics, feature = dreamer.update(batch)  # the first update moves nothing
    torch.manual_seed(1)
    dreamer.actor_critic.return_scale.range.zero_()
    model_loss, posterior, _, _ = dreamer.model_loss(batch)
    start = posterior.detach().flatten(), batch.is_terminal.flatten()
    losses = dreamer.behavior_losses(dreamer.actor_critic, *start, dreamer.predicted_reward)
    of_actor, of_critic, returns, _ = losses
    replayed = dreamer.replay_critic_loss(posterior.feature, returns[:, 0].view(4, 6), batch)
    total = model_loss + of_actor + of_critic + 0.3 * replayed
    networks = {"model": dreamer.model, "actor": dreamer.actor, "critic": dreamer.actor_critic.critic}
    for name, network in networks.items():
        learning = list(network.parameters())
        gradients = torch.autograd.grad(total, learning, retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(learning, gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
        norm = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
        torch.testing.assert_close(metrics[f"grad_norm/{name}"], norm, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(feature, posterior.feature)
    assert not feature.requires_grad


def test_the_first_update_moves_nothing_and_the_next_ones_everything_that_learns():
    dreamer = make(3)
    before = parameters(dreamer)
    dreamer.update(windows(dreamer))
    assert not changed(before, parameters(dreamer))
    dreamer.update(windows(dreamer, seed=1))
    assert changed(before, parameters(dreamer)) == {"model", "actor", "critic", "slow_critic"}


def test_a_critic_that_predicts_a_normal():
    """What can be chosen can be chosen in every version, such as a critic as DreamerV2's, without a slow one."""
    dreamer = make(3, "agent.critic.distribution=normal", "slow_critic=none", "agent.critic.outscale=1")
    metrics, _ = dreamer.update(windows(dreamer))
    assert all(value.isfinite() for value in metrics.values()) and "slow_critic" not in dreamer.networks

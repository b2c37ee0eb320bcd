"""Behaviour of DreamerV3 that the authors' numbers in test_golden_v3.py do not cover."""

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
from tests.small_algorithms import PIXELS, VECTOR, behavior_losses, make, windows
from tests.toys import changed, parameters, settings_of, spy

NONZERO_HEADS = "agent.critic.outscale=1", "reward.outscale=1"  # heads whose initial predictions are not zero
FAST_LEARNING = "warm_up=0", *(f"{part}_learning_rate=1e-3" for part in ("model", "actor", "critic"))


def posteriors(algorithm, batch):
    return observe(algorithm.model, batch)[1].detach()


# The world model


@pytest.mark.parametrize("observations", [PIXELS, VECTOR], ids=["pixels", "a vector"])
def test_initial_rewards_and_values_are_exactly_zero(observations, monkeypatch):
    """Their two-hot distributions are uniform over 255 bins, so the losses are ln 255 for every target."""
    dreamer = make(3, observations=observations)
    batch = windows(dreamer, observations=observations)
    _, posterior, _, metrics = dreamer.model_loss(batch)
    feature, actor_critic = posterior.feature, dreamer.actor_critic
    for head in (dreamer.model.reward_model, actor_critic.critic, actor_critic.slow_critic):
        assert (head(feature).mean == 0).all()
    assert metrics["loss/reward"].item() == pytest.approx(math.log(255), rel=1e-6)
    critic_loss_calls = spy(monkeypatch, dreamer_v3.losses, "critic_loss")
    _, value_loss, *_ = behavior_losses(dreamer, batch, posterior.detach())
    (((_, _, weight, _), _),) = critic_loss_calls
    expected = 2 * weight.mean() * math.log(255)  # one cross entropy to the returns, one to the slow critic
    torch.testing.assert_close(value_loss, expected)


def state(logits):
    return State(torch.zeros(len(logits), 1), torch.zeros(len(logits), 1), Categorical(mixed_log_probs(logits, 0.01)))


def test_free_nats_clip_the_kl_of_each_step():
    """A step with a KL below the free nats counts as the free nats and has no gradient."""
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


def test_vector_loss_is_the_squared_error_of_the_symlog():
    dreamer = make(3)
    batch = windows(dreamer)._replace(observation=1000 * torch.randn(4, 6, 3))
    _, posterior, _, metrics = dreamer.model_loss(batch)
    mean = dreamer.model.decoder(posterior.feature).mean
    torch.testing.assert_close(
        metrics["loss/reconstruction"], (mean - symlog(batch.observation)).square().sum(-1).mean()
    )


def test_discount_is_part_of_the_continue_target_only():
    dreamer = make(3)
    batch = windows(dreamer)
    _, posterior, _, metrics = dreamer.model_loss(batch)
    predicted = dreamer.model.continue_model(posterior.feature).mean
    target = 332 / 333 * (1 - batch.is_terminal)
    torch.testing.assert_close(metrics["loss/continue"], functional.binary_cross_entropy(predicted, target))
    assert torch.equal(imagined_discount(dreamer.model.continue_model, posterior.feature, 332 / 333, True), predicted)
    assert dreamer.config.discount_in_continue


# The behaviour


def reinforce_loss(policy, action, returns, baseline, weight=None, entropy_scale=0.0, scale=1):
    """Return the actor's loss with the REINFORCE gradient."""
    weight = torch.ones_like(returns) if weight is None else weight
    return actor_loss(policy, action, returns, baseline, weight, "reinforce", entropy_scale, scale)[0]


@pytest.mark.parametrize("discrete", [False, True])
def test_advantage_is_divided_by_the_range_of_the_returns(discrete):
    """The scale is updated with this batch before it is used."""
    dreamer = make(3, "entropy_scale=0", discrete=discrete, actions=3)
    returns, baseline = torch.linspace(-500, 500, 101)[:, None], torch.randn(101, 1)
    policy = dreamer.actor(torch.randn(101, 1, 32))
    action = policy.sample()
    loss = reinforce_loss(policy, action, returns, baseline, scale=dreamer.actor_critic.scale(returns))
    scale = 0.01 * 900  # after one update of averages that began at 0; from -450 to 450
    torch.testing.assert_close(loss, -(policy.log_prob(action) * (returns - baseline) / scale).mean())


@pytest.mark.parametrize("discrete", [False, True])
def test_actor_gradient_flows_only_through_the_log_probability(discrete, monkeypatch):
    """Neither the sampled action nor the advantage has a gradient."""
    dreamer = make(3, *NONZERO_HEADS, "entropy_scale=0", discrete=discrete, actions=3)
    batch, imagine_calls = windows(dreamer), spy(monkeypatch, algorithm, "imagine")
    actor_loss_calls, dreamer.actor_critic.return_scale = spy(monkeypatch, dreamer_v3.losses, "actor_loss"), None
    policy_loss, *_ = behavior_losses(dreamer, batch, posteriors(dreamer, batch))
    ((_, imagination),), parameters = imagine_calls, list(dreamer.actor.parameters())
    (((_, _, returns, baseline, weight, *_), _),) = actor_loss_calls
    log_prob = dreamer.actor(imagination.feature[:, :-1]).log_prob(imagination.action.detach())
    expected = -(weight * log_prob * (returns - baseline).detach()).mean()
    got, gradients = (torch.autograd.grad(loss, parameters) for loss in (policy_loss, expected))
    torch.testing.assert_close(got, gradients, rtol=1e-3, atol=1e-4)
    assert any(gradient.any() for gradient in got)


def test_return_percentiles_are_over_all_returns():
    scale = ReturnScale()
    scale(torch.linspace(0, 100, 21)[:, None])
    torch.testing.assert_close(scale.range, torch.tensor([0.05, 0.95]))


def test_entropy_is_weighted_like_its_step():
    policy, zeros = make(3).actor(torch.randn(5, 2, 32)), torch.zeros(5, 2)
    weight = torch.tensor([[1.0, 0.0]]).expand(5, 2)
    loss = reinforce_loss(policy, policy.sample(), zeros, zeros, weight, entropy_scale=10)
    torch.testing.assert_close(loss, -10 * policy.entropy()[:, 0].mean() / 2)


def test_slow_critic_affects_only_the_critic_loss(monkeypatch):
    """Returns and baseline come from the critic itself."""
    dreamer = make(3, *NONZERO_HEADS)
    batch, actor_loss_calls = windows(dreamer), spy(monkeypatch, dreamer_v3.losses, "actor_loss")
    posterior, actor_critic = posteriors(dreamer, batch), dreamer.actor_critic
    actor_critic.return_scale = None

    def losses():
        """Return both losses, the returns and the baseline."""
        policy_loss, value_loss, *_ = behavior_losses(dreamer, batch, posterior)
        (_, _, returns, baseline, *_), _ = actor_loss_calls[-1]
        return policy_loss, value_loss, returns, baseline

    policy_loss, value_loss, *targets = losses()
    with torch.no_grad():
        actor_critic.slow_critic.critic.network[-1].bias[128:].add_(2)
    same, other_critic, *same_targets = losses()
    assert torch.equal(policy_loss, same) and all(map(torch.equal, targets, same_targets))
    assert not torch.equal(value_loss, other_critic)
    with torch.no_grad():
        actor_critic.critic.network[-1].bias[128:].add_(2)
    _, _, returns, baseline = losses()
    assert (returns != targets[0]).all() and (baseline != targets[1]).all()


def test_critic_loss_includes_the_slow_critics_prediction():
    """The cross entropy to the slow critic's value has the same weight as that to the returns."""
    dreamer = make(3, *NONZERO_HEADS)
    actor_critic, feature = dreamer.actor_critic, torch.randn(5, 4, 32)
    with torch.no_grad():
        actor_critic.slow_critic.critic.network[-1].bias.normal_()
    prediction = actor_critic.critic(feature)
    value, slow, _ = actor_critic.values(feature)
    assert torch.equal(value, prediction.mean) and torch.equal(slow, actor_critic.slow_critic(feature).mean)
    returns, weight = torch.randn(5, 4), torch.rand(5, 4)
    loss = critic_loss(prediction, returns, weight, slow)
    torch.testing.assert_close(loss, -(weight * (prediction.log_prob(returns) + prediction.log_prob(slow))).mean())


def test_slow_critic_is_a_moving_average_with_rate_0_02():
    """The slow critic starts as a copy; after an update it is 0.98 of itself plus 0.02 of the updated critic."""
    dreamer = make(3, *FAST_LEARNING)
    actor_critic = dreamer.actor_critic
    old = [parameter.clone() for parameter in actor_critic.slow_critic.parameters()]
    assert all(map(torch.equal, old, actor_critic.critic.parameters()))
    dreamer.update(windows(dreamer))
    fast, moved = list(actor_critic.critic.parameters()), list(actor_critic.slow_critic.parameters())
    assert any((now != before).any() for now, before in zip(fast, old, strict=True))
    for now, before, new in zip(moved, old, fast, strict=True):
        torch.testing.assert_close(now, 0.98 * before + 0.02 * new, atol=1e-7, rtol=1e-6)


def test_sampled_actions_are_neither_clipped_nor_squashed(monkeypatch):
    """The actor loss gets actions outside the bounds as they were sampled."""
    dreamer = make(3)
    batch, actor_loss_calls = windows(dreamer), spy(monkeypatch, dreamer_v3.losses, "actor_loss")
    behavior_losses(dreamer, batch, posteriors(dreamer, batch))
    (((policy, action, *_), _),) = actor_loss_calls
    distance = (action - policy.mean) / policy.scale
    assert action.abs().max() > 1.2 and distance.abs().max() > 2, "of a normal, none of them clipped"
    assert distance.std().item() == pytest.approx(1, abs=0.1)


def test_only_the_replay_critic_loss_reaches_the_world_model():
    """The replay loss has gradients down to the encoder. The imagined losses have none in the world model."""
    dreamer = make(3, *NONZERO_HEADS)
    batch, model = windows(dreamer), dreamer.model
    _, posterior, _, _ = dreamer.model_loss(batch)
    policy_loss, value_loss, returns, _ = behavior_losses(dreamer, batch, posterior.detach())
    replay_loss = dreamer.replay_critic_loss(posterior.feature, returns[:, 0].view(4, 6), batch)

    def gradients(loss, *modules):
        parameters = [parameter for module in modules for parameter in module.parameters()]
        return torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)

    below = model.encoder, model.rssm.recurrent_model, model.rssm.representation_model
    assert all(gradient is not None and gradient.any() for gradient in gradients(replay_loss, *below))
    for loss, unreached in (
        (policy_loss, [model, dreamer.actor_critic.critic]),
        (value_loss, [model, dreamer.actor]),
        (replay_loss, [dreamer.actor, model.decoder, model.reward_model, model.continue_model]),
    ):
        assert all(gradient is None for gradient in gradients(loss, *unreached))


@pytest.mark.parametrize("gradient", ["dynamics", "both"])
def test_actor_gradient_setting_does_not_change_model_or_critic_gradients(gradient):
    """The imagined trajectory is differentiable in these settings, but the actor's gradient stays in the actor."""

    def gradients_of(gradient):
        dreamer = make(3, *NONZERO_HEADS, f"actor_gradient={gradient}")
        dreamer.update(windows(dreamer))
        networks = dreamer.model, dreamer.actor_critic.critic, dreamer.actor
        return [[parameter.grad for parameter in network.parameters()] for network in networks]

    (*expected, by_reinforce), (*others, policy_loss) = gradients_of("reinforce"), gradients_of(gradient)
    torch.testing.assert_close(others, expected)
    assert not any(torch.equal(*pair) for pair in zip(policy_loss, by_reinforce, strict=True))


# The critic on replayed steps


def test_replay_critic_loss_ignores_episode_ends_and_the_last_step():
    """The loss has no gradient at terminal and truncated steps, nor at the window's last step."""
    dreamer = make(3, *NONZERO_HEADS)
    batch, feature = windows(dreamer), torch.randn(4, 6, 32, requires_grad=True)
    loss = dreamer.replay_critic_loss(feature, torch.randn(4, 6), batch)
    (gradient,) = torch.autograd.grad(loss, feature)
    has_no_gradient = torch.zeros(4, 6, dtype=torch.bool)
    has_no_gradient[:, -1] = has_no_gradient[1, 2] = has_no_gradient[2, 1] = True
    assert torch.equal((gradient == 0).all(-1), has_no_gradient)


def test_replay_returns_match_a_hand_computed_example():
    """One window has a terminal step at 2, another a truncated one at 1, whose bootstrap value is used."""
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
def test_replay_critic_bootstraps_with_the_return_imagined_from_the_same_state(last, monkeypatch):
    """The bootstrap of a replayed step is the imagined return from its state, not the value. With `imagine_last`, the
    replay loss uses only the steps from which imagination starts."""
    dreamer, count = make(3, *NONZERO_HEADS, f"imagine_last={last or 'null'}"), last or 6
    behavior_calls, actor_loss_calls = (
        spy(monkeypatch, dreamer, "behavior_losses"),
        spy(monkeypatch, dreamer_v3.losses, "actor_loss"),
    )
    replay_calls, batch = spy(monkeypatch, dreamer, "replay_critic_loss"), windows(dreamer)
    dreamer.update(batch)
    ((_, (_, _, returns, _)),), (((feature, bootstrap, steps), _),) = behavior_calls, replay_calls
    assert torch.equal(bootstrap.flatten(), returns[:, 0]) and feature.shape[1] == min(count, 6)
    for name in ("reward", "is_first", "is_terminal"):
        assert torch.equal(getattr(steps, name), getattr(batch, name)[:, -count:])
    (((_, _, _, values, *_), _),) = actor_loss_calls
    baseline = dreamer.actor_critic.critic(feature.flatten(0, 1)).mean
    torch.testing.assert_close(values[:, 0], baseline, msg="of the same states, in the same order")


def test_replay_critic_loss_matches_its_formula():
    dreamer = make(3, *NONZERO_HEADS)
    actor_critic, batch = dreamer.actor_critic, windows(dreamer)
    with torch.no_grad():
        actor_critic.slow_critic.critic.network[-1].bias.normal_()
    feature, imagined_return = torch.randn(4, 6, 32), torch.randn(4, 6)
    loss = dreamer.replay_critic_loss(feature, imagined_return, batch)
    is_last, prediction = episode_ends(batch), actor_critic.critic(feature)[:, :-1]
    returns = replay_return(batch, is_last, imagined_return, 332 / 333, 0.95)
    log_prob = prediction.log_prob(returns) + prediction.log_prob(actor_critic.slow_critic(feature).mean[:, :-1])
    torch.testing.assert_close(loss, -((1 - is_last[:, :-1]) * log_prob).sum() / (4 * 5))


# One update


def test_one_gradient_of_the_sum_of_all_losses():
    """The total loss is the sum of model, actor and critic loss and 0.3 times the replay critic loss."""
    dreamer = make(3, *NONZERO_HEADS)
    batch = windows(dreamer)
    torch.manual_seed(1)
    metrics, feature = dreamer.update(batch)  # the first update moves nothing
    torch.manual_seed(1)
    dreamer.actor_critic.return_scale.range.zero_()
    model_loss, posterior, _, _ = dreamer.model_loss(batch)
    start = posterior.detach().flatten(), batch.is_terminal.flatten()
    losses = dreamer.behavior_losses(dreamer.actor_critic, *start, dreamer.predicted_reward)
    policy_loss, value_loss, returns, _ = losses
    replay_loss = dreamer.replay_critic_loss(posterior.feature, returns[:, 0].view(4, 6), batch)
    total = model_loss + policy_loss + value_loss + 0.3 * replay_loss
    networks = {"model": dreamer.model, "actor": dreamer.actor, "critic": dreamer.actor_critic.critic}
    for name, network in networks.items():
        learned_parameters = list(network.parameters())
        gradients = torch.autograd.grad(total, learned_parameters, retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(learned_parameters, gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
        norm = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
        torch.testing.assert_close(metrics[f"grad_norm/{name}"], norm, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(feature, posterior.feature)
    assert not feature.requires_grad


def test_warm_up_makes_the_first_update_change_nothing():
    dreamer = make(3)
    before = parameters(dreamer)
    dreamer.update(windows(dreamer))
    assert not changed(before, parameters(dreamer))
    dreamer.update(windows(dreamer, seed=1))
    assert changed(before, parameters(dreamer)) == {"model", "actor", "critic", "slow_critic"}


def test_critic_can_predict_a_normal_without_a_slow_critic():
    """DreamerV3 also runs with DreamerV2's normal critic and without a slow critic."""
    dreamer = make(3, "agent.critic.distribution=normal", "slow_critic=none", "agent.critic.outscale=1")
    metrics, _ = dreamer.update(windows(dreamer))
    assert all(value.isfinite() for value in metrics.values()) and "slow_critic" not in dreamer.networks

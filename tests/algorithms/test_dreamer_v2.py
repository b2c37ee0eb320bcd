"""Behaviour of DreamerV2 that the authors' numbers in test_golden_v2.py do not cover."""

import math

import pytest
import torch

from dreamer.algorithms import algorithm, dreamer_v2
from dreamer.algorithms.dreamer_v2 import returns_and_weights
from dreamer.algorithms.losses import imagine, imagined_discount, kl_loss
from dreamer.algorithms.prediction import observe
from dreamer.envs.actions import ActionParts
from dreamer.modules.latents import Categorical, mixed_log_probs
from dreamer.modules.rssm import State
from tests.small_algorithms import PIXELS, behavior_losses, make, windows
from tests.toys import changed, parameters, settings_of, spy


def posteriors(algorithm, batch):
    return observe(algorithm.model, batch)[1].detach()


# The world model


def test_initial_latents_are_nearly_uniform():
    """The entropy of 32 groups of 32 classes is at most 32 ln 32 = 110.9; the authors' code gives 110.7 to 110.9."""
    sizes = ["stochastic_size=32", "classes=32", "deterministic_size=200", "encoder.depth=8"]
    sizes += [f"rssm.{part}_model.hidden_size=200" for part in ("recurrent", "transition", "representation")]
    dreamer = make(2, *sizes, observations=PIXELS, actions=6)
    _, posterior, _, metrics = dreamer.model_loss(windows(dreamer, observations=PIXELS))
    for name in ("prior", "posterior"):
        assert 110.6 < metrics[f"latent/{name}_entropy"] < 110.905
    assert 0.0 < metrics["loss/kl"] < 0.5 and posterior.stochastic.shape[-1] == 1024


def state(logits):
    return State(torch.zeros(len(logits), 1), torch.zeros(len(logits), 1), Categorical(mixed_log_probs(logits, 0.0)))


@pytest.mark.parametrize("scale, has_gradient", [(0.9, False), (1.1, True)])
def test_free_nats_clip_the_mean_kl(scale, has_gradient):
    """One state's KL is far above the free nats and the other's far below: both have a gradient, or neither."""
    prior, posterior = torch.zeros(2, 1, 4, requires_grad=True), torch.tensor([[[4.0, 0, 0, 0]], [[0.4, 0, 0, 0]]])
    posterior.requires_grad_()
    states, scales = (state(posterior), state(prior)), (0.8, 0.2)
    _, mean = kl_loss(*states, 1e-9, False, *scales)
    loss, _ = kl_loss(*states, mean.item() / scale, False, *scales)
    gradients = torch.autograd.grad(loss, [prior, posterior])
    assert all((gradient != 0).any(-1).all() if has_gradient else not gradient.any() for gradient in gradients)


def test_kl_balancing_scales_the_gradients_of_prior_and_posterior():
    """The prior gets 0.8 and the posterior 0.2 of the gradients of the unbalanced KL."""
    logits = [torch.randn(3, 2, 4, requires_grad=True) for _ in range(2)]
    settings, got = settings_of("dreamer-v2"), []
    for scales in ((None, None), (settings.kl_dynamics_scale, settings.kl_representation_scale)):
        loss, _ = kl_loss(*map(state, logits), 0.0, False, *scales)
        got.append(torch.autograd.grad(loss, logits))
    (posterior, prior), (scaled_posterior, scaled_prior) = got
    torch.testing.assert_close(scaled_prior, 0.8 * prior)
    torch.testing.assert_close(scaled_posterior, 0.2 * posterior)


@pytest.mark.parametrize("transform", ["none", "tanh"])
def test_model_losses_match_their_formulas(transform):
    """Reward and observation losses are half the squared errors plus constants. The continue target includes the
    discount, so imagination does not multiply by it again."""
    dreamer = make(2, f"reward_transform={transform}", "use_continue_flag=True", "discount=0.9")
    batch = windows(dreamer)
    _, posterior, _, metrics = dreamer.model_loss(batch)
    feature, model = posterior.feature.detach(), dreamer.model
    reward = batch.reward.tanh() if transform == "tanh" else batch.reward
    constant = 0.5 * math.log(2 * math.pi)
    error = (model.reward_model(feature).mean - reward).square().mean() / 2 + constant
    torch.testing.assert_close(metrics["loss/reward"], error)
    error = (model.decoder(feature).mean - batch.observation).square().sum(-1).mean() / 2 + 3 * constant
    torch.testing.assert_close(metrics["loss/reconstruction"], error)
    predicted, target = model.continue_model(feature).mean, 0.9 * (1 - batch.is_terminal)
    entropy = torch.nn.functional.binary_cross_entropy(predicted, target)
    torch.testing.assert_close(metrics["loss/continue"], entropy)
    assert torch.equal(imagined_discount(model.continue_model, feature, 0.9, True), predicted)
    assert (imagined_discount(None, feature, 0.9, True) == torch.tensor(0.9)).all()


# The behaviour


def test_predicted_rewards_include_the_start_state():
    """There are H + 1 predicted rewards, one for each imagined state."""
    dreamer = make(2)
    batch = windows(dreamer)
    start = posteriors(dreamer, batch).flatten()
    imagination = imagine(dreamer.model.rssm, dreamer.actor, start, dreamer.config.horizon_length, True)
    reward = dreamer.predicted_reward(imagination)
    torch.testing.assert_close(reward, dreamer.model.reward_model(imagination.feature).mean)
    assert reward.shape == (24, dreamer.config.horizon_length + 1)


def test_terminal_start_states_have_no_future_return_or_weight():
    """The discount of the start state is 0 if it is terminal and γ if not, whatever the continue model predicts. Later
    states use the prediction."""
    reward, value, predicted = torch.rand(2, 5), torch.rand(2, 5), torch.full((2, 5), 0.3)
    returns, weight = returns_and_weights(reward, value, predicted, torch.tensor([1.0, 0.0]), 0.9, 0.95)
    torch.testing.assert_close(weight[0], torch.tensor([1.0, 0, 0, 0]))
    torch.testing.assert_close(weight[1], torch.tensor([1.0, 0.9, 0.27, 0.081]))
    torch.testing.assert_close(returns[0, 0], reward[0, 0])
    following = torch.lerp(value[1, 1], returns[1, 1], 0.95)
    torch.testing.assert_close(returns[1, 0], reward[1, 0] + 0.9 * following)


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_returns_and_baseline_come_from_the_slow_critic(gradient, monkeypatch):
    """A change of the critic changes the critic loss only; a change of the slow critic changes returns and baseline."""
    dreamer = make(2, f"actor_gradient={gradient}")
    batch = windows(dreamer)
    loss_calls = [spy(monkeypatch, dreamer_v2.losses, f"{who}_loss") for who in ("actor", "critic")]
    posterior = posteriors(dreamer, batch)

    def losses():
        """Return both losses, the actor's returns and baseline, and the critic's returns."""
        actor_loss, critic_loss, _ = behavior_losses(dreamer, batch, posterior)
        ((_, _, *actor_arguments), _), ((_, returns, *_), _) = (calls[-1] for calls in loss_calls)
        return actor_loss, critic_loss, *actor_arguments[:2], returns

    actor_loss, critic_loss, *targets = losses()
    with torch.no_grad():
        dreamer.actor_critic.critic.network[-1].bias += 3
    same, other_critic, *same_targets = losses()
    assert torch.equal(actor_loss, same) and all(map(torch.equal, targets, same_targets))
    assert not torch.equal(critic_loss, other_critic)
    with torch.no_grad():
        dreamer.actor_critic.slow_critic.critic.network[-1].bias += 3
    _, _, returns, baseline, _ = losses()
    assert (returns > targets[0] + 1).all()
    torch.testing.assert_close(baseline, targets[1] + 3)


def test_slow_critic_is_copied_after_updates_1_101_and_201():
    """The copy is made after the gradient step. Before the first update the slow critic has its own weights."""
    dreamer = make(2, "horizon_length=2")
    batch, actor_critic, copied = windows(dreamer, batch_size=4), dreamer.actor_critic, []
    slow, fast = actor_critic.slow_critic.critic.network[0].weight, actor_critic.critic.network[0].weight
    assert not torch.equal(slow, fast)
    for number in range(1, 203):
        old = slow.clone()
        dreamer.update(batch) if number in (1, 2, 3, 101) else actor_critic.update_slow_critic()
        if not torch.equal(slow, old):
            assert torch.equal(slow, fast)
            copied.append(number)
        with torch.no_grad():
            fast.add_(0.01)
    assert copied == [1, 101, 201]


@pytest.mark.parametrize("gradient, through", [("dynamics", True), ("reinforce", False), ("both", True)])
def test_actor_gradient_selects_dynamics_reinforce_or_a_mixture(gradient, through, monkeypatch):
    """The gradient flows through the dynamics, or through log-probabilities, or is 0.1 and 0.9 of these two."""
    dreamer = make(2, "entropy_scale=0", f"actor_gradient={gradient}")
    batch = windows(dreamer)
    posterior, imagine_calls = posteriors(dreamer, batch), spy(monkeypatch, algorithm, "imagine")
    actor_loss, *_ = behavior_losses(dreamer, batch, posterior)
    assert imagine_calls[0][1].feature.requires_grad == through
    if gradient == "both":
        gradients_by_setting = [torch.autograd.grad(actor_loss, list(dreamer.actor.parameters()))]
        for other in ("dynamics", "reinforce"):
            single = make(2, "entropy_scale=0", f"actor_gradient={other}")
            loss, *_ = behavior_losses(single, batch, posterior)
            gradients_by_setting.append(torch.autograd.grad(loss, list(single.actor.parameters())))
        for both, dynamics, reinforce in zip(*gradients_by_setting, strict=True):
            torch.testing.assert_close(both, 0.1 * dynamics + 0.9 * reinforce, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "version, continuous, discrete, mixed",
    [
        (1, "dynamics", "dynamics", "dynamics"),
        (2, "dynamics", "reinforce", "by_kind"),
        (3, "reinforce", "reinforce", "reinforce"),
    ],
)
def test_where_it_comes_from_by_default(version, continuous, discrete, mixed):
    spaces = ActionParts([0, 0]), ActionParts([2, 2]), ActionParts([2, 0])
    gradients = [make(version, actions=space).actor_critic.actor_gradient for space in spaces]
    assert gradients == [continuous, discrete, mixed]


def test_actor_input_is_detached():
    """Gradients to earlier states flow through the imagined dynamics, not through the actor's input."""
    dreamer = make(2, "horizon_length=2")
    start = posteriors(dreamer, windows(dreamer)).flatten().map(torch.Tensor.requires_grad_)
    imagination = imagine(dreamer.model.rssm, dreamer.actor, start, 2, through_dynamics=True)
    gradients_to_start = (
        torch.autograd.grad(part.square().sum(), start.deterministic, allow_unused=True, retain_graph=True)[0]
        for part in (imagination.actor_output, imagination.feature[:, 2])
    )
    assert [gradient is not None for gradient in gradients_to_start] == [False, True]


def test_update_changes_every_network_but_the_slow_critic():
    dreamer = make(2, "use_continue_flag=True")
    batch = windows(dreamer)
    dreamer.update(batch)
    before = parameters(dreamer)
    metrics, feature = dreamer.update(windows(dreamer, seed=1))
    assert changed(before, parameters(dreamer)) == {"model", "actor", "critic"}
    assert feature.shape == (4, 6, 32) and not feature.requires_grad
    assert all(value.isfinite() for value in metrics.values())

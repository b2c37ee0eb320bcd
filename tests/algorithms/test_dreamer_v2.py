"""What DreamerV2 does that the authors' numbers in test_golden_v2.py do not say."""

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
from tests.toys import changed, parameters, settings_of, spy
from tests.versions import PIXELS, behavior_losses, make, windows


def posteriors(algorithm, batch):
    return observe(algorithm.model, batch)[1].detach()


# The world model


def test_at_the_start_the_latents_know_nothing():
    """32 groups of 32 classes, from random pixels: 32 ln 32 = 110.9, and the authors' 110.7 to 110.9."""
    sizes = ["stochastic_size=32", "classes=32", "deterministic_size=200", "encoder.depth=8"]
    sizes += [f"rssm.{part}_model.hidden_size=200" for part in ("recurrent", "transition", "representation")]
    dreamer = make(2, *sizes, observations=PIXELS, actions=6)
    _, posterior, _, metrics = dreamer.model_loss(windows(dreamer, observations=PIXELS))
    for name in ("prior", "posterior"):
        assert 110.6 < metrics[f"latent/{name}_entropy"] < 110.905
    assert 0.0 < metrics["loss/kl"] < 0.5 and posterior.stochastic.shape[-1] == 1024


def state(logits):
    return State(torch.zeros(len(logits), 1), torch.zeros(len(logits), 1), Categorical(mixed_log_probs(logits, 0.0)))


@pytest.mark.parametrize("scale, reached", [(0.9, False), (1.1, True)])
def test_free_nats_bound_the_mean(scale, reached):
    """One state lies far above them and the other far below: both have a gradient, or neither."""
    prior, posterior = torch.zeros(2, 1, 4, requires_grad=True), torch.tensor([[[4.0, 0, 0, 0]], [[0.4, 0, 0, 0]]])
    posterior.requires_grad_()
    states, scales = (state(posterior), state(prior)), (0.8, 0.2)
    _, mean = kl_loss(*states, 1e-9, False, *scales)
    loss, _ = kl_loss(*states, mean.item() / scale, False, *scales)
    gradients = torch.autograd.grad(loss, [prior, posterior])
    assert all((gradient != 0).any(-1).all() if reached else not gradient.any() for gradient in gradients)


def test_the_prior_learns_faster_than_the_posterior():
    """0.8 and 0.2 of one KL's gradients."""
    logits = [torch.randn(3, 2, 4, requires_grad=True) for _ in range(2)]
    settings, got = settings_of("dreamer-v2"), []
    for scales in ((None, None), (settings.kl_dynamics_scale, settings.kl_representation_scale)):
        loss, _ = kl_loss(*map(state, logits), 0.0, False, *scales)
        got.append(torch.autograd.grad(loss, logits))
    (posterior, prior), (scaled_posterior, scaled_prior) = got
    torch.testing.assert_close(scaled_prior, 0.8 * prior)
    torch.testing.assert_close(scaled_posterior, 0.2 * posterior)


@pytest.mark.parametrize("transform", ["none", "tanh"])
def test_losses_of_the_heads(transform):
    """Half the squared errors and the constants, of the reward as it is transformed; the continue model's target
    holds the discount, which what it predicts in imagination is not multiplied by again."""
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


def test_rewards_count_from_the_start_of_imagination_on():
    """So the reward has as many steps as there are states."""
    dreamer = make(2)
    batch = windows(dreamer)
    start = posteriors(dreamer, batch).flatten()
    imagination = imagine(dreamer.model.rssm, dreamer.actor, start, dreamer.config.horizon_length, True)
    reward = dreamer.predicted_reward(imagination)
    torch.testing.assert_close(reward, dreamer.model.reward_model(imagination.feature).mean)
    assert reward.shape == (24, dreamer.config.horizon_length + 1)


def test_whether_the_task_had_ended_at_the_start_is_known():
    """There nothing follows but its own reward, and nothing after it has a weight; elsewhere γ follows, whatever is
    predicted of it. Of the states after it the prediction counts."""
    reward, value, predicted = torch.rand(2, 5), torch.rand(2, 5), torch.full((2, 5), 0.3)
    returns, weight = returns_and_weights(reward, value, predicted, torch.tensor([1.0, 0.0]), 0.9, 0.95)
    torch.testing.assert_close(weight[0], torch.tensor([1.0, 0, 0, 0]))
    torch.testing.assert_close(weight[1], torch.tensor([1.0, 0.9, 0.27, 0.081]))
    torch.testing.assert_close(returns[0, 0], reward[0, 0])
    following = torch.lerp(value[1, 1], returns[1, 1], 0.95)
    torch.testing.assert_close(returns[1, 0], reward[1, 0] + 0.9 * following)


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_all_that_the_actor_learns_comes_from_the_slow_critic(gradient, monkeypatch):
    """And the critic's targets, too; the critic itself is only what learns."""
    dreamer = make(2, f"actor_gradient={gradient}")
    learned = [spy(monkeypatch, dreamer_v2.losses, f"{who}_loss") for who in ("actor", "critic")]
    batch = windows(dreamer)
    posterior = posteriors(dreamer, batch)

    def losses():
        """Both losses, returns and baseline of the actor, and the critic's returns."""
        actor_loss, critic_loss, _ = behavior_losses(dreamer, batch, posterior)
        ((_, _, *of_actor), _), ((_, returns, *_), _) = (calls[-1] for calls in learned)
        return actor_loss, critic_loss, *of_actor[:2], returns

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


def test_the_slow_critic_is_copied_after_the_first_update_and_then_after_every_hundredth():
    """After the gradient step. At first it is another network."""
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
def test_where_the_actors_gradient_comes_from(gradient, through, monkeypatch):
    """Through the imagined dynamics, or from the probabilities of what was drawn; or a tenth and the rest of it."""
    dreamer = make(2, "entropy_scale=0", f"actor_gradient={gradient}")
    batch = windows(dreamer)
    posterior, imagined = posteriors(dreamer, batch), spy(monkeypatch, algorithm, "imagine")
    actor_loss, *_ = behavior_losses(dreamer, batch, posterior)
    assert imagined[0][1].feature.requires_grad == through
    if gradient == "both":
        shares = [torch.autograd.grad(actor_loss, list(dreamer.actor.parameters()))]
        for other in ("dynamics", "reinforce"):
            single = make(2, "entropy_scale=0", f"actor_gradient={other}")
            loss, *_ = behavior_losses(single, batch, posterior)
            shares.append(torch.autograd.grad(loss, list(single.actor.parameters())))
        for both, dynamics, reinforce in zip(*shares, strict=True):
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


def test_the_actor_sees_features_without_gradient():
    """What it does later does not depend on what it did before by its own input, but by the dynamics alone."""
    dreamer = make(2, "horizon_length=2")
    start = posteriors(dreamer, windows(dreamer)).flatten().map(torch.Tensor.requires_grad_)
    imagination = imagine(dreamer.model.rssm, dreamer.actor, start, 2, through_dynamics=True)
    reached = (
        torch.autograd.grad(part.square().sum(), start.deterministic, allow_unused=True, retain_graph=True)[0]
        for part in (imagination.actor_output, imagination.feature[:, 2])
    )
    assert [gradient is not None for gradient in reached] == [False, True]


def test_an_update_moves_every_part_but_the_slow_critic_by_its_own_optimiser():
    dreamer = make(2, "use_continue_flag=True")
    batch = windows(dreamer)
    dreamer.update(batch)
    before = parameters(dreamer)
    metrics, feature = dreamer.update(windows(dreamer, seed=1))
    assert changed(before, parameters(dreamer)) == {"model", "actor", "critic"}
    assert feature.shape == (4, 6, 32) and not feature.requires_grad
    assert all(value.isfinite() for value in metrics.values())

import copy
import math

import numpy as np
import pytest
import torch

from dreamer.algorithms.dreamer import Imagination, lambda_return
from dreamer.checkpoint import copy_to_cpu
from dreamer.optim import ClippedAdam
from tests.toys import CoinEnv, ToyEnv, changed, evaluate, fill, make_dreamer, make_plan2explore, parameters, spy


@pytest.fixture
def dreamer():
    """With a continue model and some episodes that end."""
    return fill(make_dreamer(CoinEnv(terminates=True), "use_continue_flag=True"), episodes=5)


def sample(dreamer):
    return dreamer.trainer.sample()


def start_states(dreamer):
    """To imagine from, (N, ·), after a step of the model."""
    return dreamer.dynamics_learning(sample(dreamer))[0].flatten()


def learn_behavior(dreamer, reward_function=None, start=None, weight=None):
    start = start or start_states(dreamer)
    weight = torch.ones(len(start.feature)) if weight is None else weight
    return dreamer.behavior.learn(dreamer.model, start, weight, reward_function or dreamer.predicted_reward)


# Which parameters a loss moves


def test_each_loss_moves_exactly_its_own_parameters(dreamer, monkeypatch):
    moved = {}
    for name, optimizer in dreamer.optimizers.items():

        def step(loss, name=name, original=optimizer.step, **keywords):
            before = parameters(dreamer)
            norm = original(loss, **keywords)
            moved[name] = changed(before, parameters(dreamer))
            return norm

        monkeypatch.setattr(optimizer, "step", step)
    dreamer.update(sample(dreamer))
    assert moved == {"model": {"model"}, "actor": {"actor"}, "critic": {"critic"}}


def test_every_parameter_learns(dreamer):
    """No part of the world model, the actor or the critic is left without a gradient."""
    dreamer.config.free_nats = 0.0
    dreamer.update(sample(dreamer))
    for module in dreamer.networks.values():
        still = [name for name, parameter in module.named_parameters() if not parameter.grad.abs().sum() > 0]
        assert not still


# The model loss


def test_model_loss_is_the_weighted_sum_of_its_terms(dreamer):
    dreamer.config.kl_divergence_scale = 0.5
    means = {name: value.item() for name, value in dreamer.update(sample(dreamer)).items()}
    expected = means["loss/reconstruction"] + means["loss/reward"]
    expected += 10 * means["loss/continue"] + 0.5 * max(3.0, means["loss/kl"])
    assert means["loss/model"] == pytest.approx(expected, rel=1e-5)


def test_free_nats_bound_the_mean_kl(dreamer):
    """Under the bound the KL has no gradient, so the prior has none at all; above it, it has."""
    prior = dreamer.model.rssm.transition_model.network[0].weight
    dreamer.config.free_nats = 1000.0
    dreamer.dynamics_learning(sample(dreamer))
    assert prior.grad.abs().sum() == 0
    dreamer.config.free_nats = 0.0
    dreamer.dynamics_learning(sample(dreamer))
    assert prior.grad.abs().sum() > 0


def test_free_nats_apply_after_averaging(dreamer, monkeypatch):
    """A bound that some steps are below and the mean is not changes nothing at all."""
    batch, gradients = sample(dreamer), []
    torch.manual_seed(0)
    prior, posterior = dreamer.model.observe(batch)
    kl = torch.distributions.kl_divergence(posterior.distribution, prior.distribution)
    assert kl.min() < 0.8 * kl.mean()
    monkeypatch.setattr(dreamer.model_optimizer.adam, "step", lambda: None)
    for free_nats in (0.0, 0.9 * kl.mean().item()):
        dreamer.config.free_nats = free_nats
        torch.manual_seed(0)
        dreamer.dynamics_learning(batch)
        gradients.append(dreamer.model.rssm.transition_model.network[0].weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_the_kl_is_of_the_posterior_from_the_prior(dreamer):
    batch = sample(dreamer)
    torch.manual_seed(0)
    prior, posterior = (state.parameters for state in dreamer.model.observe(batch))
    ratio = posterior.std / prior.std
    kl = (-ratio.log() + (ratio**2 + ((posterior.mean - prior.mean) / prior.std) ** 2 - 1) / 2).sum(-1).mean()
    torch.manual_seed(0)
    torch.testing.assert_close(dreamer.dynamics_learning(batch)[2]["loss/kl"], kl)


def test_continue_model_learns_where_the_task_ends(dreamer):
    """The last of 20 steps ends the task: the probability to go on falls there only."""
    env = ToyEnv(length=8, terminates=True)
    dreamer = fill(make_dreamer(env, "use_continue_flag=True", "model_learning_rate=3e-3"), episodes=20)
    for _ in range(150):
        dreamer.dynamics_learning(sample(dreamer))
    batch = sample(dreamer)
    _, posterior = dreamer.model.observe(batch)
    goes_on = dreamer.model.continue_model(posterior.feature).mean
    assert goes_on[batch.is_terminal == 1].mean() < 0.2 and goes_on[batch.is_terminal == 0].mean() > 0.9


# The behaviour's losses


def fixed_rewards(imagination):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(imagination.action.shape[:2], generator=generator)


@pytest.mark.parametrize("use_continue_flag", [False, True])
def test_actor_and_critic_loss_as_printed(use_continue_flag, monkeypatch):
    """Both weighted by the cumulative discount of their imagined step, from 1 at s_1, with an explicit bootstrap."""
    settings = f"use_continue_flag={use_continue_flag}", "horizon_length=4", "discount=0.9"
    dreamer = fill(make_dreamer(ToyEnv(), *settings), episodes=2)
    imagined, start = spy(monkeypatch, dreamer.behavior, "imagine"), start_states(dreamer)
    live = torch.ones(len(start.feature))
    live[::3] = 0
    old_critic = copy.deepcopy(dreamer.behavior.critic)
    metrics = learn_behavior(dreamer, fixed_rewards, start, live)

    ((_, imagination),) = imagined
    states = imagination.feature[:, 1:].detach()
    reward, value = fixed_rewards(imagination), old_critic(states).mean.detach()
    goes_on = dreamer.model.continue_model(states).mean.detach() if use_continue_flag else torch.ones_like(reward)
    discount = 0.9 * goes_on
    returns = lambda_return(reward[:, :3], value[:, :3], discount[:, :3], value[:, 3], 0.95)
    weight = torch.stack([live, live * discount[:, 0], live * discount[:, 0] * discount[:, 1]], 1)
    assert metrics["loss/actor"].item() == pytest.approx(-(weight * returns).mean().item(), rel=1e-4)
    squared = 0.5 * (value[:, :3] - returns) ** 2 + 0.5 * math.log(2 * math.pi)
    assert metrics["loss/critic"].item() == pytest.approx((weight * squared).mean().item(), rel=1e-4)
    assert metrics["behavior/imagined_return"].item() == pytest.approx(returns.mean().item(), rel=1e-4)


def test_weights_and_targets_carry_no_gradient(dreamer):
    """Neither the critic's target nor the weights, which know the rewards and the discounts, reach its loss."""
    start, captured = start_states(dreamer), {}
    for name in ("actor", "critic"):
        optimizer = getattr(dreamer.behavior, f"{name}_optimizer")
        optimizer.step = lambda loss, name=name, **keywords: captured.setdefault(name, loss)
    reward = torch.zeros(len(start.feature), dreamer.config.horizon_length, requires_grad=True)
    learn_behavior(dreamer, lambda imagination: reward, start)
    known = [reward, *dreamer.model.continue_model.parameters()]
    for name, reaches in [("actor", True), ("critic", False)]:
        gradient = torch.autograd.grad(captured[name], known, allow_unused=True, retain_graph=True)
        assert all((part is not None) == reaches for part in gradient)


def test_an_actor_learns_nothing_from_its_critics_loss(dreamer):
    """Although both come from one imagination: an actor that stands still has the gradient of its own loss alone."""
    start, gradients = start_states(dreamer), []
    for scale in (1.0, 1e6):  # of the critic's loss, by its error
        torch.manual_seed(0)
        dreamer.behavior.critic_optimizer.step = lambda loss, s=scale, f=ClippedAdam.step, **keywords: f(
            dreamer.optimizers["critic"], s * loss
        )
        dreamer.behavior.actor_optimizer.adam.step = lambda: None
        before = copy.deepcopy(dreamer.behavior.critic.state_dict())
        learn_behavior(dreamer, start=start)
        dreamer.behavior.critic.load_state_dict(before)
        gradients.append([part.grad.clone() for part in dreamer.behavior.actor.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_actor_learns_by_gradients_through_the_dynamics():
    """A reward for the action alone: its peak is found, and the gradient goes through the reward function."""
    settings = "actor_learning_rate=3e-3", "critic_learning_rate=3e-3", "agent.actor.init_std=1.0"
    dreamer = fill(make_dreamer(ToyEnv(), *settings), episodes=2)
    for _ in range(150):
        learn_behavior(dreamer, reward_function=lambda imagination: -((imagination.action[..., 0] - 0.5) ** 2))
    start = dreamer.dynamics_learning(sample(dreamer))[0]
    assert dreamer.behavior.actor(start.feature).rsample().mean().item() == pytest.approx(0.5, abs=0.15)


def learning_curve(precision):
    """The agent after 200 updates and, over every 20 of them, the mean imagined return; the reward is the action."""
    rates = "actor_learning_rate=1e-3", "critic_learning_rate=1e-3", "model_learning_rate=3e-3"
    dreamer = fill(make_dreamer(ToyEnv(), *rates, precision=precision), episodes=10)
    returns = [dreamer.update(sample(dreamer))["behavior/imagined_return"].item() for _ in range(200)]
    return dreamer, np.reshape(returns, (10, 20)).mean(1)


def test_actor_learns_through_the_learned_reward_and_alike_in_either_precision():
    """Dreamer as a whole must find that 1 is best."""
    agents, curves = zip(*map(learning_curve, ("float32", "bfloat16")), strict=True)
    for dreamer in agents:
        assert evaluate(dreamer) > 0.9 * ToyEnv().length
    assert 0 < np.abs(curves[0] / curves[1] - 1).max() < 0.3


def test_actor_input_is_detached(dreamer):
    """The gradient reaches earlier actions through the dynamics, never through the actor's own input."""
    actor, inputs = dreamer.behavior.actor, []
    actor.register_forward_pre_hook(lambda module, args: inputs.append(args[0].requires_grad))
    learn_behavior(dreamer)
    assert inputs == [False] * dreamer.config.horizon_length


def test_imagination_starts_from_every_posterior_state_of_the_batch(dreamer, monkeypatch):
    """But what is imagined after the end of a task does not count."""
    observed, learned = spy(monkeypatch, dreamer.model.rssm, "observe"), spy(monkeypatch, dreamer.behavior, "learn")
    batch = sample(dreamer)
    dreamer.update(batch)
    ((_, (_, posterior)),), (((_, start, weight, reward), _),) = observed, learned
    assert len(start.feature) == dreamer.config.batch_size * dreamer.config.batch_length
    torch.testing.assert_close(start.feature, posterior.feature.flatten(0, 1))
    assert not start.feature.requires_grad and reward == dreamer.predicted_reward
    assert batch.is_terminal.sum() > 0 and (weight == 1 - batch.is_terminal.flatten()).all()


def test_imagination_has_the_shapes_that_it_says(dreamer):
    imagination = dreamer.behavior.imagine(dreamer.model.rssm, start_states(dreamer))
    assert isinstance(imagination, Imagination)
    assert imagination.feature.shape == (80, 6, 20) and imagination.action.shape == (80, 5, 1)
    assert imagination.entropy.isfinite()


# Saving and going on


def learned(agent):
    """All that changes when it learns."""
    state = copy_to_cpu(agent.state_dict())
    moments = {name: optimizer["state"] for name, optimizer in state["optimizers"].items()}
    return {"networks": state["networks"], "moments": moments}


@pytest.mark.parametrize(
    "make, count",
    [(lambda env, seed: make_dreamer(env, "use_continue_flag=True", seed=seed), 3), (make_plan2explore, 6)],
)
def test_goes_on_from_a_state(make, count):
    """Networks and optimisers: another agent, restored, makes exactly the same next updates."""
    agent, other = (make(CoinEnv(terminates=True), seed=seed) for seed in (1, 2))
    fill(agent, episodes=3).update(sample(agent))
    state = copy_to_cpu(agent.state_dict())
    assert len(state["networks"]) == len(state["optimizers"]) == count
    assert changed(parameters(agent), parameters(other)) == set(state["networks"])
    other.load_state_dict(state)
    before = parameters(agent)
    for _ in range(2):
        batch = sample(agent)
        for each in (agent, other):
            torch.manual_seed(3)
            each.update(batch)
    assert changed(before, parameters(agent)) == set(state["networks"])
    torch.testing.assert_close(learned(agent), learned(other), rtol=0, atol=0)

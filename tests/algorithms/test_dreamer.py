import copy
import math

import numpy as np
import pytest
import torch

from dreamer.algorithms import algorithm
from dreamer.algorithms.losses import lambda_return
from dreamer.algorithms.prediction import observe
from dreamer.training.checkpoint_file import copy_to_cpu
from tests.toys import (
    CoinEnv,
    ToyEnv,
    changed,
    evaluate,
    fill,
    learn_model,
    make_dreamer,
    make_plan2explore,
    parameters,
    spy,
)


@pytest.fixture
def dreamer():
    """With a continue model and some episodes that end."""
    return fill(make_dreamer(CoinEnv(terminates=True), "use_continue_flag=True"), episodes=5)


def sample(dreamer):
    return dreamer.trainer.learner.sample()


def start_states(dreamer):
    """To imagine from, (N, ·), after a step of the model."""
    return learn_model(dreamer, sample(dreamer))[0].flatten()


def learn_behavior(dreamer, reward_function=None, start=None, is_terminal=None):
    start = start or start_states(dreamer)
    is_terminal = torch.zeros(len(start.feature)) if is_terminal is None else is_terminal
    return dreamer.learn_behavior(dreamer.actor_critic, start, is_terminal, reward_function or dreamer.predicted_reward)


# Which parameters a loss moves

PARTS = ["model", "actor", "critic", "one_step_model", "exploration_actor", "exploration_critic"]


@pytest.fixture(params=[(make_dreamer, "", 3), (make_plan2explore, "dreamer.", 6)], ids=["dreamer", "plan2explore"])
def make(request):
    """Makes an agent of either algorithm, with a continue model, that has seen some episodes that end."""
    make_agent, prefix, count = request.param

    def make(seed=0):
        settings = f"{prefix}use_continue_flag=True", f"{prefix}free_nats=0.0"
        agent = make_agent(CoinEnv(terminates=True), *settings, seed=seed)
        assert list(agent.networks) == list(agent.optimizers) == PARTS[:count]
        return fill(agent, episodes=5)

    return make


def test_each_loss_moves_exactly_its_own_parameters(make, monkeypatch):
    """In this order. Nothing is shared, and no part is left out."""
    agent, moved = make(), []
    for name, optimizer in agent.optimizers.items():

        def move(name=name, original=optimizer.move):
            before = parameters(agent)
            norm = original()
            moved.append((name, changed(before, parameters(agent))))
            return norm

        monkeypatch.setattr(optimizer, "move", move)
    agent.update(sample(agent))
    assert moved == [(part, {part}) for part in agent.networks]


def test_every_parameter_learns(make):
    """No part is left without a gradient, and no member of an ensemble."""
    agent = make()
    agent.update(sample(agent))
    for name, module in agent.networks.items():
        for parameter in module.parameters():
            assert all(part.any() for part in (parameter.grad if name == "one_step_model" else [parameter.grad]))


# The model loss


def test_model_loss_is_the_weighted_sum_of_its_terms(dreamer):
    dreamer.config.kl_divergence_scale = 0.5
    means = {name: value.item() for name, value in dreamer.update(sample(dreamer))[0].items()}
    expected = means["loss/reconstruction"] + means["loss/reward"]
    expected += 10 * means["loss/continue"] + 0.5 * max(3.0, means["loss/kl"])
    assert means["loss/model"] == pytest.approx(expected, rel=1e-5)


def test_continue_model_learns_where_the_task_ends(dreamer):
    """The last of 20 steps ends the task: the probability to go on falls there only."""
    env = ToyEnv(length=8, terminates=True)
    dreamer = fill(make_dreamer(env, "use_continue_flag=True", "model_learning_rate=3e-3"), episodes=20)
    for _ in range(150):
        learn_model(dreamer, sample(dreamer))
    batch = sample(dreamer)
    _, posterior = observe(dreamer.model, batch)
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
    imagined, start = spy(monkeypatch, algorithm, "imagine"), start_states(dreamer)
    live = torch.ones(len(start.feature))
    live[::3] = 0
    old_critic = copy.deepcopy(dreamer.actor_critic.critic)
    metrics = learn_behavior(dreamer, fixed_rewards, start, 1 - live)

    ((_, imagination),) = imagined
    states = imagination.feature[:, 1:].detach()
    reward, value = fixed_rewards(imagination), old_critic(states).mean.detach()
    goes_on = dreamer.model.continue_model(states).mean.detach() if use_continue_flag else torch.ones_like(reward)
    discount = 0.9 * goes_on
    returns = lambda_return(reward[:, :3], discount[:, :3], value[:, 1:], 0.95)
    weight = torch.stack([live, live * discount[:, 0], live * discount[:, 0] * discount[:, 1]], 1)
    assert metrics["loss/actor"].item() == pytest.approx(-(weight * returns).mean().item(), rel=1e-4)
    squared = 0.5 * (value[:, :3] - returns) ** 2 + 0.5 * math.log(2 * math.pi)
    assert metrics["loss/critic"].item() == pytest.approx((weight * squared).mean().item(), rel=1e-4)
    assert metrics["behavior/imagined_return"].item() == pytest.approx(returns.mean().item(), rel=1e-4)


def test_weights_and_targets_carry_no_gradient(dreamer):
    """Neither the critic's target nor the weights, which know the rewards and the discounts, reach its loss."""
    start = start_states(dreamer)
    is_terminal = torch.zeros(len(start.feature))
    reward = torch.zeros(len(start.feature), dreamer.config.horizon_length, requires_grad=True)
    actor, critic, _ = dreamer.behavior_losses(dreamer.actor_critic, start, is_terminal, lambda imagination: reward)
    for loss, reaches in [(actor, True), (critic, False)]:
        (gradient,) = torch.autograd.grad(loss, [reward], allow_unused=True)
        assert (gradient is not None) == reaches


def learning_curve(precision):
    """The agent after 60 updates and, over every 20 of them, the mean imagined return; the reward is the action."""
    rates = [f"{part}_learning_rate=3e-3" for part in ("actor", "critic", "model")]
    dreamer = fill(make_dreamer(ToyEnv(), *rates, precision=precision, seed=2), episodes=10)
    assert evaluate(dreamer) < 0
    returns = [dreamer.update(sample(dreamer))[0]["behavior/imagined_return"].item() for _ in range(60)]
    return dreamer, np.reshape(returns, (3, 20)).mean(1)


def test_actor_learns_through_the_learned_reward_and_alike_in_either_precision():
    """Dreamer as a whole must find that 1 is best."""
    agents, curves = zip(*map(learning_curve, ("float32", "bfloat16")), strict=True)
    for dreamer in agents:
        assert evaluate(dreamer) > 0.9 * ToyEnv().length
    assert 0 < np.abs(curves[0] / curves[1] - 1).max() < 0.3


def test_imagination_starts_from_every_posterior_state_of_the_batch(dreamer, monkeypatch):
    """But what is imagined after the end of a task does not count."""
    observed, learned = spy(monkeypatch, dreamer.model.rssm, "observe"), spy(monkeypatch, dreamer, "learn_behavior")
    batch = sample(dreamer)
    _, feature = dreamer.update(batch)
    ((_, (_, posterior)),), (((_, start, is_terminal, reward), _),) = observed, learned
    assert torch.equal(feature, posterior.feature) and not feature.requires_grad
    assert len(start.feature) == dreamer.config.batch_size * dreamer.config.batch_length
    torch.testing.assert_close(start.feature, posterior.feature.flatten(0, 1))
    assert not start.feature.requires_grad and reward == dreamer.predicted_reward
    assert batch.is_terminal.sum() > 0 and torch.equal(is_terminal, batch.is_terminal.flatten())


# Saving and going on


def learned(agent):
    """All that changes when it learns."""
    state = copy_to_cpu(agent.state_dict())
    moments = {name: optimizer["state"] for name, optimizer in state["optimizers"].items()}
    return {"networks": state["networks"], "moments": moments}


def test_goes_on_from_a_state(make):
    """Networks and optimisers: another agent, restored, makes exactly the same next updates."""
    agent, other = make(seed=1), make(seed=2)
    agent.update(sample(agent))
    state = copy_to_cpu(agent.state_dict())
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

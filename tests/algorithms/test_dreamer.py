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
    """Return an agent with a continue model and five terminal episodes in its replay."""
    return fill(make_dreamer(CoinEnv(terminates=True), "use_continue_flag=True"), episodes=5)


def sample(dreamer):
    return dreamer.trainer.learner.sample()


def start_states(dreamer):
    """Return posterior states, (N, ·), after one gradient step of the world model."""
    return learn_model(dreamer, sample(dreamer))[0].flatten()


def learn_behavior(dreamer, reward_function=None, start=None, is_terminal=None):
    start = start or start_states(dreamer)
    is_terminal = torch.zeros(len(start.feature)) if is_terminal is None else is_terminal
    return dreamer.learn_behavior(dreamer.actor_critic, start, is_terminal, reward_function or dreamer.predicted_reward)


# Which parameters a loss moves

PARTS = ["model", "actor", "critic", "one_step_model", "exploration_actor", "exploration_critic"]


@pytest.fixture(params=[(make_dreamer, "", 3), (make_plan2explore, "dreamer.", 6)], ids=["dreamer", "plan2explore"])
def make(request):
    """Return a function that makes an agent with a continue model and five terminal episodes in its replay."""
    make_agent, prefix, count = request.param

    def make(seed=0):
        settings = f"{prefix}use_continue_flag=True", f"{prefix}free_nats=0.0"
        agent = make_agent(CoinEnv(terminates=True), *settings, seed=seed)
        assert list(agent.networks) == list(agent.optimizers) == PARTS[:count]
        return fill(agent, episodes=5)

    return make


def test_each_loss_moves_exactly_its_own_parameters(make, monkeypatch):
    """Each optimiser, in the order of `networks`, changes the parameters of its own network and no others."""
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


def test_every_parameter_receives_a_gradient(make):
    """Every parameter of every network, and of every member of an ensemble, has a nonzero gradient."""
    agent = make()
    agent.update(sample(agent))
    for name, module in agent.networks.items():
        for parameter in module.parameters():
            assert all(part.any() for part in (parameter.grad if name == "one_step_model" else [parameter.grad]))


# The model loss


def test_model_loss_is_the_weighted_sum_of_its_terms(dreamer):
    dreamer.config.kl_divergence_scale = 0.5
    metrics = {name: value.item() for name, value in dreamer.update(sample(dreamer))[0].items()}
    expected = metrics["loss/reconstruction"] + metrics["loss/reward"]
    expected += 10 * metrics["loss/continue"] + 0.5 * max(3.0, metrics["loss/kl"])
    assert metrics["loss/model"] == pytest.approx(expected, rel=1e-5)


def test_continue_model_learns_where_the_task_ends(dreamer):
    """The predicted probability to continue is low in terminal states and high elsewhere."""
    env = ToyEnv(length=8, terminates=True)
    dreamer = fill(make_dreamer(env, "use_continue_flag=True", "model_learning_rate=3e-3"), episodes=20)
    for _ in range(150):
        learn_model(dreamer, sample(dreamer))
    batch = sample(dreamer)
    _, posterior = observe(dreamer.model, batch)
    continue_probability = dreamer.model.continue_model(posterior.feature).mean
    assert (
        continue_probability[batch.is_terminal == 1].mean() < 0.2
        and continue_probability[batch.is_terminal == 0].mean() > 0.9
    )


# The behaviour's losses


def fixed_rewards(imagination):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(imagination.action.shape[:2], generator=generator)


@pytest.mark.parametrize("use_continue_flag", [False, True])
def test_actor_and_critic_loss_match_equations_7_and_8(use_continue_flag, monkeypatch):
    """Both losses are weighted by the cumulative discount, which starts at 1 for s_1."""
    settings = f"use_continue_flag={use_continue_flag}", "horizon_length=4", "discount=0.9"
    dreamer = fill(make_dreamer(ToyEnv(), *settings), episodes=2)
    imagine_calls, start = spy(monkeypatch, algorithm, "imagine"), start_states(dreamer)
    is_live = torch.ones(len(start.feature))
    is_live[::3] = 0
    old_critic = copy.deepcopy(dreamer.actor_critic.critic)
    metrics = learn_behavior(dreamer, fixed_rewards, start, 1 - is_live)

    ((_, imagination),) = imagine_calls
    states = imagination.feature[:, 1:].detach()
    reward, value = fixed_rewards(imagination), old_critic(states).mean.detach()
    continue_probability = (
        dreamer.model.continue_model(states).mean.detach() if use_continue_flag else torch.ones_like(reward)
    )
    discount = 0.9 * continue_probability
    returns = lambda_return(reward[:, :3], discount[:, :3], value[:, 1:], 0.95)
    weight = torch.stack([is_live, is_live * discount[:, 0], is_live * discount[:, 0] * discount[:, 1]], 1)
    assert metrics["loss/actor"].item() == pytest.approx(-(weight * returns).mean().item(), rel=1e-4)
    squared = 0.5 * (value[:, :3] - returns) ** 2 + 0.5 * math.log(2 * math.pi)
    assert metrics["loss/critic"].item() == pytest.approx((weight * squared).mean().item(), rel=1e-4)
    assert metrics["behavior/imagined_return"].item() == pytest.approx(returns.mean().item(), rel=1e-4)


def test_weights_and_targets_carry_no_gradient(dreamer):
    """The actor loss has a gradient with respect to the reward; the critic loss has none."""
    start = start_states(dreamer)
    is_terminal = torch.zeros(len(start.feature))
    reward = torch.zeros(len(start.feature), dreamer.config.horizon_length, requires_grad=True)
    actor, critic, _ = dreamer.behavior_losses(dreamer.actor_critic, start, is_terminal, lambda imagination: reward)
    for loss, reaches in [(actor, True), (critic, False)]:
        (gradient,) = torch.autograd.grad(loss, [reward], allow_unused=True)
        assert (gradient is not None) == reaches


def learning_curve(precision):
    """Train for 60 updates in ToyEnv. Return the agent and the mean imagined return of each 20 updates."""
    rates = [f"{part}_learning_rate=3e-3" for part in ("actor", "critic", "model")]
    dreamer = fill(make_dreamer(ToyEnv(), *rates, precision=precision, seed=2), episodes=10)
    assert evaluate(dreamer) < 0
    returns = [dreamer.update(sample(dreamer))[0]["behavior/imagined_return"].item() for _ in range(60)]
    return dreamer, np.reshape(returns, (3, 20)).mean(1)


def test_actor_learns_from_the_predicted_reward_in_float32_and_bfloat16():
    """In ToyEnv the reward is the action, so the best action is 1."""
    agents, curves = zip(*map(learning_curve, ("float32", "bfloat16")), strict=True)
    for dreamer in agents:
        assert evaluate(dreamer) > 0.9 * ToyEnv().length
    assert 0 < np.abs(curves[0] / curves[1] - 1).max() < 0.3


def test_imagination_starts_from_every_posterior_state_of_the_batch(dreamer, monkeypatch):
    """The terminal flags of the start states are passed on, so that imagination from them has no weight."""
    observe_calls, learn_calls = (
        spy(monkeypatch, dreamer.model.rssm, "observe"),
        spy(monkeypatch, dreamer, "learn_behavior"),
    )
    batch = sample(dreamer)
    _, feature = dreamer.update(batch)
    ((_, (_, posterior)),), (((_, start, is_terminal, reward), _),) = observe_calls, learn_calls
    assert torch.equal(feature, posterior.feature) and not feature.requires_grad
    assert len(start.feature) == dreamer.config.batch_size * dreamer.config.batch_length
    torch.testing.assert_close(start.feature, posterior.feature.flatten(0, 1))
    assert not start.feature.requires_grad and reward == dreamer.predicted_reward
    assert batch.is_terminal.sum() > 0 and torch.equal(is_terminal, batch.is_terminal.flatten())


# Saving and going on


def learned_state(agent):
    """Return the networks' weights and the optimisers' moments."""
    state = copy_to_cpu(agent.state_dict())
    moments = {name: optimizer["state"] for name, optimizer in state["optimizers"].items()}
    return {"networks": state["networks"], "moments": moments}


def test_restored_agent_makes_identical_updates(make):
    """After `load_state_dict` another agent makes the same updates, bit for bit."""
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
    torch.testing.assert_close(learned_state(agent), learned_state(other), rtol=0, atol=0)

import copy
import math

import numpy as np
import pytest
import torch

from dreamer.algorithms.actor_critic import Imagination
from dreamer.algorithms.returns import lambda_return
from dreamer.checkpoint import copy_to_cpu
from dreamer.config import ConfigError
from dreamer.metrics import NotFiniteError
from dreamer.optim import ClippedAdam
from tests.toys import (
    CoinEnv,
    ToyEnv,
    changed,
    evaluate,
    fill,
    make_dreamer,
    make_evaluator,
    make_plan2explore,
    parameters,
)


@pytest.fixture
def dreamer():
    """With a continue model and some episodes that end."""
    env = CoinEnv(terminates=True)
    dreamer = make_dreamer(env, "use_continue_flag=True")
    fill(dreamer, env, episodes=5)
    return dreamer


def learn_behavior(dreamer, reward_function=None):
    batch = dreamer.sample()
    start = dreamer.dynamics_learning(batch)[0].flatten()
    weight = torch.ones(len(start.feature))
    return dreamer.behavior_learning(dreamer.behavior, start, weight, reward_function or dreamer.predicted_reward)


# Which parameters a loss moves


def test_each_loss_moves_exactly_its_own_parameters(dreamer, monkeypatch):
    moved = {}
    optimizers = {
        "model": dreamer.model_optimizer,
        "actor": dreamer.behavior.actor_optimizer,
        "critic": dreamer.behavior.critic_optimizer,
    }
    for name, optimizer in optimizers.items():

        def step(loss, name=name, original=optimizer.step, **keywords):
            before = parameters(dreamer)
            norm = original(loss, **keywords)
            moved[name] = changed(before, parameters(dreamer))
            return norm

        monkeypatch.setattr(optimizer, "step", step)
    dreamer.update(dreamer.sample())
    assert moved == {"model": {"model"}, "actor": {"actor"}, "critic": {"critic"}}


def test_every_parameter_learns(dreamer):
    """No part of the world model, the actor or the critic is left without a gradient."""
    dreamer.config.free_nats = 0.0
    dreamer.update(dreamer.sample())
    for module in (dreamer.model, dreamer.behavior.actor, dreamer.behavior.critic):
        still = [name for name, parameter in module.named_parameters() if not parameter.grad.abs().sum() > 0]
        assert not still


# The model loss


def test_model_loss_is_the_weighted_sum_of_its_terms(dreamer):
    dreamer.config.kl_divergence_scale = 0.5
    means = {name: value.item() for name, value in dreamer.update(dreamer.sample()).items()}
    expected = means["loss/reconstruction"] + means["loss/reward"]
    expected += 10 * means["loss/continue"] + 0.5 * max(3.0, means["loss/kl"])
    assert means["loss/model"] == pytest.approx(expected, rel=1e-5)


def test_free_nats_bound_the_mean_kl(dreamer):
    """Under the bound the KL has no gradient, so the prior has none at all; above it, it has."""
    prior = dreamer.model.rssm.transition_model.network[0].weight
    dreamer.config.free_nats = 1000.0
    dreamer.dynamics_learning(dreamer.sample())
    assert prior.grad.abs().sum() == 0
    dreamer.config.free_nats = 0.0
    dreamer.dynamics_learning(dreamer.sample())
    assert prior.grad.abs().sum() > 0


def test_free_nats_apply_after_averaging(dreamer, monkeypatch):
    """A bound that some steps are below and the mean is not changes nothing at all."""
    batch, gradients = dreamer.sample(), []
    torch.manual_seed(0)
    prior, posterior = dreamer.model.rssm.observe(
        dreamer.model.encoder(batch.observation), batch.action, batch.is_first
    )
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
    batch = dreamer.sample()
    prior, posterior = dreamer.model.rssm.observe(
        dreamer.model.encoder(batch.observation), batch.action, batch.is_first
    )
    ratio = posterior.std / prior.std
    kl = (-ratio.log() + (ratio**2 + ((posterior.mean - prior.mean) / prior.std) ** 2 - 1) / 2).sum(-1).mean()
    torch.testing.assert_close(dreamer.model_losses(batch, prior, posterior)["loss/kl"], kl)


def test_continue_model_learns_where_the_task_ends(dreamer):
    """The last of 20 steps ends the task: the probability to go on falls there only."""
    env = ToyEnv(length=8, terminates=True)
    dreamer = make_dreamer(env, "use_continue_flag=True", "model_learning_rate=3e-3")
    fill(dreamer, env, episodes=20)
    for _ in range(150):
        dreamer.dynamics_learning(dreamer.sample())
    batch = dreamer.sample()
    _, posterior = dreamer.model.rssm.observe(dreamer.model.encoder(batch.observation), batch.action, batch.is_first)
    goes_on = dreamer.model.continue_model(posterior.feature).mean
    assert goes_on[batch.is_terminal == 1].mean() < 0.2 and goes_on[batch.is_terminal == 0].mean() > 0.9


# The behaviour's losses


def fixed_rewards(imagination):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(imagination.action.shape[:2], generator=generator)


@pytest.mark.parametrize("use_continue_flag", [False, True])
def test_actor_and_critic_loss_as_printed(use_continue_flag, monkeypatch):
    """Both weighted by the cumulative discount of their imagined step, from 1 at s_1, with an explicit bootstrap."""
    env = ToyEnv()
    dreamer = make_dreamer(env, f"use_continue_flag={use_continue_flag}", "horizon_length=4", "discount=0.9")
    fill(dreamer, env, episodes=2)
    seen = {}
    imagine = dreamer.imagine
    monkeypatch.setattr(dreamer, "imagine", lambda *args: seen.setdefault("imagination", imagine(*args)))
    critic = dreamer.behavior.critic
    start = dreamer.dynamics_learning(dreamer.sample())[0].flatten()
    live = torch.ones(len(start.feature))
    live[::3] = 0
    old_critic = type(critic)(start.feature.shape[-1], hidden_size=32, num_layers=3, activation="ELU")
    old_critic.load_state_dict(critic.state_dict())
    metrics = dreamer.behavior_learning(dreamer.behavior, start, live, fixed_rewards)

    imagination = seen["imagination"]
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
    start = dreamer.dynamics_learning(dreamer.sample())[0].flatten()
    captured = {}
    for name in ("actor", "critic"):
        optimizer = getattr(dreamer.behavior, f"{name}_optimizer")
        optimizer.step = lambda loss, name=name, **keywords: captured.setdefault(name, loss)
    reward = torch.zeros(len(start.feature), dreamer.config.horizon_length, requires_grad=True)
    weight = torch.ones(len(start.feature))
    dreamer.behavior_learning(dreamer.behavior, start, weight, lambda imagination: reward)
    known = [reward, *dreamer.model.continue_model.parameters()]
    for name, reaches in [("actor", True), ("critic", False)]:
        gradient = torch.autograd.grad(captured[name], known, allow_unused=True, retain_graph=True)
        assert all((part is not None) == reaches for part in gradient)


def test_an_actor_learns_nothing_from_its_critics_loss(dreamer):
    """Although both come from one imagination: an actor that stands still has the gradient of its own loss alone."""
    start, gradients = dreamer.dynamics_learning(dreamer.sample())[0].flatten(), []
    for scale in (1.0, 1e6):  # of the critic's loss, by its error
        torch.manual_seed(0)
        dreamer.behavior.critic_optimizer.step = lambda loss, s=scale, f=ClippedAdam.step, **keywords: f(
            dreamer.optimizers["critic"], s * loss
        )
        dreamer.behavior.actor_optimizer.adam.step = lambda: None
        before = copy.deepcopy(dreamer.behavior.critic.state_dict())
        dreamer.behavior_learning(dreamer.behavior, start, torch.ones(len(start.feature)), dreamer.predicted_reward)
        dreamer.behavior.critic.load_state_dict(before)
        gradients.append([part.grad.clone() for part in dreamer.behavior.actor.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_actor_learns_by_gradients_through_the_dynamics():
    """A reward for the action alone: its peak is found, and the gradient goes through the reward function."""
    env = ToyEnv()
    dreamer = make_dreamer(env, "actor_learning_rate=3e-3", "critic_learning_rate=3e-3", "agent.actor.init_std=1.0")
    fill(dreamer, env, episodes=2)
    for _ in range(150):
        learn_behavior(dreamer, reward_function=lambda imagination: -((imagination.action[..., 0] - 0.5) ** 2))
    start = dreamer.dynamics_learning(dreamer.sample())[0]
    assert dreamer.behavior.actor(start.feature).rsample().mean().item() == pytest.approx(0.5, abs=0.15)


def learning_curve(precision):
    """The agent after 200 updates and, over every 20 of them, the mean imagined return; the reward is the action."""
    env = ToyEnv()
    dreamer = make_dreamer(env, "actor_learning_rate=1e-3", "critic_learning_rate=1e-3", "model_learning_rate=3e-3")
    dreamer.operation.precision = precision
    fill(dreamer, env, episodes=10)
    returns = [dreamer.update(dreamer.sample())["behavior/imagined_return"].item() for _ in range(200)]
    return dreamer, np.reshape(returns, (10, 20)).mean(1)


def test_actor_learns_through_the_learned_reward_and_alike_in_either_precision():
    """Dreamer as a whole must find that 1 is best."""
    agents, curves = zip(*map(learning_curve, ("float32", "bfloat16")), strict=True)
    for dreamer in agents:
        assert evaluate(dreamer, ToyEnv()) > 0.9 * ToyEnv().length
    assert 0 < np.abs(curves[0] - curves[1]).max() < 0.15 * np.ptp(curves[0])


def test_actor_input_is_detached(dreamer, monkeypatch):
    """The gradient reaches earlier actions through the dynamics, never through the actor's own input."""
    actor, inputs = dreamer.behavior.actor, []
    actor.register_forward_pre_hook(lambda module, args: inputs.append(args[0].requires_grad))
    learn_behavior(dreamer)
    assert inputs == [False] * dreamer.config.horizon_length


def test_imagination_starts_from_every_posterior_state_of_the_batch(dreamer, monkeypatch):
    observed, started = [], []
    observe, imagine = dreamer.model.rssm.observe, dreamer.imagine
    monkeypatch.setattr(dreamer.model.rssm, "observe", lambda *args: observed.append(observe(*args)) or observed[0])
    monkeypatch.setattr(dreamer, "imagine", lambda actor, start: started.append(start) or imagine(actor, start))
    dreamer.update(dreamer.sample())
    ((_, posterior),), (start,) = observed, started
    assert len(start.feature) == dreamer.config.batch_size * dreamer.config.batch_length
    torch.testing.assert_close(start.feature, posterior.feature.flatten(0, 1))
    assert not any(part.requires_grad for part in start)


def test_what_is_imagined_after_the_end_of_a_task_does_not_count(dreamer, monkeypatch):
    seen = []
    learn = dreamer.behavior_learning
    monkeypatch.setattr(dreamer, "behavior_learning", lambda *args: seen.append(args[2]) or learn(*args))
    batch = dreamer.sample()
    dreamer.update(batch)
    assert batch.is_terminal.sum() > 0
    assert (seen[0] == 1 - batch.is_terminal.flatten()).all()


def test_imagination_has_the_shapes_that_it_says(dreamer):
    start = dreamer.dynamics_learning(dreamer.sample())[0].flatten()
    imagination = dreamer.imagine(dreamer.behavior.actor, start)
    assert isinstance(imagination, Imagination)
    assert imagination.feature.shape == (80, 6, 20) and imagination.action.shape == (80, 5, 1)
    assert imagination.entropy.isfinite()


# Algorithm 1


class Returns(ToyEnv):
    """The n-th episode returns n."""

    def __init__(self):
        super().__init__(length=12)
        self.episode = 0

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        return super().reset()

    def reward(self, action):
        return float(self.episode) / self.length


def test_evaluation_is_the_mean_over_its_episodes():
    env = Returns()
    dreamer = make_dreamer(env, "num_evaluate=3")
    assert evaluate(dreamer, env) == pytest.approx(2.0)
    assert evaluate(dreamer, env) == pytest.approx(5.0)
    assert dreamer.logger.of("eval/return") == pytest.approx([2.0, 5.0])
    decay = 1 - 2 / 21
    assert dreamer.logger.of("eval/return_ema20")[1] == pytest.approx((2 * decay + 5) / (decay + 1))
    assert len(dreamer.buffer) == 0, "what evaluation sees is not learned from"


def test_schedule(monkeypatch):
    """Seed episodes with random actions, then per iteration: updates, episodes, and an evaluation when it is due."""
    env, eval_env = ToyEnv(length=12), ToyEnv(length=12, seed=1)
    dreamer = make_dreamer(
        env,
        "seed_episodes=2",
        "train_iterations=5",
        "collect_interval=3",
        "num_interaction_episodes=2",
        "evaluate_interval=2",
    )
    events = []
    for name in ("update", "environment_interaction", "evaluate"):
        original = getattr(dreamer, name)
        monkeypatch.setattr(dreamer, name, lambda *args, n=name, f=original: events.append(n) or f(*args))
    dreamer.train(env, make_evaluator(dreamer, eval_env))
    iteration = ["update"] * 3 + ["environment_interaction"]
    evaluated = [*iteration, "evaluate"]
    assert events == ["environment_interaction", *iteration, *evaluated, *iteration, *evaluated, *evaluated]
    assert [step for tag, _, step in dreamer.logger.rows if tag == "train/return"] == [12 * i for i in range(1, 13)]
    assert [step for tag, _, step in dreamer.logger.rows if tag == "eval/return"] == [72, 120, 144]
    assert [step for tag, _, step in dreamer.logger.rows if tag == "loss/model"] == [24, 48, 72, 96, 120]
    assert dreamer.logger.of("train/length") == [12] * 12 and dreamer.logger.of("replay/steps")[-1] == 13 * 12
    assert dreamer.env_steps == 144


def test_seed_episodes_are_uniformly_random():
    env = ToyEnv(length=200)
    dreamer = make_dreamer(env, "seed_episodes=10", "train_iterations=1", "collect_interval=1")
    dreamer.train(env, make_evaluator(dreamer, ToyEnv()))
    actions = dreamer.buffer.read([0], 10 * 201).action[0, :, 0]
    actions = np.sort(actions[actions != 0])
    assert np.abs(actions - np.linspace(-1, 1, len(actions))).max() < 0.05


def test_a_window_longer_than_the_seed_episodes_is_refused_before_they_are_played():
    env = ToyEnv(length=8)
    dreamer = make_dreamer(env, "seed_episodes=1")
    with pytest.raises(ConfigError, match="batch_length: 10 agent steps, but the seed episodes store 9"):
        dreamer.train(env, make_evaluator(dreamer, ToyEnv()))
    assert len(dreamer.buffer) == 0


def test_and_after_that_if_the_episodes_turn_out_shorter():
    env = ToyEnv(length=3)
    env.max_agent_steps = None
    with pytest.raises(ConfigError, match="store 4; lower it, or raise parameters.dreamer.seed_episodes"):
        make_dreamer(env, "seed_episodes=1").train(env, None)


def test_metrics_are_means_over_the_iterations_updates(dreamer, monkeypatch):
    monkeypatch.setattr(dreamer, "update", lambda batch: {"x": torch.tensor(next(numbers))})
    numbers = iter(range(1, 1000))
    dreamer.config.collect_interval = 3
    dreamer.learn()
    dreamer.learn()
    assert dreamer.logger.of("x") == [2.0, 5.0]


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
    """Networks, optimisers, counters: another agent, restored, makes exactly the same next updates."""
    env = CoinEnv(terminates=True)
    agent, other = (make(env, seed=seed) for seed in (1, 2))
    fill(agent, env, episodes=3)
    agent.iteration = 7
    agent.update(agent.sample())
    evaluate(agent, env)
    state = copy_to_cpu(agent.state_dict())
    assert len(state["networks"]) == len(state["optimizers"]) == count
    assert changed(parameters(agent), parameters(other)) == set(state["networks"])
    other.load_state_dict(state)
    assert (other.iteration, other.env_steps) == (7, 60) == (agent.iteration, agent.env_steps)
    before = parameters(agent)
    for _ in range(2):
        batch = agent.sample()
        for each in (agent, other):
            torch.manual_seed(3)
            each.update(batch)
    assert changed(before, parameters(agent)) == set(state["networks"])
    torch.testing.assert_close(learned(agent), learned(other), rtol=0, atol=0)
    assert agent.evaluation_average.add(5.0) == other.evaluation_average.add(5.0) != 5.0


def count_calls(monkeypatch, dreamer, *names):
    calls = []
    for name in names:
        original = getattr(dreamer, name)
        monkeypatch.setattr(dreamer, name, lambda *args, n=name, f=original: calls.append(n) or f(*args))
    return calls


def test_training_goes_on_after_the_iteration_that_it_was_restored_to(monkeypatch):
    """Without seed episodes; what was due in the whole run is due now."""
    settings = ["train_iterations=5", "collect_interval=1", "seed_episodes=2", "evaluate_interval=2"]
    env, checkpointed = ToyEnv(length=12), []
    dreamer = make_dreamer(env, *settings)
    evaluator = make_evaluator(dreamer, ToyEnv(length=12))
    dreamer.train(env, evaluator, lambda iteration, last: checkpointed.append((iteration, last)))
    assert checkpointed == [(1, False), (2, False), (3, False), (4, False), (5, True)]

    other = make_dreamer(env, *settings)
    fill(other, env, episodes=5)
    other.load_state_dict(copy_to_cpu(dreamer.state_dict()) | {"iteration": 3, "env_steps": 60})
    calls, checkpointed = count_calls(monkeypatch, other, "learn", "environment_interaction", "evaluate"), []
    other.train(env, evaluator, lambda iteration, last: checkpointed.append((iteration, last)))
    assert calls == 2 * ["learn", "environment_interaction", "evaluate"]
    assert checkpointed == [(4, False), (5, True)]
    assert [step for tag, _, step in other.logger.rows if tag == "train/return"][5:] == [72, 84]
    other.train(env, evaluator, lambda iteration, last: checkpointed.append((iteration, last)))
    assert len(checkpointed) == 2, "it is complete"


def test_a_checkpoint_comes_after_everything_else_in_its_iteration(monkeypatch):
    env = ToyEnv(length=12)
    dreamer, seen = make_dreamer(env, "train_iterations=2", "collect_interval=1"), []
    calls = count_calls(monkeypatch, dreamer, "learn", "environment_interaction", "evaluate", "log")

    def checkpoint(iteration, last):
        seen.append(dreamer.state_dict()["iteration"])
        calls.append("checkpoint")

    dreamer.train(env, make_evaluator(dreamer, ToyEnv(length=12)), checkpoint)
    assert seen == [1, 2] and calls[-1] == "checkpoint" and dreamer.logger.rows[-1][0] == "replay/steps"
    between = calls[calls.index("checkpoint") + 1 :]
    assert [call for call in between if call != "log"] == ["learn", "environment_interaction", "evaluate", "checkpoint"]


def test_what_is_not_finite_stops_the_run_before_it_is_reported_or_acted_on(monkeypatch):
    env, checkpointed = ToyEnv(length=12), []
    dreamer = make_dreamer(env, "train_iterations=1", "collect_interval=1", "seed_episodes=1", "batch_length=13")
    monkeypatch.setattr(env, "reward", lambda action: math.nan if env.count == 5 else 0.0)
    calls = count_calls(monkeypatch, dreamer, "environment_interaction", "evaluate")
    with pytest.raises(NotFiniteError, match=r"not finite in iteration 1: .*loss/reward") as caught:
        dreamer.train(env, make_evaluator(dreamer, env), lambda iteration, last: checkpointed.append(iteration))
    assert "loss/model" in str(caught.value) and "loss/kl" not in str(caught.value)
    assert calls == ["environment_interaction"] and len(dreamer.buffer) == 13, "the seed episode"
    assert checkpointed == [] and dreamer.logger.of("loss/reward") == []


@pytest.mark.parametrize("loss, error", [(math.nan, NotFiniteError), (1.0, RuntimeError)])
def test_an_update_that_fails_because_of_what_is_not_finite_says_so(loss, error, dreamer, monkeypatch):
    """Other failures stay what they are."""

    def update(batch):
        dreamer.unfinished = {"loss/x": torch.tensor(loss)}
        raise RuntimeError("probabilities")

    monkeypatch.setattr(dreamer, "update", update)
    with pytest.raises(error, match="loss/x" if error is NotFiniteError else "probabilities"):
        dreamer.learn()

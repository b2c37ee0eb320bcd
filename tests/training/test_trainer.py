"""The trainer: the order of Algorithm 1, logging, and restoring."""

import gc
import math

import numpy as np
import pytest
import torch

from dreamer.config.load import load_config
from dreamer.errors import ConfigError, NotFiniteError
from dreamer.training.checkpoint_file import copy_to_cpu
from dreamer.training.cuda_graph import CudaGraphed
from tests.simulated_cuda_graph import simulated_cuda_graphs
from tests.toys import (
    SMALL,
    ToyEnv,
    evaluate,
    fill,
    make_agent,
    make_dreamer,
    make_plan2explore,
    parameters,
    train,
)


class Growing(ToyEnv):
    """The n-th episode takes 20 n steps, each with a reward of 1."""

    def __init__(self, length=0):
        super().__init__(length)

    def reset(self, *, seed=None, options=None):
        self.length += 20
        return super().reset()

    def reward(self, action):
        return 1.0


def steps_of(trainer, tag):
    return [step for name, _, step in trainer.logger.rows if name == tag]


def count_calls(monkeypatch, target, *names):
    calls = []
    for name in names:
        original = getattr(target, name)
        monkeypatch.setattr(
            target, name, lambda *args, n=name, f=original, **keywords: calls.append(n) or f(*args, **keywords)
        )
    return calls


def test_evaluation_return_is_the_mean_over_its_episodes():
    dreamer = make_dreamer(Growing(), "num_evaluate=3")
    assert evaluate(dreamer) == 40 and evaluate(dreamer) == 100
    logger = dreamer.trainer.logger
    assert logger.of("eval/return") == [40, 100]
    decay = 1 - 2 / 21
    assert logger.of("eval/return_ema20")[1] == pytest.approx((40 * decay + 100) / (decay + 1))
    assert len(dreamer.trainer.replay) == 0, "evaluation episodes are not stored"


SCHEDULE = ["seed_episodes=2", "train_iterations=5", "collect_interval=3", "evaluate_interval=2"]


def test_schedule(monkeypatch):
    """Seed episodes come first; each iteration has updates, episodes and, at its interval, an evaluation."""
    dreamer = make_dreamer(ToyEnv(length=12), *SCHEDULE, "num_interaction_episodes=2")
    trainer = dreamer.trainer
    events = count_calls(monkeypatch, trainer, "learn", "collect", "evaluate")
    updates = count_calls(monkeypatch, dreamer, "update")
    train(dreamer, ToyEnv(length=12, seed=1))
    iteration, evaluated = ["learn", "collect"], ["learn", "collect", "evaluate"]
    assert events == ["collect", "learn", *iteration, *evaluated, *iteration, *evaluated, *evaluated]
    assert len(updates) == 5 * 3
    assert steps_of(trainer, "train/return") == [12 * i for i in range(1, 13)]
    assert steps_of(trainer, "eval/return") == [72, 120, 144]
    assert steps_of(trainer, "loss/model") == [24, 48, 72, 96, 120]
    assert trainer.logger.of("train/length") == [12] * 12 and trainer.logger.of("replay/steps")[-1] == 13 * 12
    assert trainer.env_steps == 144


@pytest.mark.parametrize("limit, iterations", [(71, 4), (72, 4), (73, 5), (1000, 5), (1, 1)])
def test_run_ends_with_the_iteration_that_reaches_max_env_steps(limit, iterations, monkeypatch):
    """The steps of seed episodes count, but at least one iteration runs. The last iteration is always evaluated."""
    dreamer, ends = make_dreamer(ToyEnv(length=12), *SCHEDULE, f"max_env_steps={limit}"), []
    monkeypatch.setattr(dreamer, "update", lambda batch, updates: ({}, None))
    train(dreamer, ToyEnv(length=12, seed=1), lambda iteration, last: ends.append(last))
    assert dreamer.trainer.iteration == iterations and dreamer.trainer.env_steps == 24 + 12 * iterations
    assert ends == [*(iterations - 1) * [False], True]
    evaluated_iterations = {2, 4, iterations} & {*range(1, iterations + 1)}
    assert steps_of(dreamer.trainer, "eval/return") == [24 + 12 * number for number in sorted(evaluated_iterations)]


def test_seed_episodes_are_uniformly_random():
    dreamer = make_dreamer(ToyEnv(length=200), "seed_episodes=10", "train_iterations=1", "collect_interval=1")
    actions = train(dreamer, ToyEnv()).trainer.replay.read([0], 10 * 201).action[0, :, 0]
    actions = np.sort(actions[actions != 0])
    assert np.abs(actions - np.linspace(-1, 1, len(actions))).max() < 0.05


@pytest.mark.parametrize("known, length, stored", [(8, 8, 9), (None, 3, 4)])
def test_window_longer_than_the_seed_episodes_is_refused(known, length, stored):
    env = ToyEnv(length)
    env.max_agent_steps = known
    dreamer = make_dreamer(env, "seed_episodes=1")
    message = f"batch_length: 10 agent steps, but the seed episodes store {stored}; lower it, or raise .*seed_episodes"
    with pytest.raises(ConfigError, match=message):
        train(dreamer)
    assert len(dreamer.trainer.replay) == (0 if known else stored)


def test_metrics_are_means_over_the_updates_of_an_iteration(monkeypatch):
    dreamer = fill(make_dreamer(ToyEnv()), episodes=1)
    numbers = iter(range(1, 1000))
    monkeypatch.setattr(dreamer, "update", lambda batch, updates: ({"x": torch.tensor(next(numbers))}, None))
    for _ in range(2):
        dreamer.trainer.learner.owed += 3
        dreamer.trainer.learn(dreamer)
    assert dreamer.trainer.logger.of("x") == [2.0, 5.0]


@pytest.mark.parametrize("device, pins", [("cpu", False), ("cuda", True)])
def test_batches_for_a_gpu_are_sampled_into_pinned_memory(device, pins, monkeypatch):
    """Every part of the batch is in pinned memory."""
    trainer, pin_requests = fill(make_dreamer(ToyEnv()), 2).trainer, []
    monkeypatch.setattr(trainer.learner, "device", torch.device(device))
    monkeypatch.setattr("dreamer.training.learner.to_device", lambda batch, device: batch)
    empty = torch.empty

    def recorded_empty(*arguments, pin_memory, **keywords):
        pin_requests.append(pin_memory)
        return empty(*arguments, **keywords)

    monkeypatch.setattr(torch, "empty", recorded_empty)
    _, batch = trainer.learner.fetch()
    assert pin_requests == [pins] * len(batch) and batch.reward.shape == (8, 10)


# Saving and restoring


@pytest.mark.parametrize("config", ["dreamer", "dreamer-v2", "dreamer-v3", "plan2explore"])
def test_no_autograd_graph_outlives_its_update(config, monkeypatch):
    """A graph would hold memory and, on a GPU, nodes of another stream than the recording one."""

    def graphs():
        return [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor) and each.grad_fn]

    agent = fill(make_agent(load_config(config, SMALL), ToyEnv()), 2)
    update, alive = agent.update, []
    monkeypatch.setattr(agent, "update", lambda batch, updates: alive.append(graphs()) or update(batch, updates))
    gc.freeze()  # exclude objects that exist already
    try:
        agent.trainer.learner.make(agent, 3)
        assert [*alive, graphs()] == [[]] * 4
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("config", ["dreamer", "dreamer-v2", "dreamer-v3"])
def test_restored_state_is_used_by_a_recorded_cuda_graph(config, monkeypatch):
    """A CUDA graph keeps its tensors, but restoring may replace an optimiser's tensors."""

    def weights(device):
        monkeypatch.setattr(
            "dreamer.training.learner.CudaGraphed", lambda function, _: CudaGraphed(function, torch.device(device))
        )
        agent = fill(make_agent(load_config(config, SMALL), ToyEnv()), 2)
        agent.trainer.learner.make(agent, 2)
        state = copy_to_cpu({"algorithm": agent.state_dict(), "trainer": agent.trainer.state_dict()})
        agent.trainer.learner.make(agent, 4)
        assert device == "cpu" or agent.trainer.learner.run_update.graph
        agent.load_state_dict(state["algorithm"])
        agent.trainer.load_state_dict(state["trainer"])
        agent.trainer.learner.make(agent, 2)
        return parameters(agent)

    with simulated_cuda_graphs():
        torch.testing.assert_close(weights("cuda"), weights("cpu"), rtol=0, atol=0)


def test_exploration_and_task_phase_have_separate_cuda_graphs(monkeypatch):
    """Plan2Explore's update and that of the Dreamer which continues alone are recorded separately."""

    def weights(device):
        monkeypatch.setattr(
            "dreamer.training.learner.CudaGraphed", lambda function, _: CudaGraphed(function, torch.device(device))
        )
        agent, updates = fill(make_plan2explore(ToyEnv()), 2), []
        for algorithm in (agent, agent.dreamer):
            agent.trainer.learner.make(algorithm, 5)
            updates.append(agent.trainer.learner.run_update)
        assert device == "cpu" or all(update.graph for update in updates)
        return parameters(agent)

    with simulated_cuda_graphs():
        torch.testing.assert_close(weights("cuda"), weights("cpu"), rtol=0, atol=0)


def test_restored_trainer_continues_after_its_iteration(monkeypatch):
    """No seed episodes are played, and the schedule is that of the whole run."""
    settings = ["train_iterations=5", "collect_interval=1", "seed_episodes=2", "evaluate_interval=2"]
    dreamer, checkpointed = make_dreamer(ToyEnv(length=12), *settings), []
    train(dreamer, ToyEnv(length=12), lambda *iteration_and_last: checkpointed.append(iteration_and_last))
    assert checkpointed == [(1, False), (2, False), (3, False), (4, False), (5, True)]

    other, checkpointed = fill(make_dreamer(ToyEnv(length=12), *settings), episodes=5), []
    state = copy_to_cpu(dreamer.trainer.state_dict())
    other.trainer.load_state_dict(state | {"iteration": 3, "env_steps": 60})
    calls = count_calls(monkeypatch, other.trainer, "learn", "collect", "evaluate")
    for _ in range(2):  # the second call finds a complete run
        train(other, ToyEnv(length=12), lambda *iteration_and_last: checkpointed.append(iteration_and_last))
    assert calls == 2 * ["learn", "collect", "evaluate"]
    assert checkpointed == [(4, False), (5, True)]
    assert steps_of(other.trainer, "train/return")[5:] == [72, 84]


def test_checkpoint_is_the_last_act_of_an_iteration(monkeypatch):
    dreamer, saved_iterations = make_dreamer(ToyEnv(length=12), "train_iterations=2", "collect_interval=1"), []
    trainer = dreamer.trainer
    calls = count_calls(monkeypatch, trainer, "learn", "collect", "evaluate", "log")

    def checkpoint(iteration, last):
        saved_iterations.append(trainer.state_dict()["iteration"])
        calls.append("checkpoint")

    train(dreamer, ToyEnv(length=12), checkpoint)
    assert saved_iterations == [1, 2] and calls[-1] == "checkpoint" and trainer.logger.rows[-1][0] == "replay/steps"
    between = calls[calls.index("checkpoint") + 1 :]
    assert [call for call in between if call != "log"] == ["learn", "collect", "evaluate", "checkpoint"]


def test_non_finite_loss_stops_the_run_before_logging_and_collecting(monkeypatch):
    env, checkpointed = ToyEnv(length=12), []
    dreamer = make_dreamer(env, "train_iterations=1", "collect_interval=1", "seed_episodes=1", "batch_length=13")
    monkeypatch.setattr(env, "reward", lambda action: math.nan if env.count == 5 else 0.0)
    calls = count_calls(monkeypatch, dreamer.trainer, "collect", "evaluate")
    with pytest.raises(NotFiniteError, match=r"not finite in iteration 1: .*loss/reward") as caught:
        train(dreamer, None, lambda iteration, last: checkpointed.append(iteration))
    assert "loss/model" in str(caught.value) and "loss/kl" not in str(caught.value)
    assert calls == ["collect"] and len(dreamer.trainer.replay) == 13, "the seed episode"
    assert checkpointed == [] and dreamer.trainer.logger.of("loss/reward") == []

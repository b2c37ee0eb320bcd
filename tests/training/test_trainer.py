"""Algorithm 1: who does what when, what is reported, and that a run goes on from where it was."""

import gc
import math

import numpy as np
import pytest
import torch

from dreamer.config.load import load_config
from dreamer.errors import ConfigError, NotFiniteError
from dreamer.training.checkpoint_file import copy_to_cpu
from dreamer.training.cuda_graph import CudaGraphed
from tests.tape import tapes_for_graphs
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


def test_evaluation_is_the_mean_over_its_episodes():
    dreamer = make_dreamer(Growing(), "num_evaluate=3")
    assert evaluate(dreamer) == 40 and evaluate(dreamer) == 100
    logger = dreamer.trainer.logger
    assert logger.of("eval/return") == [40, 100]
    decay = 1 - 2 / 21
    assert logger.of("eval/return_ema20")[1] == pytest.approx((40 * decay + 100) / (decay + 1))
    assert len(dreamer.trainer.replay) == 0, "what evaluation sees is not learned from"


SCHEDULE = ["seed_episodes=2", "train_iterations=5", "collect_interval=3", "evaluate_interval=2"]


def test_schedule(monkeypatch):
    """Seed episodes with random actions, then per iteration: updates, episodes, and an evaluation when it is due."""
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
def test_the_iteration_that_reaches_a_limit_of_env_steps_is_the_last(limit, iterations, monkeypatch):
    """The seed episodes count, too, but there is one at least. It is evaluated, and so are those that were due."""
    dreamer, ends = make_dreamer(ToyEnv(length=12), *SCHEDULE, f"max_env_steps={limit}"), []
    monkeypatch.setattr(dreamer, "update", lambda batch, updates: ({}, None))
    train(dreamer, ToyEnv(length=12, seed=1), lambda iteration, last: ends.append(last))
    assert dreamer.trainer.iteration == iterations and dreamer.trainer.env_steps == 24 + 12 * iterations
    assert ends == [*(iterations - 1) * [False], True]
    due = {2, 4, iterations} & {*range(1, iterations + 1)}
    assert steps_of(dreamer.trainer, "eval/return") == [24 + 12 * number for number in sorted(due)]


def test_seed_episodes_are_uniformly_random():
    dreamer = make_dreamer(ToyEnv(length=200), "seed_episodes=10", "train_iterations=1", "collect_interval=1")
    actions = train(dreamer, ToyEnv()).trainer.replay.read([0], 10 * 201).action[0, :, 0]
    actions = np.sort(actions[actions != 0])
    assert np.abs(actions - np.linspace(-1, 1, len(actions))).max() < 0.05


@pytest.mark.parametrize("known, length, stored", [(8, 8, 9), (None, 3, 4)])
def test_a_window_longer_than_the_seed_episodes_is_refused_before_they_are_played_if_that_is_known(
    known, length, stored
):
    env = ToyEnv(length)
    env.max_agent_steps = known
    dreamer = make_dreamer(env, "seed_episodes=1")
    words = f"batch_length: 10 agent steps, but the seed episodes store {stored}; lower it, or raise .*seed_episodes"
    with pytest.raises(ConfigError, match=words):
        train(dreamer)
    assert len(dreamer.trainer.replay) == (0 if known else stored)


def test_metrics_are_means_over_the_iterations_updates(monkeypatch):
    dreamer = fill(make_dreamer(ToyEnv()), episodes=1)
    numbers = iter(range(1, 1000))
    monkeypatch.setattr(dreamer, "update", lambda batch, updates: ({"x": torch.tensor(next(numbers))}, None))
    for _ in range(2):
        dreamer.trainer.learner.owed += 3
        dreamer.trainer.learn(dreamer)
    assert dreamer.trainer.logger.of("x") == [2.0, 5.0]


@pytest.mark.parametrize("device, pins", [("cpu", False), ("cuda", True)])
def test_what_goes_to_a_gpu_is_sampled_into_pinned_memory(device, pins, monkeypatch):
    """And from nowhere else: every part of the batch."""
    trainer, asked = fill(make_dreamer(ToyEnv()), 2).trainer, []
    monkeypatch.setattr(trainer.learner, "device", torch.device(device))
    monkeypatch.setattr("dreamer.training.learner.to_device", lambda batch, device: batch)
    empty = torch.empty

    def watched(*arguments, pin_memory, **keywords):
        asked.append(pin_memory)
        return empty(*arguments, **keywords)

    monkeypatch.setattr(torch, "empty", watched)
    _, batch = trainer.learner.fetch()
    assert asked == [pins] * len(batch) and batch.reward.shape == (8, 10)


# Saving and going on


@pytest.mark.parametrize("config", ["dreamer", "dreamer-v2", "dreamer-v3", "plan2explore"])
def test_no_graph_outlives_its_update(config, monkeypatch):
    """It would hold memory, and on a GPU nodes that belong to another stream than the one that records."""

    def graphs():
        return [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor) and each.grad_fn]

    agent = fill(make_agent(load_config(config, SMALL), ToyEnv()), 2)
    update, alive = agent.update, []
    monkeypatch.setattr(agent, "update", lambda batch, updates: alive.append(graphs()) or update(batch, updates))
    gc.freeze()  # what there is already is not looked at
    try:
        agent.trainer.learner.make(agent, 3)
        assert [*alive, graphs()] == [[]] * 4
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("config", ["dreamer", "dreamer-v2", "dreamer-v3"])
def test_a_state_that_is_gone_back_to_counts_after_a_recording(config, monkeypatch):
    """A recording goes on with the tensors that it knows: those of an optimiser may be others afterwards."""

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

    with tapes_for_graphs():
        torch.testing.assert_close(weights("cuda"), weights("cpu"), rtol=0, atol=0)


def test_each_phase_is_recorded_by_itself(monkeypatch):
    """Plan2Explore's, and the Dreamer that goes on alone."""

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

    with tapes_for_graphs():
        torch.testing.assert_close(weights("cuda"), weights("cpu"), rtol=0, atol=0)


def test_training_goes_on_after_the_iteration_that_it_was_restored_to(monkeypatch):
    """Without seed episodes; what was due in the whole run is due now."""
    settings = ["train_iterations=5", "collect_interval=1", "seed_episodes=2", "evaluate_interval=2"]
    dreamer, checkpointed = make_dreamer(ToyEnv(length=12), *settings), []
    train(dreamer, ToyEnv(length=12), lambda *iteration_and_last: checkpointed.append(iteration_and_last))
    assert checkpointed == [(1, False), (2, False), (3, False), (4, False), (5, True)]

    other, checkpointed = fill(make_dreamer(ToyEnv(length=12), *settings), episodes=5), []
    state = copy_to_cpu(dreamer.trainer.state_dict())
    other.trainer.load_state_dict(state | {"iteration": 3, "env_steps": 60})
    calls = count_calls(monkeypatch, other.trainer, "learn", "collect", "evaluate")
    for _ in range(2):  # the second time it is complete
        train(other, ToyEnv(length=12), lambda *iteration_and_last: checkpointed.append(iteration_and_last))
    assert calls == 2 * ["learn", "collect", "evaluate"]
    assert checkpointed == [(4, False), (5, True)]
    assert steps_of(other.trainer, "train/return")[5:] == [72, 84]


def test_a_checkpoint_comes_after_everything_else_in_its_iteration(monkeypatch):
    dreamer, seen = make_dreamer(ToyEnv(length=12), "train_iterations=2", "collect_interval=1"), []
    trainer = dreamer.trainer
    calls = count_calls(monkeypatch, trainer, "learn", "collect", "evaluate", "log")

    def checkpoint(iteration, last):
        seen.append(trainer.state_dict()["iteration"])
        calls.append("checkpoint")

    train(dreamer, ToyEnv(length=12), checkpoint)
    assert seen == [1, 2] and calls[-1] == "checkpoint" and trainer.logger.rows[-1][0] == "replay/steps"
    between = calls[calls.index("checkpoint") + 1 :]
    assert [call for call in between if call != "log"] == ["learn", "collect", "evaluate", "checkpoint"]


def test_what_is_not_finite_stops_the_run_before_it_is_reported_or_acted_on(monkeypatch):
    env, checkpointed = ToyEnv(length=12), []
    dreamer = make_dreamer(env, "train_iterations=1", "collect_interval=1", "seed_episodes=1", "batch_length=13")
    monkeypatch.setattr(env, "reward", lambda action: math.nan if env.count == 5 else 0.0)
    calls = count_calls(monkeypatch, dreamer.trainer, "collect", "evaluate")
    with pytest.raises(NotFiniteError, match=r"not finite in iteration 1: .*loss/reward") as caught:
        train(dreamer, None, lambda iteration, last: checkpointed.append(iteration))
    assert "loss/model" in str(caught.value) and "loss/kl" not in str(caught.value)
    assert calls == ["collect"] and len(dreamer.trainer.replay) == 13, "the seed episode"
    assert checkpointed == [] and dreamer.trainer.logger.of("loss/reward") == []

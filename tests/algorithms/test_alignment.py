"""Losses decrease even with a wrong time index. These environments have a loss that only the right index reaches."""

import math

import numpy as np
import pytest
import torch

from dreamer.algorithms.losses import imagine
from dreamer.algorithms.policy import Policy
from dreamer.algorithms.prediction import observe
from dreamer.replay.step import Batch
from dreamer.training.collect import run_episode
from tests.small_algorithms import PIXELS, make
from tests.toys import CoinEnv, FrameEnv, ToyEnv, fill, learn_model, make_dreamer

NOISE_FLOOR = 0.5 * math.log(2 * math.pi)  # lowest negative log-likelihood of a unit Normal
BEST_CONSTANT = NOISE_FLOOR + 9 / 2  # loss of the best constant prediction on CoinEnv


@pytest.mark.parametrize(
    "shift, loss_range",
    [
        (lambda batch: batch, (0, NOISE_FLOOR + 0.3)),
        (lambda batch: batch._replace(reward=batch.reward.roll(-1, 1)), (BEST_CONSTANT - 1.5, math.inf)),
        (lambda batch: batch._replace(action=batch.action.roll(1, 1)), (BEST_CONSTANT - 1.5, math.inf)),
    ],
    ids=["right", "reward of an action that the state has not seen yet", "action a step late"],
)
def test_only_the_right_time_index_reaches_the_noise_floor(shift, loss_range):
    """Train the reward model on batches that `shift` changes, and check the loss that it reaches."""
    settings = "model_learning_rate=6e-3", "batch_size=16", "use_continue_flag=False"
    dreamer = fill(make_dreamer(CoinEnv(), *settings), episodes=50)
    losses = []
    for _ in range(200):
        *_, metrics = learn_model(dreamer, shift(dreamer.trainer.learner.sample()))
        losses.append(metrics["loss/reward"].item())
    assert loss_range[0] < np.mean(losses[-50:]) < loss_range[1]


def test_training_and_acting_use_the_same_recurrence(monkeypatch):
    """The states in which the policy acted equal the posteriors of training, from the first frame on."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # no noise: the posterior's mean
    env = CoinEnv(length=6)
    dreamer = make_dreamer(env, "batch_length=14", "batch_size=1")
    policy = Policy(dreamer.model, dreamer.actor, 0.3)
    policy_states = []
    for _ in range(2):
        for step in run_episode(env, policy):
            dreamer.trainer.replay.add(step)
            policy_states.append(policy.state and policy.state.feature[0])
        policy(step)  # no action follows the last observation, so compute its state here
        policy_states.append(policy.state.feature[0])
    batch = dreamer.trainer.learner.sample()
    assert batch.is_first[0].nonzero().flatten().tolist() == [0, 7]
    _, posterior = observe(dreamer.model, batch)
    # After yielding step t + 1 the policy's state is that of step t, in which it chose the action.
    states = [policy_states[i] for i in range(len(policy_states)) if i not in (0, 8)]
    torch.testing.assert_close(torch.stack(states), posterior.feature[0])


@pytest.mark.parametrize("version", [1, 2, 3])
def test_acting_and_training_compute_the_same_states_from_pixels(version, monkeypatch):
    """Both scale the same uint8 frames in the same way."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, device: torch.full(shape, 0.5))  # the median class
    algorithm = make(version, observations=PIXELS, actions=1)
    policy, policy_states = Policy(algorithm.model, algorithm.actor, 0.0), []
    env = FrameEnv(length=5)
    for step in run_episode(env, lambda step: policy(step)):
        policy_states.append((step, policy.state and policy.state.feature[0]))
    steps = [step for step, _ in policy_states]
    columns = [torch.tensor(np.stack(part))[None] for part in zip(*(step[:5] for step in steps), strict=True)]
    columns[2:] = [column.float() for column in columns[2:]]
    _, posterior = observe(algorithm.model, Batch(*columns, torch.zeros(1, 0)))
    states = torch.stack([feature for _, feature in policy_states[1:]])
    torch.testing.assert_close(states, posterior.feature[0, :-1], atol=1e-5, rtol=1e-5)
    assert (states[1:] != states[:1]).any()


def test_imagined_actions_and_rewards_are_aligned_with_the_states(monkeypatch):
    """`action[:, τ - 1]` leads from s_{τ-1} to s_τ, and s_0 is the state that imagination starts from."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    dreamer = fill(make_dreamer(ToyEnv()), episodes=1)
    start = learn_model(dreamer, dreamer.trainer.learner.sample())[0].flatten()
    imagination = imagine(dreamer.model.rssm, dreamer.actor, start, 5, through_dynamics=True)
    torch.testing.assert_close(imagination.feature[:, 0], start.feature)
    priors = dreamer.model.rssm.imagine(start, imagination.action)
    torch.testing.assert_close(imagination.feature[:, 1:], priors.feature)
    torch.testing.assert_close(dreamer.predicted_reward(imagination), dreamer.model.reward_model(priors.feature).mean)

"""Play episodes, as sequences of steps."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils._pytree import tree_map

from dreamer.errors import NotFiniteError
from dreamer.replay.step import NOTHING, Step

Env = Any  # an environment of dreamer/envs
PolicyLike = Callable[[Step], np.ndarray]  # returns the action that follows a step


def run_episode(env: Env, policy: PolicyLike) -> Iterator[Step]:
    """Play one episode and yield its steps, one more than the episode's length in agent steps.

    If the policy has an attribute `latent`, the stored form of the state it chose the action from, each step keeps it.
    """
    observation, _ = env.reset()
    step = Step(observation, np.zeros(env.action_space.shape, np.float32), 0.0, True, False, 0)
    yield step
    ended = False
    while not ended:
        action = choose_action(policy, step)
        observation, reward, terminated, truncated, info = env.step(action)
        latent = getattr(policy, "latent", NOTHING)
        success = info.get("success", math.nan)
        step = Step(observation, action, float(reward), False, terminated, info["env_steps"], latent, success)
        yield step
        ended = terminated or truncated


def run_episodes(env: Env, policy: PolicyLike, episodes: int) -> Iterator[Iterable[Step]]:
    """Play episodes and yield each as an iterable of its steps.

    E `ParallelEnvs` play them in rounds of E. Their policy gets one `Step` for all environments, with parts (E, ...),
    and returns all actions, (E, A).
    """
    if not hasattr(env, "num_envs"):
        for _ in range(episodes):
            yield run_episode(env, policy)
        return
    for num_played in range(0, episodes, env.num_envs):
        yield from run_round(env, policy, min(env.num_envs, episodes - num_played))


def run_round(env: Env, policy: PolicyLike, episodes: int) -> list[list[Step]]:
    """Play one episode in each of the first `episodes` environments and return their steps."""
    count = env.num_envs
    all_false = np.zeros(count, bool)
    unknown_success = np.full(count, math.nan)
    step = Step(
        observation=env.reset(episodes),
        action=np.zeros((count, *env.action_space.shape), np.float32),
        reward=np.zeros(count),
        is_first=~all_false,
        is_terminal=all_false,
        env_steps=np.zeros(count, int),
        success=unknown_success,
    )
    steps: list[list[Step]] = [[] for _ in range(episodes)]  # of each environment that plays
    playing = list(range(episodes))  # indices of environments
    ended = all_false
    while True:
        for index in playing:
            steps[index].append(step_of_env(step, index))
        playing = [index for index in playing if not ended[index]]
        if not playing:
            return steps
        action = choose_action(policy, step)
        observation, reward, terminated, truncated, info = env.step(action)
        latent = getattr(policy, "latent", NOTHING)
        success = info.get("success", unknown_success)
        step = Step(observation, action, reward, all_false, terminated, info["env_steps"], latent, success)
        ended = terminated | truncated


def step_of_env(step: Step, index: int) -> Step:
    """Return the step of one environment, from a `Step` with parts (E, ...)."""
    return Step(
        observation=tree_map(lambda part: part[index], step.observation),
        action=step.action[index],
        reward=np.asarray(step.reward)[index].item(),
        is_first=np.asarray(step.is_first)[index].item(),
        is_terminal=np.asarray(step.is_terminal)[index].item(),
        env_steps=np.asarray(step.env_steps)[index].item(),
        latent=step.latent[index] if step.latent.size else NOTHING,
        success=np.asarray(step.success)[index].item(),
    )


def choose_action(policy: PolicyLike, step: Step) -> np.ndarray:
    """Return the policy's action. Raises NotFiniteError."""
    action = policy(step)
    if not np.isfinite(action).all():
        raise NotFiniteError(
            "not finite: an action, so weights of world model or actor are not either; lower the learning rates"
        )
    return action

"""Small wrappers with one purpose each, on gym's 0.26 API."""

import math

import gym
import numpy as np
from gym import spaces
from PIL import Image


class ActionRepeat(gym.Wrapper):
    """Repeats each action `amount` times, sums the rewards and stops at the episode's end.

    `info["env_steps"]` tells how many simulator steps that took, `max_agent_steps` how many
    decisions an episode can hold (None: no limit).
    """

    def __init__(self, env, amount):
        super().__init__(env)
        self.amount = amount
        limit = env.spec.max_episode_steps if env.spec else env.max_episode_steps
        self.max_agent_steps = limit and math.ceil(limit / amount)

    def step(self, action):
        total, env_steps, ended = 0.0, 0, False
        while env_steps < self.amount and not ended:
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += reward
            env_steps += 1
            ended = terminated or truncated
        return observation, total, terminated, truncated, {**info, "env_steps": env_steps}


class PixelObservation(gym.ObservationWrapper):
    """Replaces the observation by what the environment renders: uint8 (3, height, width)."""

    def __init__(self, env, height, width):
        super().__init__(env)
        self.size = (width, height)
        self.observation_space = spaces.Box(0, 255, (3, height, width), np.uint8)

    def observation(self, observation):
        frame = np.asarray(self.env.render(), np.uint8)
        if frame.shape[1::-1] != self.size:
            frame = np.asarray(Image.fromarray(frame).resize(self.size, Image.Resampling.BILINEAR))
        return np.ascontiguousarray(frame.transpose(2, 0, 1))


class VectorObservation(gym.ObservationWrapper):
    """Flattens whatever gym can flatten to float32 (size,)."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Box(-np.inf, np.inf, (spaces.flatdim(env.observation_space),), np.float32)

    def observation(self, observation):
        return spaces.flatten(self.env.observation_space, observation).astype(np.float32)


class OneHot(spaces.Box):
    """The space of one-hot vectors of a size."""

    def __init__(self, size):
        super().__init__(0.0, 1.0, (size,), np.float32)

    def sample(self, mask=None):
        return np.eye(self.shape[0], dtype=np.float32)[self.np_random.integers(self.shape[0])]


class OneHotAction(gym.ActionWrapper):
    """Takes one-hot vectors where the environment takes the index (gym's Discrete)."""

    def __init__(self, env):
        super().__init__(env)
        self.start = env.action_space.start
        self.action_space = OneHot(env.action_space.n)

    def action(self, action):
        return self.start + int(np.argmax(action))


class Resumable(gym.Wrapper):
    """Can be saved between two episodes: the random states, and whatever the environment itself adds.

    An environment that carries more than its `np_random` from one episode into the next has a
    `state_dict` and a `load_state_dict` of its own, of plain values and arrays.
    """

    def state_dict(self):
        env = self.env.unwrapped
        return {
            "action_space": self.action_space.np_random.bit_generator.state,
            "np_random": env.np_random.bit_generator.state,
            "environment": env.state_dict() if hasattr(env, "state_dict") else None,
        }

    def load_state_dict(self, state):
        env = self.env.unwrapped
        self.action_space.np_random.bit_generator.state = state["action_space"]
        env.np_random.bit_generator.state = state["np_random"]
        if hasattr(env, "load_state_dict"):
            env.load_state_dict(state["environment"])

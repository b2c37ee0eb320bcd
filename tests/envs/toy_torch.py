"""Environments that use torch."""

import gym
import torch

from tests.envs.toy_foreign import Walk


class Torchs(Walk):
    def __init__(self):
        self.generator = torch.Generator()

    def begin(self, seed):
        if seed is not None:
            self.generator.manual_seed(seed)

    def draw(self):
        return torch.rand(1, generator=self.generator).item()


class Tensors(Walk):
    """Observation and reward are tensors that require a gradient, and the flags are tensors."""

    def observe(self):
        return torch.tensor([self.place, self.steps], requires_grad=True) * 1.0

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, observation.sum(), torch.tensor(terminated), torch.tensor([truncated]), info


class Half(Tensors):
    def observe(self):
        return super().observe().bfloat16()


class Settings(Walk):
    """Changes torch's global settings in its first step and relies on them."""

    def step(self, action):
        if self.steps == 0:
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            torch.set_default_device("meta")
        assert torch.zeros(1).dtype == torch.float64 and torch.zeros(1).is_meta and not torch.is_grad_enabled()
        return super().step(action)


class GlobalTorch(Walk):
    """Draws from torch's global generator."""

    def begin(self, seed):
        return

    def draw(self):
        return torch.rand(1).item()


for kind in (Torchs, Tensors, Half, Settings, GlobalTorch):
    gym.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=20)

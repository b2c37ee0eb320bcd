"""Step the real environment that a dream is compared with, in its own units."""

from typing import Any, NamedTuple

import numpy as np

from dreamer.agent import Agent
from dreamer.algorithms.prediction import image_part
from dreamer.envs.calls import run_calls_within
from dreamer.envs.dmc import DMCEnv
from dreamer.envs.make import make_eval_env
from dreamer.envs.observation import size, split
from dreamer.envs.wrappers import ActionRepeat, Checked
from dreamer.errors import EnvError, EnvFault, one_line
from dreamer.training import torch_settings
from dreamer.training.film import frames_per_second, resized_for_film
from dreamer.training.seeding import seeded_randomness


class Arrival(NamedTuple):
    """Holds a step of an environment, as an agent and a person see it."""

    observation: Any  # as `Agent` takes it
    picture: np.ndarray | None  # uint8 (height, width, 3): what the agent sees or, if that is no picture, a rendering
    vector: np.ndarray | None  # float32 (size,): all numbers that the agent sees
    reward: float
    ended: bool


class Reality:
    """Wraps an environment for one session. The thread that makes it must also use and close it."""

    def __init__(self, agent: Agent, seed: int | None = None) -> None:
        """seed: of the environment; None: of the run's evaluations. Raises EnvError or EnvFault if it cannot be made.

        `without_pictures` says why the environment cannot render, "" if it can.
        """
        config = agent.config
        self.agent, self.without_pictures = agent, ""
        run_seed = config.operation.seed if seed is None else seed
        run_calls_within(torch_settings.environment_settings)
        with seeded_randomness(run_seed):
            try:
                env = make_eval_env(config.environment, run_seed, renders=True)
            except (EnvError, EnvFault) as error:
                if config.environment.from_pixels:
                    raise
                env = make_eval_env(config.environment, run_seed)
                self.without_pictures = one_line(error)
        self.frames_per_second = frames_per_second(env)
        self.full_env = env
        while not isinstance(env, Checked):
            env = env.env
        self.checked_env = env  # in its own units: without the conversions for agents
        self.env = ActionRepeat(env, agent.frame_skip)

    @property
    def names(self) -> list[str]:
        """The names of the components of `Arrival.vector`."""
        if self.agent.translation.from_pixels:
            return []
        if isinstance(self.full_env.unwrapped, DMCEnv):
            specs = self.full_env.unwrapped.environment.observation_spec()
            sizes = {name: int(np.prod(spec.shape)) for name, spec in specs.items()}
        else:
            _, vector_parts = split(self.agent.observation_space)
            sizes = {part.name: size([part]) for part in vector_parts}
        names = []
        for name, count in sizes.items():
            if count == 1:
                names.append(name)
            else:
                names += [f"{name} {index}" for index in range(count)]
        return names

    def reset(self) -> Arrival:
        """Begin an episode."""
        observation, _ = self.env.reset()
        return self._arrival(observation, 0.0, False)

    def step(self, action: Any) -> Arrival:
        """Take an action, in the environment's own units."""
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return self._arrival(observation, float(reward), terminated or truncated)

    def close(self) -> None:
        """Close the environment and its renderer."""
        self.full_env.close()

    def _arrival(self, observation: Any, reward: float, ended: bool) -> Arrival:
        if self.agent.translation.from_pixels:
            observation = self.checked_env.render()
        parts, _ = self.agent.translation.agent_observation(observation)
        if not isinstance(parts, dict):
            parts = {"image": parts} if parts.ndim == 3 else {"vector": parts}
        picture = rgb(np.moveaxis(image_part(parts), 0, -1)) if "image" in parts else self._render()
        return Arrival(observation, picture, parts.get("vector"), reward, ended)

    def _render(self) -> np.ndarray | None:
        if self.without_pictures:
            return None
        try:
            return resized_for_film(self.checked_env.render())
        except (EnvError, EnvFault) as error:  # the page shows vectors without a picture, too
            self.without_pictures = one_line(error)
            return None


def rgb(frames: np.ndarray) -> np.ndarray:
    """Return frames (..., height, width, channels) as (..., height, width, 3).

    One or two channels become grey; of more than three, the first three are used.
    """
    if frames.shape[-1] >= 3:
        return frames[..., :3]
    return np.repeat(frames[..., :1], 3, -1)

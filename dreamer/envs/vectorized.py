"""Environments that are stepped as one, `gymnasium.vector.VectorEnv`, and the first of them as a plain environment."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from dreamer.envs.numeric import as_array
from dreamer.envs.randomness import generators
from dreamer.envs.warn import warn_once
from dreamer.errors import EnvError

NEXT_STEP, SAME_STEP, DISABLED = "NextStep", "SameStep", "Disabled"  # when an environment begins its next episode


def is_vectorized(env: Any) -> bool:
    """Return whether an environment steps several as one: gymnasium's, or one that has its attributes."""
    return isinstance(env, VectorEnv) or (hasattr(env, "num_envs") and hasattr(env, "single_action_space"))


def autoreset_mode(vector: Any) -> str:
    """Return NEXT_STEP, SAME_STEP or DISABLED."""
    mode = getattr(vector, "metadata", {}).get("autoreset_mode", NEXT_STEP)  # gymnasium 1.0 has no entry for its mode
    return str(getattr(mode, "value", mode))


def row(batch: Any, number: int) -> Any:
    """Return a copy of one environment's observation, from the observations of all."""
    if isinstance(batch, Mapping):
        return {key: row(part, number) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(row(part, number) for part in batch)
    return np.array(as_array(batch[number]))


def final(info: Mapping[str, Any], number: int) -> Any:
    """Return the last observation of an episode, in whose step the environment began the next one (SAME_STEP).

    Raises EnvError if there is none.
    """
    observations = info.get("final_obs", info.get("final_observation"))  # the second is the name of gymnasium 0.29
    if observations is None:
        raise EnvError("the environments' step gave no info['final_obs']; expected it of autoreset mode SAME_STEP")
    if isinstance(observations, Mapping):
        return row(observations, number)
    return observations[number]


def info_of(info: Mapping[str, Any], number: int, ended: bool = False) -> dict[str, Any]:
    """Return the info of one environment, from the info of all. ended: whether to look for it under "final_info"."""
    if ended and "final_info" in info:
        info = info["final_info"]
    own_info = {}
    for key, values in info.items():
        is_set = info.get(f"_{key}")  # gymnasium's mask of the environments that have set this key
        has_rows = not isinstance(values, (Mapping, str)) and np.ndim(as_array(values)) > 0
        if has_rows and key[:1] != "_" and (is_set is None or is_set[number]):
            own_info[key] = values[number]
    return own_info


class FirstOfVector(gymnasium.Env):
    """Plays in the first of the environments that are stepped as one. The others take the same actions.

    A single environment plays as a plain one does, whatever its autoreset mode: where it begins an episode by itself
    (SAME_STEP), the next `reset` returns that beginning. If the random generators of `vector` cannot be found and
    saved, each episode has a seed of its own.
    """

    def __init__(self, vector: Any) -> None:
        self.vector = vector
        self.mode = autoreset_mode(vector)
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space
        self.metadata, self.render_mode, self.spec = vector.metadata, vector.render_mode, vector.spec
        self.begun: tuple[Any, dict[str, Any]] | None = None  # observation and info of an episode begun by itself
        self.seed, self.episode = 0, 0
        inner = vector.unwrapped
        self.saved: Any = None  # the environment whose state can be saved, if any
        if isinstance(inner, SyncVectorEnv):
            self.saved = inner.envs[0].unwrapped

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        begun, self.begun = self.begun, None
        if begun and seed is None:
            return begun
        if seed is not None:
            self.seed, self.episode = seed, 0
        elif self.saved is None:
            self.episode += 1
            seed = episode_seed(self.seed, self.episode)
        observation, info = self.vector.reset(seed=seed, options=options)
        inner = self.vector.unwrapped
        if self.saved is None and self.episode == 0 and (hasattr(inner, "state_dict") or own_generator(inner)):
            self.saved = inner
        return row(observation, 0), info_of(info, 0)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        count, space = self.vector.num_envs, self.action_space
        batch: Any = create_empty_array(space, count)
        actions = concatenate(space, [action] * count, batch)
        observation, reward, terminated, truncated, info = self.vector.step(actions)
        over = np.asarray(as_array(terminated)) | np.asarray(as_array(truncated))
        first_observation, first_info = row(observation, 0), info_of(info, 0)
        if over[0] and self.mode == SAME_STEP:  # what was returned belongs to the next episode
            if self.saved is not None and count == 1:
                self.begun = first_observation, first_info
                warn_once("autoreset mode SAME_STEP: a run that is resumed begins another episode; use NEXT_STEP")
            first_observation, first_info = final(info, 0), info_of(info, 0, ended=True)
        elif self.mode == DISABLED and over.any() and not over[0]:
            self.vector.reset(options={"reset_mask": over})
        return first_observation, reward[0], bool(terminated[0]), bool(truncated[0]), first_info

    def render(self) -> Any:
        frames = self.vector.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        self.vector.close()

    @property
    def unwrapped(self) -> Any:
        """Return the object whose state is saved: the first environment, else all together, else this one."""
        return self if self.saved is None else self.saved

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the episode, from which its seed follows."""
        return {"seed": self.seed, "episode": self.episode}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to an episode."""
        self.seed, self.episode = state["seed"], state["episode"]


def own_generator(vector: Any) -> bool:
    """Return whether a vectorised environment has random generators beside those of its spaces."""
    return any(not path.partition(".")[0].endswith("_space") for path in generators(vector))


def episode_seed(seed: int, episode: int) -> int:
    """Return the seed of an episode. It is small enough that seed + number of an environment is still a C int."""
    return int(np.random.SeedSequence((seed, episode)).generate_state(1)[0]) % 2**30

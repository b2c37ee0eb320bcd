"""All environments of a vectorised one, for collecting: they play in rounds, as `ParallelEnvs` do."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from dreamer.envs.calls import call
from dreamer.envs.numeric import as_array, as_number
from dreamer.envs.observation import layout
from dreamer.envs.rounds import RoundEnvs
from dreamer.envs.success import KEYS
from dreamer.envs.translation import Translation
from dreamer.envs.vectorized import DISABLED, SAME_STEP, autoreset_mode, episode_seed, final, info_of, row
from dreamer.envs.wrappers import LARGEST, show
from dreamer.errors import EnvError, InputError


class VectorEnvs(RoundEnvs):
    """Environments that are stepped as one.

    An environment whose episode is over plays on, unseen, until the round ends, whatever its autoreset mode. Each round
    is seeded by its number, so that a resumed run is exact; an environment with a `state_dict` of its own is seeded
    once, and saved.
    """

    def __init__(self, example: Any, environment: Mapping[str, Any], seed: int) -> None:
        """example: the first of them as `make_env` returns it. environment: that section of the configuration."""
        if environment["from_pixels"]:
            advice = "set it to False: environments that are stepped as one show their own observations"
            raise EnvError(f"environment.from_pixels: True; {advice}")
        super().__init__(example, example.vector.num_envs)
        self.example, self.vector, self.seed = example, example.vector, seed
        self.frame_skip, self.success_key = environment["frame_skip"], environment["success_key"]
        self.translation = Translation(self.unwrapped_spaces, environment)
        space = self.unwrapped_spaces.observation
        self.at_once = isinstance(space, spaces.Box) and not layout(space)  # its numbers are a vector as they are
        self.mode, self.round = autoreset_mode(self.vector), 0
        self.saved = self.vector.unwrapped if hasattr(self.vector.unwrapped, "state_dict") else None

    def reset(self, episodes: int) -> Any:
        """Begin a round with an episode in each of the first environments. Return the observations."""
        self.round += 1
        seed = None if self.saved is not None and self.round > 1 else episode_seed(self.seed, self.round)
        self.playing = np.arange(self.num_envs) < episodes
        self.success = np.full(self.num_envs, math.nan)
        self.clear_observations()
        observation, _ = call("the environments' reset", self.vector.reset, seed=seed)
        self.see(observation, self.playing, {})
        return self.observations()

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Make a step with actions (E, A) where an episode is not over. Return what gymnasium's `step` returns, as
        arrays (E, ...)."""
        own, count = self.env_actions(actions), self.num_envs
        reward, env_steps = np.zeros(count), np.zeros(count, int)
        terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        playing = self.playing.copy()
        for repeat in range(self.frame_skip):
            observation, rewards, *ends, info = call("the environments' step", self.vector.step, own)
            rewards, terminations, truncations = (np.asarray(as_array(each)) for each in (rewards, *ends))
            self.check(rewards, terminations, truncations, playing)
            over = terminations.astype(bool) | truncations.astype(bool)
            reward[playing] += rewards[playing]
            env_steps[playing] += 1
            ended = playing & over
            terminated[ended], truncated[ended] = terminations[ended], truncations[ended]
            self.take_success(info, playing, ended)
            last = repeat == self.frame_skip - 1
            finals = {n: final(info, n) for n in np.flatnonzero(ended)} if self.mode == SAME_STEP else {}
            self.see(observation, playing if last else ended, finals)
            playing &= ~over
            if not playing.any():
                break
            if self.mode == DISABLED and over.any():
                call("the environments' reset", self.vector.reset, options={"reset_mask": over})
        self.playing = playing
        return self.observations(), reward, terminated, truncated, {"env_steps": env_steps, "success": self.success}

    def env_actions(self, actions: np.ndarray) -> Any:
        """Return the batch of actions as the environments take it, from an agent's actions (E, A)."""
        space: Any = self.unwrapped_spaces.action
        batch: Any = create_empty_array(space, self.num_envs)
        return concatenate(space, [self.translation.env_action(action) for action in actions], batch)

    def see(self, observation: Any, places: np.ndarray, finals: Mapping[int, Any]) -> None:
        """Keep what some environments observe. places: a mask (E,). finals: of those that show the next episode."""
        if self.at_once and places.any():
            space: Any = self.unwrapped_spaces.observation
            array = np.array(as_array(observation))
            if array.shape != (self.num_envs, *space.shape) or array.dtype.kind not in "biuf":
                expected = f"{(self.num_envs, *space.shape)}, for {self.num_envs} of {space}"
                raise EnvError(f"the environments gave the observation {show(array)}; expected numbers {expected}")
            for number, each in finals.items():
                array[number] = as_array(each)
            numbers = array.astype(space.dtype).reshape(self.num_envs, -1).astype(np.float32)[places]
            if not (np.abs(numbers) <= LARGEST).all():
                raise EnvError(f"the environments gave the observation {show(numbers)}; expected finite numbers")
            self.observation[None][places] = numbers
            return
        for number in np.flatnonzero(places):
            own = finals[number] if number in finals else row(observation, number)
            try:
                seen, _ = self.translation.agent_observation(own)
            except InputError as error:
                raise EnvError(f"the environments, number {number}: {error}") from None
            self.put(number, seen)

    def check(
        self, rewards: np.ndarray, terminations: np.ndarray, truncations: np.ndarray, playing: np.ndarray
    ) -> None:
        """Raise EnvError for what is not E numbers, and for rewards that are not finite. playing: whose count."""
        shape, named = (self.num_envs,), {"terminations": terminations, "truncations": truncations, "rewards": rewards}
        for name, values in named.items():
            if values.shape != shape or values.dtype.kind not in "biuf":
                raise EnvError(f"the environments' step gave the {name} {show(values)}; expected {shape[0]} numbers")
        if not (np.abs(rewards[playing]) <= LARGEST).all():
            expected = f"numbers from {-LARGEST:g} to {LARGEST:g}"
            raise EnvError(f"the environments' step gave the rewards {show(rewards)}; expected {expected}")

    def take_success(self, info: Mapping[str, Any], playing: np.ndarray, ended: np.ndarray) -> None:
        """Note which episodes have reached their goal so far, where `info` says it."""
        names = KEYS if self.success_key is None else (self.success_key,)
        inner = info.get("final_info", {})
        if not any(name in info or name in inner for name in names):
            return
        for number in np.flatnonzero(playing):
            own = info_of(info, number, bool(ended[number]) and self.mode == SAME_STEP)
            value = next((float(as_number(own[name])) for name in names if name in own), math.nan)
            if value in (0, 1):
                self.success[number] = np.fmax(value, self.success[number])

    def sample_actions(self) -> np.ndarray:
        """Return uniformly random actions (E, A)."""
        return np.stack([self.action_space.sample() for _ in range(self.num_envs)])

    def state_dict(self) -> dict[str, Any]:
        """Return the state between two rounds."""
        own = call("the environments' state_dict", self.saved.state_dict) if self.saved is not None else None
        random = self.action_space.np_random.bit_generator.state
        return {"seed": self.seed, "round": self.round, "action_space": random, "environments": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the environments to a state of `state_dict`."""
        self.seed, self.round = state["seed"], state["round"]
        self.action_space.np_random.bit_generator.state = state["action_space"]
        if self.saved is not None and state["environments"] is not None:
            call("the environments' load_state_dict", self.saved.load_state_dict, state["environments"])

    def close(self) -> None:
        """Close the environments."""
        self.example.close()

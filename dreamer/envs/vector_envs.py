"""All environments of a vectorised environment, for collecting: they play in rounds, as `ParallelEnvs` do."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from dreamer.envs.calls import call
from dreamer.envs.numeric import as_array
from dreamer.envs.observation import layout
from dreamer.envs.rounds import RoundEnvs
from dreamer.envs.success import KEYS, read_success
from dreamer.envs.translation import Translation
from dreamer.envs.vectorized import DISABLED, SAME_STEP, autoreset_mode, episode_seed, final, info_of, row
from dreamer.envs.wrappers import LARGEST, show
from dreamer.errors import EnvError, InputError


class VectorEnvs(RoundEnvs):
    """Environments that are stepped as one.

    An environment whose episode is over plays on until the round ends, whatever its autoreset mode; what it returns is
    ignored. Each round is seeded by its number, so that a resumed run is exact. If the environment has a `state_dict`,
    it is seeded once and saved.
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
        self.at_once = isinstance(space, spaces.Box) and not layout(space)  # whether all can be translated in one array
        self.mode = autoreset_mode(self.vector)
        self.round = 0
        self.saved = self.vector.unwrapped if hasattr(self.vector.unwrapped, "state_dict") else None

    def reset(self, episodes: int) -> Any:
        """Begin a round with an episode in each of the first environments. Return the observations."""
        self.round += 1
        seed = None if self.saved is not None and self.round > 1 else episode_seed(self.seed, self.round)
        self.playing = np.arange(self.num_envs) < episodes
        self.success = np.full(self.num_envs, math.nan)
        self.clear_observations()
        observation, _ = call("the environments' reset", self.vector.reset, seed=seed)
        self.store_observations(observation, self.playing, {})
        return self.observations()

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Make a step with actions (E, A) where an episode is not over. Return what gymnasium's `step` returns, as
        arrays (E, ...)."""
        env_actions = self.env_actions(actions)
        reward, env_steps = np.zeros(self.num_envs), np.zeros(self.num_envs, int)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        playing = self.playing.copy()
        for repeat in range(self.frame_skip):
            observation, *results, info = call("the environments' step", self.vector.step, env_actions)
            rewards, terminations, truncations = (np.asarray(as_array(result)) for result in results)
            self.check(rewards, terminations, truncations, playing)
            over = terminations.astype(bool) | truncations.astype(bool)
            reward[playing] += rewards[playing]
            env_steps[playing] += 1
            ended = playing & over
            terminated[ended], truncated[ended] = terminations[ended], truncations[ended]
            self.record_success(info, playing, ended)
            is_last_repeat = repeat == self.frame_skip - 1
            finals = {}
            if self.mode == SAME_STEP:
                finals = {number: final(info, number) for number in np.flatnonzero(ended)}
            self.store_observations(observation, playing if is_last_repeat else ended, finals)
            playing &= ~over
            if not playing.any():
                break
            if self.mode == DISABLED and over.any():
                call("the environments' reset", self.vector.reset, options={"reset_mask": over})
        self.playing = playing
        return self.observations(), reward, terminated, truncated, {"env_steps": env_steps, "success": self.success}

    def env_actions(self, actions: np.ndarray) -> Any:
        """Return the environments' batch of actions from an agent's actions (E, A)."""
        space: Any = self.unwrapped_spaces.action
        batch: Any = create_empty_array(space, self.num_envs)
        return concatenate(space, [self.translation.env_action(action) for action in actions], batch)

    def store_observations(self, observation: Any, places: np.ndarray, finals: Mapping[int, Any]) -> None:
        """Store the observations of some environments. places: a mask (E,). finals: by number, the observations that
        replace those of the next episode."""
        if self.at_once and places.any():
            space: Any = self.unwrapped_spaces.observation
            array = np.array(as_array(observation))
            if array.shape != (self.num_envs, *space.shape) or array.dtype.kind not in "biuf":
                expected = f"{(self.num_envs, *space.shape)}, for {self.num_envs} of {space}"
                raise EnvError(f"the environments gave the observation {show(array)}; expected numbers {expected}")
            for number, final_observation in finals.items():
                array[number] = as_array(final_observation)
            numbers = array.astype(space.dtype).reshape(self.num_envs, -1).astype(np.float32)[places]
            if not (np.abs(numbers) <= LARGEST).all():
                raise EnvError(f"the environments gave the observation {show(numbers)}; expected finite numbers")
            self.observation[None][places] = numbers
            return
        for number in np.flatnonzero(places):
            own_observation = finals[number] if number in finals else row(observation, number)
            try:
                agent_observation, _ = self.translation.agent_observation(own_observation)
            except InputError as error:
                raise EnvError(f"the environments, number {number}: {error}") from None
            self.store_observation(number, agent_observation)

    def check(
        self, rewards: np.ndarray, terminations: np.ndarray, truncations: np.ndarray, playing: np.ndarray
    ) -> None:
        """Raise EnvError for what is not E numbers, and for rewards that are not finite. playing: a mask (E,), whose
        rewards count."""
        arrays = {"terminations": terminations, "truncations": truncations, "rewards": rewards}
        for name, array in arrays.items():
            if array.shape != (self.num_envs,) or array.dtype.kind not in "biuf":
                raise EnvError(
                    f"the environments' step gave the {name} {show(array)}; expected {self.num_envs} numbers"
                )
        if not (np.abs(rewards[playing]) <= LARGEST).all():
            expected = f"numbers from {-LARGEST:g} to {LARGEST:g}"
            raise EnvError(f"the environments' step gave the rewards {show(rewards)}; expected {expected}")

    def record_success(self, info: Mapping[str, Any], playing: np.ndarray, ended: np.ndarray) -> None:
        """Record which episodes have reached their goal so far, where `info` reports it. Raises EnvError."""
        keys = KEYS if self.success_key is None else (self.success_key,)
        final_info = info.get("final_info", {})
        if not any(key in info or key in final_info for key in keys):
            return
        for number in np.flatnonzero(playing):
            own_info = info_of(info, number, bool(ended[number]) and self.mode == SAME_STEP)
            try:
                value = read_success(own_info, self.success_key)
            except ValueError as error:
                raise EnvError(f"the environments' step {error}; expected True or False") from None
            self.success[number] = np.fmax(value, self.success[number])

    def sample_actions(self) -> np.ndarray:
        """Return uniformly random actions (E, A)."""
        return np.stack([self.action_space.sample() for _ in range(self.num_envs)])

    def state_dict(self) -> dict[str, Any]:
        """Return the state between two rounds."""
        environments = None
        if self.saved is not None:
            environments = call("the environments' state_dict", self.saved.state_dict)
        return {
            "seed": self.seed,
            "round": self.round,
            "action_space": self.action_space.np_random.bit_generator.state,
            "environments": environments,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the environments to a state of `state_dict`."""
        self.seed, self.round = state["seed"], state["round"]
        self.action_space.np_random.bit_generator.state = state["action_space"]
        if self.saved is not None and state["environments"] is not None:
            call("the environments' load_state_dict", self.saved.load_state_dict, state["environments"])

    def close(self) -> None:
        """Close the environments."""
        self.example.close()

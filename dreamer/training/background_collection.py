"""Collect in a second process while this one learns, with the weights from the beginning of the iteration."""

from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, NamedTuple

import torch

from dreamer.algorithms.algorithm import Algorithm
from dreamer.build import build_algorithm
from dreamer.config.load import Config
from dreamer.envs.calls import run_calls_within
from dreamer.envs.make import make_train_env
from dreamer.envs.maker import Maker
from dreamer.errors import EnvError
from dreamer.replay.step import Step
from dreamer.training import torch_settings
from dreamer.training.checkpoint_file import copy_to_cpu
from dreamer.training.collect import run_episodes
from dreamer.training.collection_policies import CollectionPolicies, networks_of
from dreamer.training.device import one_thread, tune
from dreamer.training.playing_process import PlayingProcess, playing_device
from dreamer.training.seeding import seeded_randomness

START_LIMIT = 120  # seconds until the process has its environment
EPISODE_LIMIT = 600  # seconds
COLLECTING_STREAM = 1  # an additional seed: an evaluation in the same iteration draws other random numbers


class CollectionRequest(NamedTuple):
    """The inputs of the episodes of an iteration, apart from the state of the environment."""

    weights: dict[str, Any]  # of the policy that plays, from `collection_policies.weights_of`
    iteration: int  # seeds the random numbers, together with the run's seed
    env_steps: int  # collected by the run so far; they determine the active algorithm
    episodes: int


class Collector:
    """Plays the episodes of iterations in its own environment, with its own networks."""

    def __init__(self, env: Any, algorithm: Algorithm, seed: int, traces: bool) -> None:
        self.env, self.algorithm, self.seed = env, algorithm, seed
        self.collection_policies = CollectionPolicies(env, traces)

    def play(self, state: Any, request: CollectionRequest) -> tuple[list[list[Step]], Any]:
        """Play the episodes of a request from a state of the environment. Return (episodes, state after them)."""
        self.env.load_state_dict(state)
        policy = self.collection_policies.policy_for(self.algorithm.active(request.env_steps))
        for name, network in networks_of(policy).items():
            network.load_state_dict(request.weights[name])
        with seeded_randomness(self.seed, request.iteration, COLLECTING_STREAM), one_thread():
            episodes = [list(episode) for episode in run_episodes(self.env, policy, request.episodes)]
        return episodes, self.env.state_dict()


def build_collector(config: Config, device: torch.device, maker: Maker | None = None) -> Collector:
    """Return a `Collector`. maker: as for `make_train_env`. Raises EnvError or ConfigError."""
    seed = config.operation.seed
    run_calls_within(torch_settings.environment_settings)
    with seeded_randomness(seed):
        env = make_train_env(config.environment, seed, maker)
        return Collector(env, build_algorithm(config, env, device), seed, config.operation.fast_paths)


def build_background_collection(
    config: Config, device: torch.device, maker: Maker | None = None
) -> "BackgroundCollection":
    """Return a `BackgroundCollection` for a run. device: of the updates. Raises EnvError or ConfigError."""
    device = playing_device(config, device)
    return BackgroundCollection(partial(build_collector, config, device, maker), partial(tune, config, device))


class BackgroundCollection:
    """Plays the episodes of each iteration in a second process.

    They depend only on the weights, the iteration, the run's seed and the environment's state. The trainer stores them
    before the iteration ends, so a checkpoint needs nothing from this class.
    """

    def __init__(self, make_collector: Callable[[], Collector], prepare: Callable[[], None] | None = None) -> None:
        """make_collector: must be picklable. prepare: called in the process before make_collector. Raises the errors of
        make_collector."""
        self.process = PlayingProcess(make_collector, prepare)
        self.future: Future = self.process.started
        try:
            self.answer(START_LIMIT)
        except BaseException:
            self.close()
            raise

    def start(self, state: Any, request: CollectionRequest) -> None:
        """Begin to play. state: of the environment."""
        weights = copy_to_cpu(request.weights)  # because updates change them during collecting
        self.future = self.process.submit(state, request._replace(weights=weights))
        self.limit = EPISODE_LIMIT * request.episodes

    def result(self) -> tuple[list[list[Step]], Any]:
        """Return (episodes, state of the environment after them). Raises EnvError if the process is lost, and any error
        from playing."""
        return self.answer(self.limit)

    def answer(self, seconds: float) -> Any:
        """Return the process's answer, or raise EnvError if there is none after `seconds`."""
        try:
            return self.future.result(seconds)
        except (BrokenProcessPool, TimeoutError) as error:
            reason = "did not answer in time" if isinstance(error, TimeoutError) else "has ended"
            message = f"operation.background_collection: the process that collects {reason}"
            raise EnvError(f"{message}; --resume goes on from the last checkpoint") from None

    def close(self) -> None:
        """End the process."""
        self.process.close()

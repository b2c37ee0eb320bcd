"""Collecting in a process of its own while this one learns: with the weights from the beginning of the iteration."""

from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, NamedTuple

import torch

from dreamer.algorithms.algorithm import Algorithm
from dreamer.algorithms.policy import Policy, begun_anew
from dreamer.build import build_algorithm
from dreamer.config.load import Config
from dreamer.envs.calls import run_calls_within
from dreamer.envs.make import make_train_env
from dreamer.envs.maker import Maker
from dreamer.errors import EnvError
from dreamer.replay.step import Step
from dreamer.training import torch_settings
from dreamer.training.checkpoint_file import copy_to_cpu
from dreamer.training.collect import PolicyLike, run_episodes
from dreamer.training.device import one_thread, tune
from dreamer.training.playing_process import PlayingProcess, playing_device
from dreamer.training.recorded_policy import record
from dreamer.training.seeding import own_randomness

START_LIMIT = 120  # seconds until the process has its environment
EPISODE_LIMIT = 600  # seconds
OF_COLLECTING = 1  # tells its random numbers from those of an evaluation in the same iteration


class Order(NamedTuple):
    """The inputs of the episodes of an iteration, apart from the state of the environment."""

    weights: dict[str, Any]  # of the policy that plays, as from `weights_of`
    iteration: int  # seeds the random numbers, together with the run's seed
    env_steps: int  # of the run, which tell the algorithm that is active
    episodes: int


class Collectors:
    """The policies by which algorithms collect in an environment. Each is made, and recorded, once."""

    def __init__(self, env: Any, records: bool) -> None:
        """records: whether a policy's computation is recorded and then run as one graph."""
        self.env, self.records = env, records
        self.algorithm: Algorithm | None = None  # the one asked for last
        self.policy: PolicyLike

    def of(self, algorithm: Algorithm) -> PolicyLike:
        """Return the policy by which an algorithm collects, in its initial state."""
        if algorithm is not self.algorithm:
            self.algorithm, self.policy = algorithm, algorithm.collector(self.env)
            if self.records:
                record(self.policy)
        return begun_anew(self.policy)


def networks_of(policy: PolicyLike) -> dict[str, torch.nn.Module]:
    """Return the networks of a policy by their names; none of random actions."""
    return {"model": policy.model, "actor": policy.actor} if isinstance(policy, Policy) else {}


def weights_of(policy: PolicyLike) -> dict[str, Any]:
    """Return a state_dict of each of a policy's networks."""
    return {name: network.state_dict() for name, network in networks_of(policy).items()}


class Collector:
    """Plays the episodes of iterations, in an environment and with networks of its own."""

    def __init__(self, env: Any, algorithm: Algorithm, seed: int, records: bool) -> None:
        self.env, self.algorithm, self.seed = env, algorithm, seed
        self.collectors = Collectors(env, records)

    def play(self, state: Any, order: Order) -> tuple[list[list[Step]], Any]:
        """Play the episodes of an order, from a state of the environment. Return its state after them, too."""
        self.env.load_state_dict(state)
        policy = self.collectors.of(self.algorithm.active(order.env_steps))
        for name, network in networks_of(policy).items():
            network.load_state_dict(order.weights[name])
        with own_randomness(self.seed, order.iteration, OF_COLLECTING), one_thread():
            played = [list(episode) for episode in run_episodes(self.env, policy, order.episodes)]
        return played, self.env.state_dict()


def build_collector(config: Config, device: torch.device, maker: Maker | None = None) -> Collector:
    """Return a `Collector`. maker: as for `make_train_env`. Raises EnvError or ConfigError."""
    seed = config.operation.seed
    run_calls_within(torch_settings.of_environments)
    with own_randomness(seed):
        env = make_train_env(config.environment, seed, maker)
        return Collector(env, build_algorithm(config, env, device), seed, config.operation.fast_paths)


def build_background_collection(
    config: Config, device: torch.device, maker: Maker | None = None
) -> "BackgroundCollection":
    """Return the process that collects for a run. device: the one that learns. Raises EnvError or ConfigError."""
    device = playing_device(config, device)
    return BackgroundCollection(partial(build_collector, config, device, maker), partial(tune, config, device))


class BackgroundCollection:
    """A process that plays the episodes of one iteration after the other.

    What it plays follows from the weights, the iteration, the run's seed and the state of the environment alone. The
    episodes of an iteration are stored before it ends, so a checkpoint knows nothing of them.
    """

    def __init__(self, make_collector: Callable[[], Collector], prepare: Callable[[], None] | None = None) -> None:
        """make_collector: can be pickled. prepare: called in the process before it. Raises what make_collector
        raises."""
        self.process = PlayingProcess(make_collector, prepare)
        self.future: Future = self.process.started
        try:
            self.answer(START_LIMIT)
        except BaseException:
            self.close()
            raise

    def start(self, state: Any, order: Order) -> None:
        """Begin to play. state: of the environment."""
        # copies, since learning changes the weights
        self.future = self.process.submit(state, order._replace(weights=copy_to_cpu(order.weights)))
        self.limit = EPISODE_LIMIT * order.episodes

    def result(self) -> tuple[list[list[Step]], Any]:
        """Return the episodes, and the state of the environment after them. Raises EnvError if the process is lost, and
        what playing has raised."""
        return self.answer(self.limit)

    def answer(self, seconds: float) -> Any:
        """Return what the process answers within some seconds."""
        try:
            return self.future.result(seconds)
        except (BrokenProcessPool, TimeoutError) as error:
            reason = "did not answer in time" if isinstance(error, TimeoutError) else "has ended"
            lost = f"operation.background_collection: the process that collects {reason}"
            raise EnvError(f"{lost}; --resume goes on from the last checkpoint") from None

    def close(self) -> None:
        """End the process."""
        self.process.close()

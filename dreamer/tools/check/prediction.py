"""Predict how long a configuration's run takes on this machine, and how much disk, from measured updates."""

import math
import os
import time
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from dreamer.algorithms.algorithm import Algorithm
from dreamer.build import build_algorithm, build_replay
from dreamer.config.load import Config
from dreamer.envs.make import make_eval_env
from dreamer.replay.buffer import ReplayBuffer
from dreamer.replay.step import Step
from dreamer.tools.check.play import Play
from dreamer.training.collection_policies import CollectionPolicies
from dreamer.training.compiling import compiles
from dreamer.training.data_parallel import NoProgress
from dreamer.training.device import describe_device, select_device, set_threads, tune
from dreamer.training.learner import Learner
from dreamer.training.seeding import seeded_randomness

SECONDS = 3.0  # in which updates are measured
MOST = 20  # calls in a measurement
SLOW = 1.0  # seconds of an update, from which on only a part of the batch is measured
PART = 8  # the measured part is a PART-th of the windows
SHORT = 8  # steps of a window, if an update with one window of this length is slow
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # bytes
CHECKPOINTS = 3  # kept by a run: the newest two and the best


class Prediction(NamedTuple):
    """Holds the predicted time and disk of a run."""

    device: str
    parameters: int  # of all networks
    update_seconds: float  # of one update, not compiled
    is_compiled: bool  # whether the run compiles its updates, which makes them shorter
    env_steps: float  # of the run, if episodes are as long as random ones
    updates: float  # of the run
    hours: float  # of the run
    hours_at_limit: float  # of the run, if episodes have their maximum length
    replay_bytes: float
    checkpoint_bytes: float  # of all kept checkpoints


class Speed(NamedTuple):
    """Holds the seconds of the parts of a run."""

    update: float
    action: float  # of the policy
    env_step: float


def predict(config: Config, play: Play) -> Prediction:
    """Return the time and disk that a configuration's run takes. play: in its environment, frame_skip may differ.

    Raises ConfigError, EnvError, and MemoryError if the networks do not fit into memory.
    """
    device = select_device(config.operation.device)
    set_threads(config, device)
    tune(config, device)
    settings, seed = config.parameters.dreamer, config.operation.seed
    environment = {**config.environment, "num_envs": 1}
    with seeded_randomness(seed), TemporaryDirectory() as folder, closing(make_eval_env(environment, seed)) as env:
        check_memory(config, env, device)
        quick = deepcopy(config)  # these weights are drawn five times as fast, and an update takes as long
        quick.parameters.dreamer.initialization = "glorot"
        algorithm = build_algorithm(quick, env, device)
        replay = build_replay(config, env, folder, seed, algorithm.model.rssm)
        fill(replay, env, 2 * settings.batch_length)
        update = seconds_of_update(config, algorithm, replay)
        speed = Speed(update, seconds_of_action(env, algorithm), play.seconds / max(1, play.env_steps))
        is_compiled = bool(compiles(config, device, env.max_agent_steps))
        sizes = sum(parameter.numel() for network in algorithm.networks.values() for parameter in network.parameters())
        step_bytes, state_bytes = replay.step_type.itemsize + 4 * replay.latent_size, bytes_of(algorithm)
    lengths = [episode.env_steps for episode in play.episodes] or [play.longest]
    skip = config.environment.frame_skip
    usual, longest = (max(1.0, length / skip) for length in (float(np.mean(lengths)), play.longest))
    episodes, steps = length_of_run(config, usual)
    known = (
        steps * skip,
        updates_of(settings, steps, episodes),
        hours(config, speed, usual),
        hours(config, speed, longest),
    )
    stored = min(settings.buffer.capacity, steps + episodes) * step_bytes
    return Prediction(describe_device(device), sizes, update, is_compiled, *known, stored, CHECKPOINTS * state_bytes)


def check_memory(config: Config, env: Any, device: torch.device) -> None:
    """Raise MemoryError if weights, gradients and the optimisers' two averages do not fit into memory, where the system
    would kill the process."""
    with torch.device("meta"):  # takes no memory and no time, even for 400 million numbers
        networks = build_algorithm(config, env, torch.device("meta")).networks
    count = sum(parameter.numel() for network in networks.values() for parameter in network.parameters())
    if device.type == "cpu" and 16 * count > MEMORY:
        raise MemoryError(f"{count:,} parameters need {16 * count / 1e9:.0f} GB; there are {MEMORY / 1e9:.0f} GB")


def fill(replay: ReplayBuffer, env: Any, steps: int) -> None:
    """Store an episode of random numbers in the form of an environment's steps, to measure updates with."""
    for number in range(steps):
        action = np.asarray(env.action_space.sample(), np.float32)
        replay.add(Step(env.observation_space.sample(), action, 0.0, number == 0, False, 1))
    replay.finish_episode()


def seconds_of_update(config: Config, algorithm: Algorithm, replay: ReplayBuffer) -> float:
    """Return the seconds of an update, without compiling.

    On a CPU, the time of a slow update is extrapolated linearly from updates with two smaller batches: an eighth and a
    quarter of the windows or, if one short window is already slow, one and four short windows.
    """
    windows, length = config.parameters.dreamer.batch_size, config.parameters.dreamer.batch_length
    short, few = min(SHORT, length), max(1, windows // PART)

    def seconds(count: int, steps: int = length) -> float:
        return timed(updating(config, algorithm, replay, count, steps))

    if algorithm.device.type != "cpu" or windows == 1:
        return seconds(windows)
    one = seconds(1, short)
    if one > SLOW:
        more = min(4, windows)
        return extrapolated((1, one), (more, seconds(more, short)), windows * length / short)
    part = seconds(few)
    if part * windows / few < SLOW:
        return seconds(windows)
    return extrapolated((few, part), (2 * few, seconds(2 * few)), windows)


def extrapolated(one: tuple[float, float], other: tuple[float, float], size: float) -> float:
    """Return the seconds for `size` on the line through two measurements (size, seconds); at least the first's."""
    slope = (other[1] - one[1]) / (other[0] - one[0])
    return one[1] + max(0.0, slope) * (size - one[0])


def updating(
    config: Config, algorithm: Algorithm, replay: ReplayBuffer, windows: int, length: int
) -> Callable[[], object]:
    """Return a function that makes an update with `windows` windows of `length` steps and waits for the device."""
    changed = deepcopy(config)
    changed.parameters.dreamer.batch_size, changed.parameters.dreamer.batch_length = windows, length
    changed.operation.compile = False
    learner = Learner(changed, algorithm.device, replay, NoProgress())

    def update() -> None:
        learner.make(algorithm, 1)
        if algorithm.device.type == "cuda":
            torch.cuda.synchronize(algorithm.device)

    return update


def timed(function: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some calls.

    With one thread, processor time is measured, so that other programs do not count.
    """
    clock = time.process_time if torch.get_num_threads() == 1 and not torch.cuda.is_available() else time.perf_counter
    started = time.perf_counter()
    seconds: list[float] = []
    while not seconds or (time.perf_counter() - started < SECONDS and len(seconds) < MOST):
        before = clock()
        function()
        seconds.append(clock() - before)
    return min(seconds)


def seconds_of_action(env: Any, algorithm: Algorithm) -> float:
    """Return the seconds that the policy takes for an action."""
    policy, action = CollectionPolicies(env, traces=False).policy_for(algorithm), env.action_space.sample()
    step = Step(env.observation_space.sample(), np.asarray(action, np.float32), 0.0, True, False, 0)
    return timed(lambda: policy(step))


def bytes_of(algorithm: Algorithm) -> int:
    """Return the bytes of an algorithm's state, weights and optimisers. It must have made an update."""
    leaves = [leaf for leaf in tree_leaves(algorithm.state_dict()) if isinstance(leaf, torch.Tensor)]
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves)


def length_of_run(config: Config, length: float) -> tuple[float, float]:
    """Return (episodes, agent steps) of a run. length: of an episode, in agent steps."""
    settings = config.parameters.dreamer
    iterations = settings.train_iterations
    an_iteration = settings.num_interaction_episodes * length
    if settings.max_env_steps is not None:
        most = settings.max_env_steps / (an_iteration * config.environment.frame_skip)
        iterations = min(iterations, max(1, math.ceil(most)))
    episodes = settings.seed_episodes + iterations * settings.num_interaction_episodes
    return episodes, episodes * length


def updates_of(settings: Config, steps: float, episodes: float) -> float:
    """Return the number of updates of a run. steps, episodes: of the whole run. settings: `parameters.dreamer`."""
    if settings.train_ratio:
        return settings.pretrain + steps * settings.train_ratio / (settings.batch_size * settings.batch_length)
    iterations = (episodes - settings.seed_episodes) / settings.num_interaction_episodes
    return settings.pretrain + iterations * settings.collect_interval


def hours(config: Config, speed: Speed, length: float) -> float:
    """Return the hours of a run whose episodes have this length, in agent steps."""
    settings = config.parameters.dreamer
    episodes, steps = length_of_run(config, length)
    evaluated = (
        episodes / settings.num_interaction_episodes / settings.evaluate_interval * settings.num_evaluate * length
    )
    playing = (steps + evaluated) * (speed.action + speed.env_step * config.environment.frame_skip)
    return (playing + updates_of(settings, steps, episodes) * speed.update) / 3600

"""Predict how long a configuration's run takes on this machine, and how much disk, from measured updates."""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
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
MAX_CALLS = 20  # calls in a measurement
SLOW_UPDATE = 1.0  # seconds of an update, from which on only a part of the batch is measured
BATCH_DIVISOR = 8  # the measured part is a PART-th of the windows
SHORT_WINDOW = 8  # steps of a window, if an update with one window of this length is slow
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # bytes
KEPT_CHECKPOINTS = 3  # kept by a run: the newest two and the best


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
        quick_config = deepcopy(config)  # these weights are drawn five times as fast, and an update takes as long
        quick_config.parameters.dreamer.initialization = "glorot"
        algorithm = build_algorithm(quick_config, env, device)
        replay = build_replay(config, env, folder, seed, algorithm.model.rssm)
        fill_replay(replay, env, 2 * settings.batch_length)
        update_seconds = measure_update(config, algorithm, replay)
        speed = Speed(update_seconds, measure_action(env, algorithm), play.seconds / max(1, play.env_steps))
        is_compiled = bool(compiles(config, device, env.max_agent_steps))
        parameters = count_parameters(algorithm.networks)
        step_bytes = replay.step_type.itemsize + 4 * replay.latent_size
        checkpoint_bytes = state_bytes(algorithm)
    lengths = [episode.env_steps for episode in play.episodes] or [play.longest_episode]
    action_repeat = config.environment.frame_skip
    mean_length = max(1.0, float(np.mean(lengths)) / action_repeat)
    max_length = max(1.0, play.longest_episode / action_repeat)
    episodes, agent_steps = run_length(config, mean_length)
    return Prediction(
        device=describe_device(device),
        parameters=parameters,
        update_seconds=update_seconds,
        is_compiled=is_compiled,
        env_steps=agent_steps * action_repeat,
        updates=run_updates(settings, agent_steps, episodes),
        hours=run_hours(config, speed, mean_length),
        hours_at_limit=run_hours(config, speed, max_length),
        replay_bytes=min(settings.buffer.capacity, agent_steps + episodes) * step_bytes,
        checkpoint_bytes=KEPT_CHECKPOINTS * checkpoint_bytes,
    )


def count_parameters(networks: Mapping[str, nn.Module]) -> int:
    """Return the number of parameters of all networks."""
    return sum(parameter.numel() for network in networks.values() for parameter in network.parameters())


def check_memory(config: Config, env: Any, device: torch.device) -> None:
    """Raise MemoryError if weights, gradients and the optimisers' two averages do not fit into memory, where the system
    would kill the process."""
    with torch.device("meta"):  # takes no memory and no time, even for 400 million numbers
        networks = build_algorithm(config, env, torch.device("meta")).networks
    count = count_parameters(networks)
    if device.type == "cpu" and 16 * count > MEMORY:
        raise MemoryError(f"{count:,} parameters need {16 * count / 1e9:.0f} GB; there are {MEMORY / 1e9:.0f} GB")


def fill_replay(replay: ReplayBuffer, env: Any, steps: int) -> None:
    """Store an episode of random numbers in the form of an environment's steps, to measure updates with."""
    for number in range(steps):
        action = np.asarray(env.action_space.sample(), np.float32)
        replay.add(Step(env.observation_space.sample(), action, 0.0, number == 0, False, 1))
    replay.finish_episode()


def measure_update(config: Config, algorithm: Algorithm, replay: ReplayBuffer) -> float:
    """Return the seconds of an update, without compiling.

    On a CPU, the time of a slow update is extrapolated linearly from updates with two smaller batches: an eighth and a
    quarter of the windows or, if one short window is already slow, one and four short windows.
    """
    batch_size, length = config.parameters.dreamer.batch_size, config.parameters.dreamer.batch_length

    def measure(windows: int, window_length: int = length) -> float:
        return fastest_call(make_update(config, algorithm, replay, windows, window_length))

    if algorithm.device.type != "cpu" or batch_size == 1:
        return measure(batch_size)
    short_length = min(SHORT_WINDOW, length)
    one_window = measure(1, short_length)
    if one_window > SLOW_UPDATE:
        windows = min(4, batch_size)
        several_windows = measure(windows, short_length)
        return extrapolate((1, one_window), (windows, several_windows), batch_size * length / short_length)
    windows = max(1, batch_size // BATCH_DIVISOR)
    small_batch = measure(windows)
    if small_batch * batch_size / windows < SLOW_UPDATE:
        return measure(batch_size)
    return extrapolate((windows, small_batch), (2 * windows, measure(2 * windows)), batch_size)


def extrapolate(first: tuple[float, float], second: tuple[float, float], size: float) -> float:
    """Return the seconds for `size` on the line through two measurements (size, seconds); at least the first's."""
    slope = (second[1] - first[1]) / (second[0] - first[0])
    return first[1] + max(0.0, slope) * (size - first[0])


def make_update(
    config: Config, algorithm: Algorithm, replay: ReplayBuffer, windows: int, length: int
) -> Callable[[], object]:
    """Return a function that makes an update with `windows` windows of `length` steps and waits for the device."""
    measured_config = deepcopy(config)
    measured_config.parameters.dreamer.batch_size = windows
    measured_config.parameters.dreamer.batch_length = length
    measured_config.operation.compile = False
    learner = Learner(measured_config, algorithm.device, replay, NoProgress())

    def update() -> None:
        learner.make(algorithm, 1)
        if algorithm.device.type == "cuda":
            torch.cuda.synchronize(algorithm.device)

    return update


def fastest_call(function: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some calls.

    With one thread, processor time is measured, so that other programs do not count.
    """
    is_single_threaded = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = time.process_time if is_single_threaded else time.perf_counter
    started = time.perf_counter()
    durations: list[float] = []
    while not durations or (time.perf_counter() - started < SECONDS and len(durations) < MAX_CALLS):
        before = clock()
        function()
        durations.append(clock() - before)
    return min(durations)


def measure_action(env: Any, algorithm: Algorithm) -> float:
    """Return the seconds that the policy takes for an action."""
    policy = CollectionPolicies(env, traces=False).policy_for(algorithm)
    action = np.asarray(env.action_space.sample(), np.float32)
    step = Step(env.observation_space.sample(), action, 0.0, True, False, 0)
    return fastest_call(lambda: policy(step))


def state_bytes(algorithm: Algorithm) -> int:
    """Return the bytes of an algorithm's state, weights and optimisers. It must have made an update."""
    tensors = [tensor for tensor in tree_leaves(algorithm.state_dict()) if isinstance(tensor, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def run_length(config: Config, episode_length: float) -> tuple[float, float]:
    """Return (episodes, agent steps) of a run. episode_length: in agent steps."""
    settings = config.parameters.dreamer
    iterations = settings.train_iterations
    iteration_steps = settings.num_interaction_episodes * episode_length
    if settings.max_env_steps is not None:
        max_iterations = settings.max_env_steps / (iteration_steps * config.environment.frame_skip)
        iterations = min(iterations, max(1, math.ceil(max_iterations)))
    episodes = settings.seed_episodes + iterations * settings.num_interaction_episodes
    return episodes, episodes * episode_length


def run_updates(settings: Config, steps: float, episodes: float) -> float:
    """Return the number of updates of a run. steps, episodes: of the whole run. settings: `parameters.dreamer`."""
    if settings.train_ratio:
        return settings.pretrain + steps * settings.train_ratio / (settings.batch_size * settings.batch_length)
    iterations = (episodes - settings.seed_episodes) / settings.num_interaction_episodes
    return settings.pretrain + iterations * settings.collect_interval


def run_hours(config: Config, speed: Speed, episode_length: float) -> float:
    """Return the hours of a run. episode_length: in agent steps."""
    settings = config.parameters.dreamer
    episodes, steps = run_length(config, episode_length)
    iterations = episodes / settings.num_interaction_episodes
    evaluation_steps = iterations / settings.evaluate_interval * settings.num_evaluate * episode_length
    agent_step_seconds = speed.action + speed.env_step * config.environment.frame_skip
    playing_seconds = (steps + evaluation_steps) * agent_step_seconds
    learning_seconds = run_updates(settings, steps, episodes) * speed.update
    return (playing_seconds + learning_seconds) / 3600

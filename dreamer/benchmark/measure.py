"""What a configuration costs on this machine: its own algorithm, environment and replay at work."""

import os
import platform
import resource
import statistics
import sys
import time
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from dreamer.algorithms.dreamer import Dreamer
from dreamer.algorithms.policy import random_policy
from dreamer.benchmark.parts import part_seconds
from dreamer.benchmark.timing import matmul_gflops, timed
from dreamer.build import build_algorithm, build_networks
from dreamer.collect import run_episode
from dreamer.config import load_config
from dreamer.device import describe_device, select_device
from dreamer.envs.make import is_discrete, make_eval_env, make_train_env
from dreamer.replay import ReplayBuffer
from dreamer.seeding import seed_everything
from dreamer.speed import tune_for

MEASUREMENTS = {  # what can be asked for, and the figures that tell it
    "update": ("update_flops", "update_seconds", "matmul"),
    "parts": ("parts",),
    "memory": ("resident_gb", "cuda_gb"),
    "sampling": ("sampling_ms",),
    "acting": ("acting_ms",),
    "rendering": ("rendering_fps",),
    "collection": ("collection_steps_per_second",),
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Overrides for the form of the code whose operations are counted.
PLAIN = ["operation.fast_paths=False", "operation.precision=float32"]
WARM_UP = {"cpu": 3, "cuda": 5}  # updates before the first that counts; memory grows until the third
ENOUGH = 20  # seconds of updates, but 2 to 50 of them
PLAYED = 50  # agent steps at a time
BAR = {"leave": False, "mininterval": 2}  # on standard error


class Subject(NamedTuple):
    """What is measured."""

    algorithm: Dreamer
    plain: Dreamer  # its plain form on torch's meta device, where operations can be counted without any work
    env: object  # as it is trained in
    single_env: object


def measure(name, overrides, only, updates=None):
    """The figures of a configuration, by name.

    only: which of MEASUREMENTS. updates: how many are timed, None for as many as are enough. Raises
    ConfigError and EnvError.
    """
    config, plain_config = load_config(name, overrides), load_config(name, [*overrides, *PLAIN])
    only, figures = set(only), {}
    about = {"config": str(name), "overrides": list(overrides), **describe(config)}
    with prepared(config, plain_config) as subject:
        algorithm = subject.algorithm
        if only & {"update", "parts", "memory"}:
            updates = warm_up(algorithm, updates)
        if only & {"memory"}:
            figures |= measure_memory(algorithm.device)
        if only & {"update"}:
            figures |= measure_update(algorithm, updates)
            figures["update_flops"] = count_flops(subject.plain)
        if only & {"parts"}:
            figures["parts"] = part_seconds(algorithm, max(1, updates // 5))
        if only & {"sampling"}:
            figures["sampling_ms"] = measure_sampling(algorithm)
        if only & {"acting", "rendering", "collection"}:
            figures |= measure_playing(subject)
    asked = [figure for measurement in only for figure in MEASUREMENTS[measurement]]
    return about | {name: figure for name, figure in figures.items() if name in asked}


def describe(config):
    """What was measured on, and with."""
    device = select_device(config.operation.device)
    return {
        "device": describe_device(device),
        "processor": processor(),
        "torch": torch.__version__,
        "precision": config.operation.precision,
    }


def processor():
    """The name of the CPU, as far as it is known."""
    with suppress(OSError):
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return f"{os.cpu_count()} x {names[0].partition(':')[2].strip()}"
    return platform.processor()


@contextmanager
def prepared(config, plain_config):
    """The `Subject` of a configuration, with random play in its replay."""
    seed_everything(config.operation.seed)
    device = select_device(config.operation.device)
    tune_for(config, device)
    env = make_train_env(config.environment, config.operation.seed)
    single_env = make_eval_env(config.environment, config.operation.seed)
    space, action_size = single_env.observation_space, single_env.action_space.shape[0]
    with TemporaryDirectory() as folder, closing(env), closing(single_env):
        capacity = config.parameters.dreamer.buffer.capacity
        buffer = ReplayBuffer(folder, capacity, space.shape, space.dtype, action_size, config.operation.seed)

        def build(config, device):
            networks = build_networks(config, space.shape, action_size, is_discrete(single_env))
            networks = {name: network.to(device) for name, network in networks.items()}
            return build_algorithm(config, networks, buffer, Silent(), Silent())

        fill(buffer, single_env, min(capacity, max(200, 2 * config.parameters.dreamer.batch_length)))
        yield Subject(build(config, device), build(plain_config, torch.device("meta")), env, single_env)


class Silent:
    """Stands in for the logger and for the progress bar."""

    def __getattr__(self, name):
        return lambda *arguments, **keywords: None


def fill(buffer, env, steps):
    """At least so many agent steps of random play into the replay."""
    with tqdm(total=steps, desc="random play", **BAR) as bar:
        while len(buffer) < steps:
            for step in islice(run_episode(env, random_policy(env)), steps // 2):
                buffer.add(step)
                bar.update()


def warm_up(algorithm, updates):
    """The first updates, slower than what follows. Returns how many to time: `updates`, if that is not None."""
    for _ in tqdm(range(WARM_UP[algorithm.device.type]), "warming up", **BAR):
        seconds, _ = timed(algorithm.device, algorithm.run_update, algorithm.sample())
    return updates or min(50, max(2, round(ENOUGH / seconds)))


def measure_update(algorithm, updates):
    """Seconds of an update, and GFLOP/s of large products of matrices between the updates: medians."""
    device, seconds, products = algorithm.device, [], []
    for number in tqdm(range(updates), "updates", **BAR):
        if number % -(-updates // 5) == 0:
            products.append({name: matmul_gflops(device, dtype) for name, dtype in PRECISIONS.items()})
        seconds.append(timed(device, algorithm.run_update, algorithm.sample())[0])
    matmul = {name: statistics.median(row[name] for row in products) for name in PRECISIONS}
    return {"update_seconds": statistics.median(seconds), "matmul": matmul}


def count_flops(plain):
    """Floating-point operations of an update, a multiply-add being two: those of all products of matrices and
    convolutions, forward and backward. What is done to each element alone is left out."""
    with FlopCounterMode(display=False) as counter:
        plain.update(plain.sample())
    return counter.get_total_flops()


def measure_memory(device):
    """The peaks so far, in 1e9 bytes: resident in main memory, and allocated on a GPU."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    memory = {"resident_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if device.type == "cuda":
        memory["cuda_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return memory


def measure_sampling(algorithm):
    """Milliseconds in which a batch comes from the replay to the device, the median of 20."""
    return 1000 * statistics.median(timed(algorithm.device, algorithm.sample)[0] for _ in range(20))


def measure_playing(subject):
    """Steps a second of the bare environment, with its frames, and of collection; milliseconds in which the policy
    acts. Medians of three, in turns."""
    algorithm, env, single_env, rows = subject.algorithm, subject.env, subject.single_env, []
    num_envs = getattr(env, "num_envs", 1)
    for _ in tqdm(range(3), "playing", **BAR):
        alone, _ = play(random_policy(single_env), lambda policy: list(run_episode(single_env, policy)))
        together, acting = play(
            algorithm.collection_policy(env), lambda policy: algorithm.environment_interaction(env, policy, num_envs)
        )
        rows.append(
            {
                "rendering_fps": 1 / alone,
                "collection_steps_per_second": num_envs / together,
                "acting_ms": 1000 * acting,
            }
        )
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


class Enough(Exception):
    """Enough has been played."""


def play(policy, episodes):
    """`episodes(policy)`, again and again, until the policy has been called PLAYED times. Returns seconds from one
    call to the next, a mean that includes resets, and seconds in one call, the median."""
    entered, inside = [], []

    def watched(*arguments):
        entered.append(time.perf_counter())
        if len(entered) > PLAYED:
            raise Enough
        action = policy(*arguments)  # on the CPU: there is no device to wait for
        inside.append(time.perf_counter() - entered[-1])
        return action

    with suppress(Enough):
        while True:
            episodes(watched)
    return (entered[-1] - entered[0]) / PLAYED, statistics.median(inside)

"""Measure a configuration in this process: time, memory and operations of an update, and playing."""

import math
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.benchmark import Timer, timer
from torch.utils.flop_counter import flop_registry

from dreamer.algorithms.policy import random_policy
from dreamer.build import build_algorithm, build_replay
from dreamer.config.load import Config, load_config
from dreamer.envs.make import make_eval_env, make_train_env
from dreamer.modules import convolutions, decoder, ensemble, kernels
from dreamer.training.collect import run_episode
from dreamer.training.cuda_graph import to_device
from dreamer.training.data_parallel import NoEvaluationRunner
from dreamer.training.device import BFLOAT16, describe_device, describe_processor, select_device, set_threads, tune
from dreamer.training.seeding import seed_everything
from dreamer.training.trainer import Trainer

PLAYING_MEASUREMENTS = ["acting", "rendering", "collection"]
MEASUREMENTS = ["update", "parts", "memory", "sampling", *PLAYING_MEASUREMENTS]
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}  # rows and columns, enough to keep the device busy
WARM_UP = {"cpu": 3, "cuda": 5}  # updates before the first that counts; memory grows until the third
MEASURING_SECONDS = 20  # seconds to measure updates (2 to 50 of them); half of that to measure playing
PARTS = ["world model's loss", "observed states", "behaviour's losses", "imagination"]  # the first includes the second
PARTS += ["novelty", "intrinsic reward", "backward pass", "optimiser"]


def measure(
    names: Sequence[str], overrides: Sequence[str], only: Sequence[str], updates: int | None = None
) -> dict[str, Any]:
    """Return the figures of a configuration, by name. Raises ConfigError and EnvError.

    only: some of MEASUREMENTS. updates: number to time; None: 2 to 50, for about ENOUGH seconds.
    """
    config, measurements = load_config(names, overrides), set(only)
    device = select_device(config.operation.device)
    figures: dict[str, Any] = {"config": " ".join(names), "overrides": list(overrides)}
    figures["device"] = describe_device(device)
    figures |= describe_processor() | {"torch": torch.__version__, "precision": config.operation.precision}
    with prepared_trainer(config, device) as (trainer, single_env):
        if measurements & {"update", "parts", "memory"}:
            figures |= measure_updates(config, trainer, measurements, updates)
        if "sampling" in measurements:
            figures["sampling_ms"] = 1000 * median(call_timed(trainer.learner.sample)[0] for _ in range(20))
            if "update" in measurements:
                figures["sampling_percent"] = figures["sampling_ms"] / figures["update_seconds"] / 10
        if measurements & set(PLAYING_MEASUREMENTS):
            figures |= measure_playing(trainer, single_env)
    return figures


@contextmanager
def prepared_trainer(config: Config, device: torch.device) -> Iterator[tuple[Trainer, Any]]:
    """Yield (a trainer that reports nothing and has random steps in its replay, a single environment)."""
    set_threads(config, device)
    tune(config, device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # torch's timer waits for the current device
    settings, seed = config.parameters.dreamer, config.operation.seed
    seed_everything(seed)
    env, single_env = make_train_env(config.environment, seed), make_eval_env(config.environment, seed)
    with TemporaryDirectory() as folder, closing(env), closing(single_env):
        algorithm = build_algorithm(config, env, device)
        replay = build_replay(config, env, folder, seed, algorithm.model.rssm)
        trainer = Trainer(config, algorithm, env, NoEvaluationRunner(), replay, Mock(), Mock())
        while replay.end < max(200, 2 * settings.batch_length):
            trainer.store_episode(islice(run_episode(single_env, random_policy(single_env)), 200))
        yield trainer, single_env


def call_timed(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[float, Any]:
    """Call a function and return (seconds, result), by a clock that waits for the device."""
    started = timer()
    result = function(*arguments, **keywords)
    return timer() - started, result


def medians(rounds: Sequence[Any]) -> Any:
    """Return one set of figures from several rounds: the median of each number."""
    example = rounds[0]
    if isinstance(example, dict):
        return {name: medians([figures[name] for figures in rounds]) for name in example}
    return median(rounds) if isinstance(example, (int, float)) else example


def measure_updates(config: Config, trainer: Trainer, measurements: set[str], updates: int | None) -> dict[str, Any]:
    """Return time, memory and parts of the trainer's updates."""
    device = trainer.algorithm.device
    figures: dict[str, Any] = {}
    # Captures the update in a CUDA graph, if that is possible.
    trainer.learner.make(trainer.algorithm, WARM_UP[device.type])
    if updates is None:
        seconds, _ = call_timed(trainer.learner.run_update, trainer.learner.sample())
        updates = min(50, max(2, round(MEASURING_SECONDS / seconds)))
    if "memory" in measurements:
        bytes_per_unit = 1 if sys.platform == "darwin" else 1024  # bytes
        figures["resident_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_per_unit / 1e9
        if device.type == "cuda":
            figures["cuda_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    if "update" in measurements:
        durations, gflops = [], []
        updates_per_matmul = math.ceil(updates / 5)
        for number in range(updates):
            if number % updates_per_matmul == 0:
                gflops.append(matmul_gflops(device))
            durations.append(call_timed(trainer.learner.run_update, trainer.learner.sample())[0])
        figures |= {"update_seconds": median(durations), "matmul": medians(gflops)}
        figures |= count_operations(config, trainer.env, trainer.learner.sample())
        if config.operation.precision in figures["matmul"]:
            figures["matmul_gflops"] = figures["matmul"][config.operation.precision]
            figures["fraction_of_peak"] = figures["update_flops"] / median(durations) / figures["matmul_gflops"] / 1e9
    if "parts" in measurements:
        figures["parts"] = part_seconds(trainer, max(1, updates // 5))
    return figures


def matmul_gflops(device: torch.device) -> dict[str, float]:
    """Return {precision: 1e9 operations a second} of products of large matrices, the best of several.

    A multiply-add is two operations. bfloat16 is left out without hardware for it, where it would take minutes.
    """
    size, gflops = MATRIX_SIZE[device.type], {}
    on_gpu = device.type == "cuda"
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else BFLOAT16
    for precision in ["float32", "bfloat16"] if has_bfloat16 else ["float32"]:
        matrix = torch.randn(size, size, device=device).to(getattr(torch, precision))
        measurement_timer = Timer("matrix @ matrix", globals={"matrix": matrix}, num_threads=torch.get_num_threads())
        gflops[precision] = 2 * size**3 / min(measurement_timer.blocked_autorange(min_run_time=0.5).times) / 1e9
    return gflops


class Operations(TorchDispatchMode):
    """Counts torch's operations, views included, and the floating-point operations of matrix products and
    convolutions."""

    count, flops = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        self.count += 1
        if function._overloadpacket in flop_registry:
            self.flops += flop_registry[function._overloadpacket](*arguments, **(keywords or {}), out_val=result)
        return result


def count_operations(config: Config, env: Any, batch: Any) -> dict[str, int]:
    """Return the number of torch's operations and of floating-point operations in an update.

    Floating-point operations are those of matrix products and convolutions in their plain form, forward and backward; a
    multiply-add is two. Element-wise operations are left out.
    """
    meta = torch.device("meta")  # nothing is computed there; autocast does not support it
    convolution = patch.object(decoder, "transposed_convolution", convolutions.plain_transposed_convolution)
    all_rows = patch.object(ensemble, "row_by_row", kernels.plain_row_by_row)
    with patch("torch.autocast"), convolution, all_rows:
        algorithm, batch = build_algorithm(config, env, meta), to_device(batch, meta)
        with Operations() as operations:
            algorithm.update(batch)
    return {"update_flops": operations.flops, "update_operations": operations.count}


def measure_playing(trainer: Trainer, single_env: Any) -> dict[str, float]:
    """Return the agent steps a second of one environment alone and of collection, and the milliseconds of an action.

    Episodes of both are played in turn for some seconds; the figures are medians.
    """
    policy = trainer.collection_policies.policy_for(trainer.algorithm)
    episodes = getattr(trainer.env, "num_envs", 1)
    action_milliseconds: list[float] = []
    env_rates: list[float] = []
    collection_rates: list[float] = []
    started = timer()

    def timed_policy(step):
        seconds, action = call_timed(policy, step)
        action_milliseconds.append(1000 * seconds)
        return action

    while not env_rates or timer() - started < MEASURING_SECONDS / 2:
        end_before = trainer.replay.end
        seconds, steps = call_timed(list, run_episode(single_env, random_policy(single_env)))
        env_rates.append((len(steps) - 1) / seconds)
        seconds, _ = call_timed(trainer.collect, timed_policy, episodes)
        collection_rates.append((trainer.replay.end - end_before - episodes) / seconds)
    return {
        "rendering_fps": median(env_rates),
        "collection_steps_per_second": median(collection_rates),
        "collection_of_rendering": median(collection_rates) / median(env_rates),
        "acting_ms": median(action_milliseconds),
    }


def part_seconds(trainer: Trainer, updates: int) -> dict[str, float]:
    """Return {part: seconds in an update} by the profiler, means over some updates.

    Parts overlap: the world model's loss includes the observed states, the losses of behaviour include the
    imagination.
    """
    on_gpu = trainer.algorithm.device.type == "cuda"
    activities = [ProfilerActivity.CPU]
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        for _ in range(updates):
            trainer.algorithm.update(trainer.learner.sample())
    seconds = {}
    for event in profiled.key_averages():
        if event.key in PARTS:
            microseconds = event.device_time_total if on_gpu else event.cpu_time_total
            seconds[event.key] = microseconds / updates / 1e6
    return {part: seconds[part] for part in PARTS if part in seconds}

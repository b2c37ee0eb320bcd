"""Select the device to compute on, and tune this process for it: threads, memory, matrix products."""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from dreamer.config.load import Config
from dreamer.envs.rendering import prefer_gpu
from dreamer.errors import ConfigError

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
CPUINFO = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
BFLOAT16 = sorted({*re.findall(r"\b(?:avx512_|amx_)?bf16\b", CPUINFO)})  # the CPU's bfloat16 instructions
UNITS = r"\b(?:avx2|avx512f|avx512_bf16|amx_tile|amx_bf16|asimd|sve|bf16)\b"  # instruction sets for fast products
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")  # as Linux describes them
LARGE = 1000  # rows of a matrix product, B·T, from which on threads and oneDNN are faster although a call takes longer

Item = TypeVar("Item")


def select_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if there is one, else the CPU. Raises ConfigError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"operation.device: no {name} here ({count} CUDA devices); take cpu or auto")
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ConfigError for bfloat16 on a device without hardware for it, where it is far slower than float32.

    Outside Linux the processor's instructions are not known, and bfloat16 is accepted.
    """
    if precision != "bfloat16":
        return
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        reason = "this GPU is of a compute capability below 8.0"
    elif device.type == "cpu" and CPUINFO and not BFLOAT16:
        reason = "this processor has neither avx512_bf16 nor amx_bf16"
    else:
        return
    raise ConfigError(f"operation.precision: {reason}, so bfloat16 would be slower; take float32")


def describe_device(device: torch.device) -> str:
    """Return a device as text, with the GPU's name or the number of threads on the CPU."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"


def describe_processor() -> dict[str, str]:
    """Return texts on the CPU: {"processor": its name, "units": instruction sets for products, "caches": for data}.

    Outside Linux some of them are empty.
    """
    parts = dict(re.findall(r"^(.+?)\s*: (.*)$", CPUINFO.partition("\n\n")[0], re.MULTILINE))  # of the first core
    name = parts.get("model name") or platform.processor()
    if "cpu family" in parts:
        name += f" (family {parts['cpu family']}, model {parts['model']})"
    caches = []
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size = ((folder / part).read_text().strip() for part in ("level", "type", "size"))
        if kind != "Instruction":
            caches.append(f"L{level} {size}")
    units = sorted({*re.findall(UNITS, CPUINFO)})
    return {"processor": f"{os.cpu_count()} x {name}", "units": ", ".join(units), "caches": ", ".join(caches)}


def set_threads(config: Config, device: torch.device, before: int | None = None) -> None:
    """Set the number of threads that compute an operation on a CPU, from `operation.threads`.

    before: the number of threads that the run had so far, None for a new one. "auto" is OMP_NUM_THREADS if it is set;
    else `before`, since another number changes the last digits; else one thread for a small update, where more would
    mostly wait for each other, and all cores for a large one.
    """
    if config.operation.threads != "auto":
        torch.set_num_threads(int(config.operation.threads))
    elif device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        if before:
            torch.set_num_threads(before)
        elif not is_large(config):
            torch.set_num_threads(1)


def is_large(config: Config) -> bool:
    """Return whether an update's batch has LARGE or more rows, B·T."""
    return config.parameters.dreamer.batch_size * config.parameters.dreamer.batch_length >= LARGE


def tune(config: Config, device: torch.device) -> None:
    """Choose the GPU that renders and, unless `operation.fast_paths` is False, set memory allocation and precision.

    Call it before the first large tensor, and before an environment is made.
    """
    if device.type == "cuda":
        prefer_gpu(device.index or 0)
    if not config.operation.fast_paths:
        return
    keep_memory()
    if device.type == "cuda":
        if device.index:
            torch.cuda.set_device(device)  # CUDA graphs are captured on the current device
        torch.backends.cudnn.benchmark = True  # pays off, since the same few shapes recur
    set_precision(config, device)


def set_precision(config: Config, device: torch.device) -> None:
    """Set the precision of torch's matrix products, unless `operation.fast_paths` is False."""
    if not config.operation.fast_paths:
        return
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as cuDNN's convolutions have it anyway
        return
    torch.set_float32_matmul_precision("highest")
    if is_large(config):
        choose_matrix_products()


@contextmanager
def preserved_precision() -> Iterator[None]:
    """Restore the precision of torch's matrix products after the block."""
    precision = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread in the block.

    Use it for acting: a batch of one gains nothing from more threads, and waiting threads slow the renderer.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def on_one_thread(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items of an iterable, each computed on one thread. The caller's code keeps its number of threads."""
    iterator = iter(items)
    while True:
        try:
            with one_thread():
                item = next(iterator)
        except StopIteration:
            return
        yield item


def keep_memory() -> None:
    """Let glibc keep the memory of freed tensors.

    Otherwise it returns each large block to the system, and the next one is zeroed page by page: half of an update's
    time.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda parameter, value: None)  # musl has none
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 2**29)


def choose_matrix_products() -> None:
    """Use oneDNN for matrix products if it is as exact as MKL, which is a fifth slower on AMD's processors.

    PyTorch uses oneDNN at "medium" precision. With bfloat16 units in the processor that rounds to bfloat16, which the
    error of a test product shows.
    """
    torch.set_float32_matmul_precision("medium")
    grid = torch.arange(256.0**2).reshape(256, 256)
    matrix = (grid * 0.7).sin()
    error = (matrix @ matrix.T - (matrix.double() @ matrix.double().T)).abs().max()
    if error > 1e-3:
        torch.set_float32_matmul_precision("highest")

"""Where to compute, and the settings of the process that make it faster there."""

import ctypes
import os
import platform
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from dreamer.envs.rendering import prefer_gpu
from dreamer.errors import ConfigError

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
CPUINFO = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
BFLOAT16 = sorted({*re.findall(r"\b(?:avx512_|amx_)?bf16\b", CPUINFO)})  # what multiplies it, by the CPU's own names
UNITS = r"\b(?:avx2|avx512f|avx512_bf16|amx_tile|amx_bf16|asimd|sve|bf16)\b"  # for products, by the same names
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")  # as Linux describes them
LARGE = 1000  # rows of most products, B·T, from which on oneDNN's greater cost of a call is won back


def select_device(name):
    """auto: a GPU where there is one, else the CPU. Raises ConfigError for a GPU that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"operation.device: no {name} here ({count} CUDA devices); take cpu or auto")
    return device


def check_precision(precision, device):
    """Raise ConfigError where bfloat16 is asked for and the device has no units for it: it would run, far slower than
    float32. A processor that does not tell (not of Linux) is taken at the user's word."""
    if precision != "bfloat16":
        return
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        lacking = "this GPU is of a compute capability below 8.0"
    elif device.type == "cpu" and CPUINFO and not BFLOAT16:
        lacking = "this processor has neither avx512_bf16 nor amx_bf16"
    else:
        return
    raise ConfigError(f"operation.precision: {lacking}, so bfloat16 would be slower; take float32")


def describe_device(device):
    """A device as a person knows it: the GPU's name, or how many threads the CPU gives."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {torch.get_num_threads()} threads"


def describe_processor():
    """The CPU as a person knows it, {"processor": …, "units": …, "caches": …}: its name, what it multiplies with, and
    its caches but for those of instructions. What the system does not tell is left out."""
    parts = dict(re.findall(r"^(.+?)\s*: (.*)$", CPUINFO.partition("\n\n")[0], re.MULTILINE))  # of the first core
    name = parts.get("model name") or platform.processor()
    if "cpu family" in parts:
        name += f" (family {parts['cpu family']}, model {parts['model']})"
    caches = []
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size = ((folder / part).read_text().strip() for part in ("level", "type", "size"))
        caches += [f"L{level} {size}"] if kind != "Instruction" else []
    units = sorted({*re.findall(UNITS, CPUINFO)})
    return {"processor": f"{os.cpu_count()} x {name}", "units": ", ".join(units), "caches": ", ".join(caches)}


def tune(config, device):
    """Set how this process allocates and multiplies, unless `operation.fast_paths` is False, and on which GPU it draws.
    To be called before the first large tensor, and before an environment is made."""
    if device.type == "cuda":
        prefer_gpu(device.index or 0)
    if not config.operation.fast_paths:
        return
    keep_memory()
    if device.type == "cuda":
        if device.index:
            torch.cuda.set_device(device)  # where an update is recorded
        torch.set_float32_matmul_precision("high")  # TF32, as cuDNN's convolutions have it anyway
        torch.backends.cudnn.benchmark = True  # of few shapes, which come again and again, the fastest algorithm
    else:
        torch.set_float32_matmul_precision("highest")
        if config.parameters.dreamer.batch_size * config.parameters.dreamer.batch_length >= LARGE:
            choose_matrix_products()


@contextmanager
def one_thread():
    """To act in: a batch of one gains nothing from more, and threads that wait for work take it from the renderer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def on_one_thread(items):
    """Yield what an iterator yields, each item made on one thread. What is done with it takes as many as before."""
    items = iter(items)
    while True:
        try:
            with one_thread():
                item = next(items)
        except StopIteration:
            return
        yield item


def keep_memory():
    """Let glibc keep the memory of freed tensors. It would give each large block back to the system, and the
    next one would be zeroed page by page: half of an update's time."""
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda parameter, value: None)  # musl has none
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 2**29)


def choose_matrix_products():
    """oneDNN for matrix products in place of MKL, which is a fifth slower on AMD's processors, if it is as exact.

    PyTorch goes there when it is told that "medium" precision is enough; processors that have
    special units for bfloat16 then use them, which shows in the result.
    """
    torch.set_float32_matmul_precision("medium")
    grid = torch.arange(256.0**2).reshape(256, 256)
    matrix = (grid * 0.7).sin()
    error = (matrix @ matrix.T - (matrix.double() @ matrix.double().T)).abs().max()
    if error > 1e-3:
        torch.set_float32_matmul_precision("highest")

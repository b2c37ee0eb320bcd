"""Keep a GPU busy: run a function as a CUDA graph, and copy batches to the device before they are used."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch.utils._pytree import tree_leaves, tree_map
from tqdm import tqdm

from dreamer.replay.mapped import aligned_empty

WARM_UP = 3  # calls before the capture, in which CUDA libraries initialize
CAPTURE_OR_COPY = Lock()  # serializes CUDA-graph capture and host-to-device copies, which must not overlap

Result = TypeVar("Result")


@cache
def stream_for(purpose: str, device: torch.device) -> torch.cuda.Stream:
    """Return a device's only stream for a purpose, "capturing" or "copying"."""
    return torch.cuda.Stream(device)


class CudaGraphed(Generic[Result]):
    """Calls a function whose arguments and results are tensors in any nest of tuples, lists and dicts.

    On a CUDA device, all kernels of a call are captured in one CUDA graph, and replaying it costs a single launch. The
    tensors that a call returns are overwritten by the next call. On other devices, and where the capture fails, every
    call is an ordinary one.
    """

    def __init__(self, function: Callable[..., Result], device: torch.device, name: str = "the update") -> None:
        """name: of the function, for a warning."""
        self.function, self.device, self.name = function, device, name
        self.can_capture = device.type == "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0
        self.arguments: Any = None  # the tensors that the graph reads, in the nest in which they were given
        self.result: Any = None  # the tensors that it writes

    def __call__(self, *arguments: Any) -> Result:
        if not self.can_capture:
            return self.function(*arguments)
        if self.graph is None and self.calls < WARM_UP:
            self.calls += 1
            return self.warm_up(arguments)
        if self.graph is None:
            self.graph = self.capture(arguments)
        if self.graph is None:
            return self.function(*arguments)
        tree_map(lambda captured, new: captured.copy_(new), self.arguments, arguments)
        self.graph.replay()
        return self.result

    def warm_up(self, arguments: tuple) -> Result:
        """Call the function on the stream of the capture, so that libraries initialize and gradients exist there."""
        stream = stream_for("capturing", self.device)
        current = torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self.function(*arguments)
        current.wait_stream(stream)
        return result

    def capture(self, arguments: tuple) -> torch.cuda.CUDAGraph | None:
        """Capture a call in a CUDA graph, without computing it. Return the graph or, after a warning, None."""
        self.arguments = tree_map(torch.clone, arguments)
        graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle()
        current = torch.cuda.current_stream(self.device)
        stream = stream_for("capturing", self.device)
        # thread_local: other threads may use CUDA during the capture
        capturing = torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local")
        try:
            # the stream is set here, too, because a capture that fails does not return to it
            with CAPTURE_OR_COPY, torch.cuda.stream(current), capturing:
                self.result = tree_map(torch.detach, self.function(*self.arguments))
        except RuntimeError as error:
            self.can_capture = False
            self.arguments = None
            clean_up_failed_capture(pool)
            reason = str(error.__context__ or error).splitlines()[0]  # the context is the first error, which says more
            warning = f"warning: {self.name} cannot be captured in a CUDA graph and runs step by step: {reason}"
            tqdm.write(warning, file=sys.stderr)
            return None
        return graph


def clean_up_failed_capture(pool: tuple[int, int]) -> None:
    """Undo what torch leaves behind after a capture that failed.

    Otherwise the random generator would still wait for the end of the capture. Up to torch 2.12 so would the allocator,
    and it would not reuse the memory that other threads have freed.
    """
    device = torch.cuda.current_device()
    generator = torch.cuda.default_generators[device]
    generator.graphsafe_set_state(generator.clone_state())
    name = "_cuda_endAllocateToPool"
    if not hasattr(torch._C, name):
        name = "_cuda_endAllocateCurrentStreamToPool"  # in older versions of torch
    end_allocation = getattr(torch._C, name)
    with suppress(RuntimeError):  # newer versions of torch have ended it already
        end_allocation(device, pool)


def prefetch(function: Callable[[], Result], count: int) -> Iterator[Result]:
    """Yield `count` results of a function, each computed on another thread while the one before is in use."""
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(function)
        for remaining in reversed(range(count)):
            result = future.result()
            if remaining:
                future = executor.submit(function)
            yield result


def pinned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an uninitialized array in pinned memory, from which a GPU copies while the CPU does something else."""
    with CAPTURE_OR_COPY:
        return aligned_empty(shape, dtype, pin_memory=True)


def to_device(batch: Result, device: torch.device) -> Result:
    """Return CPU tensors, in any nest, copied to a device. Copies to a GPU overlap with its computations."""
    if device.type != "cuda":
        return tree_map(lambda part: part.to(device), batch)
    stream = stream_for("copying", device)
    current = torch.cuda.current_stream(device)
    with CAPTURE_OR_COPY, torch.cuda.stream(stream):
        copies = tree_map(lambda part: part.pin_memory().to(device, non_blocking=True), batch)
        stream.synchronize()  # waits on this thread only
    for part in tree_leaves(copies):
        part.record_stream(current)  # the allocator may reuse its memory only when `current` is done with it
    return copies

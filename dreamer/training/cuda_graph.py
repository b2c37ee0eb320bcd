"""What keeps a GPU busy: a function recorded once and replayed, and batches that are there before they are needed."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from threading import Lock

import torch
from torch.utils._pytree import tree_leaves, tree_map
from tqdm import tqdm

from dreamer.replay.mapped import aligned_empty

WARM_UP = 3  # calls before the recording, in which the libraries set themselves up
QUIET = Lock()  # held while something is recorded, and while another thread copies: neither likes the other's calls


@cache
def stream_for(purpose, device):
    """One stream for each: "recording", "copying"."""
    return torch.cuda.Stream(device)


class Recorded:
    """Calls a function whose arguments and results are tensors in any nest of tuples, lists and dicts.

    On a CUDA device, all kernels of a call are recorded in one CUDA graph, whose replay costs a
    single launch; what it returns is overwritten by the next. Elsewhere, and if the function cannot be
    recorded, every call is an ordinary one.
    """

    def __init__(self, function, device):
        self.function, self.device = function, device
        self.possible = device.type == "cuda"
        self.graph, self.calls = None, 0

    def __call__(self, *arguments):
        if not self.possible:
            return self.function(*arguments)
        if self.graph is None and self.calls < WARM_UP:
            self.calls += 1
            return self.aside(arguments)
        if self.graph is None and not self.record(arguments):
            return self.function(*arguments)
        tree_map(lambda place, part: place.copy_(part), self.arguments, arguments)
        self.graph.replay()
        return self.result

    def aside(self, arguments):
        """A call on the stream that will record: what the libraries, and gradients, set up there is met again."""
        stream, current = stream_for("recording", self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self.function(*arguments)
        current.wait_stream(stream)
        return result

    def record(self, arguments):
        """Whether it could be done. Nothing is computed meanwhile."""
        self.arguments = tree_map(torch.clone, arguments)
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        current, stream = torch.cuda.current_stream(self.device), stream_for("recording", self.device)
        recording = torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local")  # others may go on
        try:
            with QUIET, torch.cuda.stream(current), recording:  # a recording that fails does not come back to it
                self.result = tree_map(torch.detach, self.function(*self.arguments))
        except RuntimeError as error:
            self.possible, self.arguments = False, None
            end_recording(pool)
            reason = str(error.__context__ or error).splitlines()[0]  # the recording's end fails, too, and says less
            text = f"warning: the update cannot be recorded and runs step by step: {reason}"
            tqdm.write(text, file=sys.stderr)
            return False
        self.graph = graph
        return True


def end_recording(pool):
    """Of one that failed, what torch itself leaves as it is: the generator would go on waiting for the recording's end,
    and so would (up to torch 2.12) the allocator, which would not use again what other threads have freed."""
    device = torch.cuda.current_device()
    generator = torch.cuda.default_generators[device]
    generator.graphsafe_set_state(generator.clone_state())
    end = getattr(torch._C, "_cuda_endAllocateToPool", None) or torch._C._cuda_endAllocateCurrentStreamToPool
    with suppress(RuntimeError):  # torch has done it
        end(device, pool)


def ahead(function, count):
    """Yield `count` results of a function, each computed on another thread while the one before is made use of."""
    with ThreadPoolExecutor(1) as executor:
        following = executor.submit(function)
        for left in reversed(range(count)):
            result = following.result()
            if left:
                following = executor.submit(function)
            yield result


def pinned(shape, dtype):
    """An empty array in memory that a GPU copies from while its owner does something else."""
    with QUIET:
        return aligned_empty(shape, dtype, pin_memory=True)


def to_device(batch, device):
    """Tensors in any nest, on the CPU, moved to a device; to a GPU from pinned memory, while that computes."""
    if device.type != "cuda":
        return tree_map(lambda part: part.to(device), batch)
    stream, current = stream_for("copying", device), torch.cuda.current_stream(device)
    with QUIET, torch.cuda.stream(stream):
        moved = tree_map(lambda part: part.pin_memory().to(device, non_blocking=True), batch)
        stream.synchronize()  # waits on this thread only
    for part in tree_leaves(moved):
        part.record_stream(current)  # its memory is not given away before the learner is done with it
    return moved

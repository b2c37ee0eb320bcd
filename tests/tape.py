"""A CUDA graph without a GPU: a tape of torch's operations, which a replay runs again, on the same memory.

As on a GPU, what Python decides while it records stays decided; nothing is read back, and nothing comes from the host;
what is recorded has not happened, random numbers included, until it is replayed.
"""

from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import Mock, patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamer.training.cuda_graph import stream_for

READS_BACK = {"_local_scalar_dense", "is_nonzero", "equal", "_assert_async", "multinomial"}
READS_BACK |= {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}  # a size that is not known
FROM_THE_HOST = {"lift_fresh"}  # torch.tensor(…)
MEMORY_ALONE = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"}


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def address(tensor):
    return tensor.untyped_storage().data_ptr()


def written(function, arguments, keywords):
    """Those arguments that an operation writes to."""
    schema = function._schema.arguments
    named = dict(zip([each.name for each in schema], arguments, strict=False)) | keywords
    changed = [each.name for each in schema if each.alias_info and each.alias_info.is_write]
    return tensors([named[name] for name in changed if name in named])


def check(function, arguments):
    """Raise what CUDA raises for an operation that cannot be recorded."""
    name = function._schema.name.removeprefix("aten::")
    by_mask = name.startswith("index") and any(part.dtype == torch.bool for part in tensors(arguments[1:2]))
    if name in READS_BACK | FROM_THE_HOST or by_mask:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {name}\nmore of it")


class Tape(TorchDispatchMode):
    """While it is on, it keeps what is done."""

    def __init__(self):
        super().__init__()
        self.operations = []  # (function, arguments, keywords, results, the addresses of the arguments)
        self.own = set()  # addresses of what was made while it recorded
        self.before = {}  # address → (storage, its content) of whatever else was written to

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        check(function, arguments)
        changed = written(function, arguments, keywords)
        for tensor in changed:
            if address(tensor) not in self.own:
                storage = tensor.untyped_storage()
                self.before.setdefault(address(tensor), (storage, storage.clone()))
        results = function(*arguments, **keywords)
        given = {address(tensor) for tensor in tensors((arguments, keywords))}
        made = {address(tensor) for tensor in tensors(results)} - given
        self.own |= made
        is_memory = function._schema.name.removeprefix("aten::") in MEMORY_ALONE
        if changed or made and not is_memory:
            self.operations.append((function, arguments, keywords, results, given))
        return results

    def undo(self):
        for storage, content in self.before.values():
            storage.copy_(content)
        self.before = {}

    @torch.no_grad()
    def replay(self):
        for function, arguments, keywords, results, given in self.operations:
            again = function(*arguments, **keywords)
            for place, result in zip(tensors(results), tensors(again), strict=True):
                if address(place) not in given:
                    place.copy_(result)


class Graph:
    def __init__(self):
        self.tape = Tape()

    def replay(self):
        self.tape.replay()


class Stream:
    made = 0

    def __init__(self, device=None):
        Stream.made += 1

    def wait_stream(self, other): ...

    def synchronize(self): ...


@contextmanager
def recording(graph, pool=None, stream=None, capture_error_mode="global"):
    """Stands in for `torch.cuda.graph`."""
    random = torch.get_rng_state()
    try:
        with graph.tape:
            yield
    except RuntimeError:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from None
    finally:
        graph.tape.undo()
        torch.set_rng_state(random)


@contextmanager
def tapes_for_graphs():
    """Within it, what is said to be on a CUDA device is on the CPU, a CUDA graph is a tape. Gives the `generator` of
    random numbers, the `pool` of memory to record in, what ends it, and how many `streams` were made."""
    generator, pool, end_pool, default = Mock(), object(), Mock(), Stream()
    stream_for.cache_clear()
    Stream.made = 0
    pretended = {
        "Stream": Stream,
        "current_stream": lambda device=None: default,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": Graph,
        "graph": recording,
        "graph_pool_handle": lambda: pool,
        "default_generators": [generator],
        "current_device": lambda: 0,
    }
    with ExitStack() as stack:
        for name, value in pretended.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(torch._C, "_cuda_endAllocateToPool", end_pool, create=True))
        yield SimpleNamespace(generator=generator, pool=pool, end_pool=end_pool, streams=lambda: Stream.made)
    stream_for.cache_clear()

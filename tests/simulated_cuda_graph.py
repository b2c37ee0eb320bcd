"""Simulate CUDA graphs on a CPU: record torch's operations on a tape, and run them again on the same memory.

As on a GPU, Python's decisions while recording are kept; reading values and creating tensors from Python numbers are
errors; and recording itself changes no tensor and no random state, only replaying does.
"""

from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import Mock, patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamer.training.cuda_graph import stream_for

READS_BACK = {"_local_scalar_dense", "is_nonzero", "equal", "_assert_async", "multinomial"}
READS_BACK |= {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}  # the size of the result
FROM_THE_HOST = {"lift_fresh"}  # torch.tensor(…)
ONLY_ALLOCATE = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"}


def tensors(tree):
    """Return the tensors in nested containers."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def address(tensor):
    return tensor.untyped_storage().data_ptr()


def written(function, arguments, keywords):
    """Return the tensors among the arguments that an operation writes to."""
    schema = function._schema.arguments
    named = dict(zip([each.name for each in schema], arguments, strict=False)) | keywords
    changed = [each.name for each in schema if each.alias_info and each.alias_info.is_write]
    return tensors([named[name] for name in changed if name in named])


def check(function, arguments):
    """Raise the error that CUDA raises for an operation that a graph cannot capture."""
    name = function._schema.name.removeprefix("aten::")
    by_mask = name.startswith("index") and any(part.dtype == torch.bool for part in tensors(arguments[1:2]))
    if name in READS_BACK | FROM_THE_HOST or by_mask:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {name}\nmore of it")


class Tape(TorchDispatchMode):
    """Record the operations that run in its `with` block."""

    def __init__(self):
        super().__init__()
        self.operations = []  # (function, arguments, keywords, results, addresses of the arguments)
        self.own = set()  # addresses of storages created while recording
        self.before = {}  # address → (storage, content before recording) of other storages that were written to

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
        created = {address(tensor) for tensor in tensors(results)} - given
        self.own |= created
        only_allocates = function._schema.name.removeprefix("aten::") in ONLY_ALLOCATE
        if changed or created and not only_allocates:
            self.operations.append((function, arguments, keywords, results, given))
        return results

    def undo(self):
        """Restore the tensors that were written to while recording."""
        for storage, content in self.before.values():
            storage.copy_(content)
        self.before = {}

    @torch.no_grad()
    def replay(self):
        for function, arguments, keywords, results, given in self.operations:
            new_results = function(*arguments, **keywords)
            for recorded, new in zip(tensors(results), tensors(new_results), strict=True):
                if address(recorded) not in given:
                    recorded.copy_(new)


class Graph:
    """Replace `torch.cuda.CUDAGraph`."""

    def __init__(self):
        self.tape = Tape()

    def replay(self):
        self.tape.replay()


class Stream:
    """Replace `torch.cuda.Stream`; count the streams."""

    count = 0

    def __init__(self, device=None):
        Stream.count += 1

    def wait_stream(self, other): ...

    def synchronize(self): ...


@contextmanager
def record(graph, pool=None, stream=None, capture_error_mode="global"):
    """Replace `torch.cuda.graph`."""
    random_state = torch.get_rng_state()
    try:
        with graph.tape:
            yield
    except RuntimeError:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from None
    finally:
        graph.tape.undo()
        torch.set_rng_state(random_state)


@contextmanager
def simulated_cuda_graphs():
    """In this block a CUDA graph is a tape. Code for a CUDA device must get tensors on the CPU.

    Yield replaced parts of torch: the `generator` of random numbers, the memory `pool`, `end_pool`, which ends the use
    of a pool, and `streams`, which returns how many streams were created.
    """
    generator, pool, end_pool, default = Mock(), object(), Mock(), Stream()
    stream_for.cache_clear()
    Stream.count = 0
    replaced = {
        "Stream": Stream,
        "current_stream": lambda device=None: default,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": Graph,
        "graph": record,
        "graph_pool_handle": lambda: pool,
        "default_generators": [generator],
        "current_device": lambda: 0,
    }
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(torch._C, "_cuda_endAllocateToPool", end_pool, create=True))
        yield SimpleNamespace(generator=generator, pool=pool, end_pool=end_pool, streams=lambda: Stream.count)
    stream_for.cache_clear()

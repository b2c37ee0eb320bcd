"""Communication between the data-parallel workers of a run: processes that torchrun starts.

The workers are numbered: rank 0 is the first. A process that is alone is rank 0 of one; every function here gives back
what it was given there. Numbers are exchanged through the CPU, tensors stay on their device.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dreamer.errors import RankError

Result = TypeVar("Result")

PATIENCE = timedelta(minutes=30)  # how long a worker waits for the others: for an evaluation by the first, above all


@contextmanager
def process_group() -> Iterator[None]:
    """Connect the processes that one torchrun started, within the block."""
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # torchrun's store outlives its restarts, and so do the addresses that earlier workers left in it. On several
    # machines each counts its restarts by itself.
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] if os.environ["GROUP_WORLD_SIZE"] == "1" else "all"
    with rank_errors():
        store, number, size = next(dist.rendezvous("env://", timeout=PATIENCE))
        store = dist.PrefixStore(f"attempt {attempt}", store)
        dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=PATIENCE)
    yield
    dist.destroy_process_group()  # not after an error: the others notice that this process has ended


def rank() -> int:
    """Return the number of this worker, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Return the number of workers, R."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def rank_errors() -> Iterator[None]:
    """Turn an exchange that fails, because another worker is gone, into a RankError."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RankError(f"rank {rank()}: another rank has ended or does not answer ({reason})") from None


# Numbers


def total(*numbers: int) -> list[int]:
    """Return the sum over the workers of each of some whole numbers."""
    if count() == 1:
        return list(numbers)
    return _sum(torch.tensor(numbers)).tolist()


def barrier() -> None:
    """Wait until all workers have called this."""
    total(0)


def all_workers(condition: object) -> bool:
    """Return whether the condition holds in all workers."""
    return total(int(bool(condition))) == [count()]


def average(values: dict[str, float]) -> dict[str, float]:
    """Return the means over the workers of {name: number}; the names are the same in all."""
    if count() == 1:
        return values
    means = _sum(torch.tensor([*values.values()], dtype=torch.float64)) / count()
    return dict(zip(values, means.tolist(), strict=True))


def common(values: Iterable) -> set:
    """Return those of some values that all workers have."""
    own = set(values)
    if count() == 1:
        return own
    found: list = [None] * count()
    with rank_errors():
        dist.all_gather_object(found, own)
    return set.intersection(*found)


def broadcast_result(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in the first worker and return its result in all.

    If the function raises there, the other workers raise a RankError without words.
    """
    if count() == 1:
        return function(*arguments)
    answer: list = [None]
    try:
        if rank() == 0:
            answer = [function(*arguments)]
    finally:
        with rank_errors():
            dist.broadcast_object_list(answer, 0)
    if answer[0] is None:
        raise RankError
    return answer[0]


# Tensors


def mean(value: Tensor) -> Tensor:
    """Return the mean over the workers of a tensor. Its gradient is that of this worker's own value."""
    if count() == 1:
        return value
    return value - value.detach() + _sum(value.detach().clone()) / count()


def gather(values: Tensor) -> Tensor:
    """Return the rows of all workers, (N, ·) → (R·N, ·), without gradient."""
    if count() == 1:
        return values
    parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(count())]
    with rank_errors():
        dist.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


def average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Replace the gradients that the parameters hold by their means over the workers, in one exchange."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if count() == 1 or not gradients:
        return
    means = _sum(torch.cat([gradient.flatten() for gradient in gradients])) / count()
    pieces = means.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


@torch.no_grad()
def broadcast_parameters(modules: Iterable[nn.Module]) -> None:
    """Give modules the parameters and buffers that they have in the first worker."""
    if count() == 1:
        return
    for module in modules:
        for tensor in module.state_dict().values():
            with rank_errors():
                dist.broadcast(tensor, 0)


def _sum(tensor: Tensor) -> Tensor:
    """Sum a tensor over the workers, in place."""
    with rank_errors():
        dist.all_reduce(tensor)
    return tensor

"""Communication between the data-parallel workers of a run: processes that torchrun starts.

Rank 0 is the first worker. A process that is alone is rank 0 of one; there every function returns its arguments.
Numbers are exchanged through the CPU, tensors stay on their device.
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

PATIENCE = timedelta(minutes=30)  # the time a worker waits for the others, such as for an evaluation by the first


@contextmanager
def process_group() -> Iterator[None]:
    """Connect the processes that one torchrun started, within the block."""
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # torchrun's store keeps the addresses of earlier workers after a restart, so each attempt has a prefix of its own.
    # On several machines there is one for all: each machine counts its restarts by itself.
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] if os.environ["GROUP_WORLD_SIZE"] == "1" else "all"
    with rank_errors():
        store, own_rank, world_size = next(dist.rendezvous("env://", timeout=PATIENCE))
        store = dist.PrefixStore(f"attempt {attempt}", store)
        dist.init_process_group(backend, store=store, rank=own_rank, world_size=world_size, timeout=PATIENCE)
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
    """Return the sum over the workers of each whole number."""
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
    """Return the values that all workers have."""
    own_values = set(values)
    if count() == 1:
        return own_values
    values_by_rank: list = [None] * count()
    with rank_errors():
        dist.all_gather_object(values_by_rank, own_values)
    return set.intersection(*values_by_rank)


def broadcast_result(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in the first worker and return its result in all.

    If the function raises there, the other workers raise a RankError without a text.
    """
    if count() == 1:
        return function(*arguments)
    results: list[list] = [[]]  # the only entry stays empty if the function raises
    try:
        if rank() == 0:
            results[0].append(function(*arguments))
    finally:
        with rank_errors():
            dist.broadcast_object_list(results, 0)
    if not results[0]:
        raise RankError
    return results[0][0]


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
    values_by_rank = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(count())]
    with rank_errors():
        dist.all_gather(values_by_rank, values.detach().contiguous())
    return torch.cat(values_by_rank)


def average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Replace the gradients that the parameters hold by their means over the workers, in one exchange."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if count() == 1 or not gradients:
        return
    means = _sum(torch.cat([gradient.flatten() for gradient in gradients])) / count()
    mean_by_parameter = means.split([gradient.numel() for gradient in gradients])
    for gradient, mean_gradient in zip(gradients, mean_by_parameter, strict=True):
        gradient.copy_(mean_gradient.view_as(gradient))


@torch.no_grad()
def broadcast_parameters(modules: Iterable[nn.Module]) -> None:
    """Copy the parameters and buffers of modules from the first worker to all."""
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

"""Several processes that train one run, started by torchrun: the ranks, and all that they say to each other.

Each rank learns from a part of every batch and plays a part of the episodes. A process that is alone is rank 0 of one,
to which every function here gives back what it was given. Numbers go through the CPU, tensors stay on their device.
"""

import os
from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from dreamer.errors import ConfigError, RankError

PATIENCE = timedelta(minutes=30)  # how long a rank waits for the others: for an evaluation by rank 0, above all
DIVIDED = ("batch_size", "num_interaction_episodes", "seed_episodes", "buffer.capacity")


@contextmanager
def joined():
    """Within it, the processes that one torchrun started know each other."""
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # torchrun's store outlives its restarts, and so does what the ranks before said of where they are. On several
    # machines each counts by itself.
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] if os.environ["GROUP_WORLD_SIZE"] == "1" else "all"
    with answered():
        store, number, size = next(dist.rendezvous("env://", timeout=PATIENCE))
        store = dist.PrefixStore(f"attempt {attempt}", store)
        dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=PATIENCE)
    yield
    dist.destroy_process_group()  # a rank that fails just ends, which is what the others notice


def rank():
    """This one, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count():
    """How many there are, R."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def answered():
    """Turns an exchange that failed, since another rank is gone, into a RankError."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RankError(f"rank {rank()}: another rank has ended or does not answer ({reason})") from None


# Numbers


def total(*numbers):
    """The sum over the ranks of each of some whole numbers, as a list."""
    if count() == 1:
        return list(numbers)
    return _sum(torch.tensor(numbers)).tolist()


def meet():
    """Returns once all ranks have come here."""
    total(0)


def every(condition):
    """Whether it holds in all ranks."""
    return total(int(bool(condition))) == [count()]


def average(values):
    """The means over the ranks of {name: number}, whose names are the same in all."""
    if count() == 1:
        return values
    means = _sum(torch.tensor([*values.values()], dtype=torch.float64)) / count()
    return dict(zip(values, means.tolist(), strict=True))


def common(values):
    """Those of some values that all ranks have, as a set."""
    found, own = [None] * count(), set(values)
    if count() == 1:
        return own
    with answered():
        dist.all_gather_object(found, own)
    return set.intersection(*found)


def from_first(function, *arguments):
    """What a function returns in rank 0, in all ranks. If it fails there, a RankError without words in the others."""
    if count() == 1:
        return function(*arguments)
    answer = [None]
    try:
        if rank() == 0:
            answer = [function(*arguments)]
    finally:
        with answered():
            dist.broadcast_object_list(answer, 0)
    if answer[0] is None:
        raise RankError
    return answer[0]


# Tensors


def mean(value):
    """The mean over the ranks of a tensor; the gradient is that of this rank's own."""
    if count() == 1:
        return value
    return value - value.detach() + _sum(value.detach().clone()) / count()


def gathered(values):
    """Those of all ranks, (N, ·) → (R·N, ·), without gradient."""
    if count() == 1:
        return values
    parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(count())]
    with answered():
        dist.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


def average_gradients(parameters):
    """Replace the gradients that the parameters hold by their means over the ranks, in one exchange."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if count() == 1 or not gradients:
        return
    means = _sum(torch.cat([gradient.flatten() for gradient in gradients])) / count()
    pieces = means.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


@torch.no_grad()
def take_from_first(modules):
    """Give modules the parameters and buffers that they have in rank 0."""
    for tensor in [tensor for module in modules for tensor in module.state_dict().values()] if count() > 1 else ():
        with answered():
            dist.broadcast(tensor, 0)


def _sum(tensor):
    """Over the ranks, in place."""
    with answered():
        dist.all_reduce(tensor)
    return tensor


# What is this rank's


def share(config):
    """This rank's part of a configuration: of a batch, of the episodes and of the replay, on a GPU of its own, and but
    for rank 0 with seeds of its own. Raises ConfigError for what cannot be divided."""
    if count() == 1:
        return config
    part = deepcopy(config)
    for key in DIVIDED:
        *above, name = key.split(".")
        section = part.parameters.dreamer[above[0]] if above else part.parameters.dreamer
        whole, (section[name], rest) = section[name], divmod(section[name], count())
        if rest:
            raise ConfigError(f"parameters.dreamer.{key}: {whole} cannot be divided among {count()} ranks evenly")
    if part.parameters.dreamer.buffer.capacity < part.parameters.dreamer.batch_length:
        raise ConfigError("parameters.dreamer.buffer.capacity: each rank's part cannot hold a batch_length")
    if ":" in part.operation.device:
        raise ConfigError(f"operation.device: {part.operation.device}, but each rank takes one of its own; take auto")
    if part.operation.device != "cpu" and torch.cuda.is_available():
        part.operation.device = f"cuda:{os.environ.get('LOCAL_RANK', rank())}"
    part.operation.seed = own_seed(part.operation.seed)
    if part.environment.seed is not None:
        part.environment.seed = own_seed(part.environment.seed)
    return part


def check_restart(folder):
    """Raise ConfigError where torchrun may start the ranks again without a folder by which they find their run."""
    if not folder and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0:
        raise ConfigError("--config: torchrun may start it again (--max-restarts); name its folder by --folder, too")


def own_seed(seed):
    """Of noise, environments and replay: in rank 0 the seed itself, in the others what follows from it and the rank."""
    return int(np.random.SeedSequence((seed, rank())).generate_state(1)[0]) if rank() else seed


class Silent:
    """Stands in, in the other ranks, for what rank 0 alone has: the curves, the progress and the evaluations."""

    def __getattr__(self, name):
        return lambda *arguments, **keywords: None

"""Seed, save and restore the random numbers of Python, NumPy and torch. Environments and replay have generators of
their own."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def mix_seeds(*seeds: int) -> int:
    """Return one seed derived from several."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


class GlobalRandomness:
    """Saves and restores the random states of Python, NumPy and torch, as a part of a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Return the states. "cuda" is empty unless CUDA is in use."""
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(legacy=False),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the states of `state_dict`; those of GPUs only if there are as many GPUs as before."""
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def seeded_randomness(*seeds: int) -> Iterator[None]:
    """Seed the random numbers of the block with `seeds` alone. Restore the previous random states after it."""
    previous_states = GlobalRandomness().state_dict()
    seed_everything(mix_seeds(*seeds))
    try:
        yield
    finally:
        GlobalRandomness().load_state_dict(previous_states)


class RandomStream:
    """A stream of torch's random numbers on a device, independent of the global one.

    With the same seeds it gives the same numbers as `seeded_randomness`.
    """

    def __init__(self, device: torch.device, *seeds: int):
        self.devices = [torch.device("cpu")] if device.type == "cpu" else [torch.device("cpu"), device]
        self.states = [torch.Generator(device).manual_seed(mix_seeds(*seeds)).get_state() for device in self.devices]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let torch draw from this stream in the block. Restore the global states after it."""
        global_states = self._swap(self.states)
        try:
            yield
        finally:
            self.states = self._swap(global_states)

    def _swap(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """Set the global generators to these states and return their previous states."""
        previous_states = []
        for device, state in zip(self.devices, states, strict=True):
            module: Any = torch if device.type == "cpu" else torch.cuda
            arguments = () if device.type == "cpu" else (device,)
            previous_states.append(module.get_rng_state(*arguments))
            module.set_rng_state(state, *arguments)
        return previous_states

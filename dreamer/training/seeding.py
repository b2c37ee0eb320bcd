"""What is random outside the environments and the replay: Python, NumPy and torch on every device."""

import random
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed):
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class GlobalRandomness:
    """Their states, to be saved and brought back."""

    def state_dict(self):
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(legacy=False),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        }

    def load_state_dict(self, state):
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def own_randomness(*seeds):
    """Within it, random numbers follow from these whole numbers alone; after it, they go on as if it had not been."""
    outside = GlobalRandomness().state_dict()
    seed_everything(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
    try:
        yield
    finally:
        GlobalRandomness().load_state_dict(outside)

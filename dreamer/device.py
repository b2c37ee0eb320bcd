"""Where to compute."""

import torch

from dreamer.config import ConfigError


def select_device(name):
    """auto: a GPU where there is one, else the CPU. Raises ConfigError for a GPU that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"operation.device: no {name} here ({count} CUDA devices); take cpu or auto")
    return device


def describe_device(device):
    """A device as a person knows it: the GPU's name, or how many threads the CPU gives."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {torch.get_num_threads()} threads"

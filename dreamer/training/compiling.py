"""Whether a run's updates are compiled, and the first one that is."""

import sys
import time
from copy import deepcopy
from typing import Any

import torch
from tqdm import tqdm

from dreamer import distributed
from dreamer.algorithms.algorithm import Algorithm
from dreamer.algorithms.compiled import compile_parts, undo
from dreamer.config.load import Config
from dreamer.training.device import is_large
from dreamer.training.seeding import own_randomness

ENOUGH = 6000  # updates of DreamerV3 on a CPU, from which on compiling saves more than the minute that it takes


def compiles(config: Config, device: torch.device, max_agent_steps: int | None, before: bool | None = None) -> bool:
    """Return whether the updates of a run are compiled, by `operation.compile`.

    max_agent_steps: of an episode, or None. before: whether those of a resumed run were, None for a new one. "auto" is
    the form of before, since another one changes the last digits; else True on a GPU; on a CPU True for many small
    updates of DreamerV3 from vectors. Dreamer's gain too little, and pixels were not measured. Data-parallel workers
    never compile: their losses exchange numbers.
    """
    operation = config.operation
    if distributed.count() > 1 or operation.compile != "auto":
        return distributed.count() == 1 and operation.compile
    if before is not None:
        return before
    if device.type == "cuda":
        return operation.fast_paths
    is_suited = config.version == 3 and not config.environment.from_pixels and not is_large(config)
    updates = expected_updates(config.parameters.dreamer, max_agent_steps)
    return operation.fast_paths and is_suited and updates >= ENOUGH


def expected_updates(settings: Config, max_agent_steps: int | None) -> float:
    """Return how many updates a run makes if episodes are as long as they can be; 0 where that is not known."""
    if not settings.train_ratio:
        return settings.train_iterations * settings.collect_interval
    steps = settings.train_iterations * settings.num_interaction_episodes * (max_agent_steps or 0)
    return steps * settings.train_ratio / (settings.batch_size * settings.batch_length)


def compile_update(algorithm: Algorithm, *arguments: Any) -> None:
    """Compile an algorithm's update by making one that leaves no trace, and print that it begins and how long it took.

    Where it fails, say why and keep to the plain forms. arguments: those of the update.
    """
    if not compile_parts(algorithm):
        return
    started, before = time.perf_counter(), deepcopy(algorithm.state_dict())
    tell("compiling   the update, which takes up to three minutes; operation.compile=False does without")
    try:
        with own_randomness(0):
            algorithm.update(*arguments)
        tell(f"compiled    the update, in {time.perf_counter() - started:.0f} s")
    except Exception as error:  # whatever a compiler raises, and there are many kinds
        undo(algorithm)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        tell(f"warning: the update is not compiled and runs step by step: {reason}")
    finally:
        algorithm.load_state_dict(before)


def tell(line: str) -> None:
    """Print a line above the progress bar."""
    tqdm.write(line, file=sys.stderr)

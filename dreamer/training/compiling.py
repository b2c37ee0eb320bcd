"""Whether a run's updates are compiled, and the first one that is."""

import math
import re
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dreamer import distributed
from dreamer.algorithms.algorithm import Algorithm
from dreamer.algorithms.compiled import compile_parts, undo
from dreamer.config.load import Config
from dreamer.training.device import is_large
from dreamer.training.seeding import seeded_randomness

# Updates by which compiling has saved twice the time it takes, by version: 106 s at 23 and 62 ms each (EPYC 7003).
ENOUGH = {1: 9200, 3: 3400}


def compiles(config: Config, device: torch.device, max_agent_steps: int | None, before: bool | None = None) -> bool:
    """Return whether the updates of a run are compiled, by `operation.compile`.

    max_agent_steps: of an episode, or None. before: whether those of a resumed run were, None for a new one. "auto" is
    the form of before, since another one changes the last digits; else True on a GPU; on a CPU True for `ENOUGH`
    updates from vectors, small ones of Dreamer or any of DreamerV3. Others were not measured, or gain too little.
    Data-parallel workers never compile: their losses exchange numbers.
    """
    operation = config.operation
    if distributed.count() > 1 or operation.compile != "auto":
        return distributed.count() == 1 and operation.compile
    if before is not None:
        return before
    if device.type == "cuda":
        return operation.fast_paths
    is_suited = config.version == 3 or not is_large(config)
    is_suited = is_suited and not config.environment.from_pixels and config.algorithm == "dreamer"
    updates = expected_updates(config.parameters.dreamer, max_agent_steps)
    return operation.fast_paths and is_suited and updates >= ENOUGH.get(config.version, math.inf)


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
    tell("compiling   the update, once on a machine, for some minutes of a core; operation.compile=False does without")
    try:
        error = try_update(algorithm, arguments)
        while error and delete_damaged(error):  # each attempt tells of one file
            undo(algorithm)
            compile_parts(algorithm)
            error = try_update(algorithm, arguments)
    finally:
        algorithm.load_state_dict(before)
    if error:
        undo(algorithm)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        tell(f"warning: the update is not compiled and runs step by step: {reason}")
    else:
        tell(f"compiled    the update, in {time.perf_counter() - started:.0f} s")


def try_update(algorithm: Algorithm, arguments: Sequence[Any]) -> Exception | None:
    """Make an update, and return what a compiler raises."""
    try:
        with seeded_randomness(0):
            algorithm.update(*arguments)
    except Exception as error:  # there are many kinds
        return error
    return None


def delete_damaged(error: Exception) -> bool:
    """Delete the library in torch's cache that an error of loading names, which a killed process has left incomplete.

    Return whether there is such a file; without it torch compiles anew.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    named = re.search(r"(/\S+\.so): ", str(error))
    library = Path(named[1]) if named else None
    if library is None or not library.is_relative_to(cache_dir()) or not library.exists():
        return False
    library.unlink()
    return True


def tell(line: str) -> None:
    """Print a line above the progress bar."""
    tqdm.write(line, file=sys.stderr)

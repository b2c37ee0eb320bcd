"""Decide whether a run's updates are compiled, and compile them."""

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
from dreamer.algorithms.compiled import compile_parts, uncompile_parts
from dreamer.config.load import Config
from dreamer.training.device import is_large
from dreamer.training.seeding import seeded_randomness

# By version: updates after which compiling has saved twice its 106 s, at 23 and 62 ms an update (EPYC 7003).
ENOUGH = {1: 9200, 2: math.inf, 3: 3400}
ENOUGH_FROM_PIXELS: float = 4500  # of a small DreamerV3: 147 s, at 65 ms an update (quick-v3-pixels)


def compiles(config: Config, device: torch.device, max_agent_steps: int | None, before: bool | None = None) -> bool:
    """Return whether the updates of a run are compiled, by `operation.compile`.

    max_agent_steps: of an episode, or None. before: whether a resumed run was compiled, None for a new one. "auto"
    keeps `before`, since a change would alter the last digits. A new run compiles on a GPU. On a CPU these compile:
    DreamerV3 from vectors, and Dreamer from vectors with small batches, if they make `ENOUGH` updates; DreamerV3 from
    pixels with small batches, if it makes `ENOUGH_FROM_PIXELS`. Others were not measured, or gain too little.

    Data-parallel workers never compile, because their losses communicate.
    """
    operation = config.operation
    if distributed.count() > 1:
        return False
    if operation.compile != "auto":
        return operation.compile
    if before is not None:
        return before
    if device.type == "cuda":
        return operation.fast_paths
    is_v3, is_small = config.version == 3, not is_large(config)
    if config.environment.from_pixels:
        is_suited, enough = is_v3 and is_small, ENOUGH_FROM_PIXELS
    else:
        is_suited, enough = is_v3 or is_small, ENOUGH[config.version]
    updates = expected_updates(config.parameters.dreamer, max_agent_steps)
    return operation.fast_paths and config.algorithm == "dreamer" and is_suited and updates >= enough


def expected_updates(settings: Config, max_agent_steps: int | None) -> float:
    """Return how many updates a run makes if episodes have their maximum length; 0 if that is not known."""
    if not settings.train_ratio or not settings.collect:  # an offline run does not read train_ratio
        return settings.train_iterations * settings.collect_interval
    steps = settings.train_iterations * settings.num_interaction_episodes * (max_agent_steps or 0)
    return steps * settings.train_ratio / (settings.batch_size * settings.batch_length)


def compile_update(algorithm: Algorithm, *arguments: Any) -> None:
    """Compile an algorithm's update: run one, then restore the state. Print a line before, and the duration after.

    If compiling fails, print why and use the uncompiled update. arguments: of the update.
    """
    if not compile_parts(algorithm):
        return
    started = time.perf_counter()
    state = deepcopy(algorithm.state_dict())
    tell("compiling   the update: some minutes of one core, once on a machine; operation.compile=False turns it off")
    try:
        error = try_update(algorithm, arguments)
        while error and delete_damaged(error):  # each error names one file
            uncompile_parts(algorithm)
            compile_parts(algorithm)
            error = try_update(algorithm, arguments)
    finally:
        algorithm.load_state_dict(state)
    if error:
        uncompile_parts(algorithm)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        tell(f"warning: the update is not compiled and runs step by step: {reason}")
    else:
        tell(f"compiled    the update, in {time.perf_counter() - started:.0f} s")


def try_update(algorithm: Algorithm, arguments: Sequence[Any]) -> Exception | None:
    """Run an update, and return the exception that it raises, or None."""
    try:
        with seeded_randomness(0):
            algorithm.update(*arguments)
    except Exception as error:  # compilers raise many kinds
        return error
    return None


def delete_damaged(error: Exception) -> bool:
    """Delete the library in torch's cache that a loading error names: a killed process may have left it incomplete.

    Return whether a file was deleted, so that torch compiles it anew.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    match = re.search(r"(/\S+\.so): ", str(error))
    if not match:
        return False
    library = Path(match[1])
    if not library.is_relative_to(cache_dir()) or not library.exists():
        return False
    library.unlink()
    return True


def tell(line: str) -> None:
    """Print a line above the progress bar."""
    tqdm.write(line, file=sys.stderr)

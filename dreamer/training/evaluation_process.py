"""A process of its own that plays evaluations while this one learns."""

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import torch

from dreamer.envs.warn import take_as_warned, warned
from dreamer.envs.workers import spawning

_evaluator: Any = None  # in the process of its own


class EvaluationProcess:
    """An `Evaluator` in a process of its own, which ends with this process, however this one ends."""

    def __init__(self, make_evaluator: Callable[[], Any], prepare: Callable[[], None] | None = None) -> None:
        """Start the process. `started` is a Future of the first state of its environment."""
        self.executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        others = set(multiprocessing.active_children())
        with spawning():  # Ctrl-C ends it through its parent
            self.started = self.executor.submit(_start, make_evaluator, prepare, torch.get_num_threads(), warned())
        (self.process,) = set(multiprocessing.active_children()) - others

    def submit(self, state: Any, request: Any) -> Future:
        """Return a Future of what `Evaluator.play` returns."""
        # pickled here, because the executor would share the memory of the tensors
        return self.executor.submit(_play, pickle.dumps((state, request)))

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.executor.shutdown()


def _start(make_evaluator: Callable[[], Any], prepare: Callable[[], None] | None, threads: int, known: Any) -> Any:
    """Make the evaluator in the process and return its environment's state. known: the warnings already given."""
    global _evaluator
    take_as_warned(known)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    if prepare:
        prepare()
    _evaluator = make_evaluator()
    return _evaluator.env.state_dict()


def _play(message: bytes) -> Any:
    return _evaluator.play(*pickle.loads(message))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)

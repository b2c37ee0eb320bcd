"""Play episodes in a second process while this one learns."""

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from dreamer.config.load import Config
from dreamer.envs.maker import Maker
from dreamer.envs.warn import take_as_warned, warned
from dreamer.envs.workers import spawning

_player: Any = None  # set only in the second process

FEW_CORES = 4  # on which a second process would take time from the first


def plays_in_background(config: Config, device: torch.device, maker: Maker | None) -> bool:
    """Return whether evaluations are played in a second process. "auto": on a GPU, with enough cores and no maker."""
    setting = config.operation.background_evaluation
    if setting != "auto":
        return bool(setting)
    return device.type == "cuda" and (os.cpu_count() or 1) > FEW_CORES and maker is None


def playing_device(config: Config, device: torch.device) -> torch.device:
    """Return the device of evaluations and of collecting in the background. device: of the updates."""
    return torch.device("cpu") if config.operation.evaluation_device == "cpu" else device


class PlayingProcess:
    """Runs an `Evaluator` or a `Collector` in a second process, which ends when this process ends for any reason."""

    def __init__(self, make_player: Callable[[], Any], prepare: Callable[[], None] | None = None) -> None:
        """Start the process. `started` is a Future of the first state of its environment."""
        self.executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        earlier_processes = set(multiprocessing.active_children())
        with spawning():  # Ctrl-C ends it through its parent
            self.started = self.executor.submit(_start, make_player, prepare, torch.get_num_threads(), warned())
        (self.process,) = set(multiprocessing.active_children()) - earlier_processes

    def submit(self, state: Any, request: Any) -> Future:
        """Return a Future of what the player's `play` returns; of BrokenProcessPool if the process has ended."""
        message = pickle.dumps((state, request))  # here, because the executor would share the memory of the tensors
        try:
            return self.executor.submit(_play, message)
        except BrokenProcessPool as error:
            failed: Future = Future()
            failed.set_exception(error)
            return failed

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.executor.shutdown()


def _start(make_player: Callable[[], Any], prepare: Callable[[], None] | None, threads: int, warnings: Any) -> Any:
    """Make the player in the second process and return its environment's state. warnings: those already given."""
    global _player
    take_as_warned(warnings)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    if prepare:
        prepare()
    _player = make_player()
    return _player.env.state_dict()


def _play(message: bytes) -> Any:
    return _player.play(*pickle.loads(message))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)

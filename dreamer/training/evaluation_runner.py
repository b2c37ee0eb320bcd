"""Run the evaluations of a training run one at a time: in this process, or in a second one while this one learns."""

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from dreamer.config.load import Config
from dreamer.envs.maker import Maker
from dreamer.errors import EnvError, EnvFault, one_line
from dreamer.training.checkpoint_file import copy_to_cpu
from dreamer.training.device import tune
from dreamer.training.evaluation import (
    Evaluation,
    EvaluationRequest,
    Evaluator,
    build_evaluator,
    build_filming_evaluator,
)
from dreamer.training.playing_process import PlayingProcess, playing_device, plays_in_background

START_LIMIT = 120  # seconds until the process has its environment and has rendered a first frame
EPISODE_LIMIT = 600  # seconds
MAX_CHARACTERS = 200  # characters of an error that a warning repeats


def build_evaluation_runner(
    config: Config, device: torch.device, films: bool = False, maker: Maker | None = None
) -> "EvaluationRunner":
    """Return the `EvaluationRunner` of a run that learns on a device. Raises EnvError or ConfigError.

    films: whether the environment renders films, as from `draws_films`. maker: as for `make_train_env`.
    """
    background = plays_in_background(config, device, maker)
    device = playing_device(config, device)
    build = build_filming_evaluator if films else build_evaluator
    make_evaluator = partial(build, config, device, maker=maker)
    return EvaluationRunner(make_evaluator, background, prepare=partial(tune, config, device))


class EvaluationRunner:
    """Runs the evaluations of a run one at a time: in this process, or in a second one while this one learns. Both give
    the same returns.

    A checkpoint holds the environment's state before the current evaluation and, as "pending", its request. A resumed
    run plays that evaluation again. So does this process, after a warning, if the second process ends or hangs.

    Some simulators allow only one environment in a process. If this process cannot make a second one, it prints a
    warning and evaluates in a second process.
    """

    def __init__(
        self,
        make_evaluator: Callable[[], Evaluator],
        background: bool = False,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """make_evaluator: must be picklable. background: whether to play in a second process. prepare: called there
        before make_evaluator. Raises the errors of make_evaluator."""
        self.make_evaluator, self.prepare = make_evaluator, prepare
        self.request: EvaluationRequest | None = None
        self.local_evaluator: Evaluator | None = None  # plays in this process
        self.process: PlayingProcess | None = None  # plays in a second process
        self.future: Future | None = None  # the second process's answer, expected before the deadline
        self.deadline = 0.0
        if background:
            self.start_process()
        else:
            try:
                self.local_evaluator = self.make_evaluator()
            except (EnvError, EnvFault) as error:
                self.start_process()
                reason = f"a second environment cannot be made in this process ({one_line(error)[:MAX_CHARACTERS]})"
                print(f"warning: {reason}; evaluation runs in a process of its own", file=sys.stderr)
        if self.local_evaluator:
            self.state = self.local_evaluator.env.state_dict()

    def start_process(self) -> None:
        """Start the second process, and keep the first state of its environment."""
        self.process = PlayingProcess(self.make_evaluator, self.prepare)
        try:
            self.state = self.answer(self.process.started, START_LIMIT)  # None if the process is lost: see __init__
        except BaseException:
            self.close()
            raise

    def start(self, request: EvaluationRequest) -> None:
        """Begin an evaluation. Take the result of the previous one first."""
        self.request = request
        if self.process:
            self.request = request._replace(weights=copy_to_cpu(request.weights))  # learning changes them
            self.future = self.process.submit(self.state, self.request)
            self.deadline = time.monotonic() + EPISODE_LIMIT * request.episodes

    def result(self, wait: bool = True) -> Evaluation | None:
        """Return the current evaluation when it has ended, once; None if there is none or, without `wait`, not yet."""
        if not self.request:
            return None
        answer = None
        if self.process and self.future:
            seconds_left = max(0, self.deadline - time.monotonic())
            if seconds_left and not wait and not self.future.done():
                return None
            answer = self.answer(self.future, seconds_left)
        if not answer:
            assert self.local_evaluator, "there is no process, so this one has an evaluator"
            answer = self.local_evaluator.play(self.state, self.request)
        evaluation, self.state = answer
        self.request = None
        return evaluation

    def answer(self, future: Future, seconds: float) -> Any:
        """Return the second process's answer. If that process is lost, play in this one from now on and return None."""
        try:
            return future.result(seconds)
        except (BrokenProcessPool, TimeoutError) as error:
            reason = "it did not answer in time" if isinstance(error, TimeoutError) else "it has ended"
            message = f"the process that evaluates is lost ({reason})"
            self.close()
            self.process = None
            try:
                self.local_evaluator = self.make_evaluator()
            except (EnvError, EnvFault):
                advice = "a second environment cannot be made in this one; --resume continues from the last checkpoint"
                raise EnvError(f"{message}, and {advice}") from None
            tqdm.write(f"warning: {message}; evaluations are played in this process from now on", file=sys.stderr)
            return None

    def state_dict(self) -> dict[str, Any]:
        """Return the environment's state and, as "pending", the current request."""
        if not self.request:
            return dict(self.state)
        return {**self.state, "pending": self.request._asdict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, and restart the evaluation that was pending in it."""
        self.state = {name: part for name, part in state.items() if name != "pending"}
        self.request = None
        if "pending" in state:
            self.start(EvaluationRequest(**state["pending"]))

    def close(self) -> None:
        """End the second process, and close this process's environment."""
        for player in (self.process, self.local_evaluator):
            if player:
                player.close()

"""Run a training's evaluations, one at a time: in this process, or in one of their own while this one learns."""

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
LONGEST = 200  # characters of an error that a warning repeats


def build_evaluation_runner(
    config: Config, device: torch.device, films: bool = False, maker: Maker | None = None
) -> "EvaluationRunner":
    """Return the `EvaluationRunner` of a run that learns on a device. Raises EnvError or ConfigError.

    films: whether the environment renders films, as from `draws_films`. maker: as for `make_train_env`.
    """
    background = plays_in_background(config, device, maker)
    device = playing_device(config, device)
    build = build_filming_evaluator if films else build_evaluator
    make, prepare = partial(build, config, device, maker=maker), partial(tune, config, device)
    return EvaluationRunner(make, background, prepare)


class EvaluationRunner:
    """The evaluations of a run, one at a time: in this process, or in one of their own while this one learns. Both give
    the same returns.

    A checkpoint holds the environment's state from before the evaluation under way and its request, as "pending". A
    resumed run plays it again, and so does this process, after a warning, if the other one ends or hangs.

    Of some simulators a process can hold only one. If this process cannot make a second environment, evaluation runs in
    a process of its own, too, after a warning.
    """

    def __init__(
        self,
        make_evaluator: Callable[[], Evaluator],
        background: bool = False,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """make_evaluator: can be pickled. background: whether to play in a process of its own. prepare: called there
        before make_evaluator. Raises what make_evaluator raises."""
        self.make_evaluator, self.prepare = make_evaluator, prepare
        self.request: EvaluationRequest | None = None
        self.here: Evaluator | None = None  # where this process plays
        self.process: PlayingProcess | None = None  # where one of its own does
        self.future: Future | None = None  # of the answer to the request, until the deadline
        self.deadline = 0.0
        if background:
            self.start_process()
        else:
            try:
                self.here = self.make_evaluator()
            except (EnvError, EnvFault) as error:
                self.start_process()
                reason = f"a second environment cannot be made in this process ({one_line(error)[:LONGEST]})"
                print(f"warning: {reason}; evaluation runs in a process of its own", file=sys.stderr)
        if self.here:
            self.state = self.here.env.state_dict()

    def start_process(self) -> None:
        """Start a process that plays, and take the first state of its environment."""
        self.process = PlayingProcess(self.make_evaluator, self.prepare)
        try:
            self.state = self.answer(self.process.started, START_LIMIT)
        except BaseException:
            self.close()
            raise

    def start(self, request: EvaluationRequest) -> None:
        """Begin an evaluation. The result of the one before must have been taken."""
        self.request = request
        if self.process:
            self.request = request._replace(weights=copy_to_cpu(request.weights))  # learning changes them
            self.future = self.process.submit(self.state, self.request)
            self.deadline = time.monotonic() + EPISODE_LIMIT * request.episodes

    def result(self, wait: bool = True) -> Evaluation | None:
        """Return the evaluation under way, once; None if there is none or, without `wait`, if it has not ended."""
        if not self.request:
            return None
        answer = None
        if self.process and self.future:
            left = max(0, self.deadline - time.monotonic())
            if left and not wait and not self.future.done():
                return None
            answer = self.answer(self.future, left)
        if not answer:
            assert self.here, "there is no process, so this one has an evaluator"
            answer = self.here.play(self.state, self.request)
        evaluation, self.state = answer
        self.request = None
        return evaluation

    def answer(self, future: Future, seconds: float) -> Any:
        """Return what the process answers; None if it is lost, and this process plays from now on."""
        try:
            return future.result(seconds)
        except (BrokenProcessPool, TimeoutError) as error:
            reason = "it did not answer in time" if isinstance(error, TimeoutError) else "it has ended"
            lost = f"the process that evaluates is lost ({reason})"
            self.close()
            self.process = None
            try:
                self.here = self.make_evaluator()
            except (EnvError, EnvFault):
                advice = "a second environment cannot be made in this one; --resume continues from the last checkpoint"
                raise EnvError(f"{lost}, and {advice}") from None
            tqdm.write(f"warning: {lost}; evaluations are played in line from now on", file=sys.stderr)
            return None

    def state_dict(self) -> dict[str, Any]:
        """Return the environment's state and, as "pending", the request under way."""
        return self.state | ({"pending": self.request._asdict()} if self.request else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back a state, and start again an evaluation that was under way."""
        self.state = {name: part for name, part in state.items() if name != "pending"}
        self.request = None
        if "pending" in state:
            self.start(EvaluationRequest(**state["pending"]))

    def close(self) -> None:
        """End the process, and close the environment of this one."""
        for player in (self.process, self.here):
            if player:
                player.close()

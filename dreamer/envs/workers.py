"""Several environments that play their episodes together, each in a process of its own."""

import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from operator import attrgetter
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium.vector.utils import clear_mpi_env_vars

from dreamer.envs.randomness import ProcessRandomness
from dreamer.envs.rounds import RoundEnvs
from dreamer.envs.warn import take_as_warned, warned
from dreamer.errors import EnvError, EnvFault

START_LIMIT = 120  # seconds until all workers have a first frame; some drivers hang where several processes render
ANSWER_LIMIT = 60  # seconds for a step or a reset
CLOSE_LIMIT = 5  # seconds


class ParallelEnvs(RoundEnvs):
    """Environments in worker processes. If these do not start, the environments run in this process. Raises EnvError if
    a worker ends later.
    """

    def __init__(self, makers: Sequence[partial], example: Any) -> None:
        """makers: functions without arguments, one for each environment. example: as for `RoundEnvs`."""
        super().__init__(example, len(makers))
        try:
            self.vector: InTurn | Workers = Workers(makers)
        except Exception as error:
            self.vector = InTurn(makers)  # raises the error again if the environment caused it
            reason = f"{len(makers)} worker processes do not start here ({error})"
            print(f"warning: environment.num_envs: {reason}; the environments run one after the other", file=sys.stderr)

    def reset(self, episodes: int) -> Any:
        """Begin a round with an episode in each of the first environments. Return the observations."""
        self.playing = list(range(episodes))
        self.clear_observations()
        for number, (observation, _) in zip(self.playing, self.vector.ask("reset", self.playing), strict=True):
            self.store_observation(number, observation)
        return self.observations()

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Make a step with actions (E, A) where an episode is not over. Return what gymnasium's `step` returns, as
        arrays (E, ...)."""
        reward, env_steps = np.zeros(self.num_envs), np.zeros(self.num_envs, int)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        success = np.full(self.num_envs, math.nan)
        for number, answer in zip(self.playing, self.vector.ask("step", self.playing, actions), strict=True):
            observation, reward[number], terminated[number], truncated[number], info = answer
            env_steps[number], success[number] = info
            self.store_observation(number, observation)
        self.playing = [number for number in self.playing if not (terminated[number] or truncated[number])]
        return self.observations(), reward, terminated, truncated, {"env_steps": env_steps, "success": success}

    def sample_actions(self) -> np.ndarray:
        """Return uniformly random actions (E, A), each from its environment's own random state."""
        actions = np.zeros((self.num_envs, *self.action_space.shape), np.float32)
        actions[self.playing] = self.vector.ask("action_space.sample", self.playing)
        return actions

    def renderer(self) -> str:
        """Return `DMCEnv.renderer` of the first environment."""
        return self.vector.ask("unwrapped.renderer", [0])[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the environments and of their processes, between two rounds."""
        numbers = range(self.num_envs)
        state = {"environments": self.vector.ask("state_dict", numbers)}
        if self.vector.own_processes:
            state["processes"] = self.vector.ask("process.state_dict", numbers)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the environments and their processes to a state of `state_dict`."""
        numbers = range(self.num_envs)
        self.vector.ask("load_state_dict", numbers, state["environments"])
        if self.vector.own_processes and "processes" in state:  # older checkpoints have none
            self.vector.ask("process.load_state_dict", numbers, state["processes"])

    def close(self) -> None:
        """Close the environments and end their processes."""
        self.vector.close()


class InTurn:
    """Environments in this process."""

    own_processes = False

    def __init__(self, makers: Sequence[partial]) -> None:
        self.envs = [make() for make in makers]

    def ask(self, name: str, numbers: Sequence[int], *arguments: Any) -> list[Any]:
        """Return what a method of the environments with these numbers returns; see `Workers.ask`."""
        results = []
        for number in numbers:
            own_arguments = [argument[number] for argument in arguments]
            results.append(_call(self.envs[number], name, own_arguments))
        return results

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()


class Workers:
    """Environments in worker processes. They are reset only by `ask`."""

    own_processes = True

    def __init__(self, makers: Sequence[partial]) -> None:
        """Start the processes, and wait until each has its environment. Raises EnvError or EnvFault if one fails."""
        self.pipes: list[Connection] = []
        self.processes: list[multiprocessing.process.BaseProcess] = []
        try:
            with spawning(), clear_mpi_env_vars():
                for number, make in enumerate(makers):
                    self._start(number, make)
            self._answers(range(len(makers)), START_LIMIT)
        except BaseException:
            for process in self.processes:
                process.kill()  # while it imports it would not notice that its pipe is closed
            self.close()
            raise

    def _start(self, number: int, make: partial) -> None:
        context = multiprocessing.get_context("spawn")
        warned_about = warned() if number == 0 else [None]  # only the first worker prints warnings
        pipe, pipe_of_worker = context.Pipe()
        process = context.Process(target=_work, args=(make, warned_about, pipe_of_worker), daemon=True)
        process.start()
        pipe_of_worker.close()
        self.pipes.append(pipe)
        self.processes.append(process)

    def ask(self, name: str, numbers: Sequence[int], *arguments: Any) -> list[Any]:
        """Return what a method of the environments with these numbers returns. Each is called with its own element of
        every argument.

        Raises EnvError if a worker fails, ends, or takes too long, and EnvFault if its environment raises something.
        """
        for number in numbers:
            own_arguments = [argument[number] for argument in arguments]
            with suppress(OSError):  # `_answer` raises an error for a worker that has ended
                self.pipes[number].send((name, own_arguments))
        try:
            return self._answers(numbers, ANSWER_LIMIT)
        except EnvError as error:
            raise EnvError(f"environment.num_envs: {error}; --resume goes on from the last checkpoint") from None

    def _answers(self, numbers: Sequence[int], limit: float) -> list[Any]:
        deadline = time.monotonic() + limit
        return [self._answer(number, deadline) for number in numbers]

    def _answer(self, number: int, deadline: float) -> Any:
        pipe, process = self.pipes[number], self.processes[number]
        failure: Exception | None
        try:
            if pipe.poll(max(0, deadline - time.monotonic())):
                answer, failure = pipe.recv()
            else:
                failure = EnvError("no answer in time")
        except (EOFError, OSError):
            process.join(CLOSE_LIMIT)
            failure = EnvError(f"the process has ended (exit code {process.exitcode})")
        worker = f"worker {number + 1} of {len(self.processes)}"
        if isinstance(failure, EnvFault):
            raise EnvFault(f"environment.num_envs: {worker}: {failure}", failure.trace)
        if failure:
            raise EnvError(f"{worker}: {failure}")
        return answer

    def close(self) -> None:
        """Close the pipes, so that the workers end; kill those that hang."""
        for pipe in self.pipes:
            pipe.close()
        deadline = time.monotonic() + CLOSE_LIMIT
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
            process.kill()
            process.join()


def _work(make: partial, warned_about: Sequence[Hashable], pipe: Connection) -> None:
    """Answer calls until the environment fails, or the pipe is closed by the parent or its end.

    warned_about: the subjects about which the parent has warned.
    """
    take_as_warned(warned_about)
    process, seed = ProcessRandomness(), make.keywords["seed"]
    process.seed(seed)
    with suppress(OSError):
        try:
            with closing(make()) as env:
                env.process = process
                process.seed_torch(seed)
                pipe.send((None, None))
                while True:
                    pipe.send((_call(env, *pipe.recv()), None))
        except (EnvError, EnvFault) as error:
            pipe.send((None, error))
        except Exception as error:
            pipe.send((None, EnvError(repr(error))))


def _call(env: Any, name: str, arguments: Sequence[Any]) -> Any:
    """Return what a method of an environment returns. Of an `info` only two entries, the rest may not be picklable."""
    answer = attrgetter(name)(env)(*arguments)
    if name in ("reset", "step"):
        *answer, info = answer
        answer.append((info.get("env_steps"), info.get("success", math.nan)))
    return answer


@contextmanager
def spawning() -> Iterator[None]:
    """Let processes that the block starts ignore Ctrl-C, which a terminal sends to all, and not import the main
    program: that would load torch in each of them, and a script without a guard would train again."""
    resource_tracker.ensure_running()  # started later, it would unblock the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

"""Several environments, each in a process of its own, that play their episodes together."""

import signal
import sys
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from types import ModuleType

import gym
import numpy as np
from gym.vector import AsyncVectorEnv, SyncVectorEnv
from tqdm import tqdm

from dreamer.envs.rendering import EnvError

START_LIMIT = 120  # seconds until all workers have a first frame; some drivers hang where several processes render
ANSWER_LIMIT = 60  # seconds for a step or a reset
CLOSE_LIMIT = 5  # seconds
ATTEMPTS = 3  # to play a round


class ParallelEnvs:
    """E environments that play in rounds: an episode in each of them, in as many steps as the longest one takes.

    Where `run_episode` meets one observation, here are those of all environments, (E, ...). If a worker
    process ends or hangs, all are replaced, the environments are put back to the beginning of the
    round, and ConnectionError asks to play it again; at the third time in a row it is an EnvError.
    Where workers do not start, the environments run in this process.
    """

    def __init__(self, makers, example):
        """makers: functions without arguments, one for each environment. example: one of them, for its spaces."""
        self.observation_space, self.action_space = example.observation_space, example.action_space
        self.max_agent_steps, self.num_envs = example.max_agent_steps, len(makers)
        spaces = {"observation_space": self.observation_space, "action_space": self.action_space}
        self.seats = [partial(Seat, number, make, **spaces) for number, make in enumerate(makers)]
        self.states, self.failures = None, 0
        try:
            self.vector = self._start(Workers)
        except Exception as error:
            self.vector = self._start(SyncVectorEnv)  # an EnvError, if it was not the workers' fault
            print(
                f"warning: environment.num_envs: {len(makers)} worker processes do not start here "
                f"({_describe(error)}); the environments run one after the other",
                file=sys.stderr,
            )

    def reset(self, episodes):
        """Begin a round with an episode in each of the first environments. Returns the observations."""
        self.playing = np.arange(self.num_envs) < episodes
        return self._ask("reset", options={"episodes": episodes})[0]

    def step(self, actions):
        """What gym's `step` returns, as arrays (E, ...); actions: (E, A). Those whose episode is over hold still."""
        observation, reward, _, _, info = self._ask("step", actions)
        self.playing &= ~(info["terminated"] | info["truncated"])
        if not self.playing.any():
            self.states, self.failures = self._ask("call", "state_dict"), 0
        return observation, reward, info["terminated"], info["truncated"], info

    def sample_actions(self):
        """Uniformly random actions (E, A), each from its environment's own random state."""
        return np.stack(self._ask("call", "sample_action"))

    def state_dict(self):
        """Those of the environments, when the last round ended."""
        return {"environments": list(self.states)}

    def load_state_dict(self, state):
        self.states = state["environments"]
        with suppress(ConnectionError):  # new workers know the states
            self._ask("call", "load_states", self.states)

    def close(self):
        self.vector.close()

    def _start(self, kind):
        vector = kind(self.seats)
        try:
            vector.call("start")
            if self.states:
                vector.call("load_states", self.states)
            else:
                self.states = vector.call("state_dict")
        except BaseException:
            vector.close()
            raise
        return vector

    def _ask(self, method, *arguments, **keywords):
        try:
            return getattr(self.vector, method)(*arguments, **keywords)
        except Exception as error:
            if not isinstance(self.vector, Workers):
                raise
            self._replace_workers(error)
            raise ConnectionError("the round is to be played again") from error

    def _replace_workers(self, error):
        self.vector.close()
        self.failures += 1
        if self.failures == ATTEMPTS:
            raise EnvError(
                f"environment.num_envs: the worker processes failed {ATTEMPTS} times in a row, at last with "
                f"{_describe(error)}; environment.num_envs=1 needs none"
            ) from error
        text = f"warning: a worker process failed ({_describe(error)}); the round is played again"
        tqdm.write(text, file=sys.stderr)  # above the progress bar
        try:
            self.vector = self._start(Workers)
        except Exception as another:
            self._replace_workers(another)


class Seat(gym.Env):
    """Holds one of several environments for gym's vector environments, which make it, and then its `start`.

    They reset an environment as soon as it ends. So this one tells the end in `info` alone and holds
    still after it; also throughout a round of no more episodes than its number.
    """

    def __init__(self, number, make, observation_space, action_space):
        self.number, self.make = number, make
        self.observation_space, self.action_space = observation_space, action_space
        self.observation = np.zeros(observation_space.shape, observation_space.dtype)
        self.env, self.playing = None, False

    def start(self):
        self.env = self.make()

    def reset(self, *, seed=None, options=None):
        self.playing = self.number < options["episodes"]
        if self.playing:
            self.observation, _ = self.env.reset()
        return self.observation, {}

    def step(self, action):
        if not self.playing:
            return self.observation, 0.0, False, False, {}
        self.observation, reward, terminated, truncated, info = self.env.step(action)
        self.playing = not (terminated or truncated)
        told = {"terminated": bool(terminated), "truncated": bool(truncated), "env_steps": info["env_steps"]}
        return self.observation, float(reward), False, False, told

    def sample_action(self):
        return self.env.action_space.sample() if self.playing else np.zeros(self.action_space.shape, np.float32)

    def state_dict(self):
        return self.env.state_dict()

    def load_states(self, states):
        self.env.load_state_dict(states[self.number])

    def close(self):
        if self.env:
            self.env.close()


class Workers(AsyncVectorEnv):
    """gym's worker processes; no answer may take longer than its limit."""

    def __init__(self, seats):
        with _spawning():
            super().__init__(seats, shared_memory=False, context="spawn", worker=_work)

    def call(self, name, *arguments):
        self.call_async(name, *arguments)
        return self.call_wait(START_LIMIT if name == "start" else ANSWER_LIMIT)

    def reset_wait(self, **keywords):
        return super().reset_wait(ANSWER_LIMIT, **keywords)

    def step_wait(self):
        return super().step_wait(ANSWER_LIMIT)

    def close_extras(self, **keywords):
        """A worker ends when its pipe does; one that hangs is killed."""
        for pipe in self.parent_pipes:
            pipe.close()
        for process in self.processes:
            process.join(CLOSE_LIMIT)
            process.kill()
            process.join()

    def _check_spaces(self):
        """Not asked for, as it would wait without a limit: one configuration makes all environments."""

    def _raise_if_errors(self, successes):
        """As gym's, but any error arrives, and nothing is printed."""
        if not all(successes):
            raise EnvError(self.error_queue.get(timeout=ANSWER_LIMIT))


def _work(number, make_seat, pipe, parent_pipe, shared_memory, error_queue):
    """What a worker does, until its pipe ends because the parent closed it or is no more."""
    parent_pipe.close()
    with closing(make_seat()) as seat, suppress(EOFError, OSError):
        while True:
            command, data = pipe.recv()
            try:
                answer = _answer(seat, command, data), True
            except Exception as error:
                error_queue.put(_describe(error))
                answer = (None, 0.0, False, False, {}), False
            pipe.send(answer)


def _answer(seat, command, data):
    if command == "reset":
        return seat.reset(**data)
    if command == "step":
        return seat.step(data)
    name, arguments, keywords = data  # command "_call"
    return getattr(seat, name)(*arguments, **keywords)


@contextmanager
def _spawning():
    """Processes started here do not see the Ctrl-C that a terminal sends to all, and do not import the main program,
    which would bring torch into each of them."""
    resource_tracker.ensure_running()  # its start would lift the block
    mask, main = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}), sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _describe(error):
    """In one line."""
    text = str(error) if isinstance(error, EnvError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split()).rstrip(":")

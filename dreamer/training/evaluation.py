"""Evaluation: episodes under an actor, with an environment, networks and random numbers of its own."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dreamer.algorithms.policy import Policy
from dreamer.build import build_actor, build_world_model
from dreamer.envs.calls import run_calls_within
from dreamer.envs.make import make_eval_env
from dreamer.envs.warn import take_as_warned, warned
from dreamer.errors import EnvError, EnvFault, one_line
from dreamer.training import torch_settings
from dreamer.training.checkpoint import copy_to_cpu
from dreamer.training.collect import run_episode
from dreamer.training.device import one_thread, tune
from dreamer.training.film import EpisodeFilm, tell_no_films
from dreamer.training.seeding import own_randomness

START_LIMIT = 120  # seconds until the process has its environment and has rendered a first frame
EPISODE_LIMIT = 600  # seconds
LONGEST = 200  # characters of what a warning repeats


class Request(NamedTuple):
    """What an evaluation follows from, beside the state of the environment."""

    weights: dict  # a state_dict each of "model" and "actor"
    iteration: int  # seeds the random numbers, together with the run's seed
    env_steps: int  # of the run
    episodes: int
    film: bool  # whether to film the first episode


class Evaluation(NamedTuple):
    """What came of it."""

    env_steps: int  # of the run when it was asked for
    returns: list  # of its episodes
    frames: np.ndarray | None  # of the first one, if they were asked for and can be had: uint8 (T, height, width, 3)
    frames_per_second: float | None  # of them


class Evaluator:
    """Plays evaluations. model, actor: its own, for the weights that it is given. samples: whether actions are samples
    of the actor's distribution; else its modes. renders: whether its environment can."""

    def __init__(self, env, model, actor, seed, samples=False, renders=False):
        self.env, self.model, self.actor, self.seed, self.renders = env, model, actor, seed, renders
        self.noise = 0.0 if samples else None
        self.networks = {"model": model, "actor": actor}

    def play(self, state, request):
        """(Evaluation, the environment's state after it) of a `Request`, from a state of the environment."""
        self.env.load_state_dict(state)
        for name, network in self.networks.items():
            network.load_state_dict(request.weights[name])
        if not request.film:
            returns = self.returns(request.iteration, request.episodes)
            return Evaluation(request.env_steps, returns, None, None), self.env.state_dict()
        film = EpisodeFilm(self.env, self.renders)
        returns = self.returns(request.iteration, request.episodes, film.watch)
        self.renders = film.renders
        frames = np.stack(film.frames) if film.frames else None
        return Evaluation(request.env_steps, returns, frames, film.frames_per_second), self.env.state_dict()

    def returns(self, iteration, episodes, watch=lambda episode, step: None):
        """The returns of episodes, as a list. watch: called with each episode's number, from 0, and `Step`. The random
        numbers of everything else stay as they are."""
        returns = []
        with own_randomness(self.seed, iteration), one_thread():
            policy = Policy(self.model, self.actor, self.noise)
            for episode in range(episodes):
                returns.append(0.0)
                for step in run_episode(self.env, policy):
                    returns[-1] += step.reward
                    watch(episode, step)
        return returns

    def close(self):
        self.env.close()


def build_evaluator(config, device, renders=False):
    """An Evaluator with an environment and networks of its own; draws no random numbers.

    renders: whether its environment must render although it may be seen as vectors. Raises EnvError or ConfigError.
    """
    seed = config.operation.seed
    run_calls_within(torch_settings.of_environments)
    with own_randomness(seed):
        env = make_eval_env(config.environment, seed, renders)
        networks = build_world_model(config, env, device), build_actor(config, env, device)
        return Evaluator(env, *networks, seed, config.evaluation.sample, renders)


def build_filming_evaluator(config, device):
    """The same for a run whose environment is to render its films. One line says so if it cannot."""
    try:
        evaluator = build_evaluator(config, device, renders=True)
        try:
            evaluator.env.render()
        except Exception:
            evaluator.close()
            raise
    except Exception as error:  # a renderer may raise anything; if the environment is to blame it will raise it again
        evaluator = build_evaluator(config, device)
        tell_no_films(error)
    return evaluator


def build_evaluations(config, device, films=False):
    """The `Evaluations` of a run that learns on a device; films: as from `draws_films`. Raises EnvError or
    ConfigError."""
    device = torch.device("cpu") if config.operation.evaluation_device == "cpu" else device
    build = build_filming_evaluator if films else build_evaluator
    make, prepare = partial(build, config, device), partial(tune, config, device)
    return Evaluations(make, config.operation.background_evaluation, prepare)


class Evaluations:
    """The evaluations of a run, one at a time: in this process, or in one of their own while learning goes on. Both
    give the same.

    A checkpoint holds the environment's state from before the evaluation under way, and that one's request as
    "pending": whoever goes on plays it again. So if the process does not come up, ends or hangs, one line says so,
    and this process plays.

    There are simulators of which a process can hold only one. Where a second environment cannot be made, beside the one
    in which it is trained, evaluation runs in a process of its own, too, and one line says so.
    """

    def __init__(self, make_evaluator, background=False, prepare=None):
        """make_evaluator: without arguments, to be pickled for a process of its own. What it raises is raised here, or
        there if that is tried. prepare: called before it in a process of its own."""
        self.make_evaluator, self.prepare = make_evaluator, prepare
        self.request = self.future = self.here = self.process = None
        if background:
            self.start_process()
        else:
            try:
                self.take_over()
            except (EnvError, EnvFault) as error:
                self.start_process()
                reason = f"a second environment cannot be made in this process ({one_line(error)[:LONGEST]})"
                print(f"warning: {reason}; evaluation runs in a process of its own", file=sys.stderr)
        if self.here:
            self.state = self.here.env.state_dict()

    def start_process(self):
        """Begin to play in a process of its own."""
        self.process = EvaluationProcess(self.make_evaluator, self.prepare)
        try:
            self.state = self.answer(self.process.started, START_LIMIT)
        except BaseException:
            self.close()
            raise

    def start(self, request):
        """Ask for an evaluation. The one before must have been taken with `result`."""
        self.request = request
        if self.process:
            self.request = request._replace(weights=copy_to_cpu(request.weights))  # learning goes on
            self.future = self.process.submit(self.state, self.request)
            self.deadline = time.monotonic() + EPISODE_LIMIT * request.episodes

    def result(self, wait=True):
        """The `Evaluation` that was asked for, once; None if there is none or, without `wait`, if it has not ended."""
        if not self.request:
            return None
        answer = None
        if self.process:
            left = max(0, self.deadline - time.monotonic())
            if left and not wait and not self.future.done():
                return None
            answer = self.answer(self.future, left)
        evaluation, self.state = answer or self.here.play(self.state, self.request)
        self.request = None
        return evaluation

    def answer(self, future, seconds):
        """What the process answers; None if it is lost, and this one takes over."""
        try:
            return future.result(seconds)
        except (BrokenProcessPool, TimeoutError) as error:
            reason = "it did not answer in time" if isinstance(error, TimeoutError) else "it has ended"
            lost = f"the process that evaluates is lost ({reason})"
            try:
                self.take_over()
            except (EnvError, EnvFault):
                advice = "a second environment cannot be made in this one; --resume goes on from the last checkpoint"
                raise EnvError(f"{lost}, and {advice}") from None
            tqdm.write(f"warning: {lost}; evaluations are played in line from now on", file=sys.stderr)

    def take_over(self):
        """Play in this process."""
        if self.process:
            self.process.close()
        self.process = None
        self.here = self.make_evaluator()

    def state_dict(self):
        return self.state | ({"pending": self.request._asdict()} if self.request else {})

    def load_state_dict(self, state):
        """Go back to a state; an evaluation that was under way is started again."""
        self.state = {name: part for name, part in state.items() if name != "pending"}
        self.request = None
        if "pending" in state:
            self.start(Request(**state["pending"]))

    def close(self):
        for player in filter(None, (self.process, self.here)):
            player.close()


class EvaluationProcess:
    """An `Evaluator` in a process of its own, which ends with this one, however this one ends."""

    def __init__(self, make_evaluator, prepare=None):
        """started: a Future of the environment's first state."""
        self.executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        others = set(multiprocessing.active_children())
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C ends it through its parent
        try:
            self.started = self.executor.submit(_start, make_evaluator, prepare, torch.get_num_threads(), warned())
        finally:
            signal.signal(signal.SIGINT, handler)
        (self.process,) = set(multiprocessing.active_children()) - others

    def submit(self, state, request):
        """A Future of what `Evaluator.play` gives."""
        return self.executor.submit(_play, pickle.dumps((state, request)))  # itself it would share the tensors' memory

    def close(self):
        self.process.kill()
        self.executor.shutdown()


def _start(make_evaluator, prepare, threads, known):
    """In the process: make the evaluator, and return its environment's state. known: what was warned about."""
    global evaluator
    take_as_warned(known)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    if prepare:
        prepare()
    evaluator = make_evaluator()
    return evaluator.env.state_dict()


def _play(message):
    return evaluator.play(*pickle.loads(message))


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)

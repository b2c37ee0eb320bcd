"""Evaluation: episodes that an actor plays, with an environment, networks and random numbers of its own."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dreamer.algorithms.policy import Policy, begun_anew
from dreamer.build import build_actor, build_world_model
from dreamer.config.load import Config
from dreamer.envs.calls import run_calls_within
from dreamer.envs.make import make_eval_env
from dreamer.envs.maker import Maker
from dreamer.errors import EnvError, EnvFault, one_line
from dreamer.modules.actor import Actor
from dreamer.modules.world_model import WorldModel
from dreamer.replay.step import Step
from dreamer.training import torch_settings
from dreamer.training.checkpoint_file import copy_to_cpu
from dreamer.training.collect import run_episode
from dreamer.training.device import one_thread, tune
from dreamer.training.film import EpisodeFilm, tell_no_films
from dreamer.training.playing_process import PlayingProcess, playing_device, plays_in_background
from dreamer.training.recorded_policy import record
from dreamer.training.seeding import own_randomness

START_LIMIT = 120  # seconds until the process has its environment and has rendered a first frame
EPISODE_LIMIT = 600  # seconds
LONGEST = 200  # characters of an error that a warning repeats


class Request(NamedTuple):
    """The inputs of one evaluation, apart from the state of its environment."""

    weights: dict[str, Any]  # a state_dict each of "model" and "actor"
    iteration: int  # seeds the random numbers, together with the run's seed
    env_steps: int  # of the run
    episodes: int
    film: bool  # whether to film the first episode


class Evaluation(NamedTuple):
    """The result of one evaluation."""

    iteration: int  # of the run when it was requested
    env_steps: int  # of the run when it was requested
    returns: list[float]  # of its episodes
    frames: np.ndarray | None  # a film of the first one, uint8 (T, height, width, 3), if requested and possible
    frames_per_second: float  # of the film
    success: float | None  # fraction of the episodes that have reached their goal; None: the environment does not say


class Evaluator:
    """Plays evaluations in an environment of its own, with networks of its own, into which it loads given weights."""

    def __init__(
        self,
        env: Any,
        model: WorldModel,
        actor: Actor,
        seed: int,
        samples: bool = False,
        renders: bool = False,
        records: bool = False,
    ) -> None:
        """samples: whether actions are samples of the actor's distribution, else modes. renders: whether `env` can.
        records: whether the policy's computation is recorded and then run as one graph."""
        self.env, self.model, self.actor, self.seed, self.renders = env, model, actor, seed, renders
        self.noise, self.records = 0.0 if samples else None, records
        self.networks = {"model": model, "actor": actor}

    def play(self, state: Any, request: Request) -> tuple[Evaluation, Any]:
        """Play the episodes of a request, from a state of the environment. Return its state after them, too."""
        self.env.load_state_dict(state)
        for name, network in self.networks.items():
            network.load_state_dict(request.weights[name])
        film, successes = EpisodeFilm(self.env, self.renders), [math.nan] * request.episodes

        def watch(episode: int, step: Step) -> None:
            successes[episode] = float(step.success)
            if request.film:
                film.watch(episode, step)

        returns = self.returns(request.iteration, request.episodes, watch)
        self.renders = film.renders
        frames = np.stack(film.frames) if film.frames else None
        moment, rate = (request.iteration, request.env_steps), film.frames_per_second
        success = None if np.isnan(successes).any() else float(np.mean(successes))
        return Evaluation(*moment, returns, frames, rate, success), self.env.state_dict()

    @cached_property
    def policy(self) -> Policy:
        """The policy that plays."""
        policy = Policy(self.model, self.actor, self.noise)
        if self.records:
            record(policy)
        return policy

    def returns(
        self, iteration: int, episodes: int, watch: Callable[[int, Step], None] = lambda episode, step: None
    ) -> list[float]:
        """Play episodes and return their returns, without a change to the random numbers of everything else.

        watch: called at each step with the number of the episode, from 0, and the `Step`.
        """
        returns: list[float] = []
        with own_randomness(self.seed, iteration), one_thread():
            policy = begun_anew(self.policy)
            for episode in range(episodes):
                returns.append(0.0)
                for step in run_episode(self.env, policy):
                    returns[-1] += float(step.reward)
                    watch(episode, step)
        return returns

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def build_evaluator(
    config: Config, device: torch.device, renders: bool = False, maker: Maker | None = None
) -> Evaluator:
    """Return an `Evaluator`, without a change to the random numbers of this process.

    renders: whether its environment must render even if the agent sees vectors. maker: as for `make_train_env`.
    Raises EnvError or ConfigError.
    """
    seed = config.operation.seed
    run_calls_within(torch_settings.of_environments)
    with own_randomness(seed):
        env = make_eval_env(config.environment, seed, renders, maker)
        networks = build_world_model(config, env, device), build_actor(config, env, device)
        return Evaluator(env, *networks, seed, config.evaluation.sample, renders, config.operation.fast_paths)


def build_filming_evaluator(config: Config, device: torch.device, maker: Maker | None = None) -> Evaluator:
    """Return an `Evaluator` whose environment renders films. If it cannot, say so and return one without films."""
    try:
        evaluator = build_evaluator(config, device, renders=True, maker=maker)
        try:
            evaluator.env.render()
        except Exception:
            evaluator.close()
            raise
    except Exception as error:  # a renderer may raise anything; an error of the environment comes again below
        evaluator = build_evaluator(config, device, maker=maker)
        tell_no_films(error)
    return evaluator


def build_evaluations(
    config: Config, device: torch.device, films: bool = False, maker: Maker | None = None
) -> "Evaluations":
    """Return the `Evaluations` of a run that learns on a device. Raises EnvError or ConfigError.

    films: whether the environment renders films, as from `draws_films`. maker: as for `make_train_env`.
    """
    background = plays_in_background(config, device, maker)
    device = playing_device(config, device)
    build = build_filming_evaluator if films else build_evaluator
    make, prepare = partial(build, config, device, maker=maker), partial(tune, config, device)
    return Evaluations(make, background, prepare)


class Evaluations:
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
        self.request: Request | None = None
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

    def start(self, request: Request) -> None:
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
            self.start(Request(**state["pending"]))

    def close(self) -> None:
        """End the process, and close the environment of this one."""
        for player in (self.process, self.here):
            if player:
                player.close()

"""Play evaluation episodes in a separate environment, with separate networks and random numbers."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from dreamer.algorithms.policy import Policy, reset_policy
from dreamer.build import build_actor, build_world_model
from dreamer.config.load import Config
from dreamer.envs.calls import run_calls_within
from dreamer.envs.make import make_eval_env
from dreamer.envs.maker import Maker
from dreamer.modules.actor import Actor
from dreamer.modules.world_model import WorldModel
from dreamer.replay.step import Step
from dreamer.training import torch_settings
from dreamer.training.collect import run_episode
from dreamer.training.device import one_thread
from dreamer.training.film import EpisodeFilm, print_no_films
from dreamer.training.metrics import achievement_curves
from dreamer.training.seeding import seeded_randomness
from dreamer.training.traced_policy import trace_policy


class EvaluationRequest(NamedTuple):
    """The inputs of one evaluation, apart from the state of its environment."""

    weights: dict[str, Any]  # a state_dict each of "model" and "actor"
    iteration: int  # seeds the random numbers, together with the run's seed
    env_steps: int  # collected by the run so far, or its updates if it is offline
    episodes: int
    film: bool  # whether to film the first episode


class Evaluation(NamedTuple):
    """The result of one evaluation."""

    iteration: int  # of the run when it was requested
    env_steps: int  # of the run when it was requested
    returns: list[float]  # one for each episode
    frames: np.ndarray | None  # a film of the first one, uint8 (T, height, width, 3), if requested and possible
    frames_per_second: float  # of the film
    success: float | None  # fraction of episodes that reached their goal; None: the environment does not report it
    achievements: list[dict[str, bool]]  # {name: whether unlocked} for each episode; []: the environment has none

    @property
    def mean_return(self) -> float:
        """The mean of the returns."""
        return sum(self.returns) / len(self.returns)

    def curves(self, average: float) -> dict[str, float]:
        """Return {tag: number}. average: eval/return_ema20, this evaluation included."""
        scalars = {"eval/return": self.mean_return, "eval/return_ema20": average}
        if self.success is not None:
            scalars["eval/success"] = self.success
        return scalars | achievement_curves("eval", self.achievements)


class Evaluator:
    """Plays evaluations in its own environment, with its own networks, which load the weights of each request."""

    def __init__(
        self,
        env: Any,
        model: WorldModel,
        actor: Actor,
        seed: int,
        samples: bool = False,
        renders: bool = False,
        traces: bool = False,
    ) -> None:
        """samples: sample actions from the actor's distribution; False: take its mode. renders: whether `env` can
        render. traces: trace the policy's computation and run it as one graph."""
        self.env, self.model, self.actor = env, model, actor
        self.seed, self.renders, self.traces = seed, renders, traces
        self.exploration_noise = 0.0 if samples else None  # of the policy; None: the mode
        self.networks = {"model": model, "actor": actor}

    def play(self, state: Any, request: EvaluationRequest) -> tuple[Evaluation, Any]:
        """Play the episodes of a request from a state of the environment. Return (result, state after them)."""
        self.env.load_state_dict(state)
        for name, network in self.networks.items():
            network.load_state_dict(request.weights[name])
        film = EpisodeFilm(self.env, self.renders)
        successes = [math.nan] * request.episodes
        achievements: dict[int, dict[str, bool]] = {}

        def watch(episode: int, step: Step) -> None:
            successes[episode] = float(step.success)
            if hasattr(self.env, "achievements"):
                achievements[episode] = self.env.achievements
            if request.film:
                film.watch(episode, step)

        returns = self.returns(request.iteration, request.episodes, watch)
        self.renders = film.renders
        evaluation = Evaluation(
            request.iteration,
            request.env_steps,
            returns,
            frames=np.stack(film.frames) if film.frames else None,
            frames_per_second=film.frames_per_second,
            success=None if np.isnan(successes).any() else float(np.mean(successes)),
            achievements=list(achievements.values()),
        )
        return evaluation, self.env.state_dict()

    @cached_property
    def policy(self) -> Policy:
        """The policy that plays, made and traced once. Its networks are those whose weights a request brings."""
        policy = Policy(self.model, self.actor, self.exploration_noise)
        if self.traces:
            trace_policy(policy)
        return policy

    def returns(
        self, iteration: int, episodes: int, watch: Callable[[int, Step], None] = lambda episode, step: None
    ) -> list[float]:
        """Play episodes and return their returns. Leave the global random states as they were.

        watch: called at each step with the number of the episode, from 0, and the `Step`.
        """
        returns: list[float] = []
        with seeded_randomness(self.seed, iteration), one_thread():
            policy = reset_policy(self.policy)
            for episode in range(episodes):
                episode_return = 0.0
                for step in run_episode(self.env, policy):
                    episode_return += float(step.reward)
                    watch(episode, step)
                returns.append(episode_return)
        return returns

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def build_evaluator(
    config: Config, device: torch.device, renders: bool = False, maker: Maker | None = None
) -> Evaluator:
    """Return an `Evaluator`. Leave the global random states as they were.

    renders: whether the environment must render even if the agent observes vectors. maker: as for `make_train_env`.
    Raises EnvError or ConfigError.
    """
    seed = config.operation.seed
    run_calls_within(torch_settings.environment_settings)
    with seeded_randomness(seed):
        env = make_eval_env(config.environment, seed, renders, maker)
        model, actor = build_world_model(config, env, device), build_actor(config, env, device)
        return Evaluator(env, model, actor, seed, config.evaluation.sample, renders, config.operation.fast_paths)


def build_filming_evaluator(config: Config, device: torch.device, maker: Maker | None = None) -> Evaluator:
    """Return an `Evaluator` whose environment renders films. If that fails, print why and return one without films."""
    try:
        evaluator = build_evaluator(config, device, renders=True, maker=maker)
        try:
            evaluator.env.render()
        except Exception:
            evaluator.close()
            raise
    except Exception as error:  # a renderer may raise anything; the environment's own error is raised again below
        evaluator = build_evaluator(config, device, maker=maker)
        print_no_films(error)
    return evaluator

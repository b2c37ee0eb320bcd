"""Play an environment with random actions, as in training's seed episodes, and keep what it returned."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from dreamer.algorithms.policy import random_policy
from dreamer.algorithms.prediction import image_part
from dreamer.envs.make import make_eval_env
from dreamer.envs.spaces import Spaces
from dreamer.errors import EnvError, EnvFault, one_line
from dreamer.replay.step import Step
from dreamer.tools.check.watch import Watched, watched
from dreamer.training.collect import run_episode
from dreamer.training.seeding import seeded_randomness

SECONDS = 12.0  # of play
EPISODES, ENV_STEPS = 10, 5000  # play ends earlier after this many of both
MOST = 20  # play also ends after MOST * ENV_STEPS, since episodes may not end
COMPARED = 300  # agent steps that two environments are compared over
FRAMES, SIDE = 400, 128  # of the first episode at most; pixels a side of what the environment renders


@dataclass
class Episode:
    """Holds the sums of a random episode."""

    total: float = 0.0  # of its rewards
    env_steps: int = 0
    terminated: bool = False
    success: float = math.nan


@dataclass
class Play:
    """Holds the results of random play."""

    description: list[str]  # lines about what the agent sees
    own: Spaces  # the environment's own spaces
    seen: Any  # the space of what the agent sees
    limit: int | None  # env steps after which the time limit ends an episode; None: not known
    watched: Watched
    keeps_state: bool  # whether the environment has a state_dict of its own
    episodes: list[Episode] = field(default_factory=list)  # those that have ended
    unfinished: int = 0  # env steps of the last episode, if it has not ended
    seconds: float = 0.0  # of play, without drawing
    trace: list[tuple] = field(default_factory=list)  # (observation, reward, end) of each of the first steps
    starts: list[bytes] = field(default_factory=list)  # first observations
    panels: dict[str, list[np.ndarray]] = field(default_factory=dict)  # frames of the first episode
    resets_agree: bool | None = None  # whether reset(seed=…) twice gives the same observation; None: not tried
    trouble: Exception | None = None  # the error that ended the play
    no_frames: str = ""  # why the environment does not render

    @property
    def env_steps(self) -> int:
        """The env steps of all episodes."""
        return sum(episode.env_steps for episode in self.episodes) + self.unfinished

    @property
    def longest(self) -> int:
        """The env steps of the longest possible episode, by the time limit; without one, of the longest played."""
        return self.limit or max([self.unfinished, *(episode.env_steps for episode in self.episodes)])

    @property
    def terminated(self) -> int:
        """The number of episodes that the task ended."""
        return sum(episode.terminated for episode in self.episodes)


def play(
    environment: Mapping[str, Any],
    seed: int,
    pictures: bool = False,
    seconds: float = SECONDS,
    steps: int | None = None,
) -> Play:
    """Play random episodes for some seconds, or a number of agent steps.

    environment: that section of the configuration. pictures: whether to keep frames. steps: number of agent steps;
    None: no limit, and two resets after the play, which are compared. Raises EnvError or EnvFault if the environment
    cannot be made; a later error is in the result.
    """
    with seeded_randomness(seed):
        env, no_frames = made(environment, seed, pictures)
        with closing(env):
            limit = env.max_agent_steps and env.max_agent_steps * environment["frame_skip"]
            noted = watched(env, observed=not environment["from_pixels"])
            keeps_state = hasattr(env.unwrapped, "state_dict")
            result = Play(
                env.description,
                env.unwrapped_spaces,
                env.observation_space,
                limit,
                noted,
                keeps_state,
                no_frames=no_frames,
            )
            try:
                play_episodes(env, result, seconds, steps, pictures)
                if steps is None:
                    result.resets_agree = reset_twice(env, seed)
            except (EnvError, EnvFault) as error:
                result.trouble = error
    return result


def made(environment: Mapping[str, Any], seed: int, renders: bool) -> tuple[Any, str]:
    """Return (environment, why it does not render); it renders if `renders` is True and rendering works."""
    if not renders:
        return make_eval_env(environment, seed), ""
    try:
        env = make_eval_env(environment, seed, renders=True)
        try:
            env.render()
            return env, ""
        except Exception:
            env.close()
            raise
    except Exception as error:  # a renderer may raise anything; the environment's own error is raised again
        return make_eval_env(environment, seed), one_line(error) or type(error).__name__


def play_episodes(env: Any, result: Play, seconds: float, steps: int | None, pictures: bool) -> None:
    """Play until a limit is reached, and keep what the environment returns in `result`."""
    started, drawing = time.perf_counter(), 0.0
    agent_steps = 0

    def over() -> bool:
        passed = time.perf_counter() - started
        result.seconds = passed - drawing
        too_long = passed > seconds or result.env_steps >= MOST * ENV_STEPS
        return too_long or (steps is not None and agent_steps >= steps)

    while not over() and not (len(result.episodes) >= EPISODES and result.env_steps >= ENV_STEPS):
        episode = Episode()
        for step in run_episode(env, random_policy(env)):
            keep(step, episode, result)
            result.unfinished = episode.env_steps
            agent_steps += not step.is_first
            if pictures and not result.episodes:
                before = time.perf_counter()
                draw(step, env, result)
                drawing += time.perf_counter() - before
            if over():
                break
        else:
            result.episodes.append(episode)
            result.unfinished = 0


def keep(step: Step, episode: Episode, result: Play) -> None:
    """Add a step to its episode and, if it is one of the first, to the trace."""
    if step.is_first:
        result.starts.append(digest(step.observation))
    else:
        episode.total += float(step.reward)
        episode.env_steps += int(step.env_steps)
        episode.terminated = bool(step.is_terminal)
        episode.success = float(step.success)
    if len(result.trace) < COMPARED:
        result.trace.append((digest(step.observation), float(step.reward), bool(step.is_terminal)))


def digest(observation: Any) -> bytes:
    """Return the bytes of an observation, for comparisons."""
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return b"".join(np.asarray(part).tobytes() for part in parts)


def reset_twice(env: Any, seed: int) -> bool:
    """Return whether two resets with one seed give the same first observation."""
    observations = []
    for _ in range(2):
        with seeded_randomness(seed):
            observations.append(digest(env.reset(seed=seed)[0]))
    return observations[0] == observations[1]


def draw(step: Step, env: Any, result: Play) -> None:
    """Keep the frames of a step: the images that the agent sees and, if the environment renders, its rendering."""
    image = image_part(step.observation)
    shown = dict(planes(image)) if image.ndim == 3 else {}
    if not result.no_frames and env.render_mode == "rgb_array":
        rendered = Image.fromarray(env.render()).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        shown["rendered"] = np.asarray(rendered)
    for label, frame in shown.items():
        frames = result.panels.setdefault(label, [])
        if len(frames) < FRAMES:
            frames.append(frame)


def planes(image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (label, frame uint8 (height, width, 3)) for an image (C, height, width): colours, or each channel in
    grey."""
    channels = len(image)
    count = 3 if channels % 3 == 0 else 1
    for first in range(0, channels, count):
        planes = image[first : first + count]
        names = "" if channels == count else f" {first}" if count == 1 else f" {first}-{first + 2}"
        yield f"seen{names}", np.repeat(planes, 3 // count, 0).transpose(1, 2, 0)


def differs_at(one: Play, other: Play) -> int | None:
    """Return the first step at which two plays with one seed differ; None if they do not."""
    pairs = zip(one.trace, other.trace, strict=False)
    return next((number for number, (here, there) in enumerate(pairs) if here != there), None)

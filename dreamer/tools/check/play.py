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
from dreamer.tools.check.env_recorder import EnvRecorder, insert_recorder
from dreamer.training.collect import run_episode
from dreamer.training.seeding import seeded_randomness

SECONDS = 12.0  # of play
EPISODES, ENV_STEPS = 10, 5000  # play ends earlier after this many of both
MAX_FACTOR = 20  # play also ends after MAX_FACTOR * ENV_STEPS, since episodes may not end
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
    env_spaces: Spaces  # the environment's own spaces
    observation_space: Any  # the space of what the agent sees
    time_limit: int | None  # env steps after which the time limit ends an episode; None: not known
    recorder: EnvRecorder
    has_state_dict: bool  # whether the environment has a state_dict of its own
    episodes: list[Episode] = field(default_factory=list)  # those that have ended
    unfinished_env_steps: int = 0  # env steps of the last episode, if it has not ended
    seconds: float = 0.0  # of play, without drawing
    trace: list[tuple] = field(default_factory=list)  # (observation, reward, end) of each of the first steps
    first_observations: list[bytes] = field(default_factory=list)  # one for each episode
    panels: dict[str, list[np.ndarray]] = field(default_factory=dict)  # frames of the first episode
    resets_agree: bool | None = None  # whether reset(seed=…) twice gives the same observation; None: not tried
    error: Exception | None = None  # the error that ended the play
    render_error: str = ""  # why the environment does not render

    @property
    def env_steps(self) -> int:
        """The env steps of all episodes."""
        return sum(episode.env_steps for episode in self.episodes) + self.unfinished_env_steps

    @property
    def longest_episode(self) -> int:
        """The env steps of the longest possible episode, by the time limit; without one, of the longest played."""
        return self.time_limit or max([self.unfinished_env_steps, *(episode.env_steps for episode in self.episodes)])

    @property
    def terminated(self) -> int:
        """The number of episodes that the task ended."""
        return sum(episode.terminated for episode in self.episodes)


def play_randomly(
    environment: Mapping[str, Any],
    seed: int,
    keep_frames: bool = False,
    seconds: float = SECONDS,
    max_agent_steps: int | None = None,
) -> Play:
    """Play random episodes for some seconds, or a number of agent steps.

    environment: that section of the configuration. keep_frames: whether to keep the first episode's frames.
    max_agent_steps: None: no limit; then the environment is also reset twice after the play, and the two observations
    are compared. Raises EnvError or EnvFault if the environment cannot be made; a later error is in the result.
    """
    with seeded_randomness(seed):
        env, render_error = make_env(environment, seed, keep_frames)
        with closing(env):
            time_limit = env.max_agent_steps and env.max_agent_steps * environment["frame_skip"]
            env_recorder = insert_recorder(env, observations_are_seen=not environment["from_pixels"])
            has_state_dict = hasattr(env.unwrapped, "state_dict")
            result = Play(
                env.description,
                env.unwrapped_spaces,
                env.observation_space,
                time_limit,
                env_recorder,
                has_state_dict,
                render_error=render_error,
            )
            try:
                play_episodes(env, result, seconds, max_agent_steps, keep_frames)
                if max_agent_steps is None:
                    result.resets_agree = two_resets_agree(env, seed)
            except (EnvError, EnvFault) as error:
                result.error = error
    return result


def make_env(environment: Mapping[str, Any], seed: int, renders: bool) -> tuple[Any, str]:
    """Return (environment, error of its renderer or ""). It renders if `renders` is True and its renderer works."""
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


def play_episodes(env: Any, result: Play, seconds: float, max_agent_steps: int | None, keep_frames: bool) -> None:
    """Play until a limit is reached, and keep what the environment returns in `result`."""
    started, drawing_seconds = time.perf_counter(), 0.0
    agent_steps = 0

    def is_over() -> bool:
        elapsed = time.perf_counter() - started
        result.seconds = elapsed - drawing_seconds
        too_long = elapsed > seconds or result.env_steps >= MAX_FACTOR * ENV_STEPS
        return too_long or (max_agent_steps is not None and agent_steps >= max_agent_steps)

    def has_enough() -> bool:
        return len(result.episodes) >= EPISODES and result.env_steps >= ENV_STEPS

    while not is_over() and not has_enough():
        episode = Episode()
        for step in run_episode(env, random_policy(env)):
            record_step(step, episode, result)
            result.unfinished_env_steps = episode.env_steps
            agent_steps += not step.is_first
            if keep_frames and not result.episodes:
                drawing_started = time.perf_counter()
                record_frames(step, env, result)
                drawing_seconds += time.perf_counter() - drawing_started
            if is_over():
                break
        else:
            result.episodes.append(episode)
            result.unfinished_env_steps = 0


def record_step(step: Step, episode: Episode, result: Play) -> None:
    """Add a step to its episode and, if it is one of the first, to the trace."""
    if step.is_first:
        result.first_observations.append(observation_bytes(step.observation))
    else:
        episode.total += float(step.reward)
        episode.env_steps += int(step.env_steps)
        episode.terminated = bool(step.is_terminal)
        episode.success = float(step.success)
    if len(result.trace) < COMPARED:
        result.trace.append((observation_bytes(step.observation), float(step.reward), bool(step.is_terminal)))


def observation_bytes(observation: Any) -> bytes:
    """Return the bytes of an observation, for comparisons."""
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return b"".join(np.asarray(part).tobytes() for part in parts)


def two_resets_agree(env: Any, seed: int) -> bool:
    """Return whether two resets with one seed give the same first observation."""
    observations = []
    for _ in range(2):
        with seeded_randomness(seed):
            observations.append(observation_bytes(env.reset(seed=seed)[0]))
    return observations[0] == observations[1]


def record_frames(step: Step, env: Any, result: Play) -> None:
    """Add the frames of a step to `result`: the images that the agent sees and, if there is one, the rendering."""
    image = image_part(step.observation)
    frames_by_label = dict(image_planes(image)) if image.ndim == 3 else {}
    if not result.render_error and env.render_mode == "rgb_array":
        rendered = Image.fromarray(env.render()).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        frames_by_label["rendered"] = np.asarray(rendered)
    for label, frame in frames_by_label.items():
        frames = result.panels.setdefault(label, [])
        if len(frames) < FRAMES:
            frames.append(frame)


def image_planes(image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (label, frame uint8 (height, width, 3)) for an image (C, height, width).

    If C is a multiple of three, each frame shows three channels as colours; else each frame shows one channel in grey.
    """
    channels = len(image)
    channels_per_frame = 3 if channels % 3 == 0 else 1
    for first in range(0, channels, channels_per_frame):
        frame = image[first : first + channels_per_frame]
        if channels == channels_per_frame:
            label = "seen"
        elif channels_per_frame == 1:
            label = f"seen {first}"
        else:
            label = f"seen {first}-{first + 2}"
        yield label, np.repeat(frame, 3 // channels_per_frame, 0).transpose(1, 2, 0)


def first_difference(first_play: Play, second_play: Play) -> int | None:
    """Return the number of the first step at which two plays with one seed differ; None if they do not."""
    for number, (first, second) in enumerate(zip(first_play.trace, second_play.trace, strict=False)):
        if first != second:
            return number
    return None

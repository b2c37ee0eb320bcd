"""Environments by name, wrapped so that all have the same observations and actions.

Observations: uint8 (channels, height, width) or float32 (size,), or a dict of both, "image" and
"vector". Actions: float32 (A,), in [-1, 1] or one-hot. Every `info` holds "env_steps", the number of
simulator steps that the step took.
"""

import importlib.util
import logging
import math
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.envs.atari import make_atari
from dreamer.envs.calls import faults_of, protected
from dreamer.envs.dmc import DMCEnv
from dreamer.envs.images import ImageObservation
from dreamer.envs.maker import Maker, make_given
from dreamer.envs.observation import check_box, hints, split, told_left_out, told_numbers, told_pictures
from dreamer.envs.randomness import seed_before_reset
from dreamer.envs.registered import make_registered
from dreamer.envs.rendering import explaining_backend, select_backend
from dreamer.envs.resumable import Resumable
from dreamer.envs.spaces import Spaces
from dreamer.envs.success import Success
from dreamer.envs.workers import ParallelEnvs
from dreamer.envs.wrappers import (
    ActionRepeat,
    Checked,
    Grayscale,
    OneHot,
    OneHotAction,
    PixelObservation,
    ScaledAction,
    VectorObservation,
)
from dreamer.errors import EnvError, EnvFault, nearest, not_installed, one_line

FILM_SIDE = 256  # pixels at least of a picture that only people see
MOST_ACTIONS = 2**16  # beyond that the actor's last layer alone takes gigabytes


def make_train_env(environment: Mapping[str, Any], seed: int, maker: Maker | None = None) -> Any:
    """Return the environment to train in; `ParallelEnvs` if num_envs is above 1.

    environment: that section of the configuration; its own seed, if it has one, replaces `seed`. maker: makes the
    environment where the benchmark is "python".
    """
    first, _, *further = _seeds(environment, seed)
    make = _maker(environment, maker=maker)
    if not further:
        return make(seed=first)
    with closing(make(seed=None)) as example:
        return ParallelEnvs([partial(make, seed=each) for each in (first, *further)], example)


def make_eval_env(environment: Mapping[str, Any], seed: int, renders: bool = False, maker: Maker | None = None) -> Any:
    """Return the environment to evaluate in: always a single one, equal to that of training but for its seed.

    renders: whether `render` must work although the observations may be vectors. maker: as for `make_train_env`.
    """
    return _maker(environment, renders, maker)(seed=_seeds(environment, seed)[1])


def _maker(environment: Mapping[str, Any], renders: bool = False, maker: Maker | None = None) -> Callable[..., Any]:
    others = ("seed", "num_envs", "pixel_norm")
    keywords = {key: environment[key] for key in environment if key not in others}
    return partial(make_env, **keywords, renders=renders, maker=maker)


def _seeds(environment: Mapping[str, Any], seed: int) -> list[int]:
    """Return the seeds of training, of evaluation, and of the further environments to train in. Each fits a C int, as
    which some simulators keep it."""
    seed = seed if environment["seed"] is None else environment["seed"]
    seeds = np.random.SeedSequence(seed).generate_state(environment["num_envs"] + 1)
    return (seeds % 2**31).tolist()


def make_env(
    benchmark: str,
    domain_name: str,
    task_name: str,
    seed: int | None,
    visualize_reward: bool,
    from_pixels: bool,
    height: int,
    width: int,
    frame_skip: int,
    camera_id: int,
    render_quality: str = "full",
    grayscale: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    renders: bool = False,
    maker: Maker | None = None,
    success_key: str | None = None,
    **atari: Any,
) -> Resumable:
    """Build, wrap and seed one environment. The arguments are those of `environment` in the configuration; `atari` are
    the further ones that this benchmark alone reads.

    seed: None for an environment that is neither reset nor rendered, but has its spaces. maker: as for
    `make_train_env`. Raises EnvError, in one line,
    for what cannot be had.
    """
    renders = renders or from_pixels
    with faults_of(f"environment.task_name: the making of {task_name!r}"), protected():
        if benchmark == "dmc":
            size = (height, width) if from_pixels else _size_of_films(height, width)
            made: Any = _make_dmc(domain_name, task_name, visualize_reward, renders, *size, camera_id, render_quality)
        elif benchmark == "atari":
            made = make_atari(task_name, renders=renders, **atari)
        elif benchmark == "python":
            made = make_given(maker, task_name, renders)
        else:
            made = make_registered(benchmark, task_name, kwargs or {}, renders)
    checked: Any = Checked(made, observed=not from_pixels)
    if benchmark not in ("dmc", "atari"):  # whose tasks have no such goal
        checked = Success(checked, success_key)
    repeated = ActionRepeat(wrap_action(checked, task_name), frame_skip)
    env = Resumable(wrap_observation(repeated, from_pixels, height, width, grayscale))
    env.told = _told(made, env.observation_space, from_pixels)
    frames = spaces.Box(0, 255, (height, width, 3), np.uint8)
    env.own_spaces = Spaces(frames if from_pixels else made.observation_space, made.action_space)
    if seed is not None:
        _begin(env, task_name, seed, renders)
    return env


def _begin(env: Resumable, task_name: str, seed: int, renders: bool) -> None:
    if renders and isinstance(env.unwrapped, DMCEnv):
        with explaining_backend():
            env.unwrapped.render()
    seed_before_reset(env.unwrapped, seed)
    try:
        env.reset(seed=seed)
    except EnvFault as fault:
        if isinstance(fault.__cause__, gymnasium.error.Error):  # such as a library for rendering that is not installed
            reason = one_line(fault.__cause__)
            raise EnvError(f"environment.task_name: {task_name!r} does not run: {reason}") from None
        raise
    env.action_space.seed(seed)


def _size_of_films(height: int, width: int) -> tuple[int, int]:
    """Return the smallest multiple of a size that has no side below FILM_SIDE."""
    scale = math.ceil(FILM_SIDE / min(height, width))
    return height * scale, width * scale


def own_spaces(environment: Mapping[str, Any]) -> Spaces:
    """Return an environment's own spaces. It is made for that; raises EnvError or EnvFault if it cannot be."""
    with closing(_maker(environment)(seed=None)) as env:
        return env.own_spaces


def is_discrete(env: Any) -> bool:
    """Return whether the environment takes one-hot vectors."""
    return isinstance(env.action_space, OneHot)


def _make_dmc(
    domain_name: str,
    task_name: str,
    visualize_reward: bool,
    renders: bool,
    height: int,
    width: int,
    camera_id: int,
    render_quality: str,
) -> DMCEnv:
    if importlib.util.find_spec("dm_control") is None:
        raise not_installed("dmc", "dm_control", "--no-deps")  # its labmaze has no wheels for Python 3.13
    if renders:
        select_backend()
    with explaining_backend():  # vectors need no display, but dm_control looks for one
        from dm_control import suite  # late, because it binds to MUJOCO_GL when it is imported
    _check_name("environment.domain_name", domain_name, suite.TASKS_BY_DOMAIN)
    _check_name("environment.task_name", task_name, suite.TASKS_BY_DOMAIN[domain_name])
    logging.getLogger("absl").addFilter(_concerns_the_user)
    environment = suite.load(domain_name, task_name, visualize_reward=visualize_reward)
    cameras = environment.physics.model.ncam
    if camera_id >= cameras:
        raise EnvError(f"environment.camera_id: {camera_id}, but {domain_name} has cameras -1 (free) to {cameras - 1}")
    return DMCEnv(environment, height, width, camera_id, render_quality)


def _concerns_the_user(record: logging.LogRecord) -> bool:
    """Return False for MuJoCo's complaints about the suite's own models."""
    return "is deprecated" not in record.getMessage()


def wrap_action(env: gymnasium.Env, task_name: str) -> OneHotAction | ScaledAction:
    """Return the environment with actions as an actor gives them. Raises EnvError for those of another kind."""
    space: Any = env.action_space
    if isinstance(space, spaces.Discrete) and space.n <= MOST_ACTIONS:
        return OneHotAction(env)
    real = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    if real and len(space.shape) == 1 and 0 < space.shape[0] <= MOST_ACTIONS and space.is_bounded():
        _check_span(space, f"{task_name}: the action space")
        return ScaledAction(env)
    kinds = f"Discrete or a bounded vector of reals (Box), of 1 to {MOST_ACTIONS:,}"
    raise EnvError(f"{task_name}: actions must be {kinds}, not {space}")


def _check_span(space: spaces.Box, where: str) -> None:
    """Raise EnvError for bounds between which [-1, 1] cannot be scaled."""
    check_box(space, where)
    with np.errstate(over="ignore"):
        wrong = np.flatnonzero(~np.isfinite(space.high - space.low))
    if len(wrong):
        place = wrong[0]
        bounds = f"{space.low[place]} to {space.high[place]}"
        raise EnvError(f"{where}, component {place}: {bounds} is more than a {space.dtype} can span; narrow the bounds")


def wrap_observation(env: gymnasium.Env, from_pixels: bool, height: int, width: int, grayscale: bool) -> gymnasium.Env:
    """Return the environment with observations as an encoder reads them."""
    if from_pixels:
        pixels = PixelObservation(env, height, width)
        return Grayscale(pixels) if grayscale else pixels
    pictures, _ = split(env.observation_space)
    return ImageObservation(env, height, width) if pictures else VectorObservation(env)


def _told(env: Any, seen: Any, from_pixels: bool) -> list[str]:
    """Return lines about what is seen of an environment: each part of its observation, its type and shape.

    env: without wrappers. seen: the observation space of the wrapped one.
    """
    if from_pixels:
        return [told_pictures(["what the environment renders"], seen.shape)]
    parts: Any = seen.spaces if isinstance(seen, spaces.Dict) else {"image": seen, "vector": seen}
    pictures, numbers = split(env.observation_space)
    lines = []
    if pictures:
        lines.append(told_pictures([part.told() for part in pictures], parts["image"].shape))
    if numbers:
        named = env.parts if isinstance(env, DMCEnv) else [part.told() for part in numbers]
        lines.append(told_numbers(named, parts["vector"].shape[0]))
    if getattr(env, "left_out", None):
        lines.append(told_left_out(env.left_out))
    return lines + hints(numbers)


def _check_name(key: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise EnvError(f"{key}: the DeepMind Control Suite has no {name!r} here{nearest(name, known)}")

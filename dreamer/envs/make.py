"""Environments by name, wrapped so that the algorithms meet one kind only.

Observations: uint8 (channels, height, width) or float32 (size,), or a dict of both, "image" and
"vector". Actions: float32 (A,), in [-1, 1] or one-hot. Every `info` holds "env_steps", the simulator
steps of the step.
"""

import logging
import math
from contextlib import closing
from functools import partial

import gym
import numpy as np
from gym import spaces
from gym.wrappers import RescaleAction

from dreamer.envs.atari import make_atari
from dreamer.envs.calls import faults_of, protected
from dreamer.envs.dmc import DMCEnv
from dreamer.envs.images import ImageObservation
from dreamer.envs.observation import check_box, hints, split, told_left_out, told_numbers, told_pictures
from dreamer.envs.randomness import seed_before_reset
from dreamer.envs.registered import make_registered
from dreamer.envs.rendering import explaining_backend, select_backend
from dreamer.envs.resumable import Resumable
from dreamer.envs.workers import ParallelEnvs
from dreamer.envs.wrappers import (
    ActionRepeat,
    Checked,
    Grayscale,
    OneHot,
    OneHotAction,
    PixelObservation,
    VectorObservation,
)
from dreamer.errors import EnvError, EnvFault, nearest, one_line

FILM_SIDE = 256  # pixels at least, where a camera's picture is seen by people alone
MOST_ACTIONS = 2**16  # beyond that the actor's last layer alone takes gigabytes


def make_train_env(environment, seed):
    """The environment to train in; `ParallelEnvs` if num_envs is above 1.

    environment: that sub-tree of the configuration; its own seed, if it has one, replaces `seed`.
    """
    first, _, *further = _seeds(environment, seed)
    make = _maker(environment)
    if not further:
        return make(seed=first)
    with closing(make(seed=None)) as example:
        return ParallelEnvs([partial(make, seed=each) for each in (first, *further)], example)


def make_eval_env(environment, seed, renders=False):
    """The environment to evaluate in: always a single one, the same with another seed.

    renders: whether `render` must work although the observations may be vectors.
    """
    return _maker(environment, renders)(seed=_seeds(environment, seed)[1])


def _maker(environment, renders=False):
    others = ("seed", "num_envs", "pixel_norm")
    keywords = {key: environment[key] for key in environment if key not in others}
    return partial(make_env, **keywords, renders=renders)


def _seeds(environment, seed):
    """Of training, of evaluation, and of the further environments to train in. Each fits a C int, which some
    simulators keep it in."""
    seed = seed if environment["seed"] is None else environment["seed"]
    seeds = np.random.SeedSequence(seed).generate_state(environment["num_envs"] + 1)
    return (seeds % 2**31).tolist()


def make_env(
    benchmark,
    domain_name,
    task_name,
    seed,
    visualize_reward,
    from_pixels,
    height,
    width,
    frame_skip,
    camera_id,
    render_quality="full",
    grayscale=False,
    kwargs=None,
    renders=False,
    **atari,
):
    """Build, wrap and seed one environment; the arguments are those of `environment` in the configuration, of which
    `atari` are read by that benchmark alone.

    seed None: only to be looked at, neither reset nor rendered. Raises EnvError, in one line, for what
    cannot be had.
    """
    renders = renders or from_pixels
    with faults_of(f"environment.task_name: the making of {task_name!r}"), protected():
        if benchmark == "dmc":
            size = (height, width) if from_pixels else _size_of_films(height, width)
            env = _make_dmc(domain_name, task_name, visualize_reward, renders, *size, camera_id, render_quality)
        elif benchmark == "atari":
            env = make_atari(task_name, renders=renders, **atari)
        else:
            env = make_registered(benchmark, task_name, kwargs or {}, renders)
    env = Checked(env, observed=not from_pixels)
    env = ActionRepeat(_wrap_action(env, task_name), frame_skip)
    env = Resumable(_wrap_observation(env, from_pixels, height, width, grayscale))
    env.told = _told(env, from_pixels)
    if seed is not None:
        _begin(env, task_name, seed, renders)
    return env


def _begin(env, task_name, seed, renders):
    if renders and isinstance(env.unwrapped, DMCEnv):
        with explaining_backend():
            env.unwrapped.render()
    seed_before_reset(env.inner, seed)
    try:
        env.reset(seed=seed)
    except EnvFault as fault:
        if isinstance(fault.__cause__, gym.error.Error):  # such as a library for rendering that is not installed
            reason = one_line(fault.__cause__)
            raise EnvError(f"environment.task_name: {task_name!r} does not run: {reason}") from None
        raise
    env.action_space.seed(seed)


def _size_of_films(height, width):
    """Return pixels of the same shape as those that would be seen, of which neither side is below FILM_SIDE."""
    scale = math.ceil(FILM_SIDE / min(height, width))
    return height * scale, width * scale


def is_discrete(env):
    """Whether the environment takes one-hot vectors."""
    return isinstance(env.action_space, OneHot)


def _make_dmc(domain_name, task_name, visualize_reward, renders, height, width, camera_id, render_quality):
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


def _concerns_the_user(record):
    """MuJoCo's complaints about the suite's own models do not."""
    return "is deprecated" not in record.getMessage()


def _wrap_action(env, task_name):
    space = env.action_space
    if isinstance(space, spaces.Discrete) and space.n <= MOST_ACTIONS:
        return OneHotAction(env)
    real = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    if real and len(space.shape) == 1 and 0 < space.shape[0] <= MOST_ACTIONS and space.is_bounded():
        _check_span(space, f"{task_name}: the action space")
        return RescaleAction(env, -1.0, 1.0)
    kinds = f"Discrete or a bounded vector of reals (Box), of 1 to {MOST_ACTIONS:,}"
    raise EnvError(f"{task_name}: actions must be {kinds}, not {space}")


def _check_span(space, where):
    """Raise EnvError for bounds between which [-1, 1] cannot be scaled."""
    check_box(space, where)
    with np.errstate(over="ignore"):
        wrong = np.flatnonzero(~np.isfinite(space.high - space.low))
    if len(wrong):
        place = wrong[0]
        bounds = f"{space.low[place]} to {space.high[place]}"
        raise EnvError(f"{where}, component {place}: {bounds} is more than a {space.dtype} can span; narrow the bounds")


def _wrap_observation(env, from_pixels, height, width, grayscale):
    if from_pixels:
        env = PixelObservation(env, height, width)
        return Grayscale(env) if grayscale else env
    pictures, _ = split(env.observation_space)
    return ImageObservation(env, height, width) if pictures else VectorObservation(env)


def _told(env, from_pixels):
    """Return lines about what is seen of a wrapped environment: each part of its observation, its type and shape."""
    inner, space = env.unwrapped, env.observation_space
    parts = space.spaces if isinstance(space, spaces.Dict) else dict.fromkeys(("image", "vector"), space)
    if from_pixels:
        return [told_pictures(["what the environment renders"], space.shape)]
    pictures, numbers = split(inner.observation_space)
    lines = []
    if pictures:
        lines.append(told_pictures([part.told() for part in pictures], parts["image"].shape))
    if numbers:
        named = inner.parts if isinstance(inner, DMCEnv) else [part.told() for part in numbers]
        lines.append(told_numbers(named, parts["vector"].shape[0]))
    if getattr(inner, "left_out", None):
        lines.append(told_left_out(inner.left_out))
    return lines + hints(numbers)


def _check_name(key, name, known):
    if name not in known:
        raise EnvError(f"{key}: the DeepMind Control Suite has no {name!r} here{nearest(name, known)}")

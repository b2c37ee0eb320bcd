"""Environments by name, wrapped so that all have the same observations and actions.

Observations: uint8 (channels, height, width) or float32 (size,), or a dict of both, "image" and
"vector". Actions: float32 (A,), in [-1, 1], one-hot, or parts of both concatenated. Every `info` holds "env_steps", the
number of simulator steps that the step took.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.envs.actions import AgentAction
from dreamer.envs.atari import make_atari
from dreamer.envs.calls import environment_code
from dreamer.envs.dmc import DMCEnv, film_size, make_dmc
from dreamer.envs.images import ImageObservation
from dreamer.envs.maker import Maker, make_from_function, named_maker
from dreamer.envs.observation import describe_left_out, describe_numbers, describe_pictures, hints, split
from dreamer.envs.packages import BENCHMARKS, make_packaged
from dreamer.envs.randomness import seed_before_reset
from dreamer.envs.registered import make_registered
from dreamer.envs.rendering import explaining_backend
from dreamer.envs.resumable import Resumable
from dreamer.envs.spaces import Spaces
from dreamer.envs.success import Success
from dreamer.envs.workers import ParallelEnvs
from dreamer.envs.wrappers import (
    ActionRepeat,
    Checked,
    Grayscale,
    PixelObservation,
    VectorObservation,
)
from dreamer.errors import EnvError, EnvFault, one_line


def make_train_env(environment: Mapping[str, Any], seed: int, maker: Maker | None = None) -> Any:
    """Return the environment to train in; `ParallelEnvs` or, if it steps several as one, `VectorEnvs` for several.

    environment: that section of the configuration; its own seed, if it has one, replaces `seed`. maker: makes the
    environment where the benchmark is "python".
    """
    first_seed, _, *further_seeds = _seeds(environment, seed)
    make = _configured_make_env(environment, maker=maker)
    if environment["vectorized"] or not further_seeds:
        num_envs = environment["num_envs"] if environment["vectorized"] else None
        env = make(seed=first_seed, num_envs=num_envs)
        return _all_stepped_together(env, environment, first_seed)
    with closing(make(seed=None)) as example:
        if getattr(example, "vector", None):
            count, advice = example.vector.num_envs, "set environment.vectorized: True, or leave num_envs at 1"
            raise EnvError(f"environment.num_envs: {environment['task_name']} makes {count} stepped as one; {advice}")
        return ParallelEnvs([partial(make, seed=env_seed) for env_seed in (first_seed, *further_seeds)], example)


def _all_stepped_together(env: Any, environment: Mapping[str, Any], seed: int) -> Any:
    """Return all the environments that are stepped as one with `env`, or `env` itself if there is no other."""
    count = getattr(getattr(env, "vector", None), "num_envs", 1)
    if environment["vectorized"] and count != environment["num_envs"]:
        expected, advice = environment["num_envs"], "let the function take num_envs"
        raise EnvError(f"environment.num_envs: {expected}, but {environment['task_name']} makes {count}; {advice}")
    if count == 1:
        return env
    from dreamer.envs.vector_envs import VectorEnvs  # late: it translates by the wrappers of this module

    return VectorEnvs(env, environment, seed)


def make_eval_env(environment: Mapping[str, Any], seed: int, renders: bool = False, maker: Maker | None = None) -> Any:
    """Return the environment to evaluate in: always a single one, equal to that of training but for its seed.

    renders: whether `render` must work although the observations may be vectors. maker: as for `make_train_env`.
    """
    return _configured_make_env(environment, renders, maker)(seed=_seeds(environment, seed)[1])


def _configured_make_env(
    environment: Mapping[str, Any], renders: bool = False, maker: Maker | None = None
) -> Callable[..., Any]:
    """Return `make_env` with all arguments but the seed, from the section `environment` of the configuration."""
    not_arguments = ("seed", "num_envs", "pixel_norm", "vectorized")
    keywords = {key: environment[key] for key in environment if key not in not_arguments}
    num_envs = 1 if environment["vectorized"] else None
    return partial(make_env, **keywords, renders=renders, maker=maker, num_envs=num_envs)


def _seeds(environment: Mapping[str, Any], seed: int) -> list[int]:
    """Return the seeds of training, of evaluation, and of the further environments to train in. Each fits a C int,
    which some simulators need."""
    if environment["seed"] is not None:
        seed = environment["seed"]
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
    num_envs: int | None = None,
    noops: int = 0,
    sticky_actions: float = 0.0,
    full_action_set: bool = False,
    terminal_on_life_loss: bool = False,
    time_limit: int = 108_000,
) -> Resumable:
    """Build, wrap and seed one environment. The arguments are those of `environment` in the configuration. The last
    five are for Atari alone.

    The wrappers, from the inside: `Checked`, `Success`, `AgentAction`, `ActionRepeat`, one for the observation
    (`wrap_observation`), `Resumable`.

    seed: None for an environment that is neither reset nor rendered, but has its spaces. maker: as for
    `make_train_env`. num_envs: number of environments that are stepped as one, of which the first is returned; None:
    a plain environment. Raises EnvError, in one line, if it cannot be made.
    """
    renders = renders or from_pixels
    with environment_code(f"environment.task_name: the making of {task_name!r}"):
        if benchmark == "dmc":
            if not from_pixels:
                height, width = film_size(height, width)
            raw_env: Any = make_dmc(
                domain_name, task_name, visualize_reward, renders, height, width, camera_id, render_quality
            )
        elif benchmark == "atari":
            raw_env = make_atari(
                task_name,
                renders=renders,
                noops=noops,
                sticky_actions=sticky_actions,
                full_action_set=full_action_set,
                terminal_on_life_loss=terminal_on_life_loss,
                time_limit=time_limit,
            )
        elif benchmark in BENCHMARKS:
            raw_env = make_packaged(benchmark, task_name, height, width)
        elif benchmark == "python":
            raw_env = make_from_function(maker, task_name, renders, num_envs=num_envs)
        elif benchmark == "gymnasium" and named_maker(task_name):
            raw_env = make_from_function(named_maker(task_name), task_name, renders, kwargs, num_envs)
        else:
            raw_env = make_registered(benchmark, task_name, kwargs or {}, renders, num_envs)
    checked: Any = Checked(raw_env, observed=not from_pixels)
    if benchmark not in ("dmc", "atari"):  # their tasks have no goal that is reached or not
        checked = Success(checked, success_key)
    translated = AgentAction(checked, task_name)
    repeated = ActionRepeat(translated, frame_skip)
    observed = wrap_observation(repeated, from_pixels, height, width, grayscale)
    env = Resumable(observed)
    env.description = _describe_observation(raw_env, env.observation_space, from_pixels)
    frame_space = spaces.Box(0, 255, (height, width, 3), np.uint8)
    env.unwrapped_spaces = Spaces(frame_space if from_pixels else raw_env.observation_space, raw_env.action_space)
    if seed is not None:
        _seed_and_reset(env, task_name, seed, renders)
    return env


def _seed_and_reset(env: Resumable, task_name: str, seed: int, renders: bool) -> None:
    if renders and isinstance(env.unwrapped, DMCEnv):
        with explaining_backend():
            env.unwrapped.render()
    seed_before_reset(env.unwrapped, seed)
    try:
        env.reset(seed=seed)
    except EnvFault as fault:
        if isinstance(fault.__cause__, gymnasium.error.Error):  # such as a missing rendering library
            reason = one_line(fault.__cause__)
            raise EnvError(f"environment.task_name: {task_name!r} does not run: {reason}") from None
        raise
    env.action_space.seed(seed)


def read_spaces(environment: Mapping[str, Any]) -> Spaces:
    """Make an environment and return its own spaces. Raises EnvError or EnvFault if it cannot be made."""
    with closing(_configured_make_env(environment)(seed=None)) as env:
        return env.unwrapped_spaces


def wrap_observation(env: gymnasium.Env, from_pixels: bool, height: int, width: int, grayscale: bool) -> gymnasium.Env:
    """Return the environment with observations as an encoder reads them.

    `Translation` passes single observations, of several episodes in turn, through these wrappers. So each wrapper must
    return a function of the one observation, without memory of earlier ones, and `reset` must not differ from `step`.
    """
    if from_pixels:
        pixels = PixelObservation(env, height, width)
        return Grayscale(pixels) if grayscale else pixels
    pictures, _ = split(env.observation_space)
    return ImageObservation(env, height, width) if pictures else VectorObservation(env)


def _describe_observation(env: Any, agent_space: Any, from_pixels: bool) -> list[str]:
    """Return lines that describe an environment's observation: each part, its type and shape.

    env: without wrappers. agent_space: the observation space of the wrapped environment.
    """
    if from_pixels:
        return [describe_pictures(["what the environment renders"], agent_space.shape)]
    parts: Any = {"image": agent_space, "vector": agent_space}
    if isinstance(agent_space, spaces.Dict):
        parts = agent_space.spaces
    pictures, numbers = split(env.observation_space)
    lines = []
    if pictures:
        lines.append(describe_pictures([part.describe() for part in pictures], parts["image"].shape))
    if numbers:
        texts = env.described_parts if isinstance(env, DMCEnv) else [part.describe() for part in numbers]
        lines.append(describe_numbers(texts, parts["vector"].shape[0]))
    if getattr(env, "left_out", None):
        lines.append(describe_left_out(env.left_out))
    return lines + hints(numbers)

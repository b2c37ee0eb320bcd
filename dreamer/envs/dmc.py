"""The DeepMind Control Suite on gymnasium's API."""

import importlib.util
import logging
import math
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.envs.rendering import explaining_backend, select_backend
from dreamer.errors import EnvError, nearest, not_installed

FILM_SIDE = 256  # pixels at least of a picture that only people see
MANIPULATION = "manipulation"  # the domain_name of dm_control's package beside the suite


class DMCEnv(gymnasium.Env):
    """A task of the suite: float32 vectors of all its observations, and `render` from a camera.

    An episode is 1,000 simulator steps long. Then the clock ends it (truncated); a task that ends
    by itself does so with a discount of zero (terminated).
    """

    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"
    max_episode_steps = 1000  # simulator steps

    def __init__(self, environment: Any, height: int, width: int, camera_id: int, render_quality: str = "full") -> None:
        """environment: of dm_control. render_quality: "full" or "fast", the picture without its light effects."""
        self.environment = environment
        self.metadata = {**self.metadata, "render_fps": 1 / environment.control_timestep()}
        self.view = {"height": height, "width": width, "camera_id": camera_id}
        self.steps, self.render_quality = 0, render_quality
        self._prepare_rendering()
        specs = environment.observation_spec()
        self.described_parts = [f"{name} {spec.dtype} {spec.shape}" for name, spec in specs.items()]
        size = sum(int(np.prod(spec.shape)) for spec in specs.values())
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        actions = environment.action_spec()
        self.action_space = spaces.Box(
            actions.minimum.astype(np.float32), actions.maximum.astype(np.float32), dtype=np.float32
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.random.seed(seed)
        self.steps = 0
        return _flatten(self.environment.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        step = self.environment.step(action)
        self.steps += 1
        terminated = step.last() and step.discount == 0.0
        truncated = not terminated and (step.last() or self.steps == self.max_episode_steps)
        return _flatten(step.observation), step.reward, terminated, truncated, {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Return the picture of the camera, RGB uint8 (height, width, 3)."""
        return self.camera.render().copy()  # its own array is overwritten by the next frame

    def close(self) -> None:
        """Free the memory of physics and camera: a program may make and close many environments."""
        self.__dict__.pop("camera", None)
        self.environment.physics.free()

    def renderer(self) -> str:
        """Return OpenGL's name of what renders: a GPU, or a program such as llvmpipe."""
        from OpenGL import GL  # late, as dm_control in `camera`

        with self.environment.physics.contexts.gl.make_current() as context:
            name = context.call(GL.glGetString, GL.GL_RENDERER)
        return name.decode() if name else "unknown"

    @cached_property
    def camera(self) -> Any:
        """Return the camera, made once: `physics.render` makes one for each frame, which takes milliseconds."""
        from dm_control.mujoco import Camera  # late, because dm_control binds to MUJOCO_GL when it is imported

        return Camera(self.environment.physics, **self.view)

    def state_dict(self) -> dict[str, Any]:
        """Return what one episode passes on to the next: the task's random state. The physics are reset."""
        return self.random.get_state(legacy=False)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the task to a state of `state_dict`."""
        self.random.set_state(dict(state))

    @property
    def random(self) -> np.random.RandomState:
        """Return the generator of all random numbers of the task."""
        return self.environment.task.random

    def _prepare_rendering(self) -> None:
        model, view = self.environment.physics.model, self.view
        buffer = model.vis.global_  # what MuJoCo renders into; 640x480 by default
        buffer.offwidth, buffer.offheight = view["width"], view["height"]
        if self.render_quality == "fast":
            _simplify_picture(model)


class ManipulationEnv(DMCEnv):
    """A task of dm_control's manipulation. Each episode has a new physics model, and so a new camera."""

    max_episode_steps = 250  # simulator steps: ten seconds

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.__dict__.pop("camera", None)
        answer = super().reset(seed=seed)
        self._prepare_rendering()
        return answer

    @property
    def random(self) -> np.random.RandomState:
        """Return the generator of all random numbers of the task."""
        return self.environment.random_state


def _simplify_picture(model: Any) -> None:
    """Leave out what takes longest to draw without a GPU: shadows, mirror images, smooth edges, fine curves."""
    quality = model.vis.quality
    quality.shadowsize = quality.offsamples = 0
    quality.numslices, quality.numstacks = 12, 8  # of spheres, cylinders and capsules; MuJoCo's are 28 and 16
    model.mat_reflectance[:] = 0


def _flatten(observation: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)


def make_dmc(
    domain_name: str,
    task_name: str,
    visualize_reward: bool,
    renders: bool,
    height: int,
    width: int,
    camera_id: int,
    render_quality: str,
) -> DMCEnv:
    """Return a task of dm_control. Raises EnvError, in one line, if it cannot be made.

    height, width: of its pictures, in pixels. renders: whether it must render. Others as in the configuration.
    """
    if importlib.util.find_spec("dm_control") is None:
        raise not_installed("dmc", "dm_control", "--no-deps")  # its labmaze has no wheels for Python 3.13
    if renders:
        select_backend()
    with explaining_backend():  # vectors need no display, but dm_control looks for one
        from dm_control import manipulation, suite  # late, because it binds to MUJOCO_GL when it is imported
    logging.getLogger("absl").addFilter(_concerns_the_user)
    features = [name.removesuffix("_features") for name in manipulation.get_environments_by_tag("features")]
    tasks = {**suite.TASKS_BY_DOMAIN, MANIPULATION: features}
    _check_name("environment.domain_name", domain_name, tasks)
    _check_name("environment.task_name", task_name, tasks[domain_name])
    if domain_name == MANIPULATION:
        environment = manipulation.load(f"{task_name}_features")
    else:
        environment = suite.load(domain_name, task_name, visualize_reward=visualize_reward)
    cameras = environment.physics.model.ncam
    if camera_id >= cameras:
        raise EnvError(f"environment.camera_id: {camera_id}, but {domain_name} has cameras -1 (free) to {cameras - 1}")
    env_type = ManipulationEnv if domain_name == MANIPULATION else DMCEnv
    return env_type(environment, height, width, camera_id, render_quality)


def _concerns_the_user(record: logging.LogRecord) -> bool:
    """Return False for MuJoCo's deprecation warnings about the suite's own models."""
    return "is deprecated" not in record.getMessage()


def film_size(height: int, width: int) -> tuple[int, int]:
    """Return the smallest multiple of a size that has no side below FILM_SIDE."""
    scale = math.ceil(FILM_SIDE / min(height, width))
    return height * scale, width * scale


def _check_name(key: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise EnvError(f"{key}: the DeepMind Control Suite has no {name!r} here{nearest(name, known)}")

"""The DeepMind Control Suite on gymnasium's API."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


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
        self.steps = 0
        model = environment.physics.model
        buffer = model.vis.global_  # what MuJoCo renders into; 640x480 by default
        buffer.offwidth, buffer.offheight = width, height
        if render_quality == "fast":
            _simplify_picture(model)
        specs = environment.observation_spec()
        self.parts = [f"{name} {spec.dtype} {spec.shape}" for name, spec in specs.items()]  # in words
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
            self.environment.task.random.seed(seed)
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

    def renderer(self) -> str:
        """Return OpenGL's name of what renders: a GPU, or a program such as llvmpipe."""
        from OpenGL import GL  # late, as below

        with self.environment.physics.contexts.gl.make_current() as context:
            name = context.call(GL.glGetString, GL.GL_RENDERER)
        return name.decode() if name else "unknown"

    @cached_property
    def camera(self) -> Any:
        """Return a camera that is kept: `physics.render` makes one for each frame, which costs milliseconds."""
        from dm_control.mujoco import Camera  # late, because dm_control binds to MUJOCO_GL when it is imported

        return Camera(self.environment.physics, **self.view)

    def state_dict(self) -> dict[str, Any]:
        """Return what one episode leaves to the next: the task's random state. The physics begin anew."""
        return self.environment.task.random.get_state(legacy=False)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the task to a state of `state_dict`."""
        self.environment.task.random.set_state(state)


def _simplify_picture(model: Any) -> None:
    """Leave out what takes longest to draw without a GPU: shadows, mirror images, smooth edges, fine curves."""
    quality = model.vis.quality
    quality.shadowsize = quality.offsamples = 0
    quality.numslices, quality.numstacks = 12, 8  # of spheres, cylinders and capsules; MuJoCo's are 28 and 16
    model.mat_reflectance[:] = 0


def _flatten(observation: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)

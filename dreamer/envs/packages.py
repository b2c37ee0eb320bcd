"""Benchmarks that come in packages of their own: Crafter, Memory Maze, Meta-World, MinAtar and MiniGrid."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Collection

import gymnasium

from dreamer.envs.registered import DrawnByMuJoCo, make_registered
from dreamer.envs.rendering import ready_for_mujoco
from dreamer.envs.seeded import CrafterEnv, MemoryMazeEnv, MetaWorldEnv, MinAtarEnv
from dreamer.errors import EnvError, nearest, not_installed, one_line, pip_install


def make_crafter(task: str, height: int, width: int) -> gymnasium.Env:
    """Return Crafter; task: reward, or noreward."""
    importlib.import_module("dreamer.envs.gym_env")  # before crafter imports gym, which would print pages of text
    crafter = importlib.import_module("crafter")
    task = choose(task, ["reward", "noreward"])
    game = crafter.Env(size=(width, height), reward=task == "reward")
    return CrafterEnv(game, crafter.constants.achievements)


def make_memory_maze(task: str, height: int, width: int) -> gymnasium.Env:
    """Return a Memory Maze; task: its size, as in 9x9. It always renders."""
    importlib.import_module("dreamer.envs.gym_env")  # as for crafter
    steps = {"9x9": 1000, "11x11": 2000, "13x13": 3000, "15x15": 4000}
    task = choose(task, steps)
    with ready_for_mujoco():
        tasks = importlib.import_module("memory_maze.tasks")
    return DrawnByMuJoCo(MemoryMazeEnv(getattr(tasks, f"memory_maze_{task}"), steps[task], height))


def make_metaworld(task: str, height: int, width: int) -> gymnasium.Env:
    """Return a task of Meta-World, by its name without -v3."""
    with ready_for_mujoco():
        env_types = importlib.import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        rendering = importlib.import_module("gymnasium.envs.mujoco.mujoco_rendering")
    suffix = "-v3-goal-observable"
    env_type = env_types[choose(task, [name.removesuffix(suffix) for name in env_types]) + suffix]
    try:
        env = env_type(render_mode="rgb_array")
    except ValueError as error:  # another version of mujoco has arrays of another length
        version, command = sys.modules["mujoco"].__version__, pip_install(*ALSO_INSTALL["metaworld"], "metaworld")
        raise EnvError(f"metaworld does not run on mujoco {version} ({one_line(error)}): {command}") from None
    view = {"width": width, "height": height, "camera_name": "corner2"}
    env.mujoco_renderer = rendering.MujocoRenderer(env.model, env.data, **view)
    return DrawnByMuJoCo(MetaWorldEnv(env))


def make_minatar(task: str, height: int, width: int) -> gymnasium.Env:
    """Return a game of MinAtar, by its name in the package."""
    minatar = importlib.import_module("minatar")
    task = choose(task, ["asterix", "breakout", "freeway", "seaquest", "space_invaders"])
    return MinAtarEnv(minatar.Environment(task))


def make_minigrid(task: str, height: int, width: int) -> gymnasium.Env:
    """Return an environment of MiniGrid or BabyAI, by its id; MiniGrid- and the version may be left out."""
    importlib.import_module("minigrid")
    known = [name for name in gymnasium.registry if name.startswith(("MiniGrid-", "BabyAI-"))]
    return make_registered("gymnasium", choose(task, known, r"^minigrid-|-v\d+$"), {}, renders=True)


# By the value of `environment.benchmark`: the module that it needs, and the function that makes a task of it. The names
# are also in PACKAGED_BENCHMARKS of dreamer/config/schema.py.
BENCHMARKS: dict[str, tuple[str, Callable[..., gymnasium.Env]]] = {
    "crafter": ("crafter", make_crafter),
    "memory-maze": ("memory_maze", make_memory_maze),
    "metaworld": ("metaworld", make_metaworld),
    "minatar": ("minatar", make_minatar),
    "minigrid": ("minigrid", make_minigrid),
}


ALSO_INSTALL = {"metaworld": ["dm_control<1.0.29"]}  # together with the benchmark: metaworld needs mujoco 3.3.0


def make_packaged(benchmark: str, task: str, height: int, width: int) -> gymnasium.Env:
    """Make an environment of one of BENCHMARKS. Raises EnvError, in one line, if it cannot be made.

    height, width: of the picture, where its size can be chosen, in pixels.
    """
    module, make = BENCHMARKS[benchmark]
    if importlib.util.find_spec(module) is None:
        raise not_installed(benchmark, module.replace("_", "-"), *ALSO_INSTALL.get(benchmark, []))
    return make(task, height, width)


def choose(task: str, known: Collection[str], unimportant: str = "^$") -> str:
    """Return the known task of a name, whatever its case, with - or _, without what matches `unimportant`.

    Raises EnvError.
    """

    def normalized(name: str) -> str:
        return re.sub(unimportant, "", name.lower().replace("_", "-"))

    for name in sorted(known, reverse=True):  # the newest version first
        if normalized(name) == normalized(task):
            return name
    raise EnvError(f"environment.task_name: there is no {task!r} here{nearest(task, known)}")

"""Environments of gymnasium."""

import importlib
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from dreamer.config.load import load_config
from dreamer.envs import lookup
from dreamer.envs.actions import classes_of
from dreamer.envs.make import make_train_env
from dreamer.errors import EnvError
from dreamer.training.collect import run_episodes
from tests.envs.playing import goes_on, play
from tests.envs.toy import make as make_any

gymnasium = pytest.importorskip("gymnasium")
make = partial(make_any, benchmark="gymnasium", from_pixels=False, frame_skip=1)


def make_toy(name="Noisy-v0", **changes):
    return make(task_name=f"tests.envs.toy_gymnasium:{name}", **changes)


def inner(env):
    """Return gymnasium's environment without wrappers."""
    return env.unwrapped


@pytest.mark.parametrize("task", ["CartPole-v1", "MountainCar-v0", "Pendulum-v1"])
def test_gymnasium_episodes_equal_those_of_gym(task):
    """Observations, rewards and random actions are equal over terminated and truncated episodes."""
    gyms, ours = (make_any(benchmark=name, task_name=task, from_pixels=False) for name in ("gym", "gymnasium"))
    assert ours.max_agent_steps == gyms.max_agent_steps == {"C": 250, "P": 100, "M": 100}[task[0]]
    for _ in range(3):
        np.testing.assert_array_equal(play(ours), play(gyms))


def test_nested_spaces_become_a_vector_without_texts():
    env = make_toy(height=16, width=20)
    assert classes_of(env.action_space) == (3,) and env.max_agent_steps is None
    observation, _ = env.reset()
    observed = inner(env).seen
    np.testing.assert_array_equal(observation["image"], observed["image"].transpose(2, 0, 1))
    dials = [*np.eye(2)[observed["dials"][0]], *np.eye(3)[observed["dials"][1] - 5]]
    pair = [*np.eye(2)[observed["pair"][0]], observed["pair"][1][0]]
    expected = [
        *dials,
        *observed["inner"]["lamps"].ravel(),
        *np.eye(3)[observed["mode"] - 1],
        *pair,
        *observed["symbols"].ravel(),
    ]
    np.testing.assert_array_equal(observation["vector"], np.float32(expected))


def test_discrete_start_and_episode_ends_are_kept():
    for name, ends in (("Noisy-v0", 3 * [(False, False)] + [(True, False)]), ("NoisyCut-v0", [(False, False)] * 2)):
        env = make_toy(name)
        env.reset()
        steps = [env.step(action) for action in np.eye(3, dtype=np.float32)[[0, 1, 2, 0][: len(ends)]]]
        assert inner(env).actions == [1, 2, 3, 1][: len(ends)] and [step[1] for step in steps] == inner(env).actions
        assert [step[2:4] for step in steps] == ends
    assert env.max_agent_steps == 3 and env.step(np.eye(3)[0])[2:4] == (False, True)
    env = make_toy("Vector-v0")
    env.reset()
    env.step(np.float32([1]))
    assert classes_of(env.action_space) == (0,) and inner(env).actions == [4]


@pytest.mark.parametrize(
    "task", ["CartPole-v1", "Acrobot-v1", *(f"tests.envs.toy_gymnasium:{name}-v0" for name in ("Vector", "Counting"))]
)
def test_episodes_can_be_restored_from_a_state(task):
    assert goes_on(*(make(task_name=task, seed=seed) for seed in (1, 2)))


REFUSED = {
    "NoisyUnbounded": "NoisyUnbounded-v0: actions must be .* a bounded Box of reals",
    "NoisyWords": r"NoisyWords-v0: actions must be .*, not Text\(1, 5",
    "NoisyVector": "gymnasium cannot make .*VectorEnv",
    "NoisyObject": "gymnasium cannot make .*object",
}


@pytest.mark.parametrize(
    "task, message_part",
    [
        ("CartPol-v1", "environment.task_name: gymnasium has no 'CartPol-v1'; did you mean CartPole-v1"),
        ("tests.envs.toy_gymnasium:NoisyCat-v0", "did you mean NoisyCut-v0"),
        ("CartPole-v9", "gymnasium cannot make 'CartPole-v9': .*v1"),
        ("tests.envs.toy_foreign:Legacy-v0", "gymnasium has no .*; gym has it: environment.benchmark=gym$"),
        ("Nowhere/Noisy-v0", "gymnasium cannot make 'Nowhere/Noisy-v0': .*Nowhere"),
        ("no_such_module:Noisy-v0", "gymnasium cannot make .*no_such_module"),
        *((f"tests.envs.toy_gymnasium:{name}-v0", message_part) for name, message_part in REFUSED.items()),
    ],
)
def test_unusable_tasks_are_one_line_errors(task, message_part):
    with pytest.raises(EnvError, match=message_part) as caught:
        make(task_name=task)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["Ant-v5", "Plug/Rocket-v0", "tests.envs.toy_gymnasium:Vector-v0"])
def test_gym_error_names_gymnasium_if_it_has_the_task(task, monkeypatch):
    """The tasks have a version, a namespace or a name that gym does not have."""
    monkeypatch.setattr(gymnasium.envs, "registry", dict(gymnasium.registry))
    plugin = SimpleNamespace(load=lambda: lambda: gymnasium.envs.registry.setdefault("Plug/Rocket-v0"))
    monkeypatch.setattr(lookup.metadata, "entry_points", lambda group, name: [plugin] * (name == "Plug"))
    with pytest.raises(EnvError, match=f"gym has no '{task}'; gymnasium has it: environment.benchmark=gymnasium$"):
        make(benchmark="gym", task_name=task)


@pytest.mark.parametrize("benchmark", ["gymnasium", "gym"])
def test_error_names_the_package_that_registers_the_id(benchmark, tmp_path, monkeypatch):
    code = "import gymnasium; print('noise'); gymnasium.register('Rocket-to-the-moon-v3', 'nowhere:Rocket')"
    described = "Metadata-Version: 2.1\nName: moon-shot\nVersion: 1\nRequires-Dist: gymnasium>=1\n"
    files = {"moon_envs/__init__.py": code, "moon_shot-1.dist-info/METADATA": described}
    files["moon_shot-1.dist-info/top_level.txt"] = "moon_envs"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    hint = "moon_envs registers it: environment.task_name=moon_envs:Rocket-to-the-moon-v3"
    other = "" if benchmark == "gymnasium" else " environment.benchmark=gymnasium"
    with pytest.raises(EnvError, match=f"^environment.task_name: {benchmark} has no .*; {hint}{other}$"):
        make(benchmark=benchmark, task_name="Rocket-to-the-moon-v3")
    assert "moon_envs" not in sys.modules


@pytest.mark.parametrize("benchmark", ["gymnasium", "gym"])
def test_kwargs_are_passed_to_make(benchmark):
    """Errors about them are one line."""
    make_lake = partial(make, benchmark=benchmark, task_name="FrozenLake-v1")
    assert make_lake().observation_space.shape == (16,)
    env = make_lake(kwargs={"map_name": "8x8", "max_episode_steps": 7})
    assert env.observation_space.shape == (64,) and env.max_agent_steps == 7
    for kwargs, message_part in {
        "map_name: 9x9": "KeyError: '9x9'",
        "mop_name: 8x8": "unexpected keyword argument",
    }.items():
        name, value = kwargs.split(": ")
        start = f"^environment.kwargs: {benchmark} cannot make 'FrozenLake-v1' with {{'{name}': '{value}'}}: "
        with pytest.raises(EnvError, match=f"{start}.*{message_part}"):
            make_lake(kwargs={name: value})
    with pytest.raises(EnvError, match="^environment.kwargs: no render_mode"):
        make_lake(kwargs={"render_mode": "human"})


def test_environment_renders_and_closes():
    env = make_toy(from_pixels=True, height=16, width=20)
    assert (env.reset()[0] == 0).all() and (env.step(np.eye(3)[0])[0] == 1).all() and not inner(env).closed
    env.close()
    assert inner(env).closed
    assert make(task_name="CartPole-v1", from_pixels=True).reset()[0].std() > 0
    with pytest.raises(EnvError, match="a_renderer is not installed"):
        make_toy("NoisyNoRenderer-v0", from_pixels=True)


def test_plugin_import_error_is_one_line(monkeypatch):
    """This happens for MinAtar without its drawing packages."""
    plugin = SimpleNamespace(load=lambda: __import__("no_such_module"))
    monkeypatch.setattr(lookup.metadata, "entry_points", lambda group, name: [plugin] * (name == "Package"))
    with pytest.raises(EnvError, match="gymnasium cannot make 'Package/Noisy-v0': No module named 'no_such_module'"):
        make(task_name="Package/Noisy-v0")


def test_error_at_the_first_reset_is_one_line(monkeypatch):
    toy = importlib.import_module("tests.envs.toy_gymnasium").Noisy
    monkeypatch.setattr(toy, "reset", lambda self, **keywords: self.render())
    with pytest.raises(EnvError, match="'tests.envs.toy_gymnasium:NoisyNoRenderer-v0' does not run: a_renderer is not"):
        make_toy("NoisyNoRenderer-v0")


def test_gymnasiums_checker_is_disabled(recwarn):
    env = make_toy()
    play_some = [env.reset(), *(env.step(env.action_space.sample()) for _ in range(4))]
    assert len(play_some) == 5 and not recwarn.list and "EnvChecker" not in str(env.env)


def test_worker_processes_can_be_restored():
    settings = load_config("quick-v3-cartpole").environment | {"benchmark": "gymnasium", "num_envs": 2}
    settings |= {"task_name": "tests.envs.toy_gymnasium:Counting-v0"}
    env = make_train_env(settings, 0)
    try:
        assert type(env.vector).__name__ == "Workers"
        state = env.state_dict()
        first, second = ([*run_episodes(env, lambda step: env.sample_actions(), 2)] for _ in range(2))
        env.load_state_dict(state)
        repeated = [*run_episodes(env, lambda step: env.sample_actions(), 2)]
    finally:
        env.close()
    rounds = [
        np.stack([[step.observation for step in episode] for episode in round]) for round in (first, second, repeated)
    ]
    assert rounds[0].shape == (2, 5, 2) and (rounds[0] == rounds[2]).all() and (rounds[0] != rounds[1]).any()
    assert (rounds[0][0] != rounds[0][1]).any()


def test_plugin_of_the_requested_namespace_is_loaded_once(monkeypatch):
    """It is loaded once, and no other package is imported."""
    registrations = []

    def register():
        registrations.append(True)
        gymnasium.register("Plugged/Noisy-v0", entry_point="tests.envs.toy_gymnasium:Noisy")

    def entry_points(group, name):
        known = group == "gymnasium.envs" and name == "Plugged"
        return [SimpleNamespace(load=lambda: register)] if known else []

    monkeypatch.setattr(lookup.metadata, "entry_points", entry_points)
    try:
        assert [make(task_name="Plugged/Noisy-v0").reset()[0].keys() for _ in range(2)] and registrations == [True]
    finally:
        gymnasium.registry.pop("Plugged/Noisy-v0", None)


@pytest.fixture
def minatar(monkeypatch):
    """Hide MinAtar's drawing packages, which take seconds to import."""
    for drawing in ("seaborn", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, drawing, None)
    pytest.importorskip("minatar")


def test_minatar_observation_is_the_flattened_state(minatar):
    """The vector holds zeros and ones."""
    env = make(task_name="MinAtar/Breakout-v1")
    observation, _ = env.reset()
    assert observation.shape == (400,) and env.action_space.shape == (3,) and set(observation) == {0, 1}
    np.testing.assert_array_equal(observation, inner(env).game.state().ravel())


def test_minigrid_observation_has_symbols_and_no_mission():
    """The symbols' numbers are unchanged."""
    pytest.importorskip("minigrid")
    env = make(task_name="minigrid:MiniGrid-Empty-5x5-v0")
    observation, _ = env.reset()
    symbols = inner(env).gen_obs()["image"]
    assert observation.shape == (4 + 147,) and observation[4:].max() == symbols.max() == 8
    np.testing.assert_array_equal(observation[4:], symbols.ravel())


def test_task_name_may_be_a_function_or_class_of_a_module():
    """`--env my_module:make_env` calls it with `environment.kwargs`; a registered id has priority over such a name."""
    env = make(task_name="tests.envs.toy_gymnasium:Noisy", kwargs={"length": 2}, renders=True)
    assert inner(env).length == 2 and env.render().shape == (16, 20, 3)
    env.reset()
    assert [env.step(np.eye(3)[0])[2] for _ in range(2)] == [False, True]
    with pytest.raises(EnvError, match="env: registry returned"):  # no environment
        make(task_name="dreamer.envs.lookup:registry", kwargs={"name": "gymnasium", "task_name": "CartPole-v1"})
    with pytest.raises(EnvError, match="environment.task_name: gymnasium cannot make"):
        make(task_name="no_such_module:make_env")

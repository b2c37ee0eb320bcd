import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer.envs.make import is_discrete
from dreamer.envs.rendering import EnvError
from tests.envs.toy import FRAME, Toy, make, make_toy

ROOT = Path(__file__).parents[2]
GYM = {"benchmark": "gym", "from_pixels": False}


def test_cartpole_takes_one_hot_vectors():
    env = make(**GYM, task_name="CartPole-v1", frame_skip=1)
    observation, _ = env.reset()
    assert (observation.shape, observation.dtype) == ((4,), np.float32)
    assert is_discrete(env) and env.action_space.shape == (2,)
    assert env.max_agent_steps == 500
    velocities = []
    for action in np.eye(2, dtype=np.float32):
        env.reset(seed=0)
        velocities.append(env.step(action)[0][1])
    assert velocities[0] < 0 < velocities[1]  # 0 pushes to the left, 1 to the right


def test_cartpole_terminates():
    env = make(**GYM, task_name="CartPole-v1", frame_skip=4)
    env.reset()
    for _ in range(10):
        *_, terminated, truncated, _ = env.step(np.array([1, 0], np.float32))
        if terminated or truncated:
            break
    assert (terminated, truncated) == (True, False)


def test_pendulum_takes_scaled_actions_and_is_truncated():
    env = make(**GYM, task_name="Pendulum-v1", frame_skip=8)
    observation, _ = env.reset()
    assert (observation.shape, observation.dtype) == ((3,), np.float32)
    assert not is_discrete(env)
    steps = [env.step(np.ones(1, np.float32)) for _ in range(25)]
    assert env.unwrapped.last_u == 2.0
    assert [step[2:4] for step in steps] == 24 * [(False, False)] + [(False, True)]


def test_module_and_id():
    env = make_toy()
    env.reset()
    env.step(np.zeros(2, np.float32))
    assert type(env.unwrapped).__name__ == "Toy" and len(env.unwrapped.actions) == 2  # frame_skip
    assert env.max_agent_steps is None


@pytest.mark.parametrize("action, received", [([-1, 1], [-2, 10]), ([1, -1], [4, 0]), ([0, 0.5], [1, 7.5])])
def test_actions_are_rescaled_to_the_environments_bounds(action, received):
    env = make_toy()
    env.reset()
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    env.step(np.array(action, np.float32))
    np.testing.assert_allclose(env.unwrapped.actions[0], received, rtol=1e-6)


def test_discrete_actions_that_do_not_start_at_zero():
    env = make_toy("ToyDiscrete-v0")
    env.reset()
    env.step(np.array([0, 1, 0], np.float32))
    assert env.unwrapped.actions == [6, 6]


def test_dictionaries_are_flattened():
    env = make_toy("ToyDict-v0")
    observation, _ = env.reset()
    original = env.unwrapped.last_observation
    assert observation.dtype == np.float32 and observation in env.observation_space
    np.testing.assert_array_equal(observation, [*np.eye(3)[original["mode"]], *original["position"].ravel()])


def test_pixels_come_from_render():
    observation, _ = make_toy(from_pixels=True).reset()
    assert (observation.shape, observation.dtype) == ((3, 64, 64), np.uint8)
    same_size, _ = make_toy(from_pixels=True, height=30, width=40).reset()
    np.testing.assert_array_equal(same_size.transpose(1, 2, 0), FRAME)


@pytest.mark.parametrize("task", ["CartPole-v1", "tests.envs.toy:Toy-v0"])
def test_the_seed_decides_episodes_and_random_actions(task):
    def draws(seed):
        env = make(**GYM, task_name=task, seed=seed)
        return [env.reset()[0], env.reset()[0], *(env.action_space.sample() for _ in range(20))]

    same, again, other = (np.concatenate(draws(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(same, again)
    size = make(**GYM, task_name=task).observation_space.shape[0]
    assert (same[:size] != other[:size]).all() and (same[2 * size :] != other[2 * size :]).any()


@pytest.mark.parametrize(
    "task, words",
    [
        ("CartPol-v1", ["environment.task_name", "'CartPol-v1'", "CartPole-v1"]),
        ("CartPole-v9", ["environment.task_name", "CartPole", "v1"]),
        ("Cart Pole", ["environment.task_name", "'Cart Pole'"]),
        ("no_such_module:Toy-v0", ["environment.task_name", "no_such_module"]),
        ("tests.envs.toy:ToyDiscret-v0", ["environment.task_name", "did you mean ToyDiscrete-v0"]),
        ("tests.envs.toy:ToyUnbounded-v0", ["ToyUnbounded-v0", "bounded"]),
        ("tests.envs.toy:ToyMultiDiscrete-v0", ["ToyMultiDiscrete-v0", "Discrete or a bounded vector"]),
        ("tests.envs.toy:ToyInteger-v0", ["ToyInteger-v0", "vector of reals"]),
        ("tests.envs.toy:ToyMatrix-v0", ["ToyMatrix-v0", "Discrete or a bounded vector"]),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(task, words):
    with pytest.raises(EnvError) as caught:
        make(**GYM, task_name=task)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_missing_renderer_is_said_in_one_line():
    with pytest.raises(EnvError, match="a_renderer is not installed"):
        make_toy("ToyNoRenderer-v0", from_pixels=True)


def test_an_environment_that_renders_no_arrays_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr("gym.make", lambda *args, render_mode=None, **keywords: Toy(render_mode="human"))
    with pytest.raises(EnvError, match="'Toy-v0' does not render to arrays"):
        make(**(GYM | {"from_pixels": True}), task_name="Toy-v0")


@pytest.mark.parametrize("backend", ["disable", "no_such_backend"])
def test_a_back_end_that_the_user_set_and_that_does_not_render_is_named(backend):
    """In a process of its own: dm_control binds to MUJOCO_GL when it is imported."""
    command = [sys.executable, "main.py", "--config", "dmc-pendulum-swingup"]
    environment = {**os.environ, "MUJOCO_GL": backend}
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 2
    assert child.stderr.startswith(f"error: dm_control does not work here with MUJOCO_GL={backend}: ")
    assert child.stderr.count("\n") == 1


def test_importing_gym_prints_no_notices():
    command = [sys.executable, "-c", "import dreamer.envs.make"]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout + child.stderr == ""

import numpy as np
import pytest

from dreamer.config.load import load_config
from dreamer.envs.actions import classes_of
from dreamer.envs.make import make_eval_env, make_train_env
from dreamer.errors import EnvError
from dreamer.training.collect import run_episode
from tests.envs.toy import Toy, make, make_toy, run_python

GYMNASIUM = {"benchmark": "gymnasium", "from_pixels": False}


def test_cartpole_takes_one_hot_vectors_and_terminates():
    env = make(**GYMNASIUM, task_name="CartPole-v1", frame_skip=4)
    assert classes_of(env.action_space) == (2,) and env.max_agent_steps == 125
    velocities = []
    for action in np.eye(2, dtype=np.float32):
        observation, _ = env.reset(seed=0)
        assert (observation.shape, observation.dtype) == ((4,), np.float32)
        velocities.append(env.step(action)[0][1])
    assert velocities[0] < 0 < velocities[1]  # 0 pushes to the left, 1 to the right
    assert list(run_episode(env, lambda step: action))[-1].is_terminal


def test_pendulum_takes_scaled_actions_and_is_truncated():
    env = make(**GYMNASIUM, task_name="Pendulum-v1", frame_skip=8)
    observation, _ = env.reset()
    assert (observation.shape, observation.dtype) == ((3,), np.float32) and classes_of(env.action_space) == (0,)
    ends = [env.step(np.ones(1, np.float32))[2:4] for _ in range(25)]
    assert env.unwrapped.last_u == 2.0
    assert ends == 24 * [(False, False)] + [(False, True)]


@pytest.mark.parametrize("action, received", [([-1, 1], [-2, 10]), ([1, -1], [4, 0]), ([0, 0.5], [1, 7.5])])
def test_actions_are_rescaled_to_the_environments_bounds_and_repeated(action, received):
    env = make_toy()
    env.reset()
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    env.step(np.array(action, np.float32))
    np.testing.assert_allclose(env.unwrapped.actions, 2 * [received], rtol=1e-6)  # frame_skip


@pytest.mark.parametrize("task", ["CartPole-v1", "tests.envs.toy:Toy-v0"])
def test_seed_determines_episodes_and_random_actions(task):
    def draws(seed):
        env = make(**GYMNASIUM, task_name=task, seed=seed)
        return [[env.reset()[0] for _ in range(2)], [env.action_space.sample() for _ in range(20)]]

    same, again, other = (draws(seed) for seed in (3, 3, 4))
    for drawn, redrawn, different in zip(same, again, other, strict=True):
        np.testing.assert_array_equal(drawn, redrawn)
        assert (np.array(drawn) != different).any()


def test_seeds_are_distinct_and_fit_a_c_int(monkeypatch):
    """Training and evaluation environments of different runs all get different seeds."""
    seeds = []
    monkeypatch.setattr(Toy, "reset", lambda self, seed=None, options=None: seeds.append(seed) or (np.zeros(3), {}))
    settings = load_config("dreamer").environment | GYMNASIUM | {"task_name": "tests.envs.toy:Toy-v0"}
    for seed in (*range(100), 2**32 - 2):
        make_train_env(settings, seed)
        make_eval_env(settings, seed)
    assert len(set(seeds)) == 202 and min(seeds) >= 0 and 2**30 < max(seeds) < 2**31
    assert seeds[8:10] == [1490961094, 1819501355]  # the seeds of run seed 4 must not change between versions


@pytest.mark.parametrize(
    "task, words",
    [
        ("CartPol-v1", ["environment.task_name", "'CartPol-v1'", "CartPole-v1"]),
        ("CartPole-v9", ["environment.task_name", "CartPole", "v1"]),
        ("Cart Pole", ["environment.task_name", "'Cart Pole'"]),
        ("no_such_module:Toy-v0", ["environment.task_name", "no_such_module"]),
        ("tests.envs.toy:ToyDiscret-v0", ["environment.task_name", "did you mean ToyDiscrete-v0"]),
        ("tests.envs.toy:ToyUnbounded-v0", ["ToyUnbounded-v0", "bounded"]),
        ("tests.envs.toy:ToyInteger-v0", ["ToyInteger-v0", "Box of reals"]),
    ],
)
def test_unusable_tasks_are_one_line_errors(task, words):
    with pytest.raises(EnvError) as caught:
        make(**GYMNASIUM, task_name=task)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_environments_that_do_not_render_are_one_line_errors(monkeypatch):
    with pytest.raises(EnvError, match="a_renderer is not installed"):
        make_toy("ToyNoRenderer-v0", from_pixels=True)
    monkeypatch.setattr("gymnasium.make", lambda *args, render_mode=None, **keywords: Toy(render_mode="human"))
    with pytest.raises(EnvError, match="'tests.envs.toy:Toy-v0' does not render to arrays"):
        make_toy(from_pixels=True)


@pytest.mark.parametrize("backend", ["disable", "no_such_backend", "glfw"])
def test_failing_backend_chosen_by_the_user_is_named(backend):
    """This needs a new process, because dm_control reads MUJOCO_GL when it is imported."""
    child = run_python("main.py", "--config", "dmc-pendulum-swingup", MUJOCO_GL=backend)
    assert child.returncode == 2
    assert child.stderr.startswith(f"error: dm_control does not work here with MUJOCO_GL={backend}: ")
    assert child.stderr.count("\n") == 1


def test_gym_is_imported_only_when_needed():
    """Its notices about gymnasium are not printed."""
    code = "import sys, dreamer.envs.make; print('gym' in sys.modules); import dreamer.envs.gym_env"
    child = run_python("-c", code)
    assert (child.returncode, child.stdout, child.stderr) == (0, "False\n", "")

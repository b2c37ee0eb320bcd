import re
from contextlib import closing

import numpy as np
import pytest

from dreamer.config.load import load_config
from dreamer.config.names import tasks_of
from dreamer.envs import dmc
from dreamer.envs.make import make_train_env
from dreamer.errors import EnvError
from tests.envs.playing import goes_on, play, random_episode
from tests.envs.toy import make, run_python

ONE_OF_A_DOMAIN = """acrobot-swingup ball-in-cup-catch cartpole-swingup-sparse cheetah-run finger-turn-hard fish-swim
hopper-hop humanoid-run manipulator-bring-ball pendulum-swingup point-mass-easy quadruped-fetch reacher-easy
stacker-stack-2 swimmer-swimmer6 walker-walk manipulation-reach-site"""  # without the dog domain, which is slow
TASKS = [f"dmc-{task}" for task in ONE_OF_A_DOMAIN.split()]
CARTPOLE = {"domain_name": "cartpole", "task_name": "balance", "from_pixels": False}


def test_every_task_but_lqr_has_a_configuration():
    from dm_control import manipulation, suite  # imported here, after the rendering backend was selected

    named = {tuple(task.split()) for task in tasks_of("dmc").values()}
    named |= {("quadruped", task) for task in tasks_of("dmc-quadruped").values()}
    assert named == {task for task in suite.ALL_TASKS if task[0] != "lqr"}
    features = [f"{task}_features" for task in tasks_of("dmc-manipulation").values()]
    assert sorted(features) == sorted(manipulation.get_environments_by_tag("features"))
    assert load_config("dmc-humanoid-cmu-run").environment.domain_name == "humanoid_CMU"


@pytest.mark.parametrize("name", TASKS)
def test_task_gives_finite_vectors_and_bounded_actions(name):
    env = make(name, from_pixels=False)
    for observation in (env.reset()[0], env.step(env.action_space.sample())[0]):
        assert observation.dtype == np.float32 and observation.ndim == 1
        assert observation in env.observation_space and np.isfinite(observation).all()
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    assert env.max_agent_steps == (125 if "manipulation" in name else 500)


@pytest.mark.parametrize("name", TASKS)
def test_task_renders_uint8_frames(name):
    env = make(name)
    frame, _ = env.reset()
    assert (frame.shape, frame.dtype) == ((3, 64, 64), np.uint8)
    assert frame in env.observation_space and frame.std() > 5


@pytest.mark.parametrize("name, camera", [("dmc-quadruped-walk", 2), ("dmc-walker-walk", 0)])
def test_frames_come_from_the_configured_camera(name, camera):
    env = make(name)
    frame, _ = env.reset()
    physics = env.unwrapped.environment.physics
    views = [physics.render(64, 64, camera_id=each).transpose(2, 0, 1) for each in range(physics.model.ncam)]
    assert [each for each, view in enumerate(views) if np.array_equal(view, frame)] == [camera]


def test_vectors_concatenate_all_observations():
    env = make("dmc-walker-walk", from_pixels=False)
    observation, _ = env.reset()
    parts = env.unwrapped.environment.task.get_observation(env.unwrapped.environment.physics)
    assert len(observation) == 14 + 1 + 9  # orientations, height, velocities
    np.testing.assert_allclose(observation, np.hstack(list(parts.values())), rtol=1e-6)
    assert env.unwrapped.reset()[0].dtype == np.float32


def test_actions_reach_the_simulators_bounds():
    env = make("dmc-quadruped-walk", from_pixels=False, frame_skip=1)  # its bounds are not all -1 and 1
    spec, physics = env.unwrapped.environment.action_spec(), env.unwrapped.environment.physics
    assert spec.maximum.max() > 1
    for action, bound in ((np.ones(12), spec.maximum), (-np.ones(12), spec.minimum)):
        env.reset()
        env.step(action.astype(np.float32))
        np.testing.assert_allclose(physics.control(), bound, rtol=1e-6)


def test_an_episode_is_truncated_after_a_thousand_simulator_steps():
    env = make(**CARTPOLE, frame_skip=3)
    for _ in range(2):
        steps = list(random_episode(env))
        assert len(steps) == 1 + 334 == 1 + env.max_agent_steps
        assert sum(step.env_steps for step in steps) == 1000 and steps[-1].env_steps == 1
        assert not steps[-1].is_terminal
        assert 100 < sum(step.reward for step in steps) <= 1000


def test_task_without_a_time_limit_is_truncated():
    env = make(domain_name="lqr", task_name="lqr_2_1", from_pixels=False, frame_skip=100)
    no_action = np.zeros(1, np.float32)  # other actions can be as large as 1e10
    env.reset()
    env.step(no_action)
    env.reset()  # the clock starts again
    ends = [env.step(no_action)[2:4] for _ in range(10)]
    assert ends == 9 * [(False, False)] + [(False, True)]


@pytest.mark.parametrize("discount, ends", [(0.0, (True, False)), (1.0, (False, True)), (None, (False, False))])
def test_only_a_discount_of_zero_is_terminal(discount, ends):
    env = make(**CARTPOLE)
    env.reset()
    env.unwrapped.environment.task.get_termination = lambda physics: discount
    *_, terminated, truncated, info = env.step(env.action_space.sample())
    assert (terminated, truncated) == ends
    assert info["env_steps"] == (2 if discount is None else 1)


def test_seed_determines_the_episodes():
    envs = [make("dmc-reacher-easy", seed, from_pixels=False, frame_skip=100) for seed in (3, 3, 4)]
    episodes = np.array([[play(env), play(env)] for env in envs])
    np.testing.assert_array_equal(episodes[0], episodes[1])
    assert not np.allclose(episodes[0, 0], episodes[0, 1])
    assert not np.allclose(episodes[0, 0], episodes[2, 0])


def test_visualize_reward_changes_the_picture():
    settings = CARTPOLE | {"from_pixels": True}
    plain, again, with_reward = (make(**settings, visualize_reward=each).reset()[0] for each in (False, False, True))
    assert np.array_equal(plain, again) and not np.array_equal(plain, with_reward)


@pytest.mark.parametrize("name", ["dmc-walker-walk", "dmc-reacher-easy"])
def test_fast_rendering_omits_light_effects_and_keeps_all_objects(name):
    """Bodies and targets are at the same pixels as with full quality."""
    full, fast = (make(name, frame_skip=1, render_quality=quality) for quality in ("full", "fast"))
    for env in (full, fast):
        env.reset(seed=0)
    frames = [env.render().astype(int) for env in (full, fast)]
    visible = [frame[..., 0] > frame[..., 2] + 10 for frame in frames]  # orange and red against blue
    assert visible[0].mean() > 0.02 and (visible[0] != visible[1]).mean() < 0.02
    assert np.abs(frames[0] - frames[1]).mean() > 1
    model = fast.unwrapped.environment.physics.model
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples, model.mat_reflectance.max()) == (0, 0, 0)


def test_earlier_frames_are_not_overwritten():
    """The camera object is reused, but each frame is a new array and equals that of a new camera."""
    env = make("dmc-walker-walk", frame_skip=20).unwrapped
    env.reset(seed=0)
    physics, frames, expected = env.environment.physics, [], []
    for _ in range(3):
        env.step(np.ones(6))
        frames.append(env.render())
        expected.append(physics.render(64, 64, camera_id=0))
    np.testing.assert_array_equal(frames, expected)
    assert (frames[0] != frames[1]).any()


@pytest.mark.parametrize("num_envs", [1, 2])
def test_renderer_returns_the_name_of_the_renderer(num_envs):
    """With several environments, a worker process answers."""
    settings = load_config("dmc-pendulum-swingup", [f"environment.num_envs={num_envs}"]).environment
    with closing(make_train_env(settings, seed=0)) as env:
        assert re.search(r"\w{3}", env.renderer()) and env.renderer() != "unknown"


def test_mujoco_warnings_about_suite_models_are_suppressed():
    code = "import logging; from tests.envs.toy import make; make('quick-pixels-cheetah-run', from_pixels=False); "
    result = run_python("-c", code + "logging.getLogger('absl').warning('others are')")
    assert "absl:others are" in result.stderr and result.stderr.count("absl") == 1, result.stderr


def test_vectors_need_no_renderer(monkeypatch):
    """A renderer is selected only with `renders=True`."""
    backend_selections, select = [], dmc.select_backend
    monkeypatch.setattr(dmc, "select_backend", lambda: backend_selections.append(True) or select())
    assert make(**CARTPOLE).reset()[0].shape == (5,) and backend_selections == []
    env = make(**CARTPOLE, renders=True)
    assert env.reset()[0].shape == (5,) and backend_selections == [True]
    assert env.render().shape == (256, 256, 3) and env.render().std() > 5, "frames for films are larger"


@pytest.mark.parametrize(
    "changes, key, nearest",
    [
        ({"domain_name": "cartpol"}, "environment.domain_name", "cartpole"),
        ({"task_name": "balanced"}, "environment.task_name", "did you mean balance,"),
        ({"task_name": "walk"}, "environment.task_name", "swingup"),  # a task of another domain; no name is similar
        ({"camera_id": 9}, "environment.camera_id", "-1 (free) to 1"),
    ],
)
def test_invalid_settings_are_one_line_errors(changes, key, nearest):
    with pytest.raises(EnvError) as caught:
        make(**{**CARTPOLE, **changes})
    message = str(caught.value)
    assert message.startswith(key) and nearest in message and str(*changes.values()) in message
    assert "\n" not in message


@pytest.mark.parametrize("name", TASKS)
def test_task_can_be_restored_between_episodes(name):
    """Another environment with another seed continues exactly after loading the state."""
    assert goes_on(*(make(name, seed, from_pixels=False) for seed in (1, 2)))


def test_pixels_and_whole_episodes_can_be_restored():
    assert goes_on(*(make("dmc-reacher-easy", seed) for seed in (1, 2)), steps=2)
    envs = (make("dmc-finger-turn-hard", seed, from_pixels=False, frame_skip=50) for seed in (1, 2))
    assert goes_on(*envs, steps=None)

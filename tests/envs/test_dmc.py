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
stacker-stack-2 swimmer-swimmer6 walker-walk manipulation-reach-site"""  # all but the dog, which is slow
TASKS = [f"dmc-{task}" for task in ONE_OF_A_DOMAIN.split()]
CARTPOLE = {"domain_name": "cartpole", "task_name": "balance", "from_pixels": False}


def test_there_is_a_name_for_every_task_but_lqr():
    from dm_control import manipulation, suite  # late: a back end that renders was chosen by then

    named = {tuple(task.split()) for task in tasks_of("dmc").values()}
    named |= {("quadruped", task) for task in tasks_of("dmc-quadruped").values()}
    assert named == {task for task in suite.ALL_TASKS if task[0] != "lqr"}
    features = [f"{task}_features" for task in tasks_of("dmc-manipulation").values()]
    assert sorted(features) == sorted(manipulation.get_environments_by_tag("features"))
    assert load_config("dmc-humanoid-cmu-run").environment.domain_name == "humanoid_CMU"


@pytest.mark.parametrize("name", TASKS)
def test_task_from_state(name):
    env = make(name, from_pixels=False)
    for observation in (env.reset()[0], env.step(env.action_space.sample())[0]):
        assert observation.dtype == np.float32 and observation.ndim == 1
        assert observation in env.observation_space and np.isfinite(observation).all()
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    assert env.max_agent_steps == (125 if "manipulation" in name else 500)


@pytest.mark.parametrize("name", TASKS)
def test_task_from_pixels(name):
    env = make(name)
    frame, _ = env.reset()
    assert (frame.shape, frame.dtype) == ((3, 64, 64), np.uint8)
    assert frame in env.observation_space and frame.std() > 5


@pytest.mark.parametrize("name, camera", [("dmc-quadruped-walk", 2), ("dmc-walker-walk", 0)])
def test_camera(name, camera):
    env = make(name)
    frame, _ = env.reset()
    physics = env.unwrapped.environment.physics
    views = [physics.render(64, 64, camera_id=each).transpose(2, 0, 1) for each in range(physics.model.ncam)]
    assert [each for each, view in enumerate(views) if np.array_equal(view, frame)] == [camera]


def test_vectors_hold_all_observations():
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


def test_the_clock_ends_a_task_without_a_limit_of_its_own():
    env = make(domain_name="lqr", task_name="lqr_2_1", from_pixels=False, frame_skip=100)
    still = np.zeros(1, np.float32)  # its other actions reach ten thousand millions, and so do its rewards
    env.reset()
    env.step(still)
    env.reset()  # the clock starts again
    ends = [env.step(still)[2:4] for _ in range(10)]
    assert ends == 9 * [(False, False)] + [(False, True)]


@pytest.mark.parametrize("discount, ends", [(0.0, (True, False)), (1.0, (False, True)), (None, (False, False))])
def test_only_a_discount_of_zero_is_terminal(discount, ends):
    env = make(**CARTPOLE)
    env.reset()
    env.unwrapped.environment.task.get_termination = lambda physics: discount
    *_, terminated, truncated, info = env.step(env.action_space.sample())
    assert (terminated, truncated) == ends
    assert info["env_steps"] == (2 if discount is None else 1)


def test_the_seed_decides_the_episodes():
    envs = [make("dmc-reacher-easy", seed, from_pixels=False, frame_skip=100) for seed in (3, 3, 4)]
    episodes = np.array([[play(env), play(env)] for env in envs])
    np.testing.assert_array_equal(episodes[0], episodes[1])
    assert not np.allclose(episodes[0, 0], episodes[0, 1])
    assert not np.allclose(episodes[0, 0], episodes[2, 0])


def test_visualize_reward_changes_the_picture():
    settings = CARTPOLE | {"from_pixels": True}
    plain, again, shown = (make(**settings, visualize_reward=each).reset()[0] for each in (False, False, True))
    assert np.array_equal(plain, again) and not np.array_equal(plain, shown)


@pytest.mark.parametrize("name", ["dmc-walker-walk", "dmc-reacher-easy"])
def test_fast_rendering_leaves_out_light_effects_and_keeps_what_the_task_shows(name):
    """All that stands out against the ground in the full picture, bodies and targets, is where it was."""
    full, fast = (make(name, frame_skip=1, render_quality=quality) for quality in ("full", "fast"))
    for env in (full, fast):
        env.reset(seed=0)
    frames = [env.render().astype(int) for env in (full, fast)]
    shown = [frame[..., 0] > frame[..., 2] + 10 for frame in frames]  # orange and red against blue
    assert shown[0].mean() > 0.02 and (shown[0] != shown[1]).mean() < 0.02
    assert np.abs(frames[0] - frames[1]).mean() > 1
    model = fast.unwrapped.environment.physics.model
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples, model.mat_reflectance.max()) == (0, 0, 0)


def test_frames_stay_as_they_were_rendered():
    """The camera is kept, and so is its array; every frame is as a new camera would see it."""
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
def test_who_renders_is_told(num_envs):
    """By the environment's own process."""
    settings = load_config("dmc-pendulum-swingup", [f"environment.num_envs={num_envs}"]).environment
    with closing(make_train_env(settings, seed=0)) as env:
        assert re.search(r"\w{3}", env.renderer()) and env.renderer() != "unknown"


def test_mujoco_s_complaints_about_the_suite_s_models_are_not_passed_on():
    code = "import logging; from tests.envs.toy import make; make('quick-pixels-cheetah-run', from_pixels=False); "
    result = run_python("-c", code + "logging.getLogger('absl').warning('others are')")
    assert "absl:others are" in result.stderr and result.stderr.count("absl") == 1, result.stderr


def test_vectors_do_not_look_for_a_renderer(monkeypatch):
    """Unless they are to be rendered nevertheless."""
    looked, select = [], dmc.select_backend
    monkeypatch.setattr(dmc, "select_backend", lambda: looked.append(True) or select())
    assert make(**CARTPOLE).reset()[0].shape == (5,) and looked == []
    env = make(**CARTPOLE, renders=True)
    assert env.reset()[0].shape == (5,) and looked == [True]
    assert env.render().shape == (256, 256, 3) and env.render().std() > 5, "large enough for people"


@pytest.mark.parametrize(
    "changes, key, nearest",
    [
        ({"domain_name": "cartpol"}, "environment.domain_name", "cartpole"),
        ({"task_name": "balanced"}, "environment.task_name", "did you mean balance,"),
        ({"task_name": "walk"}, "environment.task_name", "swingup"),  # another domain's: nothing is near
        ({"camera_id": 9}, "environment.camera_id", "-1 (free) to 1"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(changes, key, nearest):
    with pytest.raises(EnvError) as caught:
        make(**{**CARTPOLE, **changes})
    message = str(caught.value)
    assert message.startswith(key) and nearest in message and str(*changes.values()) in message
    assert "\n" not in message


@pytest.mark.parametrize("name", TASKS)
def test_a_task_goes_on_from_a_state_between_two_episodes(name):
    """Exactly, in another environment with another seed, whatever that has played."""
    assert goes_on(*(make(name, seed, from_pixels=False) for seed in (1, 2)))


def test_pixels_go_on_and_a_whole_episode_leaves_nothing_else_behind():
    assert goes_on(*(make("dmc-reacher-easy", seed) for seed in (1, 2)), steps=2)
    whole = (make("dmc-finger-turn-hard", seed, from_pixels=False, frame_skip=50) for seed in (1, 2))
    assert goes_on(*whole, steps=None)

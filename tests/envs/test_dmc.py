import io

import numpy as np
import pytest
import torch

from dreamer.checkpoint import copy_to_cpu
from dreamer.config import CONFIGS
from dreamer.envs import make as makers
from dreamer.envs.rendering import EnvError
from tests.envs.toy import make

TASKS = sorted(path.stem for path in CONFIGS.glob("dmc-*.yml"))
CARTPOLE = {"domain_name": "cartpole", "task_name": "balance", "from_pixels": False}


def run_episode(env):
    """Observations, rewards, and the last step's terminated, truncated and info."""
    observations, rewards, env_steps, ended = [env.reset()[0]], [], 0, False
    while not ended:
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        observations.append(observation)
        rewards.append(reward)
        env_steps += info["env_steps"]
        ended = terminated or truncated
    return np.array(observations), np.array(rewards), env_steps, (terminated, truncated, info)


def test_twenty_tasks_are_configured():
    assert len(TASKS) == 20


@pytest.mark.parametrize("name", TASKS)
def test_task_from_state(name):
    env = make(name, from_pixels=False)
    action = env.action_space.sample()
    observations = [env.reset()[0], env.step(action)[0]]
    for observation in observations:
        assert observation.dtype == np.float32 and observation.ndim == 1
        assert observation in env.observation_space
        assert np.isfinite(observation).all()
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    assert env.max_agent_steps == 500


@pytest.mark.parametrize("name", TASKS)
def test_task_from_pixels(name):
    env = make(name)
    frame, _ = env.reset()
    assert (frame.shape, frame.dtype) == ((3, 64, 64), np.uint8)
    assert frame in env.observation_space
    assert frame.std() > 5


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
        observations, rewards, env_steps, (terminated, truncated, info) = run_episode(env)
        assert (len(rewards), env_steps, info["env_steps"]) == (334, 1000, 1)
        assert (terminated, truncated) == (False, True)
        assert len(observations) == env.max_agent_steps + 1
        assert 100 < rewards.sum() <= 1000


def test_the_clock_ends_a_task_without_a_limit_of_its_own():
    env = make(domain_name="lqr", task_name="lqr_2_1", from_pixels=False, frame_skip=100)
    env.reset()
    env.step(np.zeros(1, np.float32))
    env.reset()  # the clock starts again
    steps = [env.step(np.zeros(1, np.float32)) for _ in range(10)]
    assert [(terminated, truncated) for _, _, terminated, truncated, _ in steps] == 9 * [(False, False)] + [
        (False, True)
    ]


@pytest.mark.parametrize("discount, ends", [(0.0, (True, False)), (1.0, (False, True)), (None, (False, False))])
def test_only_a_discount_of_zero_is_terminal(discount, ends):
    env = make(**CARTPOLE)
    env.reset()
    env.unwrapped.environment.task.get_termination = lambda physics: discount
    *_, terminated, truncated, info = env.step(env.action_space.sample())
    assert (terminated, truncated) == ends
    assert info["env_steps"] == (2 if discount is None else 1)


def test_the_seed_decides_the_episodes():
    def episodes(seed):
        env = make("dmc-reacher-easy", seed, from_pixels=False, frame_skip=100)
        return [run_episode(env)[0] for _ in range(2)]

    first, second = episodes(3)
    np.testing.assert_array_equal((first, second), episodes(3))
    assert not np.allclose(first[0], second[0])
    assert not np.allclose(first[0], episodes(4)[0][0])


@pytest.mark.parametrize("visualize", [True, False])
def test_visualize_reward_changes_the_picture(visualize):
    frames = [
        make(**{**CARTPOLE, "from_pixels": True}, visualize_reward=each).reset()[0] for each in (False, visualize)
    ]
    assert np.array_equal(*frames) != visualize


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


def test_vectors_do_not_look_for_a_renderer(monkeypatch):
    monkeypatch.setattr(makers, "select_backend", lambda: pytest.fail("looked for a renderer"))
    assert make(**CARTPOLE).reset()[0].shape == (5,)


def test_vectors_can_be_rendered_nevertheless(monkeypatch):
    looked, select = [], makers.select_backend
    monkeypatch.setattr(makers, "select_backend", lambda: looked.append(True) or select())
    env = make(**CARTPOLE, renders=True)
    assert env.reset()[0].shape == (5,) and looked == [True]
    assert env.render().shape == (64, 64, 3) and env.render().std() > 5


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


def through_a_file(state):
    file = io.BytesIO()
    torch.save(copy_to_cpu(state), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def play(env, steps=4):
    """The first steps of an episode with random actions: actions, observations and rewards in one row."""
    row = [env.reset()[0]]
    for _ in range(steps):
        action = env.action_space.sample()
        observation, reward, *_ = env.step(action)
        row += [action, observation, [reward]]
    return np.concatenate(row)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_goes_on_from_a_state_between_two_episodes(name):
    """Exactly, in a fresh environment with another seed, whatever that has played."""
    env, fresh = make(name, seed=1, from_pixels=False), make(name, seed=2, from_pixels=False)
    play(env, steps=7)
    state = through_a_file(env.state_dict())
    expected = [play(env) for _ in range(3)]
    assert (expected[0] != expected[1]).any()
    assert (play(fresh) != expected[0]).any()
    fresh.load_state_dict(state)
    np.testing.assert_array_equal([play(fresh) for _ in range(3)], expected)


def test_a_whole_episode_leaves_nothing_else_behind():
    """The fresh environment has played none."""
    env, fresh = (make("dmc-finger-turn-hard", seed, from_pixels=False, frame_skip=50) for seed in (1, 2))
    for _ in range(2):
        run_episode(env)
    fresh.load_state_dict(through_a_file(env.state_dict()))
    for _ in range(2):
        (observations, rewards, *_), (others, other_rewards, *_) = run_episode(env), run_episode(fresh)
        np.testing.assert_array_equal(observations, others)
        np.testing.assert_array_equal(rewards, other_rewards)


def test_pixels_go_on_from_a_state():
    env, fresh = (make("dmc-reacher-easy", seed) for seed in (1, 2))
    play_pixels = [env.reset()[0], env.step(env.action_space.sample())[0]]
    fresh.load_state_dict(through_a_file(env.state_dict()))
    action = env.action_space.sample()
    np.testing.assert_array_equal(action, fresh.action_space.sample())
    frames = [np.stack([each.reset()[0], each.step(action)[0]]) for each in (env, fresh)]
    np.testing.assert_array_equal(*frames)
    assert (frames[0][0] != play_pixels[0]).any()

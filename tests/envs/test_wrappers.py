import math
import re
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.envs.resumable import Resumable
from dreamer.envs.wrappers import ActionRepeat, Checked, VectorObservation
from dreamer.errors import EnvError
from dreamer.training.checkpoint import copy_to_cpu
from tests.envs.playing import goes_on, play
from tests.envs.toy import ACTIONS, DICT, FRAME, Toy, make, make_toy


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    env = ActionRepeat(Toy(length=5), 3)
    env.reset()
    assert env.step(ACTIONS.high)[1:] == (1 + 2 + 3, False, False, {"env_steps": 3, "step": 3})
    observation, *rest = env.step(ACTIONS.low)
    assert rest == [4 + 5, True, False, {"env_steps": 2, "step": 5}]  # the environment's info is kept
    assert observation is env.unwrapped.last_observation
    np.testing.assert_array_equal(env.unwrapped.actions, 3 * [ACTIONS.high] + 2 * [ACTIONS.low])


def test_action_repeat_stops_when_the_clock_ends_the_episode():
    env = ActionRepeat(gymnasium.wrappers.TimeLimit(Toy(length=9), 2), 4)
    env.reset()
    *_, terminated, truncated, info = env.step(ACTIONS.low)
    assert (terminated, truncated, info["env_steps"]) == (False, True, 2)


def test_action_repeat_gives_the_number_of_agent_steps():
    """It uses the environment's own limit or that of gym's registry."""
    assert [ActionRepeat(Toy(length=5), amount).max_agent_steps for amount in (1, 2, 3, 5, 8)] == [5, 3, 2, 1, 1]
    assert ActionRepeat(gymnasium.make("Pendulum-v1", disable_env_checker=True), 3).max_agent_steps == 67
    assert ActionRepeat(gymnasium.make("tests.envs.toy:Toy-v0", disable_env_checker=True), 3).max_agent_steps is None


@pytest.mark.parametrize("height, width", [(64, 64), (48, 80)])
def test_pixels_are_resized_renderings_with_channels_first(height, width):
    env = make_toy(from_pixels=True, height=height, width=width)
    frame, _ = env.reset()
    assert (frame.shape, frame.dtype) == ((3, height, width), np.uint8)
    assert frame in env.observation_space
    red, green, blue = frame.astype(int)
    assert (green == 100).all()
    for channel, axis in ((red, 1), (blue, 0)):
        assert (np.diff(channel, axis=axis) >= 0).all() and (np.diff(channel, axis=1 - axis) == 0).all()
        assert channel.min() < 5 and channel.max() > 250


def test_pixels_of_the_right_size_are_unchanged():
    env = make_toy(from_pixels=True, height=30, width=40)
    env.reset()
    frame, *_ = env.step(env.action_space.sample())
    np.testing.assert_array_equal(frame.transpose(1, 2, 0), FRAME)
    assert frame.flags.c_contiguous


def test_vectors_and_dictionaries_become_flat_float32():
    matrix = VectorObservation(Toy(observation_space=spaces.Box(-1.0, 1.0, (2, 3), np.float64)))
    for env in (matrix, make_toy("ToyDict-v0")):
        observation, _ = env.reset()
        original = env.unwrapped.last_observation
        if isinstance(original, dict):
            original = np.array([*np.eye(3)[original["mode"]], *original["position"].ravel()])
        assert observation in env.observation_space
        assert (observation.dtype, env.observation_space.dtype) == (np.float32, np.float32)
        np.testing.assert_allclose(observation, original.ravel(), rtol=1e-6)


# Checks of returned values

GOOD = {"observation": np.zeros(3), "reward": 0.5, "terminated": False, "truncated": False, "info": {}}


class Answering(Toy):
    """Returns the given values."""

    def __init__(self, step=GOOD, reset=(GOOD["observation"], {}), frame=None, **keywords):
        super().__init__(**keywords)
        self.answers = {"step": tuple(step.values()), "reset": reset, "render": frame}

    def reset(self, **keywords):
        return self.answers["reset"]

    def step(self, action):
        return self.answers["step"]

    def render(self):
        return self.answers["render"]


def refusal_message(call, *arguments, observed=True, **answers):
    """Return the error message for an invalid value after some valid steps."""
    env, normal = Checked(Answering(**answers), observed), Checked(Answering())
    normal.reset()
    normal.reset()
    normal.step(0)
    vars(env).update(episode=normal.episode, env_step=normal.env_step)
    with pytest.raises(EnvError) as caught:
        getattr(env, call)(*arguments)
    when = {"reset": "episode 2, env step 0", "step": "episode 1, env step 2", "render": "episode 1, env step 1"}[call]
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300 and message.startswith(f"the environment's {call} ({when}) ")
    return message


WRONG = {
    "reward": [
        math.nan,
        math.inf,
        -math.inf,
        1e30,
        -1.1e18,
        None,
        1j,
        "1",
        [],
        [1, 2],
        [1, [2]],
        np.ones(2),
        10**400,
        {},
        np.ma.masked,
    ],
    "observation": [
        np.zeros(3, complex),
        np.ma.masked_less(np.zeros(3), 1),
        [0, 0, math.inf],
        [0, 0, math.nan],
        [0, 0, -1.1e18],
        np.zeros((1, 3)),
        None,
        0.0,
        "long" * 999,
        {},
    ],
    "terminated": [None, "no", 2, math.nan, np.zeros(2, bool)],
    "truncated": [None, np.ma.masked],
    "info": [None, [], "text"],
}


@pytest.mark.parametrize("name, value", [(name, value) for name in WRONG for value in WRONG[name]])
def test_invalid_step_results_are_refused(name, value):
    assert f" {name} " in refusal_message("step", 0, step=GOOD | {name: value})


@pytest.mark.parametrize("observation", WRONG["observation"])
def test_invalid_reset_observations_are_refused_unless_unobserved(observation):
    assert " gave the observation " in refusal_message("reset", reset=(observation, {}))
    assert Checked(Answering(reset=(observation, {})), observed=False).reset()[0] is observation


@pytest.mark.parametrize("answer", [None, np.zeros(3), np.zeros(2), (np.zeros(3),), (np.zeros(3), None)])
def test_wrong_number_of_returned_values_is_refused(answer):
    expected = "a mapping" if isinstance(answer, tuple) and len(answer) == 2 else "(observation, info)"
    assert refusal_message("reset", reset=answer).endswith(f"; expected {expected}")
    assert refusal_message("step", 0, step=dict(list(GOOD.items())[:4])).endswith(
        "(observation, reward, terminated, truncated, info)"
    )


def test_message_names_the_value_and_the_expectation():
    line = refusal_message("step", 0, step=GOOD | {"reward": np.float32("nan")})
    assert line.endswith(" gave the reward nan; expected a number from -1e+18 to 1e+18")
    line = refusal_message("step", 0, step=GOOD | {"observation": np.array([0, np.nan, 1])})
    assert " gave the observation float64 (3,) of nan to nan; expected one of Box(" in line
    line = refusal_message("step", 0, step=GOOD | {"observation": np.ma.masked_less([0.0, 2.0, 3.0], 1)})
    assert " gave the observation a masked array of float64 (3,); expected one of Box(" in line


@pytest.mark.parametrize("reward", [3, True, -1e18, np.float32(0.1), np.int64(2), np.array(0.3), np.float16([0.5])])
def test_valid_rewards_are_unchanged(reward):
    _, checked, *_ = Checked(Answering(step=GOOD | {"reward": reward})).step(0)
    assert np.ndim(checked) == 0 and checked == reward
    assert not isinstance(reward, (np.ndarray, np.generic)) or checked.dtype == reward.dtype


@pytest.mark.parametrize("wrong", [{"mode": 3}, {"position": np.zeros((2, 3))}, {"position": np.full((2, 2), np.nan)}])
def test_dict_observations_are_checked(wrong):
    right = {"mode": 2, "position": np.zeros((2, 2), np.float32)}
    Checked(Answering(reset=(right, {}), observation_space=DICT)).reset()
    for observation in (right | wrong, 1):
        assert "gave the observation" in refusal_message("reset", reset=(observation, {}), observation_space=DICT)
    with pytest.raises(EnvError, match=r"^the observation space is Sequence\(Discrete\(3\).*; expected a space of num"):
        Checked(Answering(observation_space=spaces.Sequence(spaces.Discrete(3))))


FRAMES = [None, "ansi", FRAME.tolist(), FRAME[..., 0], np.dstack([FRAME, FRAME[..., :1]]), FRAME.transpose(2, 0, 1)]
FRAMES += [FRAME / 255, FRAME.astype(int), FRAME[:0, :0], np.broadcast_to(np.uint8(0), (4000, 4000, 3)), [FRAME]]
FRAMES += [np.ma.masked_less(FRAME, 9)]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"{getattr(frame, 'dtype', type(frame))}{np.shape(frame)}")
def test_invalid_frames_are_refused(frame):
    line = refusal_message("render", frame=frame)
    assert line.endswith("; expected an array uint8 (height, width, 3) of 1 to 2048 pixels a side")


@pytest.mark.parametrize("call", ["reset", "step", "render"])
def test_sys_exit_in_an_environment_is_an_error(call, monkeypatch):
    env = Checked(Answering())
    monkeypatch.setattr(env.unwrapped, call, lambda *arguments, **keywords: sys.exit(0))
    with pytest.raises(EnvError, match=re.escape("called sys.exit(0); expected it to return")):
        getattr(env, call)(*([0] if call == "step" else []))


@pytest.mark.parametrize("from_pixels", [False, True])
def test_made_environments_are_checked_and_their_observations_copied(from_pixels, monkeypatch):
    env = make_toy(from_pixels=from_pixels, height=30, width=40)
    frame = np.ascontiguousarray(FRAME.transpose(2, 0, 1))  # a renderer's own buffer
    monkeypatch.setattr(env.unwrapped, "render", lambda: frame.transpose(1, 2, 0))
    first, _ = env.reset()
    copy = first.copy()
    env.unwrapped.last_observation[:] = frame[:] = 0
    np.testing.assert_array_equal(first, copy)
    monkeypatch.setattr(env.unwrapped, "step", lambda action: tuple((GOOD | {"reward": math.nan}).values()))
    with pytest.raises(EnvError, match="the reward nan"):
        env.step(env.action_space.sample())


# Saving between episodes


@pytest.mark.parametrize("task_name", ["CartPole-v1", "Pendulum-v1", "MountainCar-v0"])
def test_random_state_of_environment_and_actions_is_restored(task_name):
    """The tasks have discrete and continuous actions."""
    assert goes_on(*(make(seed=seed, benchmark="gym", task_name=task_name, from_pixels=False) for seed in (1, 2)))


class Drifting(Toy):
    """Has a state besides `np_random` that lasts over episodes."""

    episodes = np.zeros(3)

    def _observe(self):
        if not self.actions:
            self.episodes = self.episodes + self.np_random.random(3)
        return self.episodes


class Remembering(Drifting):
    def state_dict(self):
        return {"episodes": self.episodes}

    def load_state_dict(self, state):
        self.episodes = np.array(state["episodes"])


@pytest.mark.parametrize("kind, expected", [(Drifting, False), (Remembering, True)])
def test_state_dict_of_an_environment_is_used_if_it_has_one(kind, expected):
    envs = [Resumable(VectorObservation(ActionRepeat(kind(), 1))) for _ in range(2)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
        env.action_space.seed(seed)
    assert goes_on(*envs) == expected
    assert (envs[0].state_dict()["environment"] is None) == (kind is Drifting)


def test_saved_state_is_not_changed_by_later_steps():
    env = make(benchmark="gym", task_name="Pendulum-v1", from_pixels=False)
    state = env.state_dict()
    copy = copy_to_cpu(state)
    play(env)
    assert copy_to_cpu(state) == copy != copy_to_cpu(env.state_dict())

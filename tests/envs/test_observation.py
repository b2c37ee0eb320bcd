"""Observation spaces: which parts are images, how a run describes them, and which spaces are refused."""

from types import SimpleNamespace

import gym
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.envs.images import ImageObservation
from dreamer.envs.observation import MOST_NUMBERS, hints, layout, split
from dreamer.envs.wrappers import VectorObservation
from dreamer.errors import EnvError
from tests.envs.toy import Toy, make_toy


def pixels(*shape, high=255):
    return spaces.Box(0, high, shape, np.uint8)


PICTURES = [(pixels(84, 84, 3), "HWC"), (pixels(84, 84), "HW"), (pixels(4, 84, 84), "CHW"), (pixels(1, 8, 9), "CHW")]
PICTURES += [
    (pixels(8, 8, 4), "HWC"),
    (pixels(8, 8), "HW"),
    (pixels(64, 48, 12), "HWC"),
    (pixels(16, 16, 1, high=1), "HWC"),
]
OTHERS = [pixels(7, 84, 3), pixels(3, 84, 3), pixels(5, 84, 84), pixels(16, 64, 64), pixels(4, 96, 96, 3), pixels(128)]
OTHERS += [pixels(8, 8, high=12), pixels(8, 8, 5), spaces.Box(0, 1, (84, 84, 3)), spaces.MultiBinary((64, 64))]


@pytest.mark.parametrize("space, axes", PICTURES + [(space, None) for space in OTHERS], ids=str)
def test_layout_recognizes_images(space, axes):
    assert layout(space) == axes


@pytest.mark.parametrize("axes", ["HWC", "CHW", "HW"])
@pytest.mark.parametrize("sides", [(12, 20), (24, 40)])
def test_images_of_every_layout_become_channels_first(axes, sides):
    """An image of the right size is unchanged; resizing keeps height and width in their order."""
    frame = np.zeros((12, 20, 3), np.uint8)
    frame[:6], frame[..., 1] = 200, 50
    observation = {"HWC": frame, "CHW": frame.transpose(2, 0, 1), "HW": frame[..., 0]}[axes]
    env = ImageObservation(Toy(observation_space=pixels(*observation.shape)), *sides)
    observed = env.observation(observation)
    assert (
        observed.shape == env.observation_space.shape == (1 if axes == "HW" else 3, *sides)
        and observed.dtype == np.uint8
    )
    half = sides[0] // 2
    assert (observed[0, : half - 1] == 200).all() and (observed[0, half + 1 :] == 0).all()
    assert axes == "HW" or (observed[1] == 50).all()
    assert sides == (24, 40) or (observed == (frame[None, ..., 0] if axes == "HW" else frame.transpose(2, 0, 1))).all()
    observed[:] = 1
    assert frame.max() == 200, "it is a copy"


NESTED = spaces.Dict(
    robot=spaces.Dict(camera=pixels(4, 16, 16), joints=spaces.Box(-1, 1, (2,))),
    pair=spaces.Tuple([spaces.Discrete(3), pixels(16, 16)]),
)


def test_images_of_nested_parts_are_stacked():
    env = ImageObservation(Toy(observation_space=NESTED), 16, 16)
    space = env.observation_space
    assert space["image"].shape == (5, 16, 16) and space["vector"].shape == (5,)
    observation = NESTED.sample()
    observed = env.observation(observation)
    assert (observed["image"][0] == observation["pair"][1]).all() and (
        observed["image"][1:] == observation["robot"]["camera"]
    ).all()
    expected = [*np.eye(3)[observation["pair"][0]], *observation["robot"]["joints"]]
    np.testing.assert_array_equal(observed["vector"], np.float32(expected))


def test_vector_of_nested_parts_equals_gyms_flatten():
    """The order of keys does not matter, so trained agents keep working."""
    inner = spaces.Dict([("z", spaces.Box(-9, 9, (2, 2), int)), ("a", spaces.Discrete(4, start=2))])
    space = spaces.Dict([("y", spaces.Tuple([inner, spaces.MultiDiscrete([2, 3])])), ("b", spaces.MultiBinary(3))])
    env, observation = VectorObservation(Toy(observation_space=space)), space.sample()
    np.testing.assert_array_equal(env.observation(observation), spaces.flatten(space, observation).astype(np.float32))


# Descriptions


def test_description_names_every_part_and_its_encoding():
    gymnasium.register("ToyNested-v0", entry_point=Toy, kwargs={"observation_space": NESTED})
    pictures, numbers = make_toy("ToyNested-v0").description
    assert pictures == (
        "pictures    pair/1 uint8 (16, 16) grey, robot/camera uint8 (4, 16, 16) channels first: "
        "seen as uint8 (5, 64, 64), by the convolutions"
    )
    assert numbers == (
        "numbers     pair/0 int64 (3,) one-hot, robot/joints float32 (2,): seen as float32 (5,), by the MLP"
    )
    assert make_toy().description == ["numbers     observation float64 (3,): seen as float32 (3,), by the MLP"]
    (rendered,) = make_toy(from_pixels=True, grayscale=True, width=32).description
    assert rendered == "pictures    what the environment renders: seen as uint8 (1, 64, 32), by the convolutions"


@pytest.mark.parametrize("space", [*OTHERS[3:5], OTHERS[-2], pixels(20, 20, 30)], ids=str)
def test_hint_is_given_for_spaces_that_look_like_images(space):
    (line,) = hints(split(spaces.Dict(front=space))[1])
    assert line.startswith("a picture?  front ") and "as uint8 from 0 to 255, height x width x channels" in line


@pytest.mark.parametrize("space", [*(space for space, _ in PICTURES), pixels(8, 8, high=12), spaces.Box(0, 1, (9, 9))])
def test_no_hint_for_other_spaces(space):
    assert not hints(split(space)[1])


# Refused spaces

# Both libraries have these kinds of spaces.
UNUSABLE = {
    "the observation space is None; expected a space": lambda spaces: None,
    "the observation space is 3; expected a space": lambda spaces: 3,
    "the observation space, sea/lost: Box": lambda spaces: spaces.Dict(
        sea=spaces.Dict(lost=spaces.Box(0, 1, (0, 3))), line=spaces.Box(-1.0, 1.0, (3,))
    ),
    "the observation space: Dict() holds nothing": lambda spaces: spaces.Dict(),
    "the observation space, b: Tuple() holds nothing": lambda spaces: spaces.Dict(
        a=spaces.Box(-1.0, 1.0, (3,)), b=spaces.Tuple([])
    ),
    "1,000,003 numbers, 1,000,000 of them from goal, Discrete(1000000)": lambda spaces: spaces.Dict(
        goal=spaces.Discrete(10**6), a=spaces.Box(-1.0, 1.0, (3,))
    ),
    "13,835,058,055,282,163,712 numbers": lambda spaces: spaces.MultiDiscrete([2**62] * 3),
    "the observation space, some is Sequence(": lambda spaces: spaces.Dict(some=spaces.Sequence(spaces.Discrete(2))),
    "the observation space is Text(": lambda spaces: spaces.Text(5),
    "the observation space, words is Text(": lambda spaces: spaces.Dict(words=spaces.Text(5)),
    "the observation space, 0 is Text(": lambda spaces: spaces.Tuple([spaces.Text(5)]),
}
GYMS = {  # gymnasium cannot create these spaces
    "the observation space, a: Box((-1+0j), (1+0j), (2,), complex64) holds complex64": lambda spaces: spaces.Dict(
        a=spaces.Box(-1, 1, (2,), np.complex64)
    ),
    "goes from 2.0 to 1.0 at (1,); expected low <= high": lambda spaces: spaces.Box(
        np.float32([0, 2]), np.float32([1, 1])
    ),
    "goes from nan to 1.0 at (0, 0)": lambda spaces: spaces.Box(np.full((1, 1), np.nan), np.ones((1, 1))),
}


@pytest.mark.parametrize("message_part", UNUSABLE | GYMS)
def test_unusable_observation_spaces_are_refused(message_part, monkeypatch):
    for library in (gymnasium, gym) if message_part in UNUSABLE else (gym,):
        space = (UNUSABLE | GYMS)[message_part](library.spaces)
        assert message_part in refusal_message(monkeypatch, library, observation_space=space)


FLOAT = np.finfo(np.float64).max
ACTIONS_REFUSED = {
    "component 1: -60000.0 to 60000.0 is more than a float16 can span": lambda spaces: spaces.Box(
        np.float16([0, -6e4]), np.float16([1, 6e4]), dtype=np.float16
    ),
    "is more than a float64 can span; narrow the bounds": lambda spaces: spaces.Box(-FLOAT, FLOAT, (1,), np.float64),
    ", (0,), float32)": lambda spaces: spaces.Box(0, 1, (0,)),
    "of 1 to 65,536 numbers in all, not Discrete(1000000000)": lambda spaces: spaces.Discrete(10**9),
    "of 1 to 65,536 numbers in all, not MultiBinary": lambda spaces: spaces.MultiBinary(2**40),
    "actions, 'arm', 1 must be": lambda spaces: spaces.Dict(
        arm=spaces.Tuple([spaces.Discrete(2), spaces.Box(-9, 9, (1,), int)])
    ),
    "not Dict()": lambda spaces: spaces.Dict({}),
    "not None": lambda spaces: None,
}
GYMS_ACTIONS = {  # gymnasium makes no such space
    "the action space: Box(2.0, 1.0, (1,), float32) goes from 2.0 to 1.0": lambda spaces: spaces.Box(2, 1, (1,)),
}


@pytest.mark.parametrize("message_part", ACTIONS_REFUSED | GYMS_ACTIONS)
def test_unusable_action_spaces_are_refused(message_part, monkeypatch):
    for library in (gymnasium, gym) if message_part in ACTIONS_REFUSED else (gym,):
        space = (ACTIONS_REFUSED | GYMS_ACTIONS)[message_part](library.spaces)
        assert message_part in refusal_message(monkeypatch, library, action_space=space)


def refusal_message(monkeypatch, library, **declared):
    """Return the error message for an environment of `library` with these spaces."""

    class Declared(library.Env):
        spec = SimpleNamespace(max_episode_steps=None)
        observation_space, action_space = library.spaces.Box(-1.0, 1.0, (3,)), library.spaces.Discrete(2)

    env = Declared()
    vars(env).update(declared)
    monkeypatch.setattr(library, "make", lambda task_name, **keywords: env)
    with pytest.raises(EnvError) as caught:
        make_toy(benchmark=library.__name__)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    return line


def test_images_with_too_many_channels_are_refused():
    too_many_channels = spaces.Dict({str(number): pixels(32, 32, 32) for number in range(33)})
    with pytest.raises(EnvError, match="pictures of 1056 channels of 64x64 pixels in all; at most 1024"):
        ImageObservation(Toy(observation_space=too_many_channels), 64, 64)


def test_largest_allowed_spaces_are_accepted():
    for space in (spaces.Box(-np.inf, np.inf, (MOST_NUMBERS,)), spaces.Discrete(MOST_NUMBERS)):
        assert VectorObservation(Toy(observation_space=space)).observation_space.shape == (MOST_NUMBERS,)

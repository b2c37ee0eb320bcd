"""Observations in parts, an image and a vector, on their way from the environment to a batch and to the screen."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image

from dreamer.algorithms.prediction import image_of
from dreamer.build import build_replay
from dreamer.config.load import load_config
from dreamer.envs.images import ImageObservation
from dreamer.envs.make import make_train_env
from dreamer.envs.wrappers import Checked
from dreamer.errors import EnvError
from dreamer.replay.buffer import ReplayBuffer, observation_type
from dreamer.tools.play import as_batch, film
from dreamer.training.collect import run_episode, run_episodes
from dreamer.training.cuda_graph import to_device
from dreamer.training.evaluation import EvaluationRequest, Evaluator
from dreamer.training.video import prediction_frames, to_rgb
from tests.envs.toy import OTHERS, PICTURES, Toy, make_toy

# What the environment shows


def resized(image, height, width):
    return np.stack(
        [np.asarray(Image.fromarray(plane).resize((width, height), 2)) for plane in image.transpose(2, 0, 1)]
    )


def test_dictionary_becomes_an_image_and_a_vector():
    """Each in the alphabetical order of the keys; what is discrete is one-hot."""
    env = make_toy("ToyMixed-v0", height=16, width=20)
    image, vector = env.observation_space["image"], env.observation_space["vector"]
    assert (image.shape, image.dtype, vector.shape, vector.dtype) == ((4, 16, 20), np.uint8, (2 + 3 + 4,), np.float32)
    for call in (env.reset, lambda: env.step(env.action_space.sample())):
        observation = call()[0]
        original = env.unwrapped.last_observation
        assert observation in env.observation_space and list(observation) == ["image", "vector"]
        assert (observation["image"][:1] == resized(original["back"], 16, 20)).all()
        assert (observation["image"][1:] == resized(original["front"], 16, 20)).all()
        mode = np.eye(3)[original["mode"]]
        expected = np.concatenate([original["lamps"], mode, original["position"].ravel()])
        assert (observation["vector"] == expected.astype(np.float32)).all()


def test_parts_are_in_alphabetical_order():
    parts = {"b": spaces.Box(0, 255, (16, 16, 1), np.uint8), "d": spaces.Discrete(2), "a": spaces.Box(0, 1, (4, 4, 1))}
    parts |= {"c": spaces.Box(0, 255, (16, 16, 1), np.uint8)}
    one, other = (spaces.Dict(list(items)) for items in (parts.items(), reversed(parts.items())))
    sample = one.sample()
    seen = [ImageObservation(Toy(observation_space=space), 16, 16).observation(sample) for space in (one, other)]
    assert all((seen[0][key] == seen[1][key]).all() for key in ("image", "vector"))
    assert (seen[0]["image"] == np.stack([sample["b"][..., 0], sample["c"][..., 0]])).all()
    assert (seen[0]["vector"] == [*sample["a"].ravel(), *np.eye(2)[sample["d"]]]).all()


@pytest.mark.parametrize("name, channels", [("ToyPicture-v0", 3), ("ToyPictures-v0", 4)])
def test_images_alone_are_pixels(name, channels):
    env = make_toy(name, height=30, width=40)
    observation, _ = env.reset()
    assert env.observation_space == spaces.Box(0, 255, (channels, 30, 40), np.uint8) and observation.dtype == np.uint8
    original = env.unwrapped.last_observation
    front = original if channels == 3 else original["front"]
    assert (observation[-3:] == front.transpose(2, 0, 1)).all(), "of the right size it is left alone"


def test_spaces_that_are_no_images_become_vectors():
    """Other types, what is smaller than a picture, and small maps of symbols, of which there are fewer than 256."""
    floats, flat = spaces.Box(0, 1, (4, 4, 3)), spaces.Box(0, 255, (4, 4), np.uint8)
    symbols = spaces.Box(0, 20, (15, 20, 1), np.uint8)
    both = spaces.Dict(floats=floats, flat=flat, symbols=symbols)
    gymnasium.register("ToyNoImage-v0", entry_point=Toy, kwargs={"observation_space": both})
    env = make_toy("ToyDict-v0"), make_toy("ToyNoImage-v0").reset()[0]
    assert env[0].observation_space.shape == (7,) and env[1].shape == (48 + 16 + 300,)


def test_observation_is_a_copy():
    env = make_toy("ToyMixed-v0", height=8, width=6)
    observation, _ = env.reset()
    kept = {key: part.copy() for key, part in observation.items()}
    for key in ("front", "back", "position"):
        env.unwrapped.last_observation[key][...] = 0
    assert all((observation[key] == kept[key]).all() for key in kept)


SPACE = spaces.Dict(PICTURES | OTHERS)
WRONG = [{"front": np.zeros((3, 30, 40), np.uint8)}, {"front": np.full((30, 40, 3), 0.5)}, {"back": None}, {"mode": 3}]
WRONG += [{"position": np.full((2, 2), np.nan)}, {"front": np.full((30, 40, 3), 256)}]
WRONG += [{"front": np.ma.masked_less(np.zeros((30, 40, 3), np.uint8), 9)}, {"front": np.zeros((30, 40, 3), complex)}]
WRONG += [{"position": np.zeros((2, 2), complex)}, {"position": np.ma.masked_less(np.zeros((2, 2)), 1)}]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_invalid_parts_of_an_observation_are_refused(wrong):
    env = Checked(Toy(observation_space=SPACE))
    env.reset()
    right = SPACE.sample()
    env.checked("step", right | {"front": right["front"].astype(int)}, {})
    with pytest.raises(EnvError, match="gave the observation"):
        env.checked("step", right | wrong, {})
    picture = Checked(Toy(observation_space=PICTURES["front"]))
    with pytest.raises(EnvError, match="gave the observation"):
        picture.checked("step", np.zeros((30, 40, 4), np.uint8), {})


# Replay and collection


class Parts(gymnasium.Env):
    """Shows its step in an image of some channels, and in a vector a tenth of it; five steps."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    max_agent_steps = 5

    def __init__(self, channels=3):
        image = spaces.Box(0, 255, (channels, 8, 8), np.uint8)
        self.observation_space = spaces.Dict(image=image, vector=spaces.Box(-1, 1, (2,)))

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        return self.observe(), 0.0, False, self.count == 5, {"env_steps": 1}

    def observe(self):
        shape = self.observation_space["image"].shape
        return {"image": np.full(shape, self.count, np.uint8), "vector": np.full(2, self.count / 10, np.float32)}

    def render(self):
        return np.full((8, 8, 3), 99, np.uint8)

    def state_dict(self):
        return {}

    def load_state_dict(self, state): ...


def still(step):
    """A policy."""
    return np.zeros((*np.shape(step.is_first), 1), np.float32)


@pytest.mark.parametrize("segment", [4, 4096])
def test_both_parts_are_stored_and_sampled(segment, tmp_path, monkeypatch):
    monkeypatch.setattr("dreamer.replay.buffer.SEGMENT", segment)
    env, config = Parts(), load_config("dreamer")
    replay = build_replay(config, env, tmp_path, seed=0)
    for _ in range(4):
        for step in run_episode(env, still):
            replay.add(step)
    batch = to_device(replay.sample(50, 5), torch.device("cpu"))
    image, vector = batch.observation["image"], batch.observation["vector"]
    assert (image.shape, image.dtype) == ((50, 5, 3, 8, 8), torch.uint8)
    assert (vector.shape, vector.dtype) == ((50, 5, 2), torch.float32)
    torch.testing.assert_close(vector, image[..., 0, 0, :2] / 10)
    assert ((image[:, :, 0, 0, 0] == 0) == batch.is_first.bool()).all() and len(image.unique()) == 6
    first = batch.rows(torch.tensor([3, 4])).first_steps(2)
    assert (first.observation["image"] == image[3:5, :2]).all() and first.action.shape == (2, 2, 1)

    state, expected = replay.state_dict(), replay.read([0], 24).observation
    other = ReplayBuffer(tmp_path, 10**6, *observation_type(env.observation_space), 1, seed=1)
    other.load_state_dict(state)
    assert all((other.read([0], 24).observation[key] == expected[key]).all() for key in expected)


def test_parallel_environments_show_both_parts():
    settings = load_config("dreamer").environment | {
        "benchmark": "gymnasium",
        "task_name": "tests.envs.toy:ToyMixed-v0",
    }
    settings |= {"from_pixels": False, "num_envs": 2, "height": 8, "width": 6, "frame_skip": 1}
    env = make_train_env(settings, 0)
    try:
        seen = []
        episodes = list(run_episodes(env, lambda step: seen.append(step) or env.sample_actions(), 2))
        assert env.observation_space["image"].shape == seen[0].observation["image"].shape[1:] == (4, 8, 6)
        assert [len(episode) for episode in episodes] == [6, 6]
        for number, episode in enumerate(episodes):
            for step, both in zip(episode, seen, strict=False):
                assert step.observation["vector"].shape == (9,) and step.observation["image"].dtype == np.uint8
                assert all((step.observation[key] == both.observation[key][number]).all() for key in step.observation)
    finally:
        env.close()


# On the screen


def test_images_with_one_or_three_channels_can_be_shown():
    colours, grey, four = (np.zeros((channels, 4, 4), np.uint8) for channels in (3, 1, 4))
    vector = np.zeros(3, np.float32)
    assert image_of(colours) is colours and image_of({"image": grey, "vector": vector}) is grey
    assert image_of(four) is None and image_of({"image": four, "vector": vector}) is None and image_of(vector) is None
    assert image_of(torch.zeros(1, 3, 4), axes=2) is None and image_of(torch.zeros(1, 3, 4, 4, 4), axes=2) is None
    assert image_of({"image": torch.zeros(2, 3, 1, 4, 4)}, axes=2).shape == (2, 3, 1, 4, 4)
    assert to_rgb(grey + np.uint8(7)).shape == (4, 4, 3) and (to_rgb(grey + np.uint8(7)) == 7).all()
    assert to_rgb(np.zeros((5, 3, 4, 6))).shape == (5, 4, 6, 3)
    truth = np.zeros((2, 5, 1, 8, 8), np.uint8)
    assert (
        prediction_frames(truth, truth, 2).shape == prediction_frames(truth.repeat(3, 2), truth.repeat(3, 2), 2).shape
    )


@pytest.mark.parametrize("channels, filmed", [(3, True), (1, True), (4, False)])
def test_evaluation_films_images_that_can_be_shown(channels, filmed, monkeypatch):
    monkeypatch.setattr("dreamer.training.evaluation.Policy", lambda model, actor, noise: still)
    evaluator = Evaluator(Parts(channels), torch.nn.Identity(), torch.nn.Identity(), 0)
    evaluation, _ = evaluator.play({}, EvaluationRequest({"model": {}, "actor": {}}, 1, 0, 2, film=True))
    if filmed:
        assert evaluation.frames.shape == (6, 8, 8, 3) and (evaluation.frames[:, 0, 0, 1] == range(6)).all()
    else:
        assert evaluation.frames is None


class Mirror(torch.nn.Module):
    """A world model that reconstructs the image that it sees, and imagines the next shade."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rssm = self

    def encode(self, observation):
        return observation, observation

    def observe(self, embedding, action, is_first, latent):
        assert embedding["vector"].shape[:2] == action.shape[:2] == is_first.shape
        assert is_first.dtype == torch.float32
        return None, Shades(embedding["image"].float())

    def imagine(self, state, action):
        return Shades(state.feature[:, None] + torch.arange(1, action.shape[1] + 1)[None, :, None, None, None])

    def decoder(self, feature):
        self.mean = {"image": feature, "vector": feature.mean((2, 3))}
        return self

    def to_pixels(self, image):
        return image.byte()


class Shades:
    def __init__(self, feature):
        self.feature = feature

    def last(self):
        return Shades(self.feature[:, -1])


def test_film_shows_the_image_among_the_parts():
    steps = list(run_episode(Parts(1), still))
    panels = film(Mirror(), steps, None)
    assert [panel.shape for panel in panels.values()] == 3 * [(6, 8, 8, 3)]
    assert all((panel[:, 2, 2, 2] == range(6)).all() for panel in panels.values())
    rendered = np.zeros((6, 8, 8, 3))
    assert film(Mirror(), list(run_episode(Parts(4), still)), rendered)["episode"] is rendered
    window = as_batch(steps, torch.device("cpu"))
    assert window.observation["vector"].shape == (1, 6, 2) and window.latent.shape[-1] == 0

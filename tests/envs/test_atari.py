"""Real games, frame by frame beside a second emulator that is stepped by hand."""

import sys
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from dreamer.config.load import load_config
from dreamer.config.names import tasks_of
from dreamer.envs.actions import classes_of
from dreamer.envs.make import make_train_env
from dreamer.errors import EnvError
from dreamer.training.collect import run_episode, run_episodes
from tests.envs.playing import goes_on, random_episode
from tests.envs.toy import make, run_python

ale_py = pytest.importorskip("ale_py")
GAMES = tasks_of("atari")
RAW = {"noops": 0, "sticky_actions": 0.0}  # what happens follows from the actions alone
LARGE = {"height": 210, "width": 160}  # the console's own size: nothing is resized


def atari(game="pong", **settings):
    return make("atari", task_name=game, **settings)


class Emulator:
    """Plays beside an environment with what ale-py offers, and keeps the screens."""

    def __init__(self, game="pong"):
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(ale_py.roms.get_rom_path(game))
        self.actions, self.screens = self.ale.getMinimalActionSet(), [self.ale.getScreenRGB()]

    def act(self, action, frames):
        """As often as there are frames, or until the game is over. Returns the reward."""
        total = 0
        for _ in range(frames):
            if not self.ale.game_over():
                total += self.ale.act(self.actions[np.argmax(action)])
                self.screens.append(self.ale.getScreenRGB())
        return total


class Spied:
    """An emulator that notes the actions that it gets."""

    def __init__(self, ale):
        self.ale, self.done = ale, []

    def __getattr__(self, name):
        return getattr(self.ale, name)

    def act(self, action):
        self.done.append(action)
        return self.ale.act(action)


def spied(env):
    env.unwrapped.ale = Spied(env.unwrapped.ale)
    return env.unwrapped.ale


# Frames


@pytest.mark.parametrize("frame_skip", [4, 1, 3])
def test_a_frame_is_the_maximum_of_the_last_two_to_the_end_of_the_game(frame_skip):
    """A game of Breakout, which may end within a repeat. The frame before may be of the decision before."""
    env, emulator, differ = atari("breakout", frame_skip=frame_skip, **RAW, **LARGE), Emulator("breakout"), 0
    for step in islice(random_episode(env), 1500):
        reward = 0 if step.is_first else emulator.act(step.action, frame_skip)
        expected = np.maximum(*emulator.screens[-2:]) if len(emulator.screens) > 1 else emulator.screens[0]
        np.testing.assert_array_equal(step.observation, expected.transpose(2, 0, 1))
        differ += (expected != emulator.screens[-1]).any()
        assert step.reward == reward and step.is_terminal == emulator.ale.game_over()
    assert step.is_terminal and differ > 100
    assert len(emulator.screens) - 1 == emulator.ale.getEpisodeFrameNumber()


def test_a_real_end_within_a_repeat():
    """No frame is missed and none is counted that was not played."""
    lengths = set()
    for seed in range(3):
        steps = list(random_episode(atari("breakout", seed=seed, frame_skip=4, from_pixels=False)))
        assert steps[-1].is_terminal and all(step.env_steps == 4 for step in steps[1:-1])
        lengths.add(steps[-1].env_steps)
    assert len(lengths) > 1


def test_frames_are_resized_after_the_maximum():
    env, emulator = atari(**RAW, height=64, width=96), Emulator()
    for step in islice(random_episode(env), 20):
        if not step.is_first:
            emulator.act(step.action, 4)
    largest = Image.fromarray(np.maximum(*emulator.screens[-2:]))
    expected = np.asarray(largest.resize((96, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(step.observation, expected.transpose(2, 0, 1))


@pytest.mark.parametrize("noops", [0, 1])
def test_no_frame_before_the_first_one_is_seen(noops):
    """Neither a black one nor the last one of the game before."""
    env = atari(**RAW | {"noops": noops}, **LARGE)
    emulator = Emulator()
    emulator.act([1, 0], noops)
    first = np.max(emulator.screens, 0).transpose(2, 0, 1)
    for _ in range(2):
        np.testing.assert_array_equal(env.reset()[0], first)
        for _ in islice(random_episode(env), 40):
            continue


def test_grey_is_the_brightness_of_the_resized_colours():
    (grey, colours) = (
        [step.observation for step in islice(random_episode(atari("qbert", grayscale=choice)), 30)]
        for choice in (True, False)
    )
    for dim, bright in zip(grey, colours, strict=True):
        assert (dim.shape, dim.dtype) == ((1, 64, 64), np.uint8)
        np.testing.assert_array_equal(dim[0], np.round(np.tensordot([0.299, 0.587, 0.114], bright, 1)))
    assert atari(grayscale=True).observation_space.shape == (1, 64, 64)
    assert (bright[0] != bright[1]).any()


def test_without_pixels_the_memory_is_observed():
    env, emulator = atari(from_pixels=False, **RAW), Emulator()
    for step in islice(random_episode(env), 50):
        if not step.is_first:
            emulator.act(step.action, 4)
        assert (step.observation.shape, step.observation.dtype) == ((128,), np.float32)
        np.testing.assert_array_equal(step.observation, emulator.ale.getRAM())


def test_every_name_is_that_of_a_game():
    assert set(GAMES.values()) <= set(ale_py.roms.get_all_rom_ids())


@pytest.mark.parametrize("name", ["atari-bank-heist", "atari-ms-pacman", "atari-surround", "atari-zaxxon"])
def test_a_game_begins(name):
    env = make(name)
    first, _ = env.reset()
    assert first in env.observation_space and first.std() > 5 and len(classes_of(env.action_space)) == 1
    assert name == "atari-" + load_config(name).environment.task_name.replace("_", "-")


# Actions


@pytest.mark.parametrize("sticky, games", [(0.25, 5), (0.6, 1), (0.0, 1)])
def test_actions_stick(sticky, games):
    """In 10,000 frames, with the default: what is done is what is asked for, or with that probability what was done in
    the frame before, whether that was asked for then or not; before the first, nothing."""
    env = atari(from_pixels=False, sticky_actions=sticky, frame_skip=1)
    emulator, actions, stuck, could = spied(env), Emulator().actions, 0, 0
    for _ in range(games):
        for step in islice(random_episode(env), 2001):
            if step.is_first:
                before = actions[0]
                assert set(emulator.done) == {before}
            else:
                asked, done = actions[np.argmax(step.action)], emulator.done[-1]
                assert done in (asked, before)
                could, stuck, before = could + (asked != before), stuck + (asked != done), done
        assert step.env_steps == 1
        emulator.done.clear()
    assert abs(stuck / could - sticky) < 4 * np.sqrt(sticky * (1 - sticky) / could) + 1e-9


def test_actions_stick_in_each_frame_of_a_repeat():
    """So in a repeat of four there are all ways to go over from one action to another."""
    env = atari(from_pixels=False)
    emulator, ways = spied(env), set()
    env.reset()
    for action in np.eye(6, dtype=np.float32)[[2, 3] * 100]:
        emulator.done.clear()
        env.step(action)
        ways.add(tuple(done == emulator.ale.getMinimalActionSet()[np.argmax(action)] for done in emulator.done))
    late = {(False,) * count + (True,) * (4 - count) for count in range(4)}
    assert late <= ways <= late | {4 * (False,)}


def test_the_first_action_may_stick_to_nothing():
    env = atari(from_pixels=False, frame_skip=1, sticky_actions=0.5)
    emulator, first = spied(env), set()
    for _ in range(20):
        env.reset()
        env.step(np.eye(6)[2])
        first.add(emulator.done[-1].value)
    assert first == {0, 3}


def test_a_game_begins_with_frames_in_which_nothing_is_done():
    """As many as may be, one at least, as the environment's own random numbers say."""
    env = atari("pong", noops=6, from_pixels=False)
    emulator, beside, counts = spied(env), {}, []
    for _ in range(60):
        emulator.done.clear()
        memory, _ = env.reset()
        assert {action.value for action in emulator.done} == {0}
        counts.append(len(emulator.done))
        np.testing.assert_array_equal(memory, beside.setdefault(counts[-1], memory))
    assert set(counts) == set(range(1, 7)) and len(np.unique(list(beside.values()), axis=0)) == 6
    assert atari(noops=0, from_pixels=False).reset()[0].tolist() == Emulator().ale.getRAM().tolist()


@pytest.mark.parametrize("full, size", [(False, 6), (True, 18)])
def test_the_games_own_actions_or_all(full, size):
    env = atari(full_action_set=full, frame_skip=1, from_pixels=False, **RAW)
    emulator = spied(env)
    assert env.action_space.shape == (size,)
    for action in np.eye(size):
        env.step(action)
    done = [action.value for action in emulator.done]
    assert done == ([*range(18)] if full else [0, 1, 3, 4, 11, 12])


# Ends


def test_the_clock_truncates_and_is_no_end():
    env = atari(from_pixels=False, time_limit=10)
    for _ in range(2):
        steps = list(random_episode(env))
        assert [step.env_steps for step in steps] == [0, 4, 4, 2] and env.max_agent_steps == 3
        assert not any(step.is_terminal for step in steps)


def test_a_game_that_ends_on_time_is_terminal():
    def end(**settings):
        env = atari("breakout", from_pixels=False, frame_skip=1, **settings)
        terminated = truncated = False
        frames = 0
        while not (terminated or truncated):
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            frames += 1
        return frames, terminated, truncated

    frames, *how = end()
    assert how == [True, False] and frames < 4000
    assert end(time_limit=frames) == (frames, True, False)
    assert end(time_limit=frames - 1) == (frames - 1, False, True)


@pytest.mark.parametrize("ends", [True, False])
def test_a_life_ends_the_episode_only_if_it_is_to(ends):
    env = atari("breakout", terminal_on_life_loss=ends, from_pixels=False)
    for _ in range(2):
        env.reset()
        assert env.unwrapped.ale.lives() == 5, "a new game"
        terminated = False
        while env.unwrapped.ale.lives() == 5 and not terminated:
            *_, terminated, truncated, info = env.step(env.action_space.sample())
        assert (terminated, truncated) == (ends, False) and env.unwrapped.ale.lives() == 4


# Between two games


@pytest.mark.parametrize("game", ["pong", "assault", "kung_fu_master"])
def test_games_go_on_from_a_saved_state(game):
    """Frame by frame, with sticky actions; the last two remember games beyond a reset of the console."""
    envs = (atari(game, seed=seed, time_limit=300, height=16, width=16) for seed in (1, 2))
    assert goes_on(*envs, steps=None)


def test_several_at_a_time():
    """Each in a process of its own, the same as alone."""
    config = load_config("atari", ["environment.num_envs=2", "environment.time_limit=40", "environment.grayscale=True"])
    with closing(make_train_env(config.environment, 0)) as envs:
        assert type(envs).__name__ == "ParallelEnvs" and type(envs.vector).__name__ == "Workers"
        actions = np.eye(6, dtype=np.float32)[[2, 3]]
        played = [list(episode) for episode in run_episodes(envs, lambda step: actions, 2)]
    seeds = (np.random.SeedSequence(0).generate_state(3)[[0, 2]] % 2**31).tolist()
    for seed, action, steps in zip(seeds, actions, played, strict=True):
        alone = run_episode(atari(seed=seed, time_limit=40, grayscale=True), lambda step, action=action: action)
        for step, expected in zip(steps, alone, strict=True):
            np.testing.assert_array_equal(step.observation, expected.observation)
    assert (played[0][-1].observation != played[1][-1].observation).any()


# What cannot be had


@pytest.mark.parametrize(
    "game, words",
    [
        ("pongg", "there is no Atari game 'pongg' in ale-py; did you mean pong"),
        ("MsPacman", "did you mean ms_pacman"),
        ("walk", "there is no Atari game 'walk'"),
        ("joust", "the Atari game 'joust' is for two players"),
    ],
)
def test_games_that_cannot_be_played(game, words, capfd):
    with pytest.raises(EnvError, match=f"^environment.task_name: .*{words}") as caught:
        atari(game)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_game_whose_file_is_missing(monkeypatch, tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        monkeypatch.setenv("ALE_ROMS_DIR", str(folder))
        with pytest.raises(EnvError, match=f"the file of the Atari game 'pong' cannot be read: .*{folder.name}"):
            atari()


def test_without_ale_py_a_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(EnvError) as caught:
        atari()
    message = str(caught.value)
    assert message.startswith("environment.benchmark: atari needs ale-py, which is not installed: ")
    command = message.split(": ")[-1].split()
    assert command == [sys.executable, "-m", "pip", "install", "ale-py"] and "\n" not in message


def test_the_emulator_says_nothing():
    """In a process of its own: what it says is decided once for all emulators."""
    keys = "noops", "sticky_actions", "full_action_set", "terminal_on_life_loss", "time_limit"
    settings = {key: load_config("atari").environment[key] for key in keys}
    code = f"from dreamer.envs.atari import make_atari; make_atari('pong', renders=True, **{settings}).reset()"
    child = run_python("-c", code)
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")

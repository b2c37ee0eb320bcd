"""Atari games, compared frame by frame with a second emulator that the tests step."""

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
RAW = {"noops": 0, "sticky_actions": 0.0}  # the game depends on the actions only
LARGE = {"height": 210, "width": 160}  # the console's screen size, so frames are not resized


def atari(game="pong", **settings):
    return make("atari", task_name=game, **settings)


class Emulator:
    """Uses ale-py directly and keeps all screens."""

    def __init__(self, game="pong"):
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(ale_py.roms.get_rom_path(game))
        self.actions, self.screens = self.ale.getMinimalActionSet(), [self.ale.getScreenRGB()]

    def act(self, action, frames):
        """Repeat an action for a number of frames or until the game is over. Return the reward."""
        total = 0
        for _ in range(frames):
            if not self.ale.game_over():
                total += self.ale.act(self.actions[np.argmax(action)])
                self.screens.append(self.ale.getScreenRGB())
        return total


class RecordingEmulator:
    """Wraps an emulator and records its actions."""

    def __init__(self, ale):
        self.ale, self.actions_done = ale, []

    def __getattr__(self, name):
        return getattr(self.ale, name)

    def act(self, action):
        self.actions_done.append(action)
        return self.ale.act(action)


def record_actions(env):
    env.unwrapped.ale = RecordingEmulator(env.unwrapped.ale)
    return env.unwrapped.ale


# Frames


@pytest.mark.parametrize("frame_skip", [4, 1, 3])
def test_a_frame_is_the_maximum_of_the_last_two_frames(frame_skip):
    """In Breakout a game may end within an action repeat. The earlier frame may belong to the previous action."""
    env, emulator, differing_frames = atari("breakout", frame_skip=frame_skip, **RAW, **LARGE), Emulator("breakout"), 0
    for step in islice(random_episode(env), 1500):
        reward = 0 if step.is_first else emulator.act(step.action, frame_skip)
        expected = np.maximum(*emulator.screens[-2:]) if len(emulator.screens) > 1 else emulator.screens[0]
        np.testing.assert_array_equal(step.observation, expected.transpose(2, 0, 1))
        differing_frames += (expected != emulator.screens[-1]).any()
        assert step.reward == reward and step.is_terminal == emulator.ale.game_over()
    assert step.is_terminal and differing_frames > 100
    assert len(emulator.screens) - 1 == emulator.ale.getEpisodeFrameNumber()


def test_a_game_may_end_within_an_action_repeat():
    """Exactly the played frames are counted."""
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
def test_no_frame_before_the_first_one_is_used(noops):
    """The first maximum uses neither a black frame nor the last frame of the previous game."""
    env = atari(**RAW | {"noops": noops}, **LARGE)
    emulator = Emulator()
    emulator.act([1, 0], noops)
    first = np.max(emulator.screens, 0).transpose(2, 0, 1)
    for _ in range(2):
        np.testing.assert_array_equal(env.reset()[0], first)
        for _ in islice(random_episode(env), 40):
            continue


def test_grey_is_the_luminance_of_the_resized_frame():
    (grey, colours) = (
        [step.observation for step in islice(random_episode(atari("qbert", grayscale=choice)), 30)]
        for choice in (True, False)
    )
    for dim, bright in zip(grey, colours, strict=True):
        assert (dim.shape, dim.dtype) == ((1, 64, 64), np.uint8)
        np.testing.assert_array_equal(dim[0], np.round(np.tensordot([0.299, 0.587, 0.114], bright, 1)))
    assert atari(grayscale=True).observation_space.shape == (1, 64, 64)
    assert (bright[0] != bright[1]).any()


def test_without_pixels_the_ram_is_observed():
    env, emulator = atari(from_pixels=False, **RAW), Emulator()
    for step in islice(random_episode(env), 50):
        if not step.is_first:
            emulator.act(step.action, 4)
        assert (step.observation.shape, step.observation.dtype) == ((128,), np.float32)
        np.testing.assert_array_equal(step.observation, emulator.ale.getRAM())


def test_every_task_name_is_a_game_of_ale_py():
    assert set(GAMES.values()) <= set(ale_py.roms.get_all_rom_ids())


@pytest.mark.parametrize("name", ["atari-bank-heist", "atari-ms-pacman", "atari-surround", "atari-zaxxon"])
def test_a_game_begins_with_a_valid_frame(name):
    env = make(name)
    first, _ = env.reset()
    assert first in env.observation_space and first.std() > 5 and len(classes_of(env.action_space)) == 1
    assert name == "atari-" + load_config(name).environment.task_name.replace("_", "-")


# Actions


@pytest.mark.parametrize("sticky, games", [(0.25, 5), (0.6, 1), (0.0, 1)])
def test_actions_stick_with_the_given_probability(sticky, games):
    """In each frame the emulator repeats its previous action with this probability, else it takes the requested one.
    Before the first frame the previous action is no-op."""
    env = atari(from_pixels=False, sticky_actions=sticky, frame_skip=1)
    emulator, actions, stuck, could_stick = record_actions(env), Emulator().actions, 0, 0
    for _ in range(games):
        for step in islice(random_episode(env), 2001):
            if step.is_first:
                before = actions[0]
                assert set(emulator.actions_done) == {before}
            else:
                asked, actions_done = actions[np.argmax(step.action)], emulator.actions_done[-1]
                assert actions_done in (asked, before)
                could_stick, stuck, before = (
                    could_stick + (asked != before),
                    stuck + (asked != actions_done),
                    actions_done,
                )
        assert step.env_steps == 1
        emulator.actions_done.clear()
    assert abs(stuck / could_stick - sticky) < 4 * np.sqrt(sticky * (1 - sticky) / could_stick) + 1e-9


def test_actions_stick_in_each_frame_of_a_repeat():
    """So within a repeat of four the change to a new action can happen at each frame."""
    env = atari(from_pixels=False)
    emulator, change_patterns = record_actions(env), set()
    env.reset()
    for action in np.eye(6, dtype=np.float32)[[2, 3] * 100]:
        emulator.actions_done.clear()
        env.step(action)
        change_patterns.add(
            tuple(
                actions_done == emulator.ale.getMinimalActionSet()[np.argmax(action)]
                for actions_done in emulator.actions_done
            )
        )
    late_changes = {(False,) * count + (True,) * (4 - count) for count in range(4)}
    assert late_changes <= change_patterns <= late_changes | {4 * (False,)}


def test_first_action_may_stick_to_noop():
    env = atari(from_pixels=False, frame_skip=1, sticky_actions=0.5)
    emulator, first = record_actions(env), set()
    for _ in range(20):
        env.reset()
        env.step(np.eye(6)[2])
        first.add(emulator.actions_done[-1].value)
    assert first == {0, 3}


def test_a_game_begins_with_a_random_number_of_noops():
    """The number is random, from 1 to `noops`."""
    env = atari("pong", noops=6, from_pixels=False)
    emulator, memory_by_count, counts = record_actions(env), {}, []
    for _ in range(60):
        emulator.actions_done.clear()
        memory, _ = env.reset()
        assert {action.value for action in emulator.actions_done} == {0}
        counts.append(len(emulator.actions_done))
        np.testing.assert_array_equal(memory, memory_by_count.setdefault(counts[-1], memory))
    assert set(counts) == set(range(1, 7)) and len(np.unique(list(memory_by_count.values()), axis=0)) == 6
    assert atari(noops=0, from_pixels=False).reset()[0].tolist() == Emulator().ale.getRAM().tolist()


@pytest.mark.parametrize("full, size", [(False, 6), (True, 18)])
def test_full_action_set_selects_all_actions(full, size):
    env = atari(full_action_set=full, frame_skip=1, from_pixels=False, **RAW)
    emulator = record_actions(env)
    assert env.action_space.shape == (size,)
    for action in np.eye(size):
        env.step(action)
    actions_done = [action.value for action in emulator.actions_done]
    assert actions_done == ([*range(18)] if full else [0, 1, 3, 4, 11, 12])


# Ends


def test_the_clock_truncates_without_a_terminal_step():
    env = atari(from_pixels=False, time_limit=10)
    for _ in range(2):
        steps = list(random_episode(env))
        assert [step.env_steps for step in steps] == [0, 4, 4, 2] and env.max_agent_steps == 3
        assert not any(step.is_terminal for step in steps)


def test_game_over_at_the_time_limit_is_terminal():
    def end(**settings):
        env = atari("breakout", from_pixels=False, frame_skip=1, **settings)
        terminated = truncated = False
        frames = 0
        while not (terminated or truncated):
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            frames += 1
        return frames, terminated, truncated

    frames, *end_kind = end()
    assert end_kind == [True, False] and frames < 4000
    assert end(time_limit=frames) == (frames, True, False)
    assert end(time_limit=frames - 1) == (frames - 1, False, True)


@pytest.mark.parametrize("ends", [True, False])
def test_a_life_lost_ends_the_episode_only_if_configured(ends):
    env = atari("breakout", terminal_on_life_loss=ends, from_pixels=False)
    for _ in range(2):
        env.reset()
        assert env.unwrapped.ale.lives() == 5, "a new game"
        terminated = False
        while env.unwrapped.ale.lives() == 5 and not terminated:
            *_, terminated, truncated, info = env.step(env.action_space.sample())
        assert (terminated, truncated) == (ends, False) and env.unwrapped.ale.lives() == 4


# Restoring and parallel environments


@pytest.mark.parametrize("game", ["pong", "assault", "kung_fu_master"])
def test_games_can_be_restored_from_a_state(game):
    """Frames are equal, with sticky actions. The last two games keep memory over a reset of the console."""
    envs = (atari(game, seed=seed, time_limit=300, height=16, width=16) for seed in (1, 2))
    assert goes_on(*envs, steps=None)


def test_parallel_environments_equal_single_ones():
    """Each environment runs in a worker process and plays as a single one does."""
    config = load_config("atari", ["environment.num_envs=2", "environment.time_limit=40", "environment.grayscale=True"])
    with closing(make_train_env(config.environment, 0)) as envs:
        assert type(envs).__name__ == "ParallelEnvs" and type(envs.vector).__name__ == "Workers"
        actions = np.eye(6, dtype=np.float32)[[2, 3]]
        episodes = [list(episode) for episode in run_episodes(envs, lambda step: actions, 2)]
    seeds = (np.random.SeedSequence(0).generate_state(3)[[0, 2]] % 2**31).tolist()
    for seed, action, steps in zip(seeds, actions, episodes, strict=True):
        single = run_episode(atari(seed=seed, time_limit=40, grayscale=True), lambda step, action=action: action)
        for step, expected in zip(steps, single, strict=True):
            np.testing.assert_array_equal(step.observation, expected.observation)
    assert (episodes[0][-1].observation != episodes[1][-1].observation).any()


# Errors


@pytest.mark.parametrize(
    "game, message_part",
    [
        ("pongg", "there is no Atari game 'pongg' in ale-py; did you mean pong"),
        ("MsPacman", "did you mean ms_pacman"),
        ("walk", "there is no Atari game 'walk'"),
        ("joust", "the Atari game 'joust' is for two players"),
    ],
)
def test_unknown_and_two_player_games_are_refused(game, message_part, capfd):
    with pytest.raises(EnvError, match=f"^environment.task_name: .*{message_part}") as caught:
        atari(game)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_rom_file_is_an_error(monkeypatch, tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        monkeypatch.setenv("ALE_ROMS_DIR", str(folder))
        with pytest.raises(EnvError, match=f"the file of the Atari game 'pong' cannot be read: .*{folder.name}"):
            atari()


def test_missing_ale_py_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(EnvError) as caught:
        atari()
    message = str(caught.value)
    assert message.startswith("environment.benchmark: atari needs ale-py, which is not installed: ")
    command = message.split(": ")[-1].split()
    assert command == [sys.executable, "-m", "pip", "install", "ale-py"] and "\n" not in message


def test_emulator_prints_nothing():
    """This needs a new process, because the log level is set once for all emulators."""
    keys = "noops", "sticky_actions", "full_action_set", "terminal_on_life_loss", "time_limit"
    settings = {key: load_config("atari").environment[key] for key in keys}
    code = f"from dreamer.envs.atari import make_atari; make_atari('pong', renders=True, **{settings}).reset()"
    child = run_python("-c", code)
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")

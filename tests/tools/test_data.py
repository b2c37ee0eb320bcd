"""Recorded episodes: their time index, errors, and runs that learn from them."""

import json
import re
import shutil
from contextlib import closing
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer import distributed
from dreamer.config.load import load_config
from dreamer.envs.make import make_train_env
from dreamer.envs.spaces import Spaces
from dreamer.errors import ConfigError
from dreamer.main import train
from dreamer.replay import buffer
from dreamer.replay import recorded as recorded_steps
from dreamer.replay.recorded import Dataset, StoredSteps
from dreamer.tools import minari_episodes
from dreamer.tools.data import main
from dreamer.training import offline
from dreamer.training.checkpoint_file import load_checkpoint
from dreamer.training.metrics_file import read_metrics
from tests.test_resume import same
from tests.test_train import TINY
from tests.toys import make_agent

COIN = {f"environment.{key}": value for key, value in (("benchmark", "gymnasium"), ("from_pixels", False))}
COIN |= {"environment.task_name": "tests.tools.test_data:Coin-v0", "environment.frame_skip": 1}


class Coin(gymnasium.Env):
    """Like tests.toys.CoinEnv: the reward depends on the action that led here and on the coin observed here."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action):
        self.count, Coin.steps = self.count + 1, Coin.steps + 1
        observation = self.observe()
        return observation, reward_of(action, observation), self.count == 12, False, {}

    def observe(self):
        return self.np_random.choice([-1.0, 1.0], 1).astype(np.float32)


gymnasium.register("Coin-v0", Coin)


def reward_of(action, coin):
    return 3.0 * float(np.sign(action[0])) * float(coin[0])


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(folder, lengths=(6, 15, 4), image=False, **changes):
    """Write files of CoinEnv episodes. changes: functions that change an episode's parts, by key."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        coin, action = random.choice([-1.0, 1.0], (length, 1)), random.uniform(-1, 1, (length, 1))
        action[0] = 0
        reward = np.array([reward_of(*pair) for pair in zip(action, coin, strict=True)])
        ends = np.append(np.ones(length - 1), number % 2)
        episode = {"vector": coin, "action": action, "reward": reward, "discount": ends, "height": np.zeros(length)}
        if image:
            episode["image"] = random.integers(0, 256, (length, 16, 16, 3), np.uint8)
        for key, change in changes.items():
            episode[key] = change(episode.get(key))
        np.savez(
            folder / f"{number:03}-{length}.npz", **{key: each for key, each in episode.items() if each is not None}
        )
    return folder


def episodes(folder):
    return list(Dataset(folder).stored().episodes())


def assert_aligned(rows):
    """Assert that each reward belongs to the action and the observation at the same index."""
    expected = [reward_of(row["action"], row["observation"]) for row in rows]
    np.testing.assert_array_equal(rows["reward"], expected)
    assert rows["is_first"].tolist() == [1] + [0] * (len(rows) - 1) and not rows["is_terminal"][:-1].any()


def test_files_in_the_authors_format_keep_their_time_index(tmp_path, capsys):
    assert main(["import", str(write(tmp_path / "files")), "data"]) == 0
    found = episodes(tmp_path / "data")
    assert [len(rows) for rows in found] == [6, 15, 4]
    assert [rows["is_terminal"][-1] for rows in found] == [1, 0, 1], "discount 0: the task ended"
    for rows in found:
        assert_aligned(rows)
    output = capsys.readouterr().out
    assert "left out    height\n" in output and "3 episodes, 25 steps of vector float32 (1,), actions (1,)" in output


def test_exported_episodes_are_imported_bit_for_bit(tmp_path):
    """The observations are images and numbers; frames in files may be larger than the run's."""
    assert main(["import", str(write(tmp_path / "files", image=True)), "data", "--size", "12"]) == 0
    assert main(["export", "data", "npz", "out"]) == 0 and main(["import", "out", "again", "--size", "12"]) == 0
    for rows, again in zip(episodes(tmp_path / "data"), episodes(tmp_path / "again"), strict=True):
        assert rows["observation"]["image"].shape[1:] == (3, 12, 12)
        np.testing.assert_array_equal(rows, again)


@pytest.mark.parametrize(
    "changes, message_part",
    [
        ({"action": lambda action: np.roll(action, -1)}, "action at index 0 is "),
        ({"reward": lambda reward: np.roll(reward, -1)}, "reward at index 0 is "),
        ({"reward": lambda reward: reward[:-1]}, "observations, but|actions, but"),
        ({"reward": lambda reward: reward * np.nan}, "reward holds NaN"),
        ({"vector": lambda vector: vector * np.nan}, "holds NaN"),
        ({"action": lambda action: 2 * action}, "action reaches "),
        ({"action": lambda action: action[:, 0]}, r"expected numbers \(T, A\), of discrete actions one-hot"),
        ({"action": lambda action: None}, "has no action, but"),
        ({"vector": lambda vector: None}, "has neither image nor vector, but .*--numbers KEY"),
        ({"vector": lambda vector: vector.astype(object)}, "cannot be read"),
        ({"stepid": lambda _: np.zeros(4)}, "chunk of dreamerv3's replay"),
        ({"discount": lambda ends: 0 * ends}, "ends before the last index"),
    ],
)
def test_damaged_files_import_nothing(changes, message_part, tmp_path, capsys):
    """The cases are mistakes in an episode and, last, in the file."""
    write(tmp_path / "files", lengths=(4,), **changes)
    assert main(["import", "files", "data"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: files/000-4.npz") and line.count("\n") == 1
    assert re.search(message_part, line), line
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


def test_truncated_file_imports_nothing(tmp_path, capsys):
    path = write(tmp_path / "files") / "002-4.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["import", "files", "data"]) == 2 and "files/002-4.npz cannot be read" in capsys.readouterr().err
    assert main(["import", "nothing", "data"]) == 2 and main(["export", "files", "npz", "out"]) == 2
    assert (
        main(["import", "./nothing", "data"]) == 2 and "./nothing: there is no such folder" in capsys.readouterr().err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["files"]
    (tmp_path / "files" / "002-4.npz").unlink()
    assert main(["import", "files", "data"]) == 0 and main(["import", "files", "data"]) == 2
    assert "data exists and is not an empty folder" in capsys.readouterr().err


def fake_minari_dataset(lengths, discrete=False):
    """Return an imitation of a Minari dataset, whose observations have one more entry than its actions."""
    random, found = np.random.default_rng(0), []
    for length in lengths:
        coin = random.choice([-1.0, 1.0], (length + 1, 1)).astype(np.float32)
        actions = random.integers(3, 5, length) if discrete else random.uniform(-2, 2, (length, 1)).astype(np.float32)
        rewards = np.array([reward_of(np.ravel(a) - 3.5 * discrete, o) for a, o in zip(actions, coin[1:], strict=True)])
        ends = np.arange(1, length + 1) == length
        found.append(SimpleNamespace(observations=coin, actions=actions, rewards=rewards, terminations=ends))
    return SimpleNamespace(
        observation_space=Coin.observation_space,
        action_space=spaces.Discrete(2, start=3) if discrete else Coin.action_space,
        total_episodes=len(found),
        iterate_episodes=lambda: iter(found),
    )


@pytest.mark.parametrize("discrete", [False, True])
def test_minari_dataset_is_shifted_to_the_replays_time_index(discrete, tmp_path, monkeypatch):
    """Its actions are scaled to [-1, 1] or become one-hot."""
    dataset = fake_minari_dataset([7, 3], discrete)
    package = SimpleNamespace(load_dataset=lambda name: dataset, list_local_datasets=dict)
    monkeypatch.setattr(minari_episodes, "import_minari", lambda: package)
    assert main(["import", "coin/random-v0", "data"]) == 0
    found, data = episodes(tmp_path / "data"), list(dataset.iterate_episodes())
    assert [len(rows) for rows in found] == [8, 4] and all(rows["is_terminal"][-1] for rows in found)
    for rows, episode in zip(found, data, strict=True):
        if discrete:
            assert rows["action"].argmax(1)[1:].tolist() == (episode.actions - 3).tolist()
            np.testing.assert_array_equal(rows["reward"][1:], episode.rewards)
        else:
            assert_aligned(rows)
            np.testing.assert_allclose(rows["action"][1:], episode.actions / 2, rtol=1e-6)


def test_minari_round_trip(tmp_path, monkeypatch):
    """A run's episodes are exported and imported again. Skipped if Minari is not installed."""
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    run = train("dreamer", folder="run", **TINY | COIN)
    assert main(["export", str(run.folder), "minari", "coin/random-v0"]) == 0
    assert minari.load_dataset("coin/random-v0").action_space == Coin.action_space
    assert main(["import", "coin/random-v0", "data"]) == 0 and main(["import", str(run.folder), "same"]) == 0
    for rows, again in zip(episodes(tmp_path / "same"), episodes(tmp_path / "data"), strict=True):
        assert_aligned(rows)
        for name in rows.dtype.names:
            np.testing.assert_allclose(rows[name], again[name], rtol=1e-5, atol=1e-6)
    assert main(["export", "same", "minari", "coin/random-v0"]) == 2


def test_partly_overwritten_episodes_are_not_exported(tmp_path, monkeypatch):
    """The replay holds the newest steps only. Episodes may span several files."""
    monkeypatch.setattr(buffer, "SEGMENT", 4)
    monkeypatch.setattr(recorded_steps, "SEGMENT", 4)
    main(["import", str(write(tmp_path / "files")), "data"])
    dataset = Dataset(tmp_path / "data")
    newest = StoredSteps(tmp_path / "data", dataset.row_type, range(5, 25), dataset.checksums)
    found = list(newest.episodes())
    assert [len(rows) for rows in found] == [15, 4]
    assert_aligned(found[0])


def test_data_parallel_workers_share_the_episodes(tmp_path, monkeypatch, capsys):
    main(["import", str(write(tmp_path / "files")), "data"])
    config = load_config("dreamer", OFFLINE)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        with closing(make_train_env(config.environment, 0)) as env:
            replay = make_agent(config, env).trainer.replay
            monkeypatch.setattr(distributed, "count", lambda: 2)
            offline.fill(replay, config, env)
            monkeypatch.setattr(distributed, "count", lambda: 1)
        shares.append(len(replay))
    assert shares == [6 + 4, 15] and capsys.readouterr().out.count("dataset     3 episodes, 25 steps") == 1


OFFLINE = TINY | COIN | {"parameters.dreamer.dataset": "data", "parameters.dreamer.collect": False}


def test_offline_run_learns_and_resumes_without_the_dataset(tmp_path, monkeypatch):
    """Results are equal bit for bit. Curves use updates on the x axis, since there are no env steps."""
    main(["import", str(write(tmp_path / "files")), "data"])
    monkeypatch.setattr(Coin, "steps", 0)
    whole = train("dreamer", folder="whole", **OFFLINE)
    assert Coin.steps == 2 * 12, "the evaluations alone"
    train("dreamer", folder="parts", **OFFLINE | {"parameters.dreamer.train_iterations": 1})
    shutil.rmtree(tmp_path / "data")
    parts = train(resume="parts", **{"parameters.dreamer.train_iterations": 2})
    states = [load_checkpoint(run.folder)[1] for run in (whole, parts)]
    for part in states[0].keys() - {"curves", "configuration", "kept"}:
        assert same(states[0][part], states[1][part]), part
    assert states[0]["replay"]["end"] == 25 and whole.env_steps == 0
    points = [(report["env_steps"], report["iteration"]) for report in read_metrics(whole.folder)]
    assert points[0] == (2, 1) and points[-1] == (4, 2)


def test_dataset_without_a_window_is_refused(tmp_path):
    main(["import", str(write(tmp_path / "files", lengths=(4,))), "data"])
    message_part = (
        "batch_length: 10 agent steps, but no window of dataset and seed episodes has more than 4; lower it, or import"
    )
    with pytest.raises(ConfigError, match=message_part):
        train("dreamer", folder="run", **OFFLINE)
    assert not (tmp_path / "run").exists()


def test_run_with_a_dataset_can_also_collect(tmp_path):
    main(["import", str(write(tmp_path / "files")), "data"])
    settings = OFFLINE | {"parameters.dreamer.collect": True, "parameters.dreamer.seed_episodes": 0}
    run = train(
        "dreamer-v3", folder="run", **settings | {"parameters.dreamer.classes": 4, "parameters.dreamer.train_ratio": 8}
    )
    assert load_checkpoint(run.folder)[1]["replay"]["end"] == 25 + 2 * 13 and run.env_steps == 24


class Levers(Coin):
    """Takes a choice and a number; their keys are not in alphabetical order."""

    action_space = spaces.Dict([("side", spaces.Discrete(2)), ("force", Coin.action_space)], sort_keys=False)


gymnasium.register("Levers-v0", Levers)


def test_minari_dict_actions_are_reordered(tmp_path):
    """Minari sorts the keys of a Dict."""

    def both(numbers):
        sides = np.eye(2)[np.arange(len(numbers)) % 2]
        sides[0] = 0
        return np.concatenate([numbers, sides], 1)  # force, side

    main(["import", str(write(tmp_path / "files", action=both)), "data"])
    path = tmp_path / "data" / "dataset.json"
    content, own = json.loads(path.read_bytes()), spaces.Dict(dict(Levers.action_space.spaces))
    assert list(own) == ["force", "side"]
    content["about"]["spaces"] = Spaces(Coin.observation_space, own).state_dict()
    path.write_text(json.dumps(content))
    config = load_config("dreamer", OFFLINE | {"environment.task_name": "tests.tools.test_data:Levers-v0"})
    with closing(make_train_env(config.environment, 0)) as env:
        replay = make_agent(config, env).trainer.replay
        offline.fill(replay, config, env)
        filled = replay.read(np.array([0]), 6).action[0]
    np.testing.assert_array_equal(filled, episodes(tmp_path / "data")[0]["action"][:, [1, 2, 0]])


@pytest.mark.parametrize(
    "settings, message_part",
    [
        (
            {"environment.task_name": "Pendulum-v1"},
            r"data holds vector float32 \(1,\), actions \(1,\); the run's environment has vector float32 \(3,\)",
        ),
        ({"environment.task_name": "tests.envs.toy_gymnasium:Vector-v0"}, "data: actions were "),
        ({"parameters.dreamer.buffer.capacity": 20}, "25 steps; raise parameters.dreamer.buffer.capacity"),
        ({"environment.frame_skip": 2}, "has a frame_skip of 1; environment.frame_skip is 2"),
        ({"parameters.dreamer.dataset": "nothing"}, "nothing is not a dataset: it has no dataset.json"),
        ({"parameters.dreamer.dataset": "torn"}, "torn/dataset.json is damaged"),
        ({"parameters.dreamer.dataset": "flipped"}, "flipped/replay/00000000.steps: its checksum is wrong"),
    ],
)
def test_dataset_that_does_not_fit_is_a_one_line_error(settings, message_part, tmp_path):
    """The environment's actions and action repeat are compared, too."""
    main(["import", str(write(tmp_path / "files")), "data"])
    path = tmp_path / "data" / "dataset.json"
    content = json.loads(path.read_bytes())
    for name in ("torn", "flipped"):
        shutil.copytree("data", name)
    content["about"] |= {"frame_skip": 1, "spaces": Spaces(Coin.observation_space, Coin.action_space).state_dict()}
    path.write_text(json.dumps(content))
    (tmp_path / "torn" / "dataset.json").write_text("{")
    steps = tmp_path / "flipped" / "replay" / "00000000.steps"
    steps.write_bytes(b"\1" + steps.read_bytes()[1:])
    config = load_config("dreamer", OFFLINE | settings)
    with closing(make_train_env(config.environment, 0)) as env:
        agent = make_agent(config, env)
        with pytest.raises(ConfigError, match=message_part) as caught:
            offline.fill(agent.trainer.replay, config, env)
    assert str(caught.value).startswith("parameters.dreamer.dataset: ") and "\n" not in str(caught.value)
    assert len(agent.trainer.replay) == 0

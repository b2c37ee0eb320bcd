"""Benchmarks of other packages. Tests of packages that are not installed are skipped."""

import importlib.util
import math
from collections import defaultdict

import mujoco
import numpy as np
import pytest

from dreamer.config.load import load_config
from dreamer.config.names import tasks_of
from dreamer.config.schema import PACKAGED_BENCHMARKS
from dreamer.envs import packages
from dreamer.envs.packages import BENCHMARKS, choose
from dreamer.envs.seeded import keep_order
from dreamer.errors import EnvError
from dreamer.training.metrics import achievement_curves
from tests.envs.playing import play
from tests.envs.toy import make
from tests.toys import ShortEpisodes, ToyEnv, make_agent, make_dreamer, train

NAMES = "crafter", "memory-maze-9x9", "metaworld-reach", "minatar-breakout", "minigrid-empty-random-6x6"
SMALL = [f"parameters.dreamer.{size}" for size in ("batch_size=2", "batch_length=4", "horizon_length=3")]


def make_installed(name, seed=0):
    benchmark = load_config(name).environment.benchmark
    pytest.importorskip(BENCHMARKS[benchmark][0])
    if benchmark == "metaworld" and not mujoco.__version__.startswith("3.3."):
        pytest.skip("it needs mujoco 3.3")
    return make(name, seed)


@pytest.mark.parametrize("name", NAMES)
def test_training_runs_and_episodes_are_determined_by_the_state(name):
    env = make_installed(name, 1)
    short, other = (ShortEpisodes(each, 4) for each in (env, make_installed(name, 2)))
    state = env.state_dict()
    expected = play(short)
    other.load_state_dict(state)
    np.testing.assert_array_equal(play(other), expected)
    agent = make_agent(load_config([name, "size1m"], SMALL), short)
    agent.trainer.collect(agent.collection_policy(short), 1)
    metrics, _ = agent.update(agent.trainer.learner.sample())
    assert all(value.isfinite() for value in metrics.values())
    frame = env.render()
    assert frame.dtype == np.uint8 and frame.shape[2] == 3 and frame.std() > 5


def test_task_names_match_the_packages():
    assert tuple(BENCHMARKS) == PACKAGED_BENCHMARKS
    assert len(tasks_of("metaworld")) == 50 and len(tasks_of("minatar")) == 5 and len(tasks_of("memory-maze")) == 4
    assert load_config("minatar-space-invaders").environment.task_name == "space_invaders"
    assert load_config("minigrid-BabyAI-GoToRedBall").environment.task_name == "BabyAI-GoToRedBall"


def test_unknown_tasks_and_missing_packages_are_errors(monkeypatch):
    assert choose("doorkey-5x5", ["MiniGrid-DoorKey-5x5-v0", "MiniGrid-DoorKey-6x6-v0"], r"^minigrid-|-v\d+$")[9:] == (
        "DoorKey-5x5-v0"
    )
    with pytest.raises(EnvError, match="environment.task_name: there is no 'brekout' here; did you mean breakout"):
        choose("brekout", ["asterix", "breakout"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for benchmark in BENCHMARKS:
        with pytest.raises(EnvError, match=f"environment.benchmark: {benchmark} needs {benchmark}, which is not"):
            packages.make_packaged(benchmark, "", 64, 64)


# Crafter


class Place:
    """Imitates crafter.engine.World, reduced to `reset` and the chunks."""

    def reset(self, seed=None):
        self._chunks = defaultdict(set)


def test_crafters_creatures_keep_their_order():
    world = Place()
    keep_order(world)
    world.reset(seed=1)
    names = [f"creature {number}" for number in range(20)]  # Python hashes strings differently in each process
    for name in names:
        world._chunks["here"].add(name)
    world._chunks["here"].remove(names[3])
    assert [*world._chunks.copy()["here"]] == names[:3] + names[4:]


def test_crafter_is_deterministic():
    """The episode is long enough for creatures to disappear at random."""
    envs, random = [make_installed("crafter", 3).unwrapped for _ in range(2)], np.random.default_rng(0)
    for env in envs:
        env.reset(seed=3)
    for action in random.integers(17, size=190).tolist():
        pictures, _, ended, cut, _ = zip(*(env.step(action) for env in envs), strict=True)
        np.testing.assert_array_equal(*pictures)
        if ended[0] or cut[0]:
            np.testing.assert_array_equal(*(env.reset()[0] for env in envs))


def test_crafter_reports_achievements_and_ends_by_death_or_time():
    env = make_installed("crafter")
    game, action = env.unwrapped.game, np.eye(17, dtype=np.float32)[0]
    assert len(env.achievements) == 22 and not any(env.achievements.values())
    game._player.achievements["collect_wood"] += 1
    assert env.step(action)[1:4] == (1.0, False, False)
    assert [name for name, unlocked in env.achievements.items() if unlocked] == ["collect_wood"]
    game._step = 9999
    assert env.step(action)[2:4] == (False, True)
    env.reset()
    assert not any(env.achievements.values())
    game._player.health = 0
    assert env.step(action)[2:4] == (True, False)


def test_score_is_the_geometric_mean_of_success_rates():
    episodes = [{"eat": True, "drink": True, "sleep": False}, {"eat": True, "drink": False, "sleep": False}]
    curves = achievement_curves("eval", episodes)
    rates = {"eval/achievements/eat": 1.0, "eval/achievements/drink": 0.5, "eval/achievements/sleep": 0.0}
    assert curves == rates | {"eval/score": pytest.approx(math.exp((math.log(101) + math.log(51)) / 3) - 1)}
    assert achievement_curves("eval", []) == achievement_curves("eval", [{}]) == {}
    assert achievement_curves("eval", [dict.fromkeys("abc", True)])["eval/score"] == pytest.approx(100)


class Achiever(ToyEnv):
    """Unlocks something in every second episode."""

    achievements = {"walk": False}
    episodes = 0

    def reset(self, **keywords):
        self.episodes += 1
        self.achievements = {"walk": self.episodes % 2 == 0}
        return super().reset(**keywords)


def test_achievements_are_logged():
    settings = ["train_iterations=1", "collect_interval=1", "seed_episodes=1", "num_evaluate=4"]
    logger = train(make_dreamer(Achiever(), *settings), Achiever()).trainer.logger
    assert logger.of("train/achievements/walk") == [0.0, 1.0]
    assert logger.of("eval/achievements/walk") == [0.5] and logger.of("eval/score") == [pytest.approx(50)]

"""Collection in a background process while this one learns. The result does not depend on the timing."""

from contextlib import closing
from functools import partial

import numpy as np
import pytest
import torch
import yaml

from dreamer import main as program
from dreamer.config.load import load_config
from dreamer.envs.make import make_eval_env, make_train_env
from dreamer.errors import ConfigError, EnvError
from dreamer.training import data_parallel, run
from dreamer.training.background_collection import BackgroundCollection, build_collector
from dreamer.training.checkpoint_file import copy_to_cpu, load_checkpoint
from dreamer.training.playing_process import plays_in_background
from tests.test_resume import same, scalars
from tests.toys import SMALL, make_agent, parameters, train

CPU = torch.device("cpu")
SETTINGS = [
    "environment.benchmark=gymnasium",
    "environment.task_name=tests.pausing_envs:PausingEvaluation-v0",
    "operation.device=cpu",
    *SMALL,
]
SHORT = ["train_iterations=3", "collect_interval=2", "seed_episodes=2", "batch_length=6", "evaluate_interval=3"]
SETTINGS += [f"parameters.dreamer.{setting}" for setting in SHORT]
CONFIGS = {
    "dreamer": ("dreamer", SETTINGS),
    "two environments": (
        "dreamer",
        [*SETTINGS, "environment.num_envs=2", "parameters.dreamer.num_interaction_episodes=2"],
    ),
    "explorer": ("plan2explore", [*SETTINGS, "parameters.plan2explore.num_ensemble=2"]),
    "random": ("plan2explore", [*SETTINGS, "parameters.plan2explore.explorer=random"]),
    "train ratio": ("dreamer-v3", [*SETTINGS, "parameters.dreamer.train_ratio=8", "parameters.dreamer.classes=4"]),
}


class PlaysAtStart:
    """Replaces the background process; plays in this process as soon as `start` is called."""

    def __init__(self, make_collector, prepare=None):
        self.collector = make_collector()

    def start(self, state, request):
        self.given = copy_to_cpu((state, request._asdict())), type(request)
        self.begin()

    def begin(self):
        self.play()

    def play(self):
        (state, request), kind = self.given
        self.played = self.collector.play(state, kind(**request))

    def result(self):
        return self.played

    def close(self):
        self.collector.env.close()


class PlaysAtResult(PlaysAtStart):
    """Replaces the background process; plays when the result is asked for, after the updates."""

    def begin(self): ...

    def result(self):
        self.play()
        return self.played


def train_with(name, kind):
    """Train to the end. Return the trainer, the weights, and the steps and latents in the replay."""
    config = load_config(*CONFIGS[name])
    agent = make_agent(config, make_train_env(config.environment, 0))
    with closing(kind(partial(build_collector, config, CPU))) as collection, closing(agent.trainer.env):
        agent.trainer.collection = collection
        trainer = train(agent, make_eval_env(config.environment, 0)).trainer
        replay = trainer.replay
        return trainer, parameters(agent), replay.read([0], replay.end), replay.read_latents(np.arange(replay.end))


def assert_equal(one, other):
    assert one[0].logger.of("train/return") == other[0].logger.of("train/return")
    assert same(one[1], other[1])
    for part, expected in zip(one[2], other[2], strict=True):
        np.testing.assert_array_equal(part, expected)
    assert torch.equal(one[3], other[3])


@pytest.mark.parametrize("name", CONFIGS)
def test_result_does_not_depend_on_when_episodes_are_played(name):
    played_at_start, played_at_result = train_with(name, PlaysAtStart), train_with(name, PlaysAtResult)
    assert_equal(played_at_start, played_at_result)
    returns = played_at_start[0].logger.of("train/return")
    assert len(returns) == (8 if name == "two environments" else 5) and len(set(returns)) > 1
    assert played_at_start[0].learner.made > 0


def test_process_plays_the_same_episodes_and_the_run_ends_if_it_dies():
    config = load_config(*CONFIGS["dreamer"])
    assert_equal(train_with("dreamer", BackgroundCollection), train_with("dreamer", PlaysAtResult))
    with closing(BackgroundCollection(partial(build_collector, config, CPU))) as collection:
        agent = make_agent(config, make_train_env(config.environment, 0))
        agent.trainer.collection = collection
        collection.process.process.kill()
        with pytest.raises(EnvError, match="^operation.background_collection: the process that collects has ended; --"):
            train(agent)


def test_resumed_run_collects_the_same_episodes(tmp_path, monkeypatch):
    def played_here(*arguments):
        return PlaysAtResult(partial(build_collector, *arguments))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "build_background_collection", played_here)
    settings = {key: yaml.safe_load(value) for key, value in (each.split("=") for each in SETTINGS)}
    settings |= {"operation.background_collection": True}
    for folder, iterations in (("whole", 4), ("parts", 2)):
        program.train("dreamer", folder=folder, **(settings | {"parameters.dreamer.train_iterations": iterations}))
    program.train(resume="parts", **{"parameters.dreamer.train_iterations": 4})
    (_, state), (_, expected) = load_checkpoint(tmp_path / "parts"), load_checkpoint(tmp_path / "whole")
    assert all(same(state[part], expected[part]) for part in state.keys() & {"algorithm", "replay", "env", "random"})
    assert scalars(tmp_path / "parts")["train/return"] == scalars(tmp_path / "whole")["train/return"]


def test_several_data_parallel_workers_are_refused(monkeypatch):
    monkeypatch.setattr(data_parallel, "count", lambda: 2)
    with pytest.raises(
        ConfigError, match="^operation.background_collection: True; expected False for several processes"
    ):
        data_parallel.config_of_rank(load_config("dreamer", ["operation.background_collection=True"]))


@pytest.mark.parametrize(
    "setting, device, cores, expected",
    [("auto", "cuda", 8, True), ("auto", "cuda", 4, False), ("auto", "cpu", 8, False), ("True", "cpu", 1, True)],
)
def test_auto_evaluates_in_the_background_beside_a_gpu_with_enough_cores(setting, device, cores, expected, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    config = load_config("dreamer", [f"operation.background_evaluation={setting}"])
    assert plays_in_background(config, torch.device(device), None) is expected

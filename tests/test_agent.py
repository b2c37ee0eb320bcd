"""What a run has learned, used from other programs, against the evaluation of the run and against its model."""

import functools
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch

from dreamer import Agent
from dreamer.build import build_algorithm
from dreamer.config.load import dump_config, load_config
from dreamer.envs.wrappers import Checked
from dreamer.errors import CheckpointError, ConfigError, EnvError, NotFiniteError
from dreamer.training.checkpoint_file import FORMAT
from dreamer.training.evaluation import build_evaluator
from tests.toys import SMALL

CPU, ITERATION = torch.device("cpu"), 3
TINY = [*SMALL, "parameters.dreamer.encoder.depth=2", "parameters.dreamer.decoder.depth=2", "environment.frame_skip=1"]
TINY += ["environment.benchmark=gymnasium", "operation.seed=5"]
VECTOR, DICT, PIXELS, PICTURES = (
    ["environment.task_name=tests.envs.toy_gymnasium:Vector-v0"],  # a number in, a number from -2 to 4 out
    ["environment.task_name=tests.envs.toy_gymnasium:Noisy-v0"],  # a picture, numbers and texts in, 1, 2 or 3 out
    ["environment.task_name=tests.envs.toy:Toy-v0", "environment.from_pixels=True", "environment.grayscale=True"],
    ["environment.task_name=tests.envs.toy:ToyPictures-v0"],  # two pictures in, two numbers of other bounds out
)
EXPLORES = [f"parameters.plan2explore.{key}" for key in ("num_ensemble=2", "one_step_model.hidden_size=8")]


class Watched(gymnasium.Wrapper):
    """Keeps what an environment has shown and which actions it has taken: {observation} or {action}."""

    def __init__(self, env):
        self.env, self.log = env, []

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, **keywords):
        observation, info = self.env.reset(**keywords)
        self.log += ["reset", {"seen": observation}]
        return observation, info

    def step(self, action):
        observation, *rest = self.env.step(action)
        self.log += [{"action": action}, {"seen": observation}]
        return observation, *rest

    def render(self):
        frame = self.env.render()
        self.log.append({"seen": frame})
        return frame


@functools.cache
def played(names, *overrides):
    """An evaluation of two episodes: the arguments of the agent that played, and the log of its environment."""
    if names == "plan2explore":
        overrides = *overrides, *EXPLORES
    config = load_config(names, [*TINY, *overrides], warns=False)
    evaluator = build_evaluator(config, CPU)
    torch.manual_seed(1)
    networks = build_algorithm(config, evaluator.env, CPU).networks
    weights = {name: network.state_dict() for name, network in networks.items()}
    for name, network in evaluator.networks.items():
        network.load_state_dict(weights[name])
    checked = evaluator.env
    while not isinstance(checked, Checked):
        checked = checked.env
    checked.env = Watched(checked.env)
    evaluator.returns(ITERATION, episodes=2)
    return (config, evaluator.env.own_spaces, weights, ITERATION), checked.env.log


def make(names="dreamer", task=VECTOR, *overrides, **keywords):
    return Agent(*played(names, *task, *overrides)[0], **keywords)


def play(agent, log):
    """What the agent does, and what was done, where each observation of a log led to an action."""
    done = []
    for event in log:
        if event == "reset":
            agent.reset()
        elif "seen" in event:
            observation = event["seen"]
        else:
            done.append((agent.act(observation), event["action"]))
    return done


def seen(log):
    """The first observations of a log."""
    return [event["seen"] for event in log if event != "reset" and "seen" in event]


# Acting


@pytest.mark.parametrize("task", [VECTOR, DICT, PIXELS, PICTURES], ids=["vector", "dict", "pixels", "pictures"])
@pytest.mark.parametrize("names", ["dreamer", "dreamer-v2", "dreamer-v3", "plan2explore"])
def test_actions_are_those_of_the_evaluation(names, task):
    """Bit for bit, modes and (DreamerV3) samples, in the environment's own units."""
    _, log = played(names, *task)
    agent = make(names, task)
    torch.rand(1)
    done = play(agent, log)
    assert len(done) >= 8
    for own, theirs in done:
        np.testing.assert_array_equal(own, theirs)
        assert type(own) is type(theirs) and own in agent.action_space
    assert len({str(own) for own, _ in done}) > 1


# Loading


def save(folder, names="dreamer", task=VECTOR, **changes):
    """Write what `Agent.load` reads of a run. changes: of the state in its checkpoint."""
    (config, spaces, weights, iteration), _ = played(names, *task)
    state = {"algorithm": {"networks": weights}, "spaces": spaces.state_dict()} | changes
    torch.save({"format": FORMAT, "iteration": iteration, "state": state}, folder / f"checkpoint-{iteration:06}.pt")
    (folder / "config.yml").write_text(dump_config(config))
    return folder


def test_a_run_is_loaded_without_its_environment(tmp_path, monkeypatch):
    _, log = played("dreamer-v3", *DICT)
    monkeypatch.setattr("dreamer.envs.make.make_registered", lambda *_: pytest.fail("made an environment"))
    agent = Agent.load(save(tmp_path, "dreamer-v3", DICT))
    assert agent.iteration == ITERATION and agent.frame_skip == 1
    assert agent.action_space == gymnasium.spaces.Discrete(3, start=1)
    assert agent.observation_space.spaces.keys() < seen(log)[0].keys(), "the texts are left out"
    assert all(own == theirs for own, theirs in play(agent, log))


def fail(*arguments):
    raise EnvError("it is gone")


def test_an_older_run_asks_its_environment_for_the_spaces(tmp_path, monkeypatch):
    agent = Agent.load(save(tmp_path, spaces={}))
    assert (agent.observation_space, agent.action_space) == tuple(played("dreamer", *VECTOR)[0][1])
    monkeypatch.setattr("dreamer.envs.make.make_registered", fail)
    with pytest.raises(CheckpointError, match="lack the environment's spaces, and .* cannot be made here: it is gone"):
        Agent.load(tmp_path)


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(ConfigError, match="nowhere is not the folder of a run"):
        Agent.load("nowhere")
    *parts, weights, iteration = played("dreamer", *VECTOR)[0]
    broken = weights | {"actor": {name: part * torch.nan for name, part in weights["actor"].items()}}
    with pytest.raises(NotFiniteError, match="weights of the actor"):
        Agent(*parts, broken, iteration)
    with pytest.raises(ConfigError, match="the model of this agent does not fit"):
        Agent(*parts, weights | {"model": weights["actor"]}, iteration)


LIGHT = """
import sys
sys.modules.update(dict.fromkeys(("fcntl", "resource", "grp", "pwd")))  # as on Windows, which has none of them
import os, signal
for module, names in (os, ("O_NOFOLLOW", "O_DIRECTORY", "fork")), (signal, ("SIGHUP", "pthread_sigmask")):
    for name in names:
        delattr(module, name)
import dreamer
assert not {"torch", "numpy"} & sys.modules.keys() and "Agent" in dir(dreamer)
from dreamer import Agent
agent = Agent.load(sys.argv[1])
agent.act(agent.observation_space.sample())
agent.imagine(steps=2)
heavy = {"dm_control", "mujoco", "gym", "tensorboard", "matplotlib", "pandas", "imageio", "ray"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


def test_importing_loading_and_acting_need_little_and_work_on_windows(tmp_path):
    command = [sys.executable, "-c", LIGHT, str(save(tmp_path))]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_the_package_has_no_other_names():
    import dreamer

    with pytest.raises(AttributeError, match="has no attribute 'Agnet'"):
        dreamer.Agnet  # noqa: B018

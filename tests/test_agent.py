"""`dreamer.Agent`: its actions equal those of the run's evaluation, and its dreams those of the world model."""

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
from dreamer.errors import CheckpointError, ConfigError, EnvError, InputError, NotFiniteError
from dreamer.modules.categorical import symexp
from dreamer.training.checkpoint_file import FORMAT
from dreamer.training.evaluation import build_evaluator
from dreamer.training.seeding import RandomStream
from tests.toys import SMALL

CPU, ITERATION = torch.device("cpu"), 3
TINY = [*SMALL, "parameters.dreamer.encoder.depth=2", "parameters.dreamer.decoder.depth=2", "environment.frame_skip=1"]
TINY += ["environment.benchmark=gymnasium", "operation.seed=5"]
VECTOR, DICT, PIXELS, PICTURES = (
    ["environment.task_name=tests.envs.toy_gymnasium:Vector-v0"],  # a number in, a number from -2 to 4 out
    ["environment.task_name=tests.envs.toy_gymnasium:Noisy-v0"],  # a picture, numbers and texts in, 1, 2 or 3 out
    ["environment.task_name=tests.envs.toy:Toy-v0", "environment.from_pixels=True", "environment.grayscale=True"],
    ["environment.task_name=tests.envs.toy:ToyPictures-v0"],  # two pictures in, a dict of all kinds of actions out
)
EXPLORES = [f"parameters.plan2explore.{key}" for key in ("num_ensemble=2", "one_step_model.hidden_size=8")]


class Watched(gymnasium.Wrapper):
    """Record an environment's observations and actions in `log`: {"seen": observation} or {"action": action}."""

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
        self.log[-1] = {"seen": frame}  # in place of the observation, which comes first
        return frame


@functools.cache
def played(names, *overrides):
    """Evaluate two episodes. Return the arguments of the agent that played, and the log of its environment."""
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
    return (config, evaluator.env.unwrapped_spaces, weights, ITERATION), checked.env.log


def make(names="dreamer", task=VECTOR, *overrides, **keywords):
    return Agent(*played(names, *task, *overrides)[0], **keywords)


def play(agent, log):
    """Return pairs of the agent's action and the logged action for each observation that was followed by an action."""
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
    """Return the observations of a log."""
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
        assert_same(own, theirs)
        assert own in agent.action_space
    assert len({str(own) for own, _ in done}) > 1


def assert_same(own, theirs):
    assert type(own) is type(theirs)
    if isinstance(own, (dict, tuple)):
        assert len(own) == len(theirs)
        for key in own if isinstance(own, dict) else range(len(own)):
            assert_same(own[key], theirs[key])
    else:
        np.testing.assert_array_equal(own, theirs)


def test_samples_depend_on_the_seed_only():
    """Sampling changes neither torch's random numbers nor its settings."""
    _, log = played("dreamer", *VECTOR)
    before = torch.get_rng_state(), torch.get_float32_matmul_precision(), torch.get_num_threads()
    agents = [make(seed=seed) for seed in (7, 7, 8)]
    actions = [[agent.act(observation, sample=True).item() for observation in seen(log)] for agent in agents]
    assert actions[0] == actions[1] != actions[2]
    after = torch.get_rng_state(), torch.get_float32_matmul_precision(), torch.get_num_threads()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_agent_does_not_depend_on_torchs_default_type_and_device():
    one, two, *_ = seen(played("dreamer-v3", *DICT)[1])
    expected = make("dreamer-v3", DICT)
    expected = [expected.act(each) for each in (one, two)], expected.imagine(steps=2).rewards
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        agent = make("dreamer-v3", DICT)
        assert [agent.act(each) for each in (one, two)] == expected[0]
        np.testing.assert_array_equal(agent.imagine(steps=2).rewards, expected[1])
        assert (torch.get_default_dtype(), torch.ones(1).device.type) == (torch.float64, "meta")
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def batch(observations):
    """Stack observations along a new first axis."""
    if isinstance(observations[0], dict):
        return {key: batch([each[key] for each in observations]) for key in observations[0]}
    if isinstance(observations[0], tuple):
        return tuple(map(batch, zip(*observations, strict=True)))
    return np.stack(observations)


@pytest.mark.parametrize("task", [VECTOR, DICT, PIXELS], ids=["vector", "dict", "pixels"])
def test_each_of_a_batch_has_a_latent_state_of_its_own(task, monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    observations = seen(played("dreamer", *task)[1])
    together, *alone = (make("dreamer", task) for _ in range(3))
    for begins in [True, True], [False, False], [False, True], [False, False]:
        rows = observations[:2]
        observations = observations[2:]
        for agent, row_begins in zip(alone, begins, strict=True):
            if row_begins:
                agent.reset()
        together.reset(begins)
        expected = [agent.act(row) for agent, row in zip(alone, rows, strict=True)]
        np.testing.assert_allclose(together.act(batch(rows)), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(together.state, [agent.state for agent in alone], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"\(\) observations; expected \(2,\) as before; call reset\(\)"):
        together.act(observations[0])
    with pytest.raises(InputError, match=r"one flag for each observation of the batch, bool \(2,\), not bool \(3,\)"):
        together.reset([True] * 3)
    together.reset()
    alone[0].reset()
    np.testing.assert_allclose(together.act(observations[0]), alone[0].act(observations[0]), rtol=1e-4)


def test_agent_can_observe_the_actions_of_another_policy():
    one, two, three, *_ = seen(played("dreamer", *VECTOR)[1])
    actor, follower = make(), make()
    first = actor.act(one)
    actor.act(two)
    follower.observe(one)
    with pytest.raises(InputError, match="which action led to this observation"):
        follower.act(two)
    follower.observe(two, first)
    np.testing.assert_array_equal(actor.state, follower.state)
    other = actor.act(three, action=np.float32([0.5]))
    assert follower.act(three, action=[0.5]) == other


# Imagining


@pytest.mark.parametrize("task", [VECTOR, DICT], ids=["vector", "dict"])
@pytest.mark.parametrize("names", ["dreamer", "dreamer-v3", "plan2explore"])
def test_dream_is_the_models_open_loop_prediction(names, task):
    log = played(names, *task)[1]
    agent, sleepless = make(names, task), make(names, task)
    actions = np.stack([event["action"] for event in log if "action" in event][:4])
    for each in agent, sleepless:
        each.act(seen(log)[0])
    taken = np.eye(3)[actions - 1] if task is DICT else (actions + 2) / 3 - 1
    taken = torch.tensor(taken, dtype=torch.float32)[None]
    dream, again = agent.imagine(actions), agent.imagine(actions)
    model, start = agent.model, agent.policy.state
    with torch.inference_mode(), RandomStream(CPU, 5, ITERATION, 1).used():
        prior = model.rssm.imagine(start, taken)
        feature = prior.feature
        decoded = model.decoder(feature).mean
        expected = {
            "rewards": model.reward_model(feature).mean,
            "values": agent.critic(feature).mean,
            "continues": torch.ones(1, 4) if names != "dreamer-v3" else model.continue_model(feature).mean / 0.997,
            "states": prior.stored,
            "vectors": decoded["vector"] if task is DICT else decoded,
        }
        if model.symlog_inputs:
            expected["vectors"] = symexp(expected["vectors"])
        if task is DICT:
            expected["frames"] = model.to_pixels(decoded["image"]).permute(0, 1, 3, 4, 2)
        if names == "plan2explore":
            feature = torch.cat([start.feature[:, None], feature[:, :-1]], 1)
            expected["disagreement"] = agent.one_step_model.disagreement(feature, taken, "variance")
    for name in vars(dream).keys() - {"actions"}:
        part = getattr(dream, name)
        assert (part is None) == (name not in expected)
        if part is not None:
            np.testing.assert_allclose(part, expected[name][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dream.actions, actions, rtol=1e-5, atol=1e-6)
    assert (dream.states != again.states).any(), "two dreams differ"
    np.testing.assert_array_equal(agent.state, sleepless.state)
    np.testing.assert_array_equal(agent.act(seen(log)[1]), sleepless.act(seen(log)[1]))


def test_actor_acts_in_dreams_of_a_batch():
    agent = make("dreamer-v2", DICT)
    agent.act(batch(seen(played("dreamer-v2", *DICT)[1])[:2]))
    dream = agent.imagine(steps=3)
    assert dream.frames.shape == (2, 3, 64, 64, 3) and dream.frames.dtype == np.uint8
    assert dream.rewards.shape == dream.actions.shape == (2, 3) and set(dream.actions.flat) <= {1, 2, 3}
    with pytest.raises(InputError, match="actions for 3 dreams; expected 2"):
        agent.imagine(np.ones((3, 4), int))
    assert agent.imagine(np.ones((2, 4), int)).vectors.shape[:2] == (2, 4)


def test_actions_of_several_parts_in_batches_and_dreams():
    agent, observation = make("dreamer-v3", PICTURES), batch(seen(played("dreamer-v3", *PICTURES)[1])[:2])
    actions = agent.act(observation)
    assert {
        str(row)
        for row in range(2)
        if {"arm": tuple(part[row] for part in actions["arm"]), "mode": actions["mode"][row]} in agent.action_space
    } == {"0", "1"}
    agent.act(observation, action=actions)
    dream = agent.imagine(steps=3)
    assert [part.shape for part in dream.actions["arm"]] == [(2, 3, 1, 2), (2, 3, 2)]
    assert dream.actions["mode"].shape == (2, 3)
    again = agent.imagine(dream.actions).actions
    np.testing.assert_allclose(again["arm"][0], dream.actions["arm"][0], atol=1e-5)
    np.testing.assert_array_equal(again["mode"], dream.actions["mode"])
    with pytest.raises(InputError, match=r"the action\['arm'\] is .*; expected a tuple of 2 parts"):
        agent.imagine(dream.actions | {"arm": (1,)})
    with pytest.raises(InputError, match=r"the action\['mode'\] is int64 .* of 0 to 0; expected one of Discrete\(3"):
        agent.act(observation, action=actions | {"mode": np.array([0, 0])})
    with pytest.raises(InputError, match=r"the parts of the action differ in shape"):
        agent.imagine(dream.actions | {"mode": np.ones((2, 2), int)})


def test_several_dreams_start_in_one_state():
    agent = make()
    agent.act([0.0])
    dream = agent.imagine(np.linspace(-2, 4, 12).reshape(3, 4, 1))
    assert dream.rewards.shape == (3, 4) and agent.state.shape == (20,)


def test_state_can_be_read_and_set():
    agent, other = make(), make()
    agent.act([0.3])
    dream = agent.imagine(steps=3)
    other.state = agent.state
    np.testing.assert_array_equal(other.reconstruct().vectors, agent.reconstruct().vectors)
    other.state = dream.states
    np.testing.assert_allclose(other.reconstruct().vectors, dream.vectors, rtol=1e-5, atol=1e-6)
    assert other.act(np.zeros((3, 1)), action=np.zeros((3, 1))).shape == (3, 1)
    agent.reset()
    for ask in (lambda: agent.state, agent.imagine, agent.reconstruct):
        with pytest.raises(InputError, match="an episode has just begun; call act or observe first"):
            ask()
    for wrong in (np.zeros(19), np.full(20, np.nan)):
        with pytest.raises(InputError, match=r"expected finite numbers, \(20,\) or \(B, 20\)"):
            agent.state = wrong


@pytest.mark.parametrize("names", ["dreamer", "dreamer-v3"])
def test_surprise_is_the_divergence_that_the_model_is_trained_to_reduce(names):
    """For the first steps of an episode, alone and in a batch. Asking for it does not change later actions."""
    agent, same, several = make(names), make(names), make(names)
    shown, found = seen(played(names, *VECTOR)[1])[:3], []
    actions = [None]
    for observation in shown:
        found.append(agent.surprise(observation, actions[-1]))
        assert several.surprise(batch([observation] * 2), actions[-1] and [actions[-1]] * 2).shape == (2,)
        several.observe(batch([observation] * 2), actions[-1] and [actions[-1]] * 2)
        actions.append(agent.act(observation).tolist())
        assert actions[-1] == same.act(observation).tolist()
    with torch.inference_mode():
        taken = torch.tensor(agent.translation.agent_action(np.array(actions[1:3]), axes=(1,)))
        taken = torch.cat([torch.zeros(1, 1), taken])[None]
        embedding = agent.model.encoder(agent.model.normalize(torch.tensor(np.stack(shown)[None])))
        prior, posterior = agent.model.rssm.observe(embedding, taken, torch.tensor([[1.0, 0.0, 0.0]]))
        expected = torch.distributions.kl_divergence(posterior.distribution, prior.distribution)
    np.testing.assert_allclose(found[0], expected[0, 0], rtol=1e-4)
    assert all(np.isfinite(found)) and min(found) >= 0
    with pytest.raises(InputError, match="2 observations; expected 1 as before"):
        agent.surprise(batch(shown[:2]), [actions[1]] * 2)


def test_dreams_and_the_entropy_of_the_actor_in_another_state():
    agent, same = make("dreamer-v2"), make("dreamer-v2")
    for each in (agent, same):
        each.act([0.3])
    state = agent.state
    agent.act([-0.2])
    before = agent.state
    several = agent.imagine(steps=4, state=np.stack([state, state]))
    assert several.rewards.shape == (2, 4) and agent.imagine([[1.0]], state=state).rewards.shape == (1,)
    np.testing.assert_array_equal(make("dreamer-v2").imagine(steps=4, state=state).states, same.imagine(steps=4).states)
    np.testing.assert_array_equal(agent.state, before)
    exact = same.actor(torch.tensor(state[None, : same.model.rssm.sizes[0] + same.model.rssm.sizes[1]])).entropy()
    np.testing.assert_allclose([agent.entropy(state), same.entropy()], exact.item(), rtol=1e-5)
    assert agent.entropy(several.states[:, 0]).shape == (2,)


# What an agent cannot take


@pytest.mark.parametrize(
    "observation, words",
    [
        (np.zeros(3), r"the observation has the shape \(3,\); expected \(1,\), or \(B, 1\) for a batch"),
        (np.zeros((0, 1)), "an empty batch"),
        ([np.nan], "holds NaN, infinity"),
        (["a"], "expected an array of real numbers"),
        (None, "expected an array of real numbers"),
        (np.ma.masked_array([1.0]), "expected an array of real numbers"),
        ([1j], "expected an array of real numbers"),
    ],
)
def test_invalid_vector_is_refused(observation, words):
    with pytest.raises(InputError, match=words) as caught:
        make().act(observation)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"mode": 4}, r"the observation\['mode'\] is 4; expected one of Discrete\(3, start=1\)"),
        ({"mode": 1.5}, "expected whole numbers that int64 can hold"),
        ({"image": np.full((16, 20, 3), 0.5)}, r"\['image'\] .* expected whole numbers that uint8 can hold"),
        ({"image": np.full((16, 20, 3), 256)}, "expected whole numbers that uint8 can hold"),
        ({"image": np.zeros((3, 16, 20))}, r"\['image'\] has the shape \(3, 16, 20\); expected \(16, 20, 3\)"),
        ({"inner": {}}, r"the observation\['inner'\] lacks \['lamps'\]; expected a dict with \['lamps'\]"),
        ({"pair": (1,)}, r"\['pair'\] is \(1,\); expected a tuple of 2 parts"),
        ({"dials": [2, 5]}, r"\['dials'\] .* expected one of MultiDiscrete"),
        ({"mode": [1, 2]}, "the parts of the observation differ in size"),
        (None, "the observation lacks .*'image'.*; expected a dict with"),
    ],
)
def test_invalid_dictionary_is_refused(change, words):
    observation = seen(played("dreamer", *DICT)[1])[0]
    with pytest.raises(InputError, match=words):
        make("dreamer", DICT).act([1.0] if change is None else observation | change)


@pytest.mark.parametrize(
    "frame", [np.zeros((30, 40)), np.zeros((30, 40, 4), np.uint8), np.zeros((3, 30, 40), np.uint8)]
)
def test_frame_of_a_wrong_shape_is_refused(frame):
    agent = make("dreamer", PIXELS)
    with pytest.raises(InputError, match="has the shape .*; expected .*, 3"):
        agent.act(frame)
    agent.act(np.zeros((2, 21, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "actions, words",
    [
        ([5.0], r"the action has the shape \(1,\); expected \(T, 1\) or \(B, T, 1\)"),
        ([[5.0]], r"the action 5.0|out of bounds; expected one of Box\(-2.0, 4.0"),
        ([[np.nan]], "the action holds NaN"),
    ],
)
def test_invalid_action_is_refused(actions, words):
    agent = make()
    agent.act([0.0])
    with pytest.raises(InputError, match=words):
        agent.imagine(actions)


# Loading


def save(folder, names="dreamer", task=VECTOR, **changes):
    """Write what `Agent.load` reads of a run. changes: of the state in its checkpoint."""
    (config, spaces, weights, iteration), _ = played(names, *task)
    state = {"algorithm": {"networks": weights}, "spaces": spaces.state_dict()} | changes
    torch.save({"format": FORMAT, "iteration": iteration, "state": state}, folder / f"checkpoint-{iteration:06}.pt")
    (folder / "config.yml").write_text(dump_config(config))
    return folder


def test_run_is_loaded_without_its_environment(tmp_path, monkeypatch):
    _, log = played("dreamer-v3", *DICT)
    monkeypatch.setattr("dreamer.envs.make.make_registered", lambda *_: pytest.fail("made an environment"))
    agent = Agent.load(save(tmp_path, "dreamer-v3", DICT))
    assert agent.iteration == ITERATION and agent.frame_skip == 1
    assert agent.action_space == gymnasium.spaces.Discrete(3, start=1)
    assert agent.observation_space.spaces.keys() < seen(log)[0].keys(), "the texts are left out"
    assert all(own == theirs for own, theirs in play(agent, log))


def fail(*arguments):
    raise EnvError("it is gone")


def test_older_run_takes_the_spaces_from_its_environment(tmp_path, monkeypatch):
    agent = Agent.load(save(tmp_path, spaces={}))
    assert (agent.observation_space, agent.action_space) == tuple(played("dreamer", *VECTOR)[0][1])
    monkeypatch.setattr("dreamer.envs.make.make_registered", fail)
    with pytest.raises(CheckpointError, match="lack the environment's spaces, and .* cannot be made here: it is gone"):
        Agent.load(tmp_path)


def test_invalid_weights_or_folder_are_refused(tmp_path):
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


def test_loading_and_acting_import_little_and_work_on_windows(tmp_path):
    command = [sys.executable, "-c", LIGHT, str(save(tmp_path))]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_unknown_name_of_the_package_is_an_attribute_error():
    import dreamer

    with pytest.raises(AttributeError, match="has no attribute 'Agnet'"):
        dreamer.Agnet  # noqa: B018

"""The commands export and verify, and exported programs that run without this package."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from dreamer.agent import Agent
from dreamer.build import build_algorithm
from dreamer.config.load import dump_config, load_config
from dreamer.envs.make import make_eval_env
from dreamer.errors import ConfigError
from dreamer.exported import FILM, read_exported, shipped, write_exported
from dreamer.tools.export import export, verify, verify_agent
from dreamer.tools.play import evaluate, find_agent
from dreamer.tools.torch_export import noise_for, write_program
from dreamer.training.checkpoint_file import FORMAT
from tests.small_algorithms import MIXED, PIXELS, VECTOR, make
from tests.toys import SMALL

TOY = ["environment.benchmark=gymnasium", "environment.frame_skip=2", "parameters.plan2explore.num_ensemble=2"]
TOY += ["parameters.plan2explore.one_step_model.hidden_size=8"]


def make_run(folder, task, *overrides, iteration=3):
    """Return the folder of a run with a checkpoint of untrained networks."""
    task_name = f"environment.task_name=tests.envs.toy_gymnasium:{task}"
    config = load_config("dreamer", [*SMALL, *TOY, task_name, *overrides])
    env = make_eval_env(config.environment, 0)
    torch.manual_seed(0)
    algorithm = build_algorithm(config, env, torch.device("cpu"))
    state = {
        "algorithm": algorithm.state_dict(),
        "trainer": {"env_steps": 40},
        "spaces": env.unwrapped_spaces.state_dict(),
    }
    folder.mkdir()
    (folder / "config.yml").write_text(dump_config(config))
    content = {"format": FORMAT, "iteration": iteration, "state": state}
    torch.save(content, folder / f"checkpoint-{iteration:06}.pt")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "vector", "Vector-v0")


def test_exported_agent_equals_the_runs_agent(run, tmp_path, capsys):
    path = tmp_path / "agent.zip"
    assert export([str(run), str(path), "--episodes", "2"]) == 0
    exported = read_exported(path)
    assert exported.info.played.returns == evaluate(run, 2, "cpu")["returns"] == evaluate(path, 2, "cpu")["returns"]
    assert exported.info.iteration == 3 and exported.info.env_steps == 40
    assert set(exported.weights) == {"model", "actor", "critic"}
    mean = np.mean(exported.info.played.returns)
    assert f"**{mean:.1f}** ± " in exported.card and FILM in exported.card and "40 env steps" in exported.card
    assert exported.film.startswith(b"GIF89a")
    agents = [Agent.load(where) for where in (run, path, str(path))]
    observations = np.random.default_rng(0).normal(size=(3, 1)).astype(np.float32)
    first, *others = ([agent.act(observation) for observation in observations] for agent in agents)
    for actions in others:
        np.testing.assert_array_equal(first, actions)
    assert f"written: {path}" in capsys.readouterr().out


def test_verify_repeats_the_episodes_of_the_card(run, tmp_path, capsys):
    path = tmp_path / "agent.zip"
    assert export([str(run), str(path), "--episodes", "2", "--checkpoint", "3"]) == 0
    assert verify([str(path)]) == 0 and "equal in every digit" in capsys.readouterr().out
    exported = read_exported(path)
    returns = exported.info.played.returns
    for changed, status, words in (
        ([returns[0], returns[1] + 1], 1, "not equal; "),
        ([returns[0] * 1.0001, returns[1]], 0, "equal to 0.1%"),
    ):
        played = exported.info.played.model_copy(update={"returns": changed})
        write_exported(path, exported._replace(info=exported.info.model_copy(update={"played": played})))
        assert verify([str(path)]) == status and words in capsys.readouterr().out
        assert verify([str(path), "--episodes", "1"]) == 0


def test_export_of_pixels_dicts_discrete_actions_and_plan2explore(tmp_path):
    run = make_run(tmp_path / "run", "Noisy-v0", "algorithm=plan2explore", "version=2", "environment.height=64")
    path = tmp_path / "agent.zip"
    assert export([str(run), str(path), "--episodes", "1"]) == 0
    assert set(read_exported(path).weights) == {"model", "actor", "critic", "one_step_model"}
    assert verify_agent(path)
    agent = Agent.load(path)
    assert agent.act(agent.observation_space.sample()) in agent.action_space


def test_export_errors_are_one_line(run, tmp_path, capsys):
    for words, expected in (
        ([str(run), str(tmp_path / "agent.tar")], "agent.tar: expected a name that ends with .zip"),
        ([str(run), str(tmp_path / "no" / "agent.zip")], "in a folder that exists"),
    ):
        with pytest.raises(SystemExit):
            export(words)
        assert expected in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--checkpoint best: .* is an exported agent, which has only one"):
        evaluate(find_agent("cartpole"), 1, "cpu", checkpoint="best")
    assert export([str(run), str(tmp_path / "a.zip"), "--checkpoint", "best"]) == 2
    assert "has no checkpoint best" in capsys.readouterr().err
    assert verify([str(tmp_path / "gone.zip")]) == 2
    assert "gone.zip" in capsys.readouterr().err


def test_included_agents_reach_the_returns_of_their_cards():
    """Each return is equal to 1e-3; other instruction sets (SSE, AVX2) of a processor changed it by 1e-6."""
    exported, agent = read_exported("cartpole"), Agent.load("cartpole")
    env = make_eval_env(exported.config.environment, exported.info.played.seed)  # its units are the agent's
    observation, _ = env.reset()
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
        total, ended = total + reward, terminated or truncated
    assert total == pytest.approx(exported.info.played.returns[0], rel=1e-3)


def test_included_agents_are_small_and_listed(tmp_path, monkeypatch, run):
    assert sum(path.stat().st_size for path in shipped().values()) < 3e6
    assert set(shipped()) == {"cartpole", "ball-in-cup"} and find_agent("cartpole") == shipped()["cartpole"]
    agent = Agent.load("ball-in-cup")
    assert agent.act(np.zeros((64, 64, 3), np.uint8)) in agent.action_space
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "cartpole")  # a path goes before a name
    assert find_agent("cartpole") == tmp_path / "cartpole"


PLAYER = """
import json, sys
sys.modules["dreamer"] = None  # so that it cannot be imported
import numpy, torch
for path in sys.argv[1:]:
    about = {"about.json": ""}
    step = torch.export.load(path, extra_files=about).module()
    inputs = torch.load(path.replace(".pt2", ".inputs"), weights_only=True)
    action, state, noises = torch.zeros(1, inputs["actions"]), torch.zeros(1, inputs["size"]), inputs["noise"]
    actions = []
    for number, (observation, noise) in enumerate(zip(inputs["observation"], noises)):
        action, state = step(observation, action, torch.tensor([float(number == 0)]), state, noise)
        actions.append(action)
    torch.save({"action": torch.cat(actions), "state": state}, path.replace(".pt2", ".outputs"))
    print(about["about.json"].replace("\\n", " "))
"""


def test_exported_program_acts_without_this_package(tmp_path):
    """The first version from pixels, DreamerV3 with both kinds of actions: the same actions and states as the model
    steps."""
    torch.manual_seed(0)
    programs = {}
    for version, space, actions in ((1, PIXELS, 2), (3, VECTOR, MIXED)):
        algorithm = make(version, observations=space, actions=actions)
        model, actor = algorithm.model, algorithm.actor
        path = tmp_path / f"v{version}.pt2"
        write_program(path, model, actor, space, {"frame_skip": 2})
        shape = 1, *space.shape
        seen = [torch.randint(256, shape, dtype=torch.uint8) if space is PIXELS else torch.randn(shape) for _ in "abc"]
        noise = [noise_for(model) for _ in seen]
        inputs = {"size": model.rssm.stored_size, "actions": actor.action_size, "observation": seen, "noise": noise}
        torch.save(inputs, path.with_suffix(".inputs"))
        programs[path] = model, actor, inputs
    command = [sys.executable, "-I", "-c", PLAYER, *map(str, programs)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    abouts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [about["noise"] for about in abouts] == ["standard normal", "uniform in [0, 1)"]
    words = [about["outputs"][0] for about in abouts]
    assert words == ["action, 2 in [-1, 1]", "action, 1 one-hot of 3, then 2 in [-1, 1], then 2 one-hot of 2"]
    assert abouts[0]["inputs"]["observation"] == "uint8 (1, 3, 64, 64)" and abouts[0]["environment"]["frame_skip"] == 2
    for path, (model, actor, inputs) in programs.items():
        action, state = model_actions_and_state(model, actor, inputs)
        found = torch.load(path.with_suffix(".outputs"), weights_only=True)
        torch.testing.assert_close(found, {"action": action, "state": state}, rtol=1e-4, atol=1e-5)


def model_actions_and_state(model, actor, inputs):
    """Return actions and last state of the model's own steps, with the given random numbers."""
    state, action, actions = model.rssm.initial_state(1), torch.zeros(1, inputs["actions"]), []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for number, (observation, noise) in enumerate(zip(inputs["observation"], inputs["noise"], strict=True)):
            patch.setattr(torch, "randn_like", lambda part, noise=noise: noise)
            patch.setattr(torch, "rand", lambda *shape, noise=noise, **kind: noise[..., None])
            embedding = model.encoder(model.normalize(observation))
            state = model.rssm.observe_step(state, action, embedding, torch.tensor([float(number == 0)]))
            action = actor(state.feature).mode
            actions.append(action)
    return torch.cat(actions), state.stored

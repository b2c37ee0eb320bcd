"""What a run prints before it starts and when it is complete."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dreamer.config.load import flatten, load_config
from dreamer.training.messages import conclude, introduce, print_defaults, what_it_takes
from dreamer.training.program import PROGRAM

NO_RENDERER = SimpleNamespace(description=[])  # an environment


@pytest.mark.parametrize(
    "device, overrides, rendering, advice",
    [
        ("cpu", [], "osmesa, llvmpipe (LLVM 15), in software", True),
        ("cuda", [], "osmesa, Some GPU", False),
        ("cpu", ["environment.from_pixels=False"], "for films only; observations come from the environment", False),
        ("cpu", ["environment.benchmark=gym"], "by the environment", True),
    ],
)
def test_introduction_shows_folder_device_rendering_and_parameters(
    device, overrides, rendering, advice, monkeypatch, capsys
):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    config = load_config("dreamer", overrides)
    networks = {"model": nn.Linear(99, 11), "actor": nn.Linear(2, 3)}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    env = SimpleNamespace(
        renderer=lambda: "Some GPU" if device == "cuda" else "llvmpipe (LLVM 15)", description=["numbers     so many"]
    )
    introduce("runs/some-run", torch.device(device), config, networks, 0, env)
    text = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in text.replace("run folder", "folder").splitlines())
    assert lines["folder"] == "runs/some-run" and lines["device"].startswith(f"{device}, ")
    assert lines["rendering"] == rendering and lines["numbers"] == "so many"
    assert lines["parameters"] == "model 1,100, actor 9"
    assert (
        text.startswith("no GPU      networks of this size need one: 100,000 updates") == ("7.9 days" in text) == advice
    )
    assert ("add quick-v3-pixels to the names after --config\n" in text) == advice
    assert "resuming" not in text and "complete" not in text and "environments" not in text


@pytest.mark.parametrize(
    "iteration, line",
    [
        (3, "resuming    after iteration 3 of 5"),
        (5, "complete    after iteration 5; 5 were requested"),
        (14, "complete    after iteration 14; 5 were requested"),
    ],
)
def test_introduction_of_a_resumed_run(iteration, line, capsys):
    assert line in printed_introduction(["parameters.dreamer.train_iterations=5"], iteration, capsys).splitlines()


@pytest.mark.parametrize(
    "env_steps, line",
    [(4999, "resuming    after iteration 3 of 9"), (5001, "complete    after 5,001 env steps; 5,000 were requested")],
)
def test_introduction_of_a_run_with_max_env_steps(env_steps, line, capsys):
    settings = ["parameters.dreamer.train_iterations=9", "parameters.dreamer.max_env_steps=5000"]
    config = load_config("quick-cartpole-balance", settings)
    introduce("runs/some-run", torch.device("cpu"), config, {}, 3, NO_RENDERER, env_steps)
    assert line in capsys.readouterr().out.splitlines()


def test_cpu_advice_is_given_for_the_papers_sizes_only(capsys):
    config = load_config("plan2explore", ["parameters.dreamer.batch_size=5", "parameters.dreamer.train_iterations=10"])
    assert "1,000 updates, of at least 0.68 s on two cores, take 0.2 hours" in what_it_takes(config)
    assert what_it_takes(config).endswith("--config quick-p2e-pendulum-swingup")
    by_ratio = what_it_takes(load_config("dreamer-v3"))
    assert "an update takes at least 2.8 s on two cores; on a CPU" in by_ratio and "updates" not in by_ratio
    env = SimpleNamespace(renderer=lambda: "llvmpipe", description=[])
    introduce("run", torch.device("cpu"), load_config("quick-pixels-cheetah-run"), {}, 0, env)
    assert "no GPU" not in capsys.readouterr().out


def test_resumed_older_run_prints_the_defaults_of_new_keys(capsys):
    config = load_config("dreamer")
    known = flatten(config)
    print_defaults(known, config)
    print_defaults({"base": "dreamer.yml"}, config)  # a file written by hand has no "operation" keys
    assert capsys.readouterr().out == ""
    del known["operation.precision"], known["parameters.dreamer.discount"]
    print_defaults(known, config)
    line = "new keys    an older version started this run; it takes the defaults: operation.precision=float32, "
    assert capsys.readouterr().out == line + "parameters.dreamer.discount=0.99\n"
    print_defaults({"algorithm": "dreamer-v1"}, config)
    printed = capsys.readouterr().out
    assert printed.endswith(f" and {len(flatten(config)) - 13} more, now in its config.yml\n") and len(printed) < 600


@pytest.mark.parametrize(
    "average, expected_end", [(812.34, "env steps, eval/return_ema20 812.3"), (None, "85,000 env steps")]
)
def test_conclusion_prints_the_folder_and_the_next_commands(average, expected_end, capsys):
    conclude(Path("a place/runs/it").absolute(), 80, 85000, average)
    finished, commands_line, resume_line = capsys.readouterr().out.splitlines()
    assert finished.startswith("finished    'a place/runs/it': iteration 80, 85,000") and finished.endswith(
        expected_end
    )
    assert f"{PROGRAM} --evaluate 'a place/runs/it' --video" in commands_line and commands_line.endswith(
        "--logdir 'a place/runs'"
    )
    assert resume_line == f"resume      {PROGRAM} --resume 'a place/runs/it' parameters.dreamer.train_iterations=160"
    for limit, more in ((90000, "train_iterations=160"), (84000, "max_env_steps=168000")):
        conclude(Path("it"), 80, 85000, average, limit)
        assert capsys.readouterr().out.endswith(f" parameters.dreamer.{more}\n")


@pytest.mark.parametrize("envs, episodes, advice", [(4, 3, True), (4, 4, False), (2, 4, False)])
def test_unused_environments_give_advice(envs, episodes, advice, capsys):
    overrides = [f"environment.num_envs={envs}", f"parameters.dreamer.num_interaction_episodes={episodes}"]
    text = printed_introduction(overrides, 0, capsys)
    assert (f"Of {envs} environments, {episodes} collect" in text) == ("num_interaction_episodes" in text) == advice


def printed_introduction(overrides, iteration, capsys):
    config = load_config("quick-cartpole-balance", overrides)
    introduce("runs/some-run", torch.device("cpu"), config, {"model": nn.Linear(2, 3)}, iteration, NO_RENDERER)
    return capsys.readouterr().out

import pytest
import torch
from torch import nn

from dreamer.utils.command_line import introduce, parse_arguments
from dreamer.utils.config import CONFIGS, load_config


def test_config_and_overrides():
    options = parse_arguments(["--config", "dmc-walker-walk", "operation.seed=1", "parameters.dreamer.batch_size=16"])
    assert options.config == "dmc-walker-walk"
    assert options.overrides == ["operation.seed=1", "parameters.dreamer.batch_size=16"]
    assert parse_arguments(["operation.seed=1", "--config", "x"]).overrides == ["operation.seed=1"]
    assert parse_arguments(["--config", "x"]).overrides == []


def test_help_lists_every_configuration(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--help"])
    assert caught.value.code == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert {path.stem for path in CONFIGS.glob("*.yml")} <= set(lines)


@pytest.mark.parametrize("arguments", [[], ["dmc-walker-walk"], ["--config", "x", "--seed", "1"]])
def test_what_cannot_be_parsed(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    "device, overrides, rendering, advice",
    [
        ("cpu", [], "osmesa", True),
        ("cuda", [], "osmesa", False),
        ("cpu", ["environment.from_pixels=False"], "none", False),
        ("cpu", ["environment.benchmark=gym"], "by the environment", True),
    ],
)
def test_introduction(device, overrides, rendering, advice, monkeypatch, capsys):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    environment = load_config("dreamer", overrides).environment
    networks = {"model": nn.Linear(99, 11), "actor": nn.Linear(2, 3)}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    introduce("runs/some-run", torch.device(device), environment, networks)
    text = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in text.replace("run folder", "folder").splitlines())
    assert lines["folder"] == "runs/some-run" and lines["device"].startswith(f"{device}, ")
    assert lines["rendering"].startswith(rendering)
    assert lines["parameters"] == "model 1,100, actor 9"
    assert ("quick-cartpole-balance" in text) == advice

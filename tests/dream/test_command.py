"""The words of `dreamer dream`, and what it says."""

import pytest

from dreamer.errors import EnvError
from dreamer.tools import commands
from dreamer.tools.dream import command
from tests.dream.untrained_agents import DICT, agent


class Served:
    """Stands in for the server."""

    made = ()

    def __init__(self, make_session, token, host, port):
        Served.made = make_session, token, host, port
        self.address = f"http://{host}:{port}/{token}/"

    def run(self):
        raise KeyboardInterrupt


@pytest.fixture
def served(monkeypatch):
    pytest.importorskip("starlette", reason="the extra dream is not installed")
    monkeypatch.setattr("dreamer.tools.dream.server.Server", Served)
    monkeypatch.setattr(command.Agent, "load", lambda *arguments: agent("dreamer-v3", DICT))
    monkeypatch.setattr(command.webbrowser, "open", lambda address: pytest.fail("opened a browser"))
    monkeypatch.setenv("DISPLAY", ":0")
    return Served


def test_printed_address_has_a_new_token(served, capsys):
    tokens = set()
    for _ in range(2):
        assert commands.main(["dream", "latest", "--no-browser", "--port", "8000"]) == 130
        tokens.add(served.made[1])
        assert served.made[2:] == ("127.0.0.1", 8000)
        out, err = capsys.readouterr()
        assert f"http://127.0.0.1:8000/{served.made[1]}/" in out and not err
    assert len(tokens) == 2 and all(len(token) > 20 for token in tokens)


def test_other_host_gives_a_warning(served, capsys):
    commands.main(["dream", "latest", "--no-browser", "--host", "0.0.0.0"])
    assert "warning: --host 0.0.0.0: anybody who has the address can open the page" in capsys.readouterr().err


def test_session_without_its_environment_only_dreams(served, monkeypatch, capsys):
    def fail(*arguments):
        raise EnvError("it is\nnot installed")

    commands.main(["dream", "latest", "--no-browser"])
    assert served.made[0]().reality.agent is not None
    monkeypatch.setattr(command, "Reality", fail)
    assert served.made[0]().reality is None
    assert capsys.readouterr().err == "no environment, only dreams: it is not installed\n"


@pytest.mark.parametrize(
    "words, line",
    [
        (["nowhere"], "nowhere is not the folder of a run"),
        (["cartpole", "--port", "70000"], "expected a port from 0 to 65535, not 70000"),
        ([], "the following arguments are required: AGENT"),
    ],
)
def test_invalid_input_is_a_one_line_error(words, line, capsys):
    pytest.importorskip("starlette", reason="the extra dream is not installed")
    try:
        status = commands.main(["dream", *words])
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert status == 2 and line in err and err.count("\n") == 1


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert commands.main(["dream", "cartpole"]) == 2
    assert "dreamer dream needs starlette, uvicorn, websockets: " in capsys.readouterr().err

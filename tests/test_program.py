"""What is printed to be typed can be typed."""

import subprocess
import sys
from pathlib import Path

import pytest

from dreamer.program import MAIN, PROGRAM, interpreter, nearby


def test_main_is_where_it_is_looked_for():
    assert MAIN.is_file() and PROGRAM.endswith("main.py")


@pytest.mark.parametrize(
    "on_path, directory, expected",
    [
        (False, "/home/me/EasyDreamer", ".venv/bin/python"),
        (False, "/home/me", "EasyDreamer/.venv/bin/python"),
        (False, "/home/me/Easy", "/home/me/EasyDreamer/.venv/bin/python"),
        (False, "/", "home/me/EasyDreamer/.venv/bin/python"),
        (False, None, "/home/me/EasyDreamer/.venv/bin/python"),
        (True, "/home/me/EasyDreamer", "python"),
    ],
)
def test_the_interpreter_that_runs_as_the_shell_finds_it(on_path, directory, expected, monkeypatch):
    python = "/home/me/EasyDreamer/.venv/bin/python"
    monkeypatch.setattr("shutil.which", lambda name: python if on_path else f"/usr/bin/{name}")
    assert interpreter(python, directory) == expected


def test_a_blank_is_quoted():
    assert interpreter("/my venv/bin/python", "/x") == "'/my venv/bin/python'"


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "python").symlink_to(sys.executable)
    assert nearby(tmp_path / "python", str(tmp_path)) == "python"


def test_bare_make_tells_what_there_is_and_make_train_goes_on_with_a_run():
    def make(*arguments):
        command = ["make", "--dry-run", "--always-make", *arguments] if arguments else ["make"]
        return subprocess.run(command, cwd=MAIN.parent, capture_output=True, text=True, check=True).stdout

    assert all(word in make() for word in ("make train", "make test", "--resume latest", "quick-cartpole-swingup"))
    assert "main.py --config dmc-walker-walk operation.seed=1\n" in make("train", "ARGS=operation.seed=1")
    for words in (
        "--resume latest",
        "--resume=latest",
        "--evaluate latest --json",
        "--list",
        "--config my.yml",
        "--help",
    ):
        assert f"main.py {words}\n" in make("train", f"ARGS={words}")
    assert not Path(MAIN.parent / "help").exists()

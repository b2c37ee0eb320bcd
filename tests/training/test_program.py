"""Commands that are printed for the user can be run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer.__main__ import main
from dreamer.training import signals
from dreamer.training.program import HOME, PROGRAM, interpreter, short_path
from dreamer.training.signals import PYTHONS
from dreamer.training.versions import PACKAGES


def test_program_of_a_clone_is_main_py():
    assert (HOME / "main.py").is_file() and PROGRAM.endswith("main.py")


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
def test_interpreter_is_printed_as_the_shell_finds_it(on_path, directory, expected, monkeypatch):
    python = "/home/me/EasyDreamer/.venv/bin/python"
    monkeypatch.setattr("shutil.which", lambda name: python if on_path else f"/usr/bin/{name}")
    assert interpreter(python, directory) == expected


def test_interpreter_path_with_a_space_is_quoted():
    assert interpreter("/my venv/bin/python", "/x") == "'/my venv/bin/python'"


def test_short_path_does_not_resolve_links(tmp_path):
    (tmp_path / "python").symlink_to(sys.executable)
    assert short_path(tmp_path / "python", str(tmp_path)) == "python"


def test_make_prints_help_and_make_train_passes_arguments():
    def make(*arguments):
        command = ["make", "--dry-run", "--always-make", *arguments] if arguments else ["make"]
        return subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True).stdout

    assert all(word in make() for word in ("make train", "make test", "--resume latest", "quick-cartpole-swingup"))
    assert "main.py --config dmc-walker-walk operation.seed=1\n" in make("train", "ARGS=operation.seed=1")
    for command_line in (
        "--resume latest",
        "--resume=latest",
        "--evaluate latest --json",
        "--list",
        "--config my.yml",
        "--help",
    ):
        assert f"main.py {command_line}\n" in make("train", f"ARGS={command_line}")
    assert not Path(HOME / "help").exists()


def test_command_imports_environments_from_the_working_directory(tmp_path, monkeypatch, capsys):
    """`dreamer` finds configs/ and imports modules from the working directory."""
    command = ["dreamer", "--config", "dreamer", "environment.benchmark=gym", "environment.task_name=mine:My-v0"]
    (tmp_path / "mine.py").write_text("import sys; sys.exit('was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(signals, "begin", lambda: None)  # keep this process's signal handlers
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2 and "called sys.exit('was imported')" in capsys.readouterr().err


def test_pins_and_recorded_packages_match_the_dependencies():
    """Every direct dependency has a pin except torch and metaworld, which needs an older mujoco. versions.yml records
    every dependency."""
    text = (HOME / "pyproject.toml").read_text()
    (oldest, too_new), python = PYTHONS, re.search(r'requires-python = "(.*?)"', text)[1]
    assert python == f">={oldest[0]}.{oldest[1]},<{too_new[0]}.{too_new[1]}"
    pins = set(re.findall(r"^([\w-]+)==", (HOME / "constraints.txt").read_text(), re.MULTILINE))
    needed = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1]
    extras = re.search(r"optional-dependencies\](.*?)^\[", text, re.DOTALL | re.MULTILINE)[1]
    needed = set(re.findall(r'^    "([\w-]+)(?!.*>= .3.13)', needed, re.MULTILINE))
    extras = set(re.findall(r'"([\w-]+)(?:\[\w+\])?["> =;]', extras)) - {"easydreamer"}
    assert pins == (needed | extras) - {"torch", "metaworld"}
    assert set(PACKAGES) == needed | {"easydreamer", "ale-py"}

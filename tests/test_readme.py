"""What the README says to change can be changed as it stands there; and what the files beside it say of the project."""

import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from tests.toys import SMALL

ROOT = Path(__file__).resolve().parents[1]
TINY = ["train_iterations=1", "collect_interval=1", "seed_episodes=1", "action_cost=0"]


def test_change_one_idea(tmp_path):
    text = (ROOT / "README.md").read_text().partition("## Change one idea")[2]
    shutil.copy(ROOT / "main.py", tmp_path)
    for name in ("dreamer", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    changes = re.findall(r"`([\w./]+\.(?:py|yml))`[^`]*?```diff\n(.*?)```", text, flags=re.S)
    assert [file for file, _ in changes] == ["dreamer/algorithms/dreamer.py", "configs/dreamer.yml"]
    for file, diff in changes:
        old, new = ("".join(line[1:] for line in diff.splitlines(True) if line[0] in f" {sign}") for sign in "-+")
        code = (tmp_path / file).read_text()
        assert code.count(old) == 1, file
        (tmp_path / file).write_text(code.replace(old, new))
    settings = [*SMALL, "environment.frame_skip=50", *(f"parameters.dreamer.{setting}" for setting in TINY)]
    command = [sys.executable, "main.py", "--config", "quick-cartpole-balance", *settings]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_paper_can_be_cited():
    """Those that the README begins with."""
    papers = set(re.findall(r"https://arxiv.org/abs/[\d.]+", (ROOT / "README.md").read_text()))
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert len(papers) == 4 and {reference["url"] for reference in references} == papers


def test_setuptools_takes_the_packaging_metadata_without_a_complaint():
    """Also that something is deprecated, which will be an error one day."""
    reader = pytest.importorskip("setuptools.config.pyprojecttoml")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        project = reader.read_configuration(ROOT / "pyproject.toml")["project"]
    assert project["license"] == "MIT" and [(ROOT / name).is_file() for name in project["license-files"]] == [True]

"""Imports run one way: main → trainer → algorithms → modules. envs knows neither torch nor the rest."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dreamer"
MAY_IMPORT = {
    "algorithms": {"algorithms", "modules", "optim", "collect", "ranks"},
    "modules": {"modules", "config"},
    "envs": {"envs"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"dreamer.{alias.name}" for alias in node.names) if node.module == "dreamer" else [node.module]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_direction(folder):
    files = list((PACKAGE / folder).glob("*.py"))
    assert len(files) > 2
    for path in files:
        for name in imported(path):
            package, _, rest = name.partition(".")
            assert package != "main", path
            assert package != "dreamer" or rest.split(".")[0] in MAY_IMPORT[folder], f"{path} imports {name}"
            assert folder != "envs" or package not in ("torch", "tensorboard"), f"{path} imports {name}"

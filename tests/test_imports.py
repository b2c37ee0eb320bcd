"""Imports go one way: main → training → algorithms → modules. envs imports neither torch nor the other folders."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dreamer"
FOLDERS = {  # what each folder may import, besides errors
    "algorithms": {"algorithms", "modules", "replay", "config", "distributed"},
    "modules": {"modules"},
    "envs": {"envs"},
    "replay": {"replay", "files"},
    "config": {"config"},
    "training": {"training", "algorithms", "modules", "replay", "envs", "config", "build", "distributed", "files"},
}
MAX_OTHER_FILES = 7  # files outside the folders, without __init__ and __main__


def imported(path):
    """Yield the names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"dreamer.{alias.name}" for alias in node.names) if node.module == "dreamer" else [node.module]


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_imports_only_what_it_may(folder):
    files = list((PACKAGE / folder).glob("*.py"))
    assert len(files) > 2
    for path in files:
        for name in imported(path):
            package, _, rest = name.partition(".")
            assert package != "main", path
            assert package != "dreamer" or rest.split(".")[0] in {"errors", *FOLDERS[folder]}, f"{path} imports {name}"
            assert folder != "envs" or package not in ("torch", "tensorboard"), f"{path} imports {name}"


def test_gym_is_imported_by_its_adapter_alone():
    """The adapter itself is imported inside a function, for `environment.benchmark: gym` only."""
    for path in [*PACKAGE.rglob("*.py"), PACKAGE.parent / "main.py"]:
        gyms = {name for name in imported(path) if name.split(".")[0] == "gym"}
        assert not gyms or path.name == "gym_env.py", f"{path} imports {gyms}"
        at_once = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any("gym_env" in ast.unparse(node) for node in at_once), f"{path} imports the adapter at once"


def test_few_files_are_outside_the_folders():
    others = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert len(others) <= MAX_OTHER_FILES, others
    assert not any(name.startswith("dreamer") for name in imported(PACKAGE / "errors.py"))

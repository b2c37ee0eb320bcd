"""Find configurations by name: files of configs/, and tasks of a family that have no file of their own.

A family is a file of configs/ with a list of `tasks`, as its package spells them. Because configs/dmc.yml lists `walker
walk`, dmc-walker-walk is dmc with domain_name walker and task_name walk. `tasks: any` allows every name. p2e-<name> is
Plan2Explore on the configuration <name>.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from dreamer.config.yaml_files import read_mapping

PACKAGE = Path(__file__).resolve().parents[1]
PACKAGED = PACKAGE / "configs"  # in a wheel; a clone has them beside the package, where they are easier to find
CONFIGS = PACKAGED if PACKAGED.is_dir() else PACKAGE.parent / "configs"
EXPLORING = "p2e-"
ANY = "any"


def config_names() -> list[str]:
    """Return the names of all configurations, sorted. A family that takes any task is listed without tasks."""
    names = [*file_names(), *(name for family in families() for name in tasks_of(family))]
    return sorted({*names, *(EXPLORING + name for name in names if name.startswith("dmc-"))})


def file_names() -> list[str]:
    """Return the names of the files in configs/, sorted."""
    return sorted(path.stem for path in CONFIGS.glob("*.yml"))


def families() -> list[str]:
    """Return the names of the families, sorted."""
    return [name for name in file_names() if _tasks(name) is not None]


def tasks_of(family: str) -> dict[str, str]:
    """Return {name of a configuration: task, as the package spells it}; {} for a family that takes any task."""
    tasks = _tasks(family)
    return {} if tasks is None or tasks == ANY else {slug(f"{family} {task}"): task for task in tasks}


def settings_of_task(name: str) -> dict[str, Any] | None:
    """Return the content of a configuration that has no file of its own; None if there is no such configuration."""
    own = {"operation": {"log_dir": name}}
    if name.startswith(EXPLORING):
        base = name.removeprefix(EXPLORING)
        is_known = base in file_names() or settings_of_task(base) is not None
        return {"base": base, "algorithm": "plan2explore", **own} if is_known else None
    family = name
    while "-" in family:
        family = family.rpartition("-")[0]
        is_open = _tasks(family) == ANY
        task = name.removeprefix(f"{family}-") if is_open else tasks_of(family).get(slug(name))
        if task:
            words = task.split()
            keys = ["task_name"] if len(words) == 1 else ["domain_name", "task_name"]
            return {"base": f"{family}.yml", "environment": dict(zip(keys, words, strict=True)), **own}
    return None


def slug(task: str) -> str:
    """Return a task's spelling in names of configurations: Ball_in_cup catch becomes ball-in-cup-catch."""
    return re.sub(r"[ _]", "-", task).lower()


@cache
def _tasks(family: str) -> list[str] | str | None:
    """Return the `tasks` of a file of configs/; None if there is no such file, or if it is no family."""
    path = CONFIGS / f"{family}.yml"
    is_family = path.is_file() and re.search(r"^tasks:", path.read_text(encoding="utf-8"), flags=re.M)
    return read_mapping(path)["tasks"] if is_family else None

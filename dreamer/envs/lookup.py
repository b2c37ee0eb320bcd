"""Find where an id is registered that gymnasium or gym does not know: the other library, or a package not imported."""

import difflib
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

import gymnasium

from dreamer.errors import nearest

TIME_LIMIT = 60  # seconds for the import of all packages that may register an id
TYPO = 0.8  # similarity from which on an unknown id counts as a typo of a known one
SEARCH = """
import importlib, json, sys
task_name, sys.path, modules = json.loads(sys.argv[1])
for module in modules:
    try:
        importlib.import_module(module)
    except BaseException:
        continue
    for library in ("gymnasium", "gym"):
        if library in sys.modules and task_name in sys.modules[library].envs.registry:
            print("", json.dumps([module, library]), sep="\\n")
            sys.exit()
"""


def advice(benchmark: str, task_name: str) -> str:
    """Return the end of an error about an id that a benchmark, gymnasium or gym, does not know."""
    env_id = task_name.split(":")[-1]  # without the module in front
    other_library = "gym" if benchmark == "gymnasium" else "gymnasium"
    with suppress(Exception):  # such as a plugin that cannot be imported
        if env_id in registry(other_library, env_id):
            return f"; {other_library} has it: environment.benchmark={other_library}"
    known = registry(benchmark, env_id)
    is_typo = bool(difflib.get_close_matches(env_id, known, n=1, cutoff=TYPO))
    module, library = None, None
    if ":" not in task_name and not is_typo:
        module, library = find_package(task_name)
    if module is None:
        return nearest(env_id, known)
    override = f" environment.benchmark={library}" if library != benchmark else ""
    return f"; {module} registers it: environment.task_name={module}:{task_name}{override}"


def registry(name: str, task_name: str) -> Mapping[str, Any]:
    """Return the ids that are registered with a library, gymnasium or gym; none if it is not installed.

    A plugin of gymnasium registers its ids when the task name has the plugin's name before the /.
    """
    try:
        module = importlib.import_module("dreamer.envs.gym_env").gym if name == "gym" else gymnasium
    except ModuleNotFoundError:
        return {}
    known = module.envs.registry
    if name == "gymnasium" and task_name not in known:
        for plugin in metadata.entry_points(group="gymnasium.envs", name=task_name.partition("/")[0]):
            plugin.load()()
    return known


def find_package(task_name: str) -> tuple[str | None, str | None]:
    """Return the module of an installed package that registers an id, and with which library; (None, None) for none.

    The packages that depend on gymnasium or gym are imported, in a process of its own.
    """
    modules = sorted(modules_to_ask(), key=lambda module: -difflib.SequenceMatcher(None, module, task_name).ratio())
    command = [sys.executable, "-c", SEARCH, json.dumps([task_name, sys.path, modules])]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
        return json.loads(child.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None, None


def modules_to_ask() -> list[str]:
    """Return the modules of packages that need gymnasium or gym."""
    packages = {
        distribution.metadata["Name"]
        for distribution in metadata.distributions()
        for requirement in distribution.requires or ()
        if re.match(r"gym(nasium)?\b(?!-)", requirement) and "extra ==" not in requirement
    }
    return [
        module
        for module, names in metadata.packages_distributions().items()
        if packages & set(names) and module.isidentifier() and not module.startswith("_") and module != "dreamer"
    ]

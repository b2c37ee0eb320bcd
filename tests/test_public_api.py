"""Public functions tell their types, and docstrings say by themselves what they are about."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# These hang on the name of what they describe: without it, such a sentence says nothing.
HANGING = re.compile(r"(Of|Those|That|What|The same|So many|How many)\b")


def names():
    """Return the files that are looked at."""
    found = [path.relative_to(ROOT).as_posix() for path in [*(ROOT / "dreamer").rglob("*.py"), ROOT / "main.py"]]
    return sorted(found)


def public_functions(body, inside=""):
    """Yield (dotted name, function, whether its first parameter is self or cls) of a module's or a class's body."""
    for node in body:
        name = getattr(node, "name", "_")
        if name.startswith("_") and not name.endswith("__"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body, f"{name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            yield inside + name, node, bool(inside) and "staticmethod" not in decorators


def missing_types(function, is_method):
    """Return the names of parameters without a type, and "return" where what is returned has none."""
    given = function.args
    parameters = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    own = parameters[1:] if is_method else parameters
    missing = [parameter.arg for parameter in own if parameter and parameter.annotation is None]
    has_return = function.returns is not None or function.name == "__init__"
    return missing if has_return else [*missing, "return"]


def test_public_functions_have_types():
    untyped = {}
    for name in names():
        for called, function, is_method in public_functions(ast.parse((ROOT / name).read_text()).body):
            missing = missing_types(function, is_method)
            if missing:
                untyped[f"{name}: {called}"] = missing
    assert not untyped


def test_docstrings_begin_with_a_sentence_of_their_own():
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    hanging = []
    for name in names():
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            text = (isinstance(node, documented) and ast.get_docstring(node)) or ""
            if HANGING.match(text):
                hanging.append(f"{name}: {text.splitlines()[0]}")
    assert not hanging


def test_missing_types_and_dependent_docstrings_are_found():
    methods = "    def __init__(self, a, *b: int): ...\n    @staticmethod\n    def c(d) -> None: ...\n"
    code = f"class A:\n{methods}def _e(f): ...\ndef g(h, /) -> int: ..."
    found = [(called, missing_types(node, method)) for called, node, method in public_functions(ast.parse(code).body)]
    assert found == [("A.__init__", ["a"]), ("A.c", ["d"]), ("g", ["h"])]
    assert HANGING.match("Of the segments") and not HANGING.match("Offer the segments")

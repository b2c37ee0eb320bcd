"""Read YAML: files of configurations, and values of the command line.

Every error is a ConfigError of one line that says what is wrong and what to do.
"""

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from dreamer.errors import ConfigError

NOT_A_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[\d_]+(:[\d_.]+)+)")  # YAML 1.1 reads it in base 8 or 60
MAX_BYTES = 10**6  # bytes of a file
MAPPINGS = {"environment.kwargs"}  # keys whose value is a mapping with any content
MAX_VALUES = 10_000  # values in a file, each counted as often as an alias repeats it
ECHOED = 200  # characters of a wrong value that a message repeats


def echo(value: object) -> str:
    """Return the repr of a wrong value, or its beginning."""
    return cut(repr(value))


def cut(text: str) -> str:
    """Return text that fits into a line: all of it, or its beginning."""
    return text if len(text) <= ECHOED else f"{text[:ECHOED]}… ({len(text):,} characters)"


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that a file holds, {} for an empty section. Raises ConfigError."""
    tree = parse(path, lambda: _text_of(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds a {type(tree).__name__}; expected a mapping of keys to values")
    return tree


def _text_of(path: Path) -> str:
    if not path.is_file():  # reading a pipe would wait, reading a device would not end
        raise ValueError("it is not a file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES} bytes")
    return path.read_text(encoding="utf-8")


def parse(source: object, read: Callable[[], str], advice: str = "") -> Any:
    """Return the value of the YAML text that `read` returns.

    Raises ConfigError, which begins with `source` and ends with `advice`, if it cannot be read.
    """
    try:
        return deepcopy(_value_of(read()))
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        reason = f"{error.problem}{line}"
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())  # "!!bool maybe", for example, raises one of the last three
    except RecursionError:
        reason = "it is nested too deeply"
    raise ConfigError(f"{source}: not readable as YAML: {cut(reason)}{advice}")


@lru_cache(maxsize=64)  # a command reads the same files several times, and to parse one takes some 50 ms
def _value_of(text: str) -> Any:
    """Return the value of YAML text. It is cached, so callers must not change it."""
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key given twice in one mapping, and more than MAX_VALUES values.

    A key without a value reads as {}, an empty section. 010 and 1:30, which YAML 1.1 reads as 8 and 90, read as text.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = 0  # read so far
        self.sizes: dict[str, int] = {}  # the number of values below each anchor

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self.values
        repeated = isinstance(event, yaml.AliasEvent) and event.anchor in self.anchors
        # The anchor has no size yet if its alias is inside of the anchor's own value.
        self.values += self.sizes.get(event.anchor, MAX_VALUES) if repeated else 1
        if self.values > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES} values", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        if event.anchor and not repeated:
            self.sizes[event.anchor] = self.values - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value]
        twice = [key for key, _ in node.value if names.count(key.value) > 1]
        if twice:
            raise yaml.MarkedYAMLError(problem=f"{twice[-1].value} is there twice", problem_mark=twice[-1].start_mark)
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        is_text = kind is yaml.ScalarNode and implicit[0] and NOT_A_NUMBER.fullmatch(value)
        return self.DEFAULT_SCALAR_TAG if is_text else super().resolve(kind, value, implicit)


_Loader.add_constructor("tag:yaml.org,2002:null", lambda loader, node: None if node.value else {})


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one: {"a": {"b": 1}} → {"a.b": 1}. Values of keys in MAPPINGS stay mappings."""
    flat: dict[str, Any] = {}
    for name in tree:
        key, value = f"{prefix}{name}", tree[name]  # .items() of an attridict would wrap the value
        if isinstance(value, dict) and value and key not in MAPPINGS:
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat mapping as a nested one: {"a.b": 1} → {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree

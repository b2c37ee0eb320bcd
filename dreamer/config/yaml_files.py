"""Reads YAML: files of configurations, and values of the command line.

Every complaint is a ConfigError of one line that says what is wrong and what to do.
"""

import re

import yaml

from dreamer.errors import ConfigError

TEXT = re.compile(r"[-+]?(0[0-7_]+|[\d_]+(:[\d_.]+)+)")  # that YAML 1.1 takes for numbers to the base 8 or 60
LONGEST = 10**6  # bytes of a file
MAPPINGS = {"environment.kwargs"}  # keys whose value is a mapping, whatever is in it
MOST = 10_000  # values in a file, each counted as often as an alias repeats it


ECHOED = 200  # characters of a wrong value that are said again


def echo(value):
    """Return the repr of a wrong value, or how it begins."""
    return cut(repr(value))


def cut(text):
    """Return text for a line, or how it begins."""
    return text if len(text) <= ECHOED else f"{text[:ECHOED]}… ({len(text):,} characters)"


def read_mapping(path):
    """The mapping that a file holds, {} for an empty section. Raises ConfigError."""
    tree = parse(path, lambda: _text_of(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values")
    return tree


def _text_of(path):
    if not path.is_file():  # a pipe would be waited for, a device read for ever
        raise ValueError("it is no file")
    if path.stat().st_size > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} bytes")
    return path.read_text(encoding="utf-8")


def parse(source, read, advice=""):
    """What the text that `read` gives stands for. source: what a complaint begins with, advice: what it ends with."""
    try:
        return yaml.load(read(), _Loader)
    except yaml.MarkedYAMLError as error:
        reason = f"{error.problem} (line {error.problem_mark.line + 1})"
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # the last three: !!bool maybe
        reason = " ".join(str(error).split())
    except RecursionError:
        reason = "it is nested too deeply"
    raise ConfigError(f"{source}: not readable as YAML: {cut(reason)}{advice}")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is twice in one mapping, and more than MOST values. A key with nothing behind it reads as {},
    an empty section; 010 and 1:30, which YAML 1.1 takes for 8 and 90, as text."""

    def __init__(self, text):
        super().__init__(text)
        self.values, self.sizes = 0, {}  # the values of what has an anchor

    def compose_node(self, parent, index):
        event, before = self.peek_event(), self.values
        repeated = isinstance(event, yaml.AliasEvent) and event.anchor in self.anchors
        self.values += self.sizes.get(event.anchor, MOST) if repeated else 1  # MOST: an alias within what it repeats
        if self.values > MOST:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST} values", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        if event.anchor and not repeated:
            self.sizes[event.anchor] = self.values - before
        return node

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value]
        if twice := [key for key, _ in node.value if names.count(key.value) > 1]:
            raise yaml.MarkedYAMLError(problem=f"{twice[-1].value} is there twice", problem_mark=twice[-1].start_mark)
        return node

    def resolve(self, kind, value, implicit):
        is_text = kind is yaml.ScalarNode and implicit[0] and TEXT.fullmatch(value)
        return self.DEFAULT_SCALAR_TAG if is_text else super().resolve(kind, value, implicit)


_Loader.add_constructor("tag:yaml.org,2002:null", lambda loader, node: None if node.value else {})


def flatten(tree, prefix=""):
    """{"a": {"b": 1}} → {"a.b": 1}. A value of MAPPINGS stays one."""
    flat = {}
    for name in tree:
        key, value = f"{prefix}{name}", tree[name]  # [] gives what is inside of an attridict as it is
        if isinstance(value, dict) and value and key not in MAPPINGS:
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def unflatten(flat):
    """The reverse."""
    tree = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree

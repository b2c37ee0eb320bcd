"""Define a verdict on a run, and the type of the functions that return one."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dreamer.config.load import Config

Figures = Mapping[str, Any]
ALARM, NOTE, FINE = "alarm", "note", "fine"


class Verdict(NamedTuple):
    """The answer to one question about a run."""

    name: str
    level: str  # ALARM: it keeps the run from learning; NOTE: it may; FINE
    text: str  # the answer with its figures
    advice: str = ""  # the likely cause and the key to change, or what to look at; empty if it is fine


Check = Callable[[Figures, Config], Verdict | None]  # returns None if figures that it needs are missing


def settings_of(config: Config) -> Config:
    """Return the section `parameters.dreamer` of a configuration."""
    return config.parameters.dreamer


def has_figures(figures: Figures, *names: str) -> bool:
    """Return whether all these figures are known."""
    return all(name in figures for name in names)

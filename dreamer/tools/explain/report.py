"""Format the verdicts of `dreamer explain` as text or as JSON: the likeliest cause first, then each verdict."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from dreamer.tools.explain.verdict import ALARM, FINE, NOTE, Figures, Verdict

MARKS = {ALARM: "!!", NOTE: " ?", FINE: "ok"}
WIDTH = 118


def as_text(heading: str, verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as text: the likeliest cause, all alarms, notes, and verdicts that are fine."""
    lines = [heading, ""]
    cause = most_likely_cause(verdicts)
    if cause:
        lines += [*wrap("likeliest cause", f"{cause.name}: {cause.advice}"), ""]
    elif any(verdict.level == NOTE for verdict in verdicts):
        lines += ["nothing keeps this run from learning; possible problems are marked with ?", ""]
    else:
        lines += ["nothing keeps this run from learning", ""]
    for level in MARKS:
        for verdict in verdicts:
            if verdict.level == level:
                lines += wrap(f"{MARKS[level]} {verdict.name}", verdict.text)
                if verdict.advice and verdict is not cause:
                    lines += wrap("", verdict.advice)
    return "\n".join(lines)


def most_likely_cause(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the first alarm, in the order of causes, or None."""
    return next((verdict for verdict in verdicts if verdict.level == ALARM), None)


def wrap(name: str, text: str) -> list[str]:
    """Return a name and a text as lines; further lines are indented."""
    return textwrap.wrap(text, WIDTH, initial_indent=f"{name:22}", subsequent_indent=" " * 22)


def as_json(header: dict[str, Any], verdicts: Sequence[Verdict], figures: Figures) -> str:
    """Return the verdicts and the figures as JSON, after the entries of `header`."""
    cause = most_likely_cause(verdicts)
    report: dict[str, Any] = {**header, "cause": cause.name if cause else None}
    report["verdicts"] = [verdict._asdict() for verdict in verdicts]
    report["figures"] = {name: figures[name] for name in sorted(figures)}
    return json.dumps(report, default=float)

"""Parse arguments that several commands share: names, key=value overrides, numbers, checkpoints and devices."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from dreamer.config.schema import PATTERNS
from dreamer.config.yaml_files import cut
from dreamer.files import BEST, NEWEST

RAW = argparse.RawDescriptionHelpFormatter  # keeps the line breaks of a description
MAX_DIGITS = 9  # of a whole number


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(cut(word) for word in message.split())}; --help tells more\n")


def is_override(word: str) -> bool:
    """Return whether a word of the command line is a key=value rather than the name of a file."""
    return "=" in word and not os.path.isfile(word)


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (other words, words key=value) of a command line."""
    return [word for word in words if not is_override(word)], [word for word in words if is_override(word)]


def parse_words(parser: Parser, arguments: Sequence[str] | None, expected: str) -> argparse.Namespace:
    """Return the options of a parser whose argument "words" mixes names and key=value, with key=value moved to
    `overrides`. Exit if no name is left.

    arguments: None for `sys.argv`. expected: text for the error, such as "a configuration".
    """
    options = parser.parse_intermixed_args(arguments)
    options.words, options.overrides = split_words(options.words)
    if not options.words:
        parser.error(f"expected {expected}")
    return options


def separate_overrides(options: argparse.Namespace, arguments: Sequence[str] | None, *names: str) -> None:
    """Move every key=value that follows one of these options to `options.overrides`, in the order of the command line.

    arguments: the words that were parsed; None for `sys.argv`.
    """
    overrides = set(options.overrides)
    for option in names:
        words = getattr(options, option)
        if words is not None:
            overrides.update(filter(is_override, words))
            setattr(options, option, [word for word in words if word not in overrides])
    words = sys.argv[1:] if arguments is None else arguments
    options.overrides = [word for word in words if word in overrides]


def positive(text: str) -> int:
    """Return a whole number above 0, for argparse."""
    if not (text.isdecimal() and len(text) <= MAX_DIGITS and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0 of up to {MAX_DIGITS} digits, not {text}")
    return int(text)


def checkpoint(text: str) -> str:
    """Return newest, best or the number of an iteration, for argparse."""
    return text if text in (NEWEST, BEST) else str(positive(text))


def device(text: str) -> str:
    """Return the name of a device, checked as `operation.device` is, for argparse."""
    pattern, words = PATTERNS["device"]
    if not re.fullmatch(pattern, text):
        raise argparse.ArgumentTypeError(f"expected {words}, not {text}")
    return text

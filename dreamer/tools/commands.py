"""Define and call the commands, which follow `dreamer`, `python -m dreamer` or `python main.py`."""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from dreamer.training import signals
from dreamer.training.ending import exit_status


class Command(NamedTuple):
    """A command of the program."""

    module: str  # imported when the command is called
    function: str  # of the module; it takes the words after the command's name and returns the exit status
    help: str  # a line of help


OPTIONS_MODULE = "dreamer.tools.command_line"  # its functions return options, for `execute`
COMMANDS = {
    "check": Command("dreamer.tools.check.command", "main", "say what is wrong with an environment, and how to begin"),
    "train": Command(OPTIONS_MODULE, "parse_training", "train an agent, or resume a run"),
    "evaluate": Command(OPTIONS_MODULE, "parse_evaluation", "play a run's agent and print the returns"),
    "play": Command(OPTIONS_MODULE, "parse_playing", "film one episode, and open the film where there is a display"),
    "dream": Command("dreamer.tools.dream.command", "main", "open a page with an agent's world and its dream"),
    "export": Command("dreamer.tools.export", "export", "write the agent of a run to one file that others can use"),
    "verify": Command("dreamer.tools.export", "verify", "play the episodes on an exported agent's card again"),
    "push": Command("dreamer.tools.export", "push", "upload an agent to the Hugging Face Hub"),
    "list": Command(OPTIONS_MODULE, "parse_listing", "list the runs and how far they came"),
    "plot": Command("dreamer.tools.plot", "main", "draw learning curves over seeds, and compare methods"),
    "explain": Command("dreamer.tools.explain.command", "main", "say why a run learns or does not, and what to change"),
    "sweep": Command("dreamer.tools.sweep", "main", "train many runs: configurations, seeds, values of keys"),
    "reproduce": Command("dreamer.tools.reproduce", "main", "train several seeds and compare with a published curve"),
    "data": Command("dreamer.tools.data", "main", "import recorded episodes, or export those of a run"),
    "benchmark": Command("dreamer.tools.benchmark", "main", "measure how fast a configuration is on this machine"),
}
FLAGS = Command(OPTIONS_MODULE, "parse_arguments", "--config, --resume, --evaluate or --list in place of a command")


def main(arguments: Sequence[str] | None = None) -> int:
    """Call the command that the first word names, and return the exit status. arguments: None for `sys.argv`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS[words.pop(0)] if words and words[0] in COMMANDS else FLAGS
    function = getattr(importlib.import_module(command.module), command.function)
    if command.module != OPTIONS_MODULE:
        signals.ready()
        return function(words)
    options = function(words)
    from dreamer.tools.execute import execute  # late: it imports torch, which --help and a wrong word do not need

    signals.ready()
    return exit_status(execute, options)

"""The command `dreamer`, or `python -m dreamer`: runs main.py or a tool from any folder."""

import runpy
import sys

from dreamer.training.program import MAIN

TOOLS = "plot", "sweep", "benchmark"


def main() -> None:
    """Run the tool that the first argument names, or else main.py with all arguments."""
    if sys.argv[1:] and sys.argv[1] in TOOLS:
        runpy.run_module(f"dreamer.tools.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
        return
    if not MAIN.is_file():
        sys.exit(f"error: {MAIN} is not there: install EasyDreamer with pip install -e, from a clone that stays")
    sys.path.append("")  # so that an environment in the working directory can be imported
    runpy.run_path(str(MAIN), run_name="__main__")


if __name__ == "__main__":
    main()

"""The program: `dreamer`, `python -m dreamer` and `python main.py`."""

import sys

from dreamer.training import signals


def main() -> None:
    """Run the program and exit with its status. It handles the signals and the standard error of this process."""
    signals.begin()
    sys.path.append("")  # so that an environment in the working directory can be imported
    from dreamer.tools import commands  # late: `begin` first refuses a Python that is too old for this import

    sys.exit(commands.main())


if __name__ == "__main__":
    main()

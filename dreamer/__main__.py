"""The program: `dreamer`, `python -m dreamer` and `python main.py`."""

import sys

from dreamer.training import signals


def main() -> None:
    """Run the program in this process, whose signals and standard error it takes over, and exit with its status."""
    signals.begin()
    sys.path.append("")  # so that an environment in the working directory can be imported
    from dreamer.tools import commands  # late, because `begin` refuses a Python that is too old for it

    sys.exit(commands.main())


if __name__ == "__main__":
    main()

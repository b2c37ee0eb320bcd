"""`dreamer`, or `python -m dreamer`, from any folder: what `python main.py` is in the program's own."""

import runpy
import sys

from dreamer.program import MAIN


def main():
    """Runs main.py as if it had been called itself."""
    if not MAIN.is_file():
        sys.exit(f"error: {MAIN} is not there: install EasyDreamer with pip install -e, from a clone that stays")
    sys.path.append("")  # so that an environment in the working directory can be imported
    runpy.run_path(str(MAIN), run_name="__main__")


if __name__ == "__main__":
    main()

"""Train Dreamer or Plan2Explore: `python main.py --config dmc-walker-walk`; `--help` tells the rest.

A run goes this way, told in one look by `run_training` in dreamer/main.py:

    configuration   dreamer/config/load.py        YAML of configs/, and key=value of the command line
    environment     dreamer/envs/make.py          wrapped, seeded
    networks        dreamer/build.py              world model (modules/world_model.py), actor, critic
    algorithm       dreamer/algorithms/           dreamer.py, dreamer_v2.py, dreamer_v3.py: one update each
    replay          dreamer/replay/buffer.py
    Trainer.run()   dreamer/training/trainer.py   Algorithm 1: learn, collect, evaluate, save

The words of the command line are read by dreamer/tools/commands.py and command_line.py. From Python: docs/python.md.
"""

from dreamer.__main__ import main as run_program
from dreamer.tools.commands import main

__all__ = ["main"]

if __name__ == "__main__":
    run_program()

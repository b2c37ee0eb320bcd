"""`dreamer dream`: open a page that shows an agent's world and its dream side by side."""

import argparse
import importlib.util
import os
import secrets
import sys
import webbrowser
from collections.abc import Sequence
from functools import partial

from dreamer.agent import Agent
from dreamer.config.load import Config
from dreamer.envs.rendering import select_backend
from dreamer.errors import ConfigError, EnvError, EnvFault, one_line, pip_install
from dreamer.files import NEWEST
from dreamer.tools.argument_parser import Parser, checkpoint, device
from dreamer.tools.command_line import AGENT
from dreamer.tools.dream.reality import Reality
from dreamer.tools.dream.session import Session
from dreamer.training.ending import exit_status

ABOUT = """Open a page on this machine: on the left the environment, on the right what the agent's world model dreams.
Let the agent act or act yourself, go back, dream again, and save what you saw."""
PACKAGES = "starlette", "uvicorn", "websockets"  # of the extra "dream"


def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C. Return the exit status."""
    parser = Parser("dreamer dream", description=ABOUT)
    parser.add_argument("agent", metavar="AGENT", help=AGENT)
    parser.add_argument("--checkpoint", type=checkpoint, default=NEWEST, help="of a run: newest, best or an iteration")
    parser.add_argument("--device", type=device, default="cpu", help="to compute on (cpu)")
    parser.add_argument("--seed", type=int, help="of the environment and the dreams (as in the run's evaluations)")
    parser.add_argument("--port", type=port, default=0, help="to listen on (a free one)")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (%(default)s, this machine alone)")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    return exit_status(serve, parser.parse_args(arguments))


def port(text: str) -> int:
    """Return a port to listen on, for argparse."""
    number = int(text) if text.isdecimal() and len(text) <= 5 else -1
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, not {text}")
    return number


def serve(options: argparse.Namespace) -> None:
    """Print the address of a page, open it where there is a display, and serve it until the process is interrupted.

    Raises ConfigError, CheckpointError, ExportError or OSError, in one line.
    """
    check_packages()
    from dreamer.tools.dream.server import Server  # late: it needs these packages

    load = partial(Agent.load, options.agent, options.device, options.seed, options.checkpoint)
    config = load().config  # an agent that cannot be loaded ends the program here
    prepare_rendering(config)
    server = Server(partial(make_session, load, options.seed), secrets.token_urlsafe(16), options.host, options.port)
    if options.host not in ("127.0.0.1", "::1", "localhost"):
        print(
            f"warning: --host {options.host}: anybody who has the address can open the page from elsewhere, and the "
            "connection is not encrypted",
            file=sys.stderr,
        )
    print(f"dreaming at {server.address}   Ctrl-C ends it", flush=True)
    if not options.no_browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        webbrowser.open(server.address)
    server.run()


def check_packages() -> None:
    """Raise ConfigError if a package of the extra is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"dreamer dream needs {', '.join(missing)}: {pip_install('easydreamer[dream]')}")


def prepare_rendering(config: Config) -> None:
    """Choose MuJoCo's rendering back end before a session imports MuJoCo. If none works, print and show the reason."""
    if config.environment.benchmark == "dmc":
        try:
            select_backend()
        except EnvError as error:
            print(f"no pictures of the environment: {one_line(error)}", file=sys.stderr)


def make_session(load: partial[Agent], seed: int | None) -> Session:
    """Return a session for one page. Without its environment, the agent only dreams."""
    agent = load()
    try:
        reality = Reality(agent, seed)
    except (EnvError, EnvFault) as error:
        print(f"no environment, only dreams: {one_line(error)}", file=sys.stderr)
        reality = None
    return Session(agent, reality)

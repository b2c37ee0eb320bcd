"""Compare the speed of DreamerV3 here with that of its authors' JAX code: one core, equal networks, alternating turns.

    python -m venv jax-venv        # Python 3.11 or later; dreamer is the authors' package, of December 2024
    jax-venv/bin/pip install --no-deps dreamer==3.3.0
    jax-venv/bin/pip install jax==0.4.33 "numpy<2" chex cloudpickle einops elements jaxtyping ninjax optax portal tqdm
    python experiments/beside_dreamerv3.py --python jax-venv/bin/python [--only size1m-state,act-size12m-pixels]

Each case builds the same networks in three processes: ours, ours with operation.compile=True, and theirs. They stay on
one core and compute in float32. An update has all losses, gradients, the optimiser and the slow critic, of one batch
that stays the same; drawing batches from the replay is left out. An action is one of the policy that collects. Theirs
takes our sizes and hyperparameters; if the numbers of parameters differ, the script stops.

The tables show milliseconds of CPU time and of wall time, and the ratios of each turn's times: the median of the turns,
with the quartiles. A ratio below 1 means that ours is faster. If other programs run, read CPU time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.dreamerv3_jax import their_half, their_settings  # noqa: E402


class Case(NamedTuple):
    """What is timed. Names and overrides are separated by blanks."""

    configs: str  # what follows --config
    calls: int  # updates in a turn, or actions
    overrides: str = ""
    acts: bool = False


STATE = "environment.from_pixels=False"
CASES = {
    "quick-v3-cartpole-swingup": Case("quick-v3-cartpole-swingup", 10),
    "quick-v3": Case("dmc-cartpole-swingup quick-v3", 10),
    "size1m-state": Case("dmc-walker-walk dreamer-v3 size1m", 1, STATE),
    "size12m-state": Case("dmc-walker-walk dreamer-v3", 1, STATE),
    "size1m-pixels": Case("dmc-walker-walk dreamer-v3 size1m", 1),
    "act-quick-v3-cartpole-swingup": Case("quick-v3-cartpole-swingup", 200, acts=True),
    "act-size12m-pixels": Case("dmc-walker-walk dreamer-v3", 50, acts=True),
}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_TRACEBACK_FILTERING": "off",  # else the last line of a message is not the error
}
WARM_UP = 2  # turns that do not count
COLUMNS = ["case", "ours", "ours, compiled", "theirs", "ours / theirs", "compiled / theirs", "parameters"]


# In the processes that are timed


@contextmanager
def our_half(request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Callable[[int], None]]]:
    """Build a trainer and yield (facts, a function that makes a number of updates or actions)."""
    import torch

    from dreamer.config.load import load_config
    from dreamer.tools.measurements import prepared_trainer
    from dreamer.training.collect import run_episode

    config = load_config(request["configs"], request["overrides"])
    with prepared_trainer(config, torch.device("cpu")) as (trainer, env):
        learner = trainer.learner
        algorithm: Any = trainer.algorithm
        modules = algorithm.model, algorithm.actor_critic.actor, algorithm.actor_critic.critic
        facts = {
            "parameters": sum(weights.numel() for module in modules for weights in module.parameters()),
            "settings": their_settings(config),
            "observation": env.observation_space.shape,
            "action": env.action_space.shape,
        }
        policy = trainer.collection_policies.policy_for(algorithm)
        steps = cycle(list(islice(run_episode(env, policy), 100)))
        batch = learner.sample()
        if not request["acts"]:
            learner.prepare(algorithm)
            if learner.compiles and algorithm.model.rssm.compiled is None:
                raise RuntimeError("the update could not be compiled")

        def call(number: int) -> None:
            for _ in range(number):
                if request["acts"]:
                    policy(next(steps))
                else:
                    learner.run_update(batch, learner.made)
                    learner.made += 1

        yield facts, call


def serve(half: str) -> None:
    """Read a request from stdin, print facts, then print the times of as many calls as each further line says."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the programs print must not mix with the replies

    def reply(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=replies, flush=True)

    started = time.perf_counter()
    request = json.loads(sys.stdin.readline())
    make_half = our_half if half == "ours" else their_half
    with make_half(request) as (facts, call):
        for _ in range(WARM_UP):
            call(request["calls"])
        reply(facts | {"ready": time.perf_counter() - started})
        for line in sys.stdin:
            number, wall, cpu = int(line), time.perf_counter(), time.process_time()
            call(number)
            reply({"cpu": (time.process_time() - cpu) / number, "wall": (time.perf_counter() - wall) / number})


# In the process that asks


class Player:
    """A process that makes updates or actions with one of the programs."""

    def __init__(self, stack: ExitStack, python: str, half: str, request: dict[str, Any]) -> None:
        """Start the process and wait until it has compiled and warmed up. It ends with `stack`."""
        self.messages = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        self.command = [python, __file__, "--serve", half]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.messages}
        process = subprocess.Popen(self.command, env=os.environ | ENVIRONMENT, bufsize=0, **pipes)
        self.process = stack.enter_context(process)
        stack.callback(self.process.kill)
        self.facts = self.ask(json.dumps(request))
        self.times: dict[str, list[float]] = {"cpu": [], "wall": []}  # seconds of a call, for each turn

    def ask(self, line: str) -> dict[str, Any]:
        """Return the reply to a line. Raises ChildProcessError with the last of the process's messages."""
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n".encode())
        if reply := self.process.stdout.readline():
            return json.loads(reply)
        self.messages.seek(0)
        lines = ["no message", *self.messages.read().strip().splitlines()]
        raise ChildProcessError(f"{' '.join(self.command)}: {lines[-1]}")

    def take_turn(self, calls: int) -> None:
        """Make calls and keep their mean times."""
        for clock, seconds in self.ask(str(calls)).items():
            self.times[clock].append(seconds)


def measure(name: str, options: argparse.Namespace) -> dict[str, Player]:
    """Return the players of a case after their turns. Raises ValueError if their numbers of parameters differ."""
    case = CASES[name]
    overrides = [*case.overrides.split(), "operation.device=cpu", "operation.threads=1"]
    request = {"configs": case.configs.split(), "acts": case.acts, "calls": case.calls, "dtype": options.dtype}
    players: dict[str, Player] = {}
    with ExitStack() as stack:
        for label in ["ours"] if case.acts else ["ours", "ours, compiled"]:  # acting does not compile
            compiles = f"operation.compile={label != 'ours'}"
            players[label] = Player(stack, sys.executable, "ours", request | {"overrides": [*overrides, compiles]})
            tell(f"{name}: {label}", players[label].facts)
        players["theirs"] = Player(stack, options.python, "theirs", players["ours"].facts | request)
        tell(f"{name}: theirs", players["theirs"].facts)
        counts = {label: player.facts["parameters"] for label, player in players.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"{name}: the numbers of parameters differ: {counts}")
        for _ in range(options.turns):
            for player in players.values():
                player.take_turn(case.calls)
    return players


def tell(label: str, facts: dict[str, Any]) -> None:
    """Print what a process says when it is ready."""
    seconds = f"{facts['ready']:.0f} s to build, compile and warm up"
    print(f"{label}: {facts['parameters']:,} parameters, {seconds}", file=sys.stderr)


def row(name: str, parameters: int, times: dict[str, list[float]]) -> list[str]:
    """Return the cells of a case. times: {player: seconds of a call, for each turn}."""
    cells = [name]
    for label in COLUMNS[1:4]:
        cells.append(f"{spread([1000 * seconds for seconds in times[label]])} ms" if label in times else "")
    for label in COLUMNS[1:3]:
        ratios = []
        if label in times:
            ratios = [ours / theirs for ours, theirs in zip(times[label], times["theirs"], strict=True)]
        cells.append(spread(ratios))
    return [*cells, f"{parameters:,}"]


def spread(values: Sequence[float]) -> str:
    """Return the median, with the quartiles of more than two values; "" without values."""
    if not values:
        return ""
    if len(values) < 3:
        return f"{median(values):.3g}"
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{middle:.3g} ({low:.3g} – {high:.3g})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables. Return the exit status: 0, or 2 with one line if a process fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="of an environment with their package and JAX")
    parser.add_argument("--only", default=",".join(CASES), metavar="CASE,…", help="(%(default)s)")
    parser.add_argument("--turns", type=int, default=7, help="of each process in a case (%(default)s)")
    parser.add_argument("--dtype", default="float32", help="in which theirs computes; their default is bfloat16")
    parser.add_argument("--serve", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
        return 0
    names = options.only.split(",")
    if unknown := set(names) - set(CASES):
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if not options.python:
        parser.error("--python: name the interpreter of an environment with their package and JAX")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # its processes inherit this
    results: dict[str, dict[str, Player]] = {}
    try:
        for name in names:
            results[name] = measure(name, options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for clock, title in (("cpu", "CPU time"), ("wall", "wall time")):
        print(f"\n{title}\n\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        for name, players in results.items():
            times = {label: player.times[clock] for label, player in players.items()}
            print(f"| {' | '.join(row(name, players['ours'].facts['parameters'], times))} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

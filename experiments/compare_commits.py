"""Prove that a refactoring kept behaviour: tiny training runs by two commits, equal bit for bit.

    python experiments/compare_commits.py 544ad67 .                    # "." is the working tree as it is
    python experiments/compare_commits.py v1.0 HEAD --only v3-vectors v3-pixels --jobs 2
    python experiments/compare_commits.py v1.0 HEAD --resume           # do the runs of v1.0 resume?

Both commits make each run on the CPU with one thread, in temporary worktrees, with this interpreter. The results
are compared as experiments/compare_runs.py says. A line is printed for each run, and its first differences below. The
exit status is 0 if all runs are the same, 1 if not, 2 if a commit cannot be checked out.

With --resume OLD makes each run twice, once to half of its iterations; NEW resumes that one, and it must equal the
whole one.

A setting whose key configs/dreamer.yml of a commit does not know is left out there, and a line says so: a run may name
the old and the new name of a key. Runs whose package is not installed are skipped.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.compare_runs import Comparison, compare, leaves  # noqa: E402

ITERATIONS = 4

DREAMER_SETTINGS = f"train_iterations={ITERATIONS} seed_episodes=2 batch_size=3 batch_length=8 horizon_length=4"
OTHER_SETTINGS = "operation.device=cpu operation.video_interval=0 environment.frame_skip=40"
SMALL_IMAGES = "encoder.depth=4 decoder.depth=4"
CARTPOLE = "environment.task_name=CartPole-v1 environment.frame_skip=1"
TWO_ENVS = "environment.num_envs=2 operation.background_evaluation=True"
GYMNASIUM = "environment.benchmark=gymnasium"
DICTIONARY = "environment.task_name=toy_dictionary:ToyDictionary-v0 environment.frame_skip=1"


class Run(NamedTuple):
    """A training run. Names and settings are separated by blanks."""

    configs: str  # what follows --config
    dreamer: str  # settings of parameters.dreamer, beside ALL
    others: str = ""  # settings of other sections, beside ALL_OTHERS
    needs: str = "torch"  # a package without which the run is skipped


RUNS = {
    "v1-vectors": Run("quick-cartpole-swingup", "collect_interval=3"),
    "v1-pixels": Run("quick-pixels-cheetah-run", f"collect_interval=3 {SMALL_IMAGES}", "operation.video_interval=2"),
    "v1-discrete": Run(
        "quick-cartpole-balance",
        "collect_interval=3 actor_gradient=both use_continue_flag=True",
        f"environment.benchmark=gym {CARTPOLE}",
    ),
    "v1-two-envs": Run(
        "quick-cartpole-swingup",
        "collect_interval=3 num_interaction_episodes=2 slow_critic=target slow_critic_interval=2",
        TWO_ENVS,
    ),
    "v2-vectors": Run(
        "quick-v2-cartpole-swingup",
        "train_ratio=5 pretrain=2 actor_gradient=both buffer.prioritize_ends=True slow_critic_interval=3",
    ),
    "v2-pixels": Run(
        "quick-v2-cartpole-swingup",
        f"train_ratio=5 pretrain=2 actor_gradient=auto {SMALL_IMAGES}",
        "environment.from_pixels=True environment.render_quality=fast",
    ),
    "v2-discrete": Run("quick-v2-cartpole", "train_ratio=5 pretrain=2 slow_critic_interval=3", CARTPOLE),
    "v3-vectors": Run("quick-v3-cartpole-swingup", "train_ratio=5"),
    "v3-pixels": Run(
        "quick-v3-cartpole-swingup",
        f"train_ratio=3 encoder.architecture=strided {SMALL_IMAGES}",
        "environment.from_pixels=True environment.render_quality=fast operation.video_interval=2",
    ),
    "v3-max-pool": Run(
        "quick-v3-cartpole-swingup",
        f"train_ratio=3 encoder.architecture=max_pool {SMALL_IMAGES}",
        "environment.from_pixels=True environment.render_quality=fast environment.grayscale=True",
    ),
    "v3-discrete": Run("quick-v3-cartpole", "train_ratio=5", f"{GYMNASIUM} {CARTPOLE}", "gymnasium"),
    "v3-dictionary": Run(
        "quick-v3-cartpole", f"train_ratio=5 {SMALL_IMAGES}", f"{GYMNASIUM} {DICTIONARY}", "gymnasium"
    ),
    "v3-atari": Run(
        "quick-v3-cartpole-swingup atari-pong",
        f"train_ratio=3 encoder.architecture=strided {SMALL_IMAGES}",
        "environment.from_pixels=True environment.frame_skip=4 environment.time_limit=100",
        "ale_py",
    ),
    "v3-two-envs": Run("quick-v3-cartpole-swingup", "train_ratio=5 num_interaction_episodes=2", TWO_ENVS),
    "p2e-v1": Run("quick-p2e-pendulum-swingup", "collect_interval=3", "parameters.plan2explore.explore_env_steps=4000"),
    "p2e-v3": Run("quick-v3-cartpole-swingup", "train_ratio=5", "algorithm=plan2explore"),
}


class RunError(Exception):
    """The program or git failed. Its one line says how."""


# Making runs


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """Yield a folder that holds a revision: a worktree, removed afterwards; for "." the working tree itself."""
    if revision == ".":
        yield ROOT
        return
    git("worktree", "add", "--quiet", "--detach", str(folder), revision)
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def git(*words: str) -> None:
    """Call git in the repository. Raises RunError with its last line."""
    result = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["git failed"]
        raise RunError(lines[-1])


def known_keys(tree: Path) -> set[str]:
    """Return the dotted keys in configs/dreamer.yml of a commit."""
    return set(leaves(yaml.safe_load((tree / "configs" / "dreamer.yml").read_text()), separator="."))


def settings(run: Run) -> list[str]:
    """Return the overrides of a run, each a dotted key=value. Those of the run itself come last, so they count."""
    dreamer = [f"parameters.dreamer.{setting}" for setting in f"{DREAMER_SETTINGS} {run.dreamer}".split()]
    return [*OTHER_SETTINGS.split(), *dreamer, *run.others.split()]


def unknown_settings(name: str, tree: Path) -> list[str]:
    """Return the overrides of a run whose keys a commit does not know."""
    known = known_keys(tree)
    return [setting for setting in settings(RUNS[name]) if setting.partition("=")[0] not in known]


def train(tree: Path, name: str, folder: Path, iterations: int = ITERATIONS) -> None:
    """Start a run in a folder with a commit's program. Raises RunError."""
    unknown = unknown_settings(name, tree)
    known_settings = [setting for setting in settings(RUNS[name]) if setting not in unknown]
    configs = RUNS[name].configs.split()
    call(tree, folder, "--config", *configs, "--folder", str(folder), *known_settings, train_iterations(iterations))


def train_iterations(number: int) -> str:
    """Return the override that ends a run after a number of iterations."""
    return f"parameters.dreamer.train_iterations={number}"


def call(tree: Path, folder: Path, *words: str) -> None:
    """Call a commit's main.py beside the folder of the run. Raises RunError with the last line of its messages."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT / "experiments"),  # toy_dictionary.py stands there
    }
    command = [sys.executable, str(tree / "main.py"), *words]
    result = subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise RunError(f"{tree}/main.py: exit status {result.returncode}: {lines[-1]}")


def compare_commits(name: str, old: Path, new: Path, resume: bool = False) -> Comparison:
    """Make a run with each of two commits, checked out in `old` and `new`, and compare the results."""
    with tempfile.TemporaryDirectory() as folder:
        old_run, new_run = Path(folder, "old"), Path(folder, "new")
        try:
            train(old, name, old_run)
            if resume:
                train(old, name, new_run, ITERATIONS // 2)
                call(new, new_run, "--resume", str(new_run), train_iterations(ITERATIONS))
            else:
                train(new, name, new_run)
        except RunError as error:
            return Comparison([str(error)])
        return compare(old_run, new_run, resume)


def main(arguments: list[str] | None = None) -> int:
    """Compare the runs and print the outcomes. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", help='a commit, or "."')
    parser.add_argument("new", metavar="NEW", help='a commit, or "."')
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME", help=", ".join(RUNS))
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, a thread each (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="NEW resumes what OLD began")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            old = stack.enter_context(checked_out(options.old, Path(folder, "old")))
            new = stack.enter_context(checked_out(options.new, Path(folder, "new")))
            return compare_all(options.only, old, new, options.jobs, options.resume)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def compare_all(names: list[str], old: Path, new: Path, jobs: int, resume: bool) -> int:
    """Compare runs, several at a time, and print each outcome. Returns the exit status."""
    runnable = [name for name in names if find_spec(RUNS[name].needs)]
    for name in names:
        if name not in runnable:
            print(f"{name:14}skipped: {RUNS[name].needs} is not installed")
    for title, tree in (("OLD", old), ("NEW", new)):
        unknown = sorted({setting for name in runnable for setting in unknown_settings(name, tree)})
        if unknown:
            print(f"{title} does not know {', '.join(unknown)}")
    same = True
    with ThreadPoolExecutor(jobs) as executor:
        outcomes = executor.map(lambda name: compare_commits(name, old, new, resume), runnable)
        for name, comparison in zip(runnable, outcomes, strict=True):
            print(f"{name:14}{comparison}", flush=True)
            same = same and not comparison.differences
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

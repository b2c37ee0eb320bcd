"""Budgets for the number of kernels in a compiled update at the paper's lengths (`tests/count_kernels.py`)."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from dreamer.algorithms.compiled import compile_parts
from tests.count_kernels import HORIZON, LENGTHS, generate_code_only
from tests.small_algorithms import make

# Version, imaginations per update, budget of kernels, and the kernels outside the steps, which start once per update.
# `python -m tests.count_kernels` counts all kernels.
UPDATES = {
    "dreamer": (1, 1, 1900, 330),
    "dreamer-v2": (2, 1, 2600, 500),
    "dreamer-v3": (3, 1, 5000, 590),
    "plan2explore": (1, 2, 3000, 630),
}
RUN_OPTIONS = {"cwd": Path(__file__).resolve().parents[2], "capture_output": True, "text": True}


@torch.no_grad()
def kernels_of_steps(version):
    """Return the number of kernels in one observed step and in one imagined step, backward steps included."""
    with generate_code_only() as graphs:
        algorithm = make(version)
        compile_parts(algorithm)
        rssm, behavior = algorithm.model.rssm, algorithm.actor_critic
        start = rssm.initial_state(4)
        carry = [start.deterministic.contiguous(), start.stochastic.contiguous()]
        embedding = torch.zeros(4, algorithm.model.encoder.embedding_size)
        rssm.compiled[0].make_steps(
            carry, (torch.zeros(4, 2), embedding, torch.zeros(4), rssm.representation_model.noise(4))
        )
        observed = [len(graph.kernels) for graph in graphs]
        if behavior.scan:
            behavior.scan.scan.make_steps(carry, [parts[0] for parts in behavior.scan.draw(start, 1)])
        else:
            algorithm.imagine_step(rssm, behavior.actor, start, start.feature)
        imagined = [len(graph.kernels) for graph in graphs[len(observed) :]]
    assert len(observed) == 2 and len(imagined) == (2 if behavior.scan else 1)
    return sum(observed), sum(imagined)


def test_updates_stay_within_their_budgets():
    """The kernels are counted in another process, because torch cannot trace functions that slipcover has changed."""
    completed = subprocess.run([sys.executable, "-m", "tests.algorithms.test_kernel_budget"], **RUN_OPTIONS)
    assert completed.returncode == 0, completed.stderr
    steps = json.loads(completed.stdout.splitlines()[-1])
    assert len(steps) == 3 and min(map(min, steps)) > 10, "counted nothing"
    for name, (version, imaginations, budget, others) in UPDATES.items():
        observed, imagined = steps[version - 1]
        kernels = LENGTHS[name] * observed + imaginations * HORIZON * imagined + others
        assert kernels <= budget, name


if __name__ == "__main__":
    print(json.dumps([kernels_of_steps(version) for version in (1, 2, 3)]))

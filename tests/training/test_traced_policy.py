"""Traced policies give the same actions as eager ones, bit for bit, also after their weights have changed."""

import pickle
from itertools import count

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer.algorithms.policy import Policy
from dreamer.replay.step import Step
from dreamer.training.cuda_graph import CudaGraphed
from dreamer.training.evaluation_runner import EvaluationRunner
from dreamer.training.traced_policy import Traced, trace_networks, trace_policy
from tests.simulated_cuda_graph import simulated_cuda_graphs
from tests.small_algorithms import PIXELS, VECTOR, make
from tests.toys import ToyEnv, make_dreamer, make_evaluator, train

SPACES = {"pixels": PIXELS, "vector": VECTOR, "both": spaces.Dict({"image": PIXELS, "vector": VECTOR})}


def steps(space, actions, rows):
    """Yield five steps of `rows` environments."""
    random = np.random.default_rng(0)
    space.seed(0)
    for number in range(5):
        observations = [space.sample() for _ in range(rows)]
        stacked = (
            {key: np.stack([each[key] for each in observations]) for key in observations[0]}
            if isinstance(observations[0], dict)
            else 0
        )
        is_first = np.full(rows, number in (0, 3))
        action = np.eye(actions, dtype=np.float32)[random.integers(actions, size=rows)]
        yield Step(stacked or np.stack(observations), action, np.zeros(rows), is_first, ~is_first, np.zeros(rows))


def act_twice(policy, space, rows):
    """Return actions and latent states of two passes over the same steps, with a change of the weights between them."""
    torch.manual_seed(1)
    results = []
    for _ in range(2):
        policy.state = None
        for step in steps(space, 2, rows):
            results += [torch.tensor(policy(step)), policy.state.stored.clone()]
        with torch.inference_mode():
            for weight in (*policy.model.parameters(), *policy.actor.parameters()):
                weight.mul_(1.1)
    return results


CASES = [
    (1, "pixels", False, None, 1),
    (1, "vector", False, 0.3, 1),
    (1, "vector", True, 0.1, 2),
    (2, "pixels", True, None, 1),
    (2, "vector", False, 0.3, 1),
    (3, "both", False, 0.0, 1),
    (3, "pixels", True, 0.1, 5),
]


@pytest.mark.parametrize("graph_kind", ["traced", "tape"])
@pytest.mark.parametrize(("version", "kind", "discrete", "noise", "rows"), CASES)
def test_traced_policy_gives_the_same_actions(version, kind, discrete, noise, rows, graph_kind, capsys):
    """The search for a tanh-normal's mode stops early on a CPU, so the simulated graph cannot record it."""
    if graph_kind == "tape" and (version, discrete, noise) == (1, False, None):
        pytest.skip("a CPU reads a number back")
    one, other = (make(version, observations=SPACES[kind], discrete=discrete) for _ in range(2))
    expected = act_twice(Policy(one.model, one.actor, noise), SPACES[kind], rows)
    policy = Policy(other.model, other.actor, noise)
    capsys.readouterr()
    with simulated_cuda_graphs():
        if graph_kind == "tape":
            policy.decide = CudaGraphed(policy.decide, torch.device("cuda"), "the policy")
        else:
            trace_policy(policy, patience=0)
        traced_results = act_twice(policy, SPACES[kind], rows)
    graphs = policy.decide.graph if graph_kind == "tape" else (policy.filter if noise is None else policy.decide).graphs
    assert graphs and capsys.readouterr().err == ""
    assert all(map(torch.equal, traced_results, expected)) and not torch.equal(traced_results[3], traced_results[13])


def test_function_that_cannot_be_traced_is_called_eagerly(capsys):
    """One warning is printed per number of rows."""
    numbers = count()
    traced = Traced(lambda x: x + next(numbers))
    one, other = traced(torch.zeros(2)), traced(torch.zeros(2))
    assert (other - one == 1).all()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "warning: the policy cannot be traced and acts step by step: the graph gives other numbers"


def test_traced_networks_work_with_any_exploration_noise():
    """One graph serves all, as in an `Agent`."""
    one, other = (make(1) for _ in range(2))
    plain, policy = Policy(one.model, one.actor), Policy(other.model, other.actor)
    trace_networks(policy)
    for noise in (None, 0.3):
        plain.exploration_noise = policy.exploration_noise = noise
        assert all(map(torch.equal, act_twice(policy, VECTOR, 1), act_twice(plain, VECTOR, 1)))
    assert len(policy.filter.graphs) == 1


def test_graph_is_made_after_patience_calls():
    doubled = Traced(lambda x: 2 * x, patience=2)
    for number in range(4):
        assert (doubled(torch.ones(3)) == 2).all()
        assert len(doubled.graphs) == (number >= 2)


def test_traced_policy_can_be_pickled():
    algorithm = make(1)
    policy = Policy(algorithm.model, algorithm.actor)
    trace_networks(policy)
    policy(next(steps(VECTOR, 2, 1)))
    other = pickle.loads(pickle.dumps(policy))
    assert policy.filter.graphs and not other.filter.graphs
    assert all(map(torch.equal, act_twice(other, VECTOR, 1), act_twice(policy, VECTOR, 1)))


def test_at_most_eight_batch_sizes_have_graphs():
    doubled = Traced(lambda x: 2 * x)
    assert all(doubled(torch.ones(rows)).sum() == 2 * rows for rows in range(1, 12))
    assert list(doubled.graphs) == list(range(1, 9))


def test_run_traces_the_collection_and_evaluation_policies():
    """They are traced once for all iterations, and returns are equal without tracing."""
    settings = ["train_iterations=2", "collect_interval=1", "seed_episodes=1", "batch_size=2", "batch_length=7"]
    returns = []
    for fast_paths in (True, False):
        agent = make_dreamer(ToyEnv(length=9), *settings, fast_paths=fast_paths)
        evaluator = make_evaluator(agent, ToyEnv(length=9))
        evaluator.traces = fast_paths
        agent.trainer.evaluations = EvaluationRunner(lambda evaluator=evaluator: evaluator)
        trainer = train(agent).trainer
        assert (
            isinstance(trainer.collection_policies.policy.decide, Traced)
            is isinstance(evaluator.policy.filter, Traced)
            is fast_paths
        )
        returns.append(trainer.logger.of("train/return") + trainer.logger.of("eval/return"))
    assert returns[0] == returns[1] and len(returns[0]) == 5

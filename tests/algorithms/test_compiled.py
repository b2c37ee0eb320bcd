"""Updates whose parts go through a compiler. Here the compiler returns the function unchanged."""

from types import SimpleNamespace

import pytest
import torch

from dreamer.algorithms.compiled import checked, compile_parts, uncompile_parts
from tests.small_algorithms import make, windows
from tests.toys import parameters

NONZERO_HEADS = "agent.critic.outscale=1", "reward.outscale=1", "use_continue_flag=True", "warm_up=0"


def metrics_and_parameters(algorithm, count=2):
    torch.manual_seed(1)
    metrics = [algorithm.update(windows(algorithm, seed))[0] for seed in range(count)]
    return metrics, parameters(algorithm)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_compiled_parts_give_the_same_update(version):
    """Observed states are computed by a scan, and every part goes through the compiler."""
    plain, in_parts = make(version, *NONZERO_HEADS), make(version, *NONZERO_HEADS)
    compiled_calls = []

    def compiler(function):
        def compiled(*arguments, **keywords):
            compiled_calls.append(function.__name__)
            return function(*arguments, **keywords)

        return compiled

    assert compile_parts(in_parts, compiler) and not compile_parts(in_parts, compiler)
    (metrics, weights), (metrics_in_parts, weights_in_parts) = (
        metrics_and_parameters(plain),
        metrics_and_parameters(in_parts),
    )
    torch.testing.assert_close(metrics_in_parts, metrics, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights_in_parts, weights, rtol=1e-4, atol=1e-5)
    expected = {"encode", "prior", "values", *plain.compilable}
    assert set(compiled_calls) == expected | ({"imagine_step"} if version == 3 else set())  # others imagine by a scan
    uncompile_parts(in_parts)
    compiled_calls.clear()
    in_parts.update(windows(in_parts))
    assert not compiled_calls


def test_compiled_functions_check_arguments_but_not_attributes():
    def step(owner, flag, inputs):
        return inputs * owner.scale if flag else inputs

    owner = SimpleNamespace(scale=3.0)
    compiled_step = torch.compile(step, backend="eager", fullgraph=True, options={"guard_filter_fn": checked})
    ones = torch.ones(2)
    assert compiled_step(owner, True, ones).sum() == 6 and compiled_step(owner, False, ones).sum() == 2
    owner.scale = 5.0
    assert compiled_step(owner, True, ones).sum() == 6  # an algorithm's settings do not change
    assert compiled_step(owner, True, torch.ones(3)).sum() == 15

"""Updates whose steps and heads are compiled; here by a compiler that changes nothing, or by none that works."""

import pytest
import torch

from dreamer.algorithms.compiled import compile_parts, undo
from tests.toys import parameters
from tests.versions import make, windows

AWAKE = "agent.critic.outscale=1", "reward.outscale=1", "use_continue_flag=True", "warm_up=0"
SIXTEEN = {1: "stochastic_size=4", 2: "stochastic_size=4", 3: "stochastic_size=4"}  # numbers are drawn 16 at a time


def updated(algorithm, count=2):
    torch.manual_seed(1)
    metrics = [algorithm.update(windows(algorithm, seed))[0] for seed in range(count)]
    return metrics, parameters(algorithm)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_update_in_parts_is_an_update(version):
    """The observed states by a scan, and every part through the compiler."""
    plain, parted = make(version, *AWAKE), make(version, *AWAKE)
    called = []

    def compiler(function):
        def compiled(*arguments):
            called.append(function.__name__)
            return function(*arguments)

        return compiled

    assert compile_parts(parted, compiler) and not compile_parts(parted, compiler)
    (metrics, weights), (others, same) = updated(plain), updated(parted)
    torch.testing.assert_close(others, metrics, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same, weights, rtol=1e-4, atol=1e-5)
    expected = {"encode", "observe_step", "prior", "imagine_step", "values", *plain.compilable}
    assert set(called) == expected
    undo(parted)
    called.clear()
    parted.update(windows(parted))
    assert not called

"""Updates whose steps and heads are compiled; here by a compiler that changes nothing, or by none that works."""

from types import SimpleNamespace

import pytest
import torch

from dreamer.algorithms.compiled import checked, compile_parts, uncompile_parts
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
        def compiled(*arguments, **keywords):
            called.append(function.__name__)
            return function(*arguments, **keywords)

        return compiled

    assert compile_parts(parted, compiler) and not compile_parts(parted, compiler)
    (metrics, weights), (others, same) = updated(plain), updated(parted)
    torch.testing.assert_close(others, metrics, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same, weights, rtol=1e-4, atol=1e-5)
    expected = {"encode", "prior", "values", *plain.compilable}
    assert set(called) == expected | ({"imagine_step"} if version == 3 else set())  # others imagine by a scan
    uncompile_parts(parted)
    called.clear()
    parted.update(windows(parted))
    assert not called


def test_arguments_that_are_numbers_are_checked_and_attributes_are_not():
    def step(owner, flag, inputs):
        return inputs * owner.scale if flag else inputs

    owner = SimpleNamespace(scale=3.0)
    form = torch.compile(step, backend="eager", fullgraph=True, options={"guard_filter_fn": checked})
    ones = torch.ones(2)
    assert form(owner, True, ones).sum() == 6 and form(owner, False, ones).sum() == 2
    owner.scale = 5.0
    assert form(owner, True, ones).sum() == 6  # an algorithm's settings do not change
    assert form(owner, True, torch.ones(3)).sum() == 15

"""Updates recorded as CUDA graphs, which `tests/simulated_cuda_graph.py` simulates, and their host-device transfers."""

from contextlib import nullcontext
from itertools import count, cycle, islice

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dreamer.envs.actions import ActionParts
from dreamer.training.cuda_graph import CudaGraphed
from tests.algorithms.test_update import TwoActions, make, weights, windows
from tests.simulated_cuda_graph import simulated_cuda_graphs, tensors

VERSIONS = ["dreamer", "dreamer-v2", "dreamer-v3", "plan2explore"]
VERSIONS += [["plan2explore", "dreamer-v2"], ["plan2explore", "dreamer-v3"]]


class TwoChoices(TwoActions):
    action_space = ActionParts([2])


class Mixed(TwoActions):
    action_space = ActionParts([2, 0])


ACTIONS = {"continuous": TwoActions, "discrete": TwoChoices, "mixed": Mixed}


def batches(env, number):
    """Return an iterator over `number` batches with actions of `env`; the batches repeat."""
    repeated = list(windows())
    if env is not TwoActions:
        choices = [torch.eye(2)[(batch.action[..., 0] > 0).long()] for batch in repeated]
        repeated = [batch._replace(action=choice) for batch, choice in zip(repeated, choices, strict=True)]
    if env is Mixed:
        repeated = [
            batch._replace(action=torch.cat([batch.action, batch.reward[..., None].tanh()], -1)) for batch in repeated
        ]
    return islice(cycle(repeated), number)


def run_updates(config, *overrides, record, env=TwoActions, injected=lambda batch, metrics: metrics):
    """Make six updates. Return the metrics of each, the weights and the `CudaGraphed`. injected: called in each
    update."""
    agent = make(config, *overrides, env=env)

    def update(batch):
        metrics, feature = agent.update(batch)
        return injected(batch, metrics), feature

    update, rows = CudaGraphed(update, torch.device("cuda" if record else "cpu")), []
    for batch in batches(env, 6):
        rows.append({name: value.item() for name, value in update(batch)[0].items()})
    return rows, weights(agent), update


CASES = [(config, "continuous") for config in VERSIONS] + list(
    zip(VERSIONS[:3], ["discrete", "mixed", "discrete"], strict=True)
)


@pytest.mark.parametrize("config, actions", CASES, ids=str)
def test_replayed_graph_equals_the_eager_update(config, actions):
    """Metrics and weights are equal bit for bit."""
    with simulated_cuda_graphs():
        expected, same, _ = run_updates(config, record=False, env=ACTIONS[actions])
        got, other, update = run_updates(config, record=True, env=ACTIONS[actions])
    assert update.graph is not None and got == expected
    torch.testing.assert_close(other, same, rtol=0, atol=0)


def test_replayed_graph_equals_the_eager_update_in_bfloat16():
    with simulated_cuda_graphs():
        (expected, *_), (got, _, update) = (
            run_updates("dreamer", "operation.precision=bfloat16", record=record) for record in (False, True)
        )
    assert update.graph is not None and got == expected


@pytest.mark.parametrize(
    "injected",
    [
        lambda batch, metrics: metrics | {"x": torch.full((), batch.reward.sum().item())},
        lambda batch, metrics: metrics | {"x": batch.reward[batch.reward > 0].sum()},
        lambda batch, metrics: metrics | {"x": torch.tensor([0.5, 0.25]).sum()},
        lambda batch, metrics: metrics if batch.reward.sum() > 0 else {},
        lambda batch, metrics: metrics | {"x": torch.multinomial(batch.reward.exp(), 1).float().sum()},
    ],
    ids=["item", "mask", "from the host", "if", "multinomial"],
)
def test_tape_rejects_operations_that_a_cuda_graph_cannot_capture(injected, capsys):
    with simulated_cuda_graphs():
        *_, update = run_updates("dreamer", record=True, injected=injected)
    assert update.graph is None and not update.can_capture and "cannot be captured" in capsys.readouterr().err


def test_python_values_are_constant_in_a_replayed_graph():
    """A Python counter advances while updates are eager and while one is recorded, but not at replays."""
    counts = count()

    def injected(batch, metrics):
        return metrics | {"x": torch.full((), next(counts))}

    with simulated_cuda_graphs():
        rows, _, update = run_updates("dreamer", record=True, injected=injected)
    assert update.graph is not None and [row["x"] for row in rows] == [0, 1, 2, 3, 3, 3]


class HostOperations(TorchDispatchMode):
    """Records the names of operations on CPU tensors."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if any(tensor.device.type == "cpu" for tensor in tensors((arguments, keywords, result))):
            self.names.append(str(function))
        return result


def operations_on_the_host(config, env, *overrides, injected=lambda batch, metrics: None):
    """Return the operations on CPU tensors in an update on torch's meta device, where reading a value is an error."""
    agent = make(config, *overrides, env=env, device="meta")
    batch = next(batches(env, 1))
    batch = batch._replace(**{name: part.to("meta") for name, part in batch._asdict().items()})
    with HostOperations() as host:
        metrics, feature = agent.update(batch)
        injected(batch, metrics)
    assert all(tensor.is_meta for tensor in tensors((metrics, feature)))
    return host.names


@pytest.fixture
def meta_device(monkeypatch):
    """Disable autocast and Adam's step, which work differently on the meta device than on a GPU."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **keywords: nullcontext())
    monkeypatch.setattr(torch.optim.Adam, "step", lambda optimizer: None)


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("config", VERSIONS, ids=str)
def test_update_runs_no_operation_on_the_host(config, actions, meta_device):
    assert operations_on_the_host(config, ACTIONS[actions]) == []


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce", "both"])
@pytest.mark.parametrize("config", ["dreamer", "dreamer-v2", "dreamer-v3"])
def test_update_with_discrete_actions_runs_no_operation_on_the_host(config, gradient, meta_device):
    assert operations_on_the_host(config, TwoChoices, f"parameters.dreamer.actor_gradient={gradient}") == []


@pytest.mark.parametrize(
    "injected",
    [
        lambda batch, metrics: metrics["loss/model"].item(),
        lambda batch, metrics: batch.reward[batch.reward > 0],
        lambda batch, metrics: torch.zeros(3, 6).to("meta"),
        lambda batch, metrics: batch.reward * torch.tensor(0.5),
    ],
    ids=["item", "mask", "moved", "from the host"],
)
def test_host_operations_are_detected(injected, meta_device):
    try:
        assert operations_on_the_host("dreamer", TwoActions, injected=injected)
    except (RuntimeError, NotImplementedError) as error:
        assert "meta" in str(error).lower()

"""Updates as a GPU records them, played on the CPU by `tests/tape.py`; and what they would fetch from one, or bring."""

from contextlib import nullcontext
from itertools import count, cycle, islice

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dreamer.envs.actions import ActionParts
from dreamer.training.cuda_graph import CudaGraphed
from tests.algorithms.test_update import TwoActions, make, weights, windows
from tests.tape import tapes_for_graphs, tensors

VERSIONS = ["dreamer", "dreamer-v2", "dreamer-v3", "plan2explore"]
VERSIONS += [["plan2explore", "dreamer-v2"], ["plan2explore", "dreamer-v3"]]


class TwoChoices(TwoActions):
    action_space = ActionParts([2])


class Mixed(TwoActions):
    action_space = ActionParts([2, 0])


ACTIONS = {"continuous": TwoActions, "discrete": TwoChoices, "mixed": Mixed}


def batches(env, number):
    """Some that repeat themselves, and each update its own random numbers."""
    found = list(windows())
    if env is not TwoActions:
        choices = [torch.eye(2)[(batch.action[..., 0] > 0).long()] for batch in found]
        found = [batch._replace(action=choice) for batch, choice in zip(found, choices, strict=True)]
    if env is Mixed:
        found = [
            batch._replace(action=torch.cat([batch.action, batch.reward[..., None].tanh()], -1)) for batch in found
        ]
    return islice(cycle(found), number)


def learned(config, *overrides, record, env=TwoActions, planted=lambda batch, metrics: metrics):
    """(metrics of each update, weights, `CudaGraphed`) of some updates. planted: done in each of them."""
    agent = make(config, *overrides, env=env)

    def update(batch):
        metrics, feature = agent.update(batch)
        return planted(batch, metrics), feature

    update, rows = CudaGraphed(update, torch.device("cuda" if record else "cpu")), []
    for batch in batches(env, 6):
        rows.append({name: value.item() for name, value in update(batch)[0].items()})
    return rows, weights(agent), update


CASES = [(config, "continuous") for config in VERSIONS] + list(
    zip(VERSIONS[:3], ["discrete", "mixed", "discrete"], strict=True)
)


@pytest.mark.parametrize("config, actions", CASES, ids=str)
def test_a_replay_is_an_update(config, actions):
    """Bit for bit: all that changes from one to the next is in what is recorded, and nothing else is."""
    with tapes_for_graphs():
        expected, same, _ = learned(config, record=False, env=ACTIONS[actions])
        got, other, update = learned(config, record=True, env=ACTIONS[actions])
    assert update.graph is not None and got == expected
    torch.testing.assert_close(other, same, rtol=0, atol=0)


def test_a_replay_is_an_update_in_bfloat16():
    with tapes_for_graphs():
        (expected, *_), (got, _, update) = (
            learned("dreamer", "operation.precision=bfloat16", record=record) for record in (False, True)
        )
    assert update.graph is not None and got == expected


@pytest.mark.parametrize(
    "planted",
    [
        lambda batch, metrics: metrics | {"x": torch.full((), batch.reward.sum().item())},
        lambda batch, metrics: metrics | {"x": batch.reward[batch.reward > 0].sum()},
        lambda batch, metrics: metrics | {"x": torch.tensor([0.5, 0.25]).sum()},
        lambda batch, metrics: metrics if batch.reward.sum() > 0 else {},
        lambda batch, metrics: metrics | {"x": torch.multinomial(batch.reward.exp(), 1).float().sum()},
    ],
    ids=["item", "mask", "from the host", "if", "multinomial"],
)
def test_the_tape_finds_what_cannot_be_recorded(planted, capsys):
    with tapes_for_graphs():
        *_, update = learned("dreamer", record=True, planted=planted)
    assert update.graph is None and not update.can_capture and "cannot be captured" in capsys.readouterr().err


def test_the_tape_finds_what_python_counts():
    """It stays what it was when it was recorded."""
    counts = count()

    def planted(batch, metrics):
        return metrics | {"x": torch.full((), next(counts))}

    with tapes_for_graphs():
        rows, _, update = learned("dreamer", record=True, planted=planted)
    assert update.graph is not None and [row["x"] for row in rows] == [0, 1, 2, 3, 3, 3]


class OnTheHost(TorchDispatchMode):
    """Notes operations on anything that is not on the device."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if any(tensor.device.type == "cpu" for tensor in tensors((arguments, keywords, result))):
            self.names.append(str(function))
        return result


def stays_on_the_device(config, env, *overrides, planted=lambda batch, metrics: None):
    """The operations on the host of an update on torch's meta device, where reading a value is an error."""
    agent = make(config, *overrides, env=env, device="meta")
    batch = next(batches(env, 1))
    batch = batch._replace(**{name: part.to("meta") for name, part in batch._asdict().items()})
    with OnTheHost() as seen:
        metrics, feature = agent.update(batch)
        planted(batch, metrics)
    assert all(tensor.is_meta for tensor in tensors((metrics, feature)))
    return seen.names


@pytest.fixture
def meta(monkeypatch):
    """Leaves out what the meta device has in another way than a GPU: autocast, and Adam's count of its steps."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **keywords: nullcontext())
    monkeypatch.setattr(torch.optim.Adam, "step", lambda optimizer: None)


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("config", VERSIONS, ids=str)
def test_an_update_reads_nothing_back_and_brings_nothing_to_the_device(config, actions, meta):
    assert stays_on_the_device(config, ACTIONS[actions]) == []


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce", "both"])
@pytest.mark.parametrize("config", ["dreamer", "dreamer-v2", "dreamer-v3"])
def test_nor_does_one_of_discrete_actions_by_any_gradient(config, gradient, meta):
    assert stays_on_the_device(config, TwoChoices, f"parameters.dreamer.actor_gradient={gradient}") == []


@pytest.mark.parametrize(
    "planted",
    [
        lambda batch, metrics: metrics["loss/model"].item(),
        lambda batch, metrics: batch.reward[batch.reward > 0],
        lambda batch, metrics: torch.zeros(3, 6).to("meta"),
        lambda batch, metrics: batch.reward * torch.tensor(0.5),
    ],
    ids=["item", "mask", "moved", "from the host"],
)
def test_what_would_be_found(planted, meta):
    try:
        assert stays_on_the_device("dreamer", TwoActions, planted=planted)
    except (RuntimeError, NotImplementedError) as error:
        assert "meta" in str(error).lower()

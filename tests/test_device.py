import pytest
import torch

from dreamer.config import ConfigError
from dreamer.device import describe_device, select_device


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that there are so many GPUs."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(
    "name, count, device",
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cpu", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_device(gpus, name, count, device):
    gpus(count)
    assert select_device(name) == torch.device(device)


@pytest.mark.parametrize("name, count", [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:7", 2)])
def test_a_gpu_that_is_not_there(gpus, name, count):
    gpus(count)
    with pytest.raises(ConfigError, match=f"^operation.device: no {name} .*{count}") as caught:
        select_device(name)
    assert "\n" not in str(caught.value)


def test_a_device_as_a_person_knows_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Some GPU {device.index}")
    assert describe_device(torch.device("cuda:1")) == "cuda:1, Some GPU 1"
    assert describe_device(torch.device("cpu")) == f"cpu, {torch.get_num_threads()} threads"

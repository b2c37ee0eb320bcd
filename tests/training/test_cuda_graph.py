import threading

import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from dreamer.replay.step import Batch
from dreamer.training.cuda_graph import CudaGraphed, prefetch, to_device
from tests.simulated_cuda_graph import simulated_cuda_graphs


def test_prefetch_returns_all_results_in_order():
    asked = []
    assert list(prefetch(lambda: asked.append(len(asked)) or asked[-1], 4)) == [0, 1, 2, 3] == asked


def test_prefetch_computes_the_next_result_in_the_background():
    began = threading.Semaphore(0)
    for more, _ in zip((2, 1, 0), prefetch(began.release, 3), strict=True):
        for _ in range(more):
            assert began.acquire(timeout=60), "the following one has begun"
    assert not began.acquire(blocking=False)


def test_prefetch_raises_the_error_of_the_function():
    results = prefetch(lambda: 1 / 0, 2)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_cuda_graphed_calls_the_function_directly_on_a_cpu():
    calls = []
    graphed = CudaGraphed(lambda batch: calls.append(batch) or {"x": torch.ones(())}, torch.device("cpu"))
    for batch in range(6):
        assert graphed(batch) == {"x": 1}
    assert calls == list(range(6)) and graphed.graph is None


def test_to_device_returns_a_cpu_batch_unchanged():
    batch = Batch(*(torch.rand(2, 3) for _ in Batch._fields))
    assert all(part is same for part, same in zip(batch, to_device(batch, torch.device("cpu")), strict=True))


# On a simulated GPU


CUDA = torch.device("cuda")


@pytest.fixture
def simulated():
    with simulated_cuda_graphs() as replaced:
        yield replaced


def batch_of(number):
    return Batch(*(torch.full((2, 3), float(number)) for _ in Batch._fields))


def test_simulated_graph_reads_the_current_batch(simulated):
    graphed = CudaGraphed(lambda batch: {"sum": batch.reward.sum() + batch.action.mean()}, CUDA)
    assert [graphed(batch_of(number))["sum"].item() for number in range(8)] == [7 * number for number in range(8)]
    assert graphed.graph is not None


@pytest.mark.parametrize("done", [False, True], ids=["until torch 2.12", "since"])
def test_failed_capture_is_ended_and_warns_once(done, simulated, capsys):
    """The capture's memory pool is closed. torch versions from 2.12 on have already closed it."""
    simulated.end_pool.side_effect = RuntimeError("not currently recording to mempool_id") if done else None
    graphed = CudaGraphed(lambda batch: {"x": torch.full((), batch.reward.sum().item())}, CUDA)
    assert [graphed(batch_of(1))["x"].item() for _ in range(6)] == [6] * 6 and graphed.arguments is None
    simulated.end_pool.assert_called_once_with(0, simulated.pool)
    assert simulated.generator.graphsafe_set_state.call_count == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the update cannot be captured in a CUDA graph") and "_local_scalar_dense" in line


class Part:
    """A part of a batch."""

    def pin_memory(self):
        return self

    def to(self, device, non_blocking):
        return self

    def record_stream(self, stream): ...


def test_only_two_cuda_streams_are_created(simulated):
    """torch reuses its 32 streams in turn, so creating more would share streams."""
    for _ in range(2):
        graphed = CudaGraphed(lambda batch: {"x": batch.reward + 1}, CUDA)
        for number in range(6):
            graphed(batch_of(number))
            to_device([Part()], CUDA)
        assert graphed.graph is not None
    assert simulated.streams() == 2


def test_no_batch_is_copied_during_a_capture(simulated):
    copied, copied_during_capture = threading.Event(), []
    copying = threading.Thread(target=lambda: to_device([Part()], CUDA) and copied.set())

    def function(batch):
        if _get_current_dispatch_mode():
            copying.start()
            copied_during_capture.append(copied.wait(0.3))
        return {"x": batch.reward + 1}

    graphed = CudaGraphed(function, CUDA)
    for number in range(5):
        graphed(batch_of(number))
    assert copied_during_capture == [False] and copied.wait(10)


# On a GPU

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@cuda
def test_to_device_copies_a_batch_to_the_gpu():
    batch = Batch(*(torch.rand(2, 3) for _ in Batch._fields))
    on_gpu = to_device(batch, torch.device("cuda"))
    assert all(part.is_cuda for part in on_gpu)
    torch.testing.assert_close(Batch(*(part.cpu() for part in on_gpu)), batch)


@cuda
def test_replayed_graph_reads_the_current_batch():
    graphed = CudaGraphed(lambda batch: {"sum": batch.reward.sum() + batch.action.mean()}, torch.device("cuda"))
    for number in range(8):
        batch = Batch(*(torch.full((2, 3), float(number), device="cuda") for _ in Batch._fields))
        assert graphed(batch)["sum"].item() == 7 * number
    assert graphed.graph is not None


@cuda
def test_function_that_cannot_be_captured_runs_eagerly(capsys):
    graphed = CudaGraphed(lambda batch: {"x": torch.tensor(batch.reward.sum().item())}, torch.device("cuda"))
    batch = Batch(*(torch.ones(2, 3, device="cuda") for _ in Batch._fields))
    assert [graphed(batch)["x"].item() for _ in range(6)] == [6] * 6
    assert capsys.readouterr().err.count("warning") == 1

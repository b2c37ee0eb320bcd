import threading

import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from dreamer.replay.step import Batch
from dreamer.training.cuda_graph import CudaGraphed, prefetch, to_device
from tests.tape import tapes_for_graphs


def test_all_results_come_in_order_and_no_more_are_asked_for():
    asked = []
    assert list(prefetch(lambda: asked.append(len(asked)) or asked[-1], 4)) == [0, 1, 2, 3] == asked


def test_one_is_under_way_while_another_is_made_use_of():
    began = threading.Semaphore(0)
    for more, _ in zip((2, 1, 0), prefetch(began.release, 3), strict=True):
        for _ in range(more):
            assert began.acquire(timeout=60), "the following one has begun"
    assert not began.acquire(blocking=False)


def test_an_error_arrives_where_the_result_would():
    results = prefetch(lambda: 1 / 0, 2)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_without_a_gpu_every_call_is_an_ordinary_one():
    calls = []
    graphed = CudaGraphed(lambda batch: calls.append(batch) or {"x": torch.ones(())}, torch.device("cpu"))
    for batch in range(6):
        assert graphed(batch) == {"x": 1}
    assert calls == list(range(6)) and graphed.graph is None


def test_a_batch_on_the_cpu_stays_as_it_is():
    batch = Batch(*(torch.rand(2, 3) for _ in Batch._fields))
    assert all(one is same for one, same in zip(batch, to_device(batch, torch.device("cpu")), strict=True))


# On the tape that stands in for a GPU


CUDA = torch.device("cuda")


@pytest.fixture
def tape():
    with tapes_for_graphs() as pretended:
        yield pretended


def batch_of(number):
    return Batch(*(torch.full((2, 3), float(number)) for _ in Batch._fields))


def test_a_tape_reads_what_it_is_given(tape):
    graphed = CudaGraphed(lambda batch: {"sum": batch.reward.sum() + batch.action.mean()}, CUDA)
    assert [graphed(batch_of(number))["sum"].item() for number in range(8)] == [7 * number for number in range(8)]
    assert graphed.graph is not None


@pytest.mark.parametrize("done", [False, True], ids=["until torch 2.12", "since"])
def test_a_capture_that_fails_is_ended_and_told_once(done, tape, capsys):
    """The allocator is told that no more goes to the pool of the capture, unless torch has told it."""
    tape.end_pool.side_effect = RuntimeError("not currently recording to mempool_id") if done else None
    graphed = CudaGraphed(lambda batch: {"x": torch.full((), batch.reward.sum().item())}, CUDA)
    assert [graphed(batch_of(1))["x"].item() for _ in range(6)] == [6] * 6 and graphed.arguments is None
    tape.end_pool.assert_called_once_with(0, tape.pool)
    assert tape.generator.graphsafe_set_state.call_count == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the update cannot be captured in a CUDA graph") and "_local_scalar_dense" in line


class Part:
    """Of a batch."""

    def pin_memory(self):
        return self

    def to(self, device, non_blocking):
        return self

    def record_stream(self, stream): ...


def test_two_streams_are_enough(tape):
    """torch has 32 of them, and gives them out in turns."""
    for _ in range(2):
        graphed = CudaGraphed(lambda batch: {"x": batch.reward + 1}, CUDA)
        for number in range(6):
            graphed(batch_of(number))
            to_device([Part()], CUDA)
        assert graphed.graph is not None
    assert tape.streams() == 2


def test_nothing_is_copied_during_a_capture(tape):
    copied, early = threading.Event(), []
    copying = threading.Thread(target=lambda: to_device([Part()], CUDA) and copied.set())

    def function(batch):
        if _get_current_dispatch_mode():
            copying.start()
            early.append(copied.wait(0.3))
        return {"x": batch.reward + 1}

    graphed = CudaGraphed(function, CUDA)
    for number in range(5):
        graphed(batch_of(number))
    assert early == [False] and copied.wait(10)


# On a GPU

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@cuda
def test_a_batch_on_a_gpu_is_the_same():
    batch = Batch(*(torch.rand(2, 3) for _ in Batch._fields))
    moved = to_device(batch, torch.device("cuda"))
    assert all(part.is_cuda for part in moved)
    torch.testing.assert_close(Batch(*(part.cpu() for part in moved)), batch)


@cuda
def test_a_replay_reads_what_it_is_given():
    graphed = CudaGraphed(lambda batch: {"sum": batch.reward.sum() + batch.action.mean()}, torch.device("cuda"))
    for number in range(8):
        batch = Batch(*(torch.full((2, 3), float(number), device="cuda") for _ in Batch._fields))
        assert graphed(batch)["sum"].item() == 7 * number
    assert graphed.graph is not None


@cuda
def test_what_cannot_be_captured_runs_step_by_step(capsys):
    graphed = CudaGraphed(lambda batch: {"x": torch.tensor(batch.reward.sum().item())}, torch.device("cuda"))
    batch = Batch(*(torch.ones(2, 3, device="cuda") for _ in Batch._fields))
    assert [graphed(batch)["x"].item() for _ in range(6)] == [6] * 6
    assert capsys.readouterr().err.count("warning") == 1

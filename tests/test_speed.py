import subprocess
import sys

import pytest
import torch

from dreamer import speed

FAULTS = """
import resource, torch
from dreamer import speed
if {keep}:
    speed.keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24) + 1
before = faults()
for _ in range(5):
    torch.ones(2**24) + 1
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again():
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True).stdout)
        for keep in (False, True)
    ]
    assert faults[0] > 50_000 and faults[1] < 0.5 * faults[0]


@pytest.fixture
def precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_products_stay_exact(precision):
    speed.choose_matrix_products()
    left, right = torch.rand(64, 300), torch.rand(300, 64)
    error = (left @ right - (left.double() @ right.double())).abs().max()
    assert error < 1e-4


def test_a_processor_that_would_round_is_left_as_it_is(precision, monkeypatch):
    matmul = torch.Tensor.__matmul__

    def rounded(left, right):
        low = torch.get_float32_matmul_precision() == "medium" and left.dtype == torch.float32
        return matmul(left.bfloat16(), right.bfloat16()).float() if low else matmul(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    speed.choose_matrix_products()
    assert torch.get_float32_matmul_precision() == "highest"


def test_tune_on_a_gpu_allows_tf32(precision):
    speed.tune(torch.device("cuda"), rows=1)
    assert torch.get_float32_matmul_precision() == "high"


def test_small_products_stay_where_a_call_is_cheap(precision, monkeypatch):
    chosen = []
    monkeypatch.setattr(speed, "choose_matrix_products", lambda: chosen.append(True))
    for rows, count in [(256, 0), (2500, 1)]:
        torch.set_float32_matmul_precision("medium")  # left by a run before it in this process
        speed.tune(torch.device("cpu"), rows)
        assert len(chosen) == count and torch.get_float32_matmul_precision() == "highest"


def test_one_thread_for_a_while():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with pytest.raises(ZeroDivisionError), speed.one_thread():
        assert torch.get_num_threads() == 1
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)

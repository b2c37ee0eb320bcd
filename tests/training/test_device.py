import subprocess
import sys

import pytest
import torch

from dreamer.config.load import load_config
from dreamer.errors import ConfigError
from dreamer.training import device
from dreamer.training.device import check_precision, describe_device, describe_processor, select_device


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that simulates a number of GPUs."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


DEVICES = [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 0, "cpu"), ("cpu", 2, "cpu"), ("cuda", 1, "cuda")]


@pytest.mark.parametrize("name, count, expected", [*DEVICES, ("cuda:1", 2, "cuda:1")])
def test_select_device(gpus, name, count, expected):
    gpus(count)
    assert select_device(name) == torch.device(expected)


@pytest.mark.parametrize("name, count", [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:7", 2)])
def test_missing_gpu_is_an_error(gpus, name, count):
    gpus(count)
    with pytest.raises(ConfigError, match=f"^operation.device: no {name} .*{count}") as caught:
        select_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, units, info, capability, line",
    [
        ("cpu", ["avx512_bf16"], "flags", None, None),
        ("cpu", ["amx_bf16"], "flags", None, None),
        ("cpu", [], "", None, None),  # not Linux: the units are unknown
        ("cpu", [], "flags", None, "this processor has neither avx512_bf16 nor amx_bf16"),
        ("cuda", [], "flags", (8, 0), None),
        ("cuda", ["avx512_bf16"], "flags", (7, 5), "this GPU is of a compute capability below 8.0"),
    ],
)
def test_bfloat16_is_refused_without_hardware_support(name, units, info, capability, line, monkeypatch):
    monkeypatch.setattr(device, "BFLOAT16", units)
    monkeypatch.setattr(device, "CPUINFO", info)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    check_precision("float32", torch.device(name))
    if line is None:
        return check_precision("bfloat16", torch.device(name))
    with pytest.raises(ConfigError, match=f"^operation.precision: {line}, so bfloat16 would be slower; take float32$"):
        check_precision("bfloat16", torch.device(name))


def test_describe_device_names_the_gpu_or_the_threads(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: f"Some GPU {gpu.index}")
    assert describe_device(torch.device("cuda:1")) == "cuda:1, Some GPU 1"
    for thread_counts, words in [(1, "1 thread"), (2, "2 threads")]:
        monkeypatch.setattr(torch, "get_num_threads", lambda thread_counts=thread_counts: thread_counts)
        assert describe_device(torch.device("cpu")) == f"cpu, {words}"


INFO = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu avx avx2 avx512f avx512_bf16 avx512bw amx_bf16x

processor\t: 1
model name\t: AMD EPYC
flags\t\t: fpu avx avx2 avx512f avx512_bf16
"""


def test_describe_processor_reads_proc_and_sys(tmp_path, monkeypatch):
    """It returns processor, vector units and caches; unknown values are empty."""
    for number, kind, size in [(0, "Data", "32K"), (1, "Instruction", "64K"), (2, "Unified", "1024K")]:
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in [("level", max(1, number)), ("type", kind), ("size", size)]:
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(device, "CPUINFO", INFO)
    monkeypatch.setattr(device, "CACHES", tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    expected = {"processor": "2 x AMD EPYC (family 25, model 17)", "units": "avx2, avx512_bf16, avx512f"}
    assert describe_processor() == expected | {"caches": "L1 32K, L2 1024K"}
    monkeypatch.setattr(device, "CPUINFO", "")
    monkeypatch.setattr(device, "CACHES", tmp_path / "none")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert describe_processor() == {"processor": "2 x arm", "units": "", "caches": ""}


# The process


FAULTS = """
import resource, torch
from dreamer.training import device
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(2**23) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
device.keep_memory()
for _ in range(3):
    faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_keep_memory_reuses_freed_memory():
    output = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    faults = [int(line) for line in output.split()]
    assert faults[0] > 10_000 and faults[1] < 0.5 * faults[0]


@pytest.fixture
def precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_chosen_matrix_products_are_accurate(precision):
    device.choose_matrix_products()
    torch.manual_seed(0)
    left, right = torch.rand(64, 300), torch.rand(300, 64)
    error = (left @ right - (left.double() @ right.double())).abs().max()
    assert error < 1e-4


def test_reduced_precision_is_not_chosen_if_it_rounds(precision, monkeypatch):
    matmul = torch.Tensor.__matmul__

    def rounded(left, right):
        low = torch.get_float32_matmul_precision() == "medium" and left.dtype == torch.float32
        return matmul(left.bfloat16(), right.bfloat16()).float() if low else matmul(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    device.choose_matrix_products()
    assert torch.get_float32_matmul_precision() == "highest"


def test_tune_sets_tf32_on_a_gpu_and_skips_small_networks(precision, monkeypatch):
    choose_calls = []
    monkeypatch.setattr(device, "choose_matrix_products", lambda: choose_calls.append(True))
    for config, device_name, expected, count in [
        ("dreamer", "cuda", "high", 0),
        ("quick-cartpole-balance", "cpu", "highest", 0),
        ("dreamer", "cpu", "highest", 1),
    ]:
        torch.set_float32_matmul_precision("medium")  # left by an earlier run in this process
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
        device.tune(load_config(config), torch.device(device_name))
        assert len(choose_calls) == count and torch.get_float32_matmul_precision() == expected
        assert torch.backends.cudnn.benchmark == (device_name == "cuda")


@pytest.mark.parametrize("device_name, gpu", [("cpu", None), ("cuda", 0), ("cuda:3", 3)])
def test_tune_renders_on_the_gpu_that_trains(device_name, gpu, monkeypatch):
    gpus_chosen = []
    monkeypatch.setattr(device, "prefer_gpu", gpus_chosen.append)
    device.tune(load_config("dreamer", ["operation.fast_paths=False"]), torch.device(device_name))
    assert gpus_chosen == ([] if gpu is None else [gpu])


def test_fast_paths_off_tunes_nothing(monkeypatch):
    for name in ("keep_memory", "choose_matrix_products"):
        monkeypatch.setattr(device, name, lambda: pytest.fail("tuned"))
    device.tune(load_config("dreamer", ["operation.fast_paths=False"]), torch.device("cpu"))


@pytest.fixture
def thread_counts(monkeypatch):
    """Return a list of the thread counts that torch is set to."""
    output = []
    monkeypatch.setattr(torch, "set_num_threads", output.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return output


@pytest.mark.parametrize(
    "config, settings, device_name, before, expected",
    [
        ("quick-v3", [], "cpu", None, [1]),
        ("dreamer", [], "cpu", None, []),  # torch's default, all cores
        ("quick-v3", [], "cuda", None, []),
        ("quick-v3", [], "cpu", 2, [2]),  # as before the run was resumed
        ("dreamer", ["operation.threads=3"], "cpu", 2, [3]),
    ],
)
def test_number_of_threads_depends_on_the_network_size(config, settings, device_name, before, expected, thread_counts):
    device.set_threads(load_config(config, settings), torch.device(device_name), before)
    assert thread_counts == expected


def test_omp_num_threads_overrides_the_number_of_threads(thread_counts, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    device.set_threads(load_config("quick-v3"), torch.device("cpu"), before=2)
    assert thread_counts == []


def test_one_thread_restores_the_number_of_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with pytest.raises(ZeroDivisionError), device.one_thread():
        assert torch.get_num_threads() == 1
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)

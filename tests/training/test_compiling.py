from pathlib import Path

import pytest
import torch

from dreamer import distributed
from dreamer.algorithms import compiled
from dreamer.config.load import load_config
from dreamer.training.compiling import compile_update, compiles, delete_damaged
from tests.small_algorithms import make, windows
from tests.toys import parameters

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QUICK = "quick-v3-cartpole-swingup"  # 60 episodes of 125 agent steps with an update after each step


@pytest.mark.parametrize(
    "config, override, device, before, expected",
    [
        (QUICK, "compile=auto", CPU, None, True),
        (QUICK, "compile=False", CPU, True, False),
        (QUICK, "compile=auto", CPU, False, False),
        (QUICK, "fast_paths=False", CPU, None, False),
        ("quick-v2-cartpole-swingup", "compile=auto", CPU, None, False),
        ("quick-cartpole-swingup", "compile=auto", CPU, None, False),
        ("quick-v3-pixels", "compile=auto", CPU, None, True),
        ("dmc-walker-walk", "compile=auto", CPU, None, False),
        ("dmc-walker-walk", "compile=True", CPU, False, True),
        ("dmc-walker-walk", "compile=auto", CPU, True, True),
        ("dmc-walker-walk", "compile=auto", CUDA, None, True),
    ],
)
def test_compile_setting_config_and_device_decide_whether_a_run_compiles(config, override, device, before, expected):
    assert compiles(load_config(config, [f"operation.{override}"]), device, 125, before) == expected


def test_runs_that_are_short_or_of_unknown_length_do_not_compile():
    short = load_config(QUICK, ["parameters.dreamer.train_iterations=20"])
    assert not compiles(short, CPU, 125) and not compiles(load_config(QUICK), CPU, None)


@pytest.mark.parametrize("updates, expected", [(100, True), (10, False)])
def test_iterations_count_the_updates_of_an_offline_run(updates, expected):
    """Its train_ratio does not count, since it makes no env steps."""
    offline = ["collect=False", "dataset=data", f"collect_interval={updates}", "train_iterations=40"]
    config = load_config(QUICK, [f"parameters.dreamer.{setting}" for setting in offline])
    assert compiles(config, CPU, None) == compiles(config, CPU, 10_000) == expected


def test_data_parallel_workers_do_not_compile(monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 2)
    assert not compiles(load_config(QUICK, ["operation.compile=True"]), CUDA, 125)


@pytest.mark.parametrize("works", [True, False])
def test_compile_update_changes_no_result_and_falls_back_to_eager(works, monkeypatch, capsys):
    """Later updates and random numbers equal those of an algorithm that was never compiled."""

    def compiler(function, **options):
        def compiled_function(*arguments, **keywords):
            if not works and function.__name__ == "imagine_step":
                raise RuntimeError("no C++ compiler\nmore")
            return function(*arguments, **keywords)

        return compiled_function

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(compiled, "compiled_graph", lambda graph, arguments, options: graph)
    plain, other = make(3, "warm_up=0"), make(3, "warm_up=0")
    before = torch.get_rng_state()
    compile_update(other, windows(other))
    assert torch.equal(torch.get_rng_state(), before)
    for algorithm in (plain, other):
        torch.manual_seed(1)
        for seed in range(2):
            algorithm.update(windows(algorithm, seed))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if works else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(parameters(other), parameters(plain), **tolerance)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("compiling ") and ("compiled " if works else "step by step: no C++ compiler") in last
    assert any(name in vars(other) for name in compiled.DreamerAlgorithm.compilable) == works


def test_incomplete_library_in_the_compiler_cache_is_rebuilt(monkeypatch, capsys, tmp_path):
    """A killed process may leave such a file. Files outside torch's cache are not deleted."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    libraries = [tmp_path / "cache" / name for name in ("a.so", "b.so")]
    libraries[0].parent.mkdir()
    for library in libraries:
        library.write_bytes(b"\x7fELF")

    def compiler(function, **options):
        def compiled_function(*arguments, **keywords):
            damaged = [library for library in libraries if library.exists()]
            if damaged:
                raise RuntimeError(f"ImportError: {damaged[0]}: file too short")
            return function(*arguments, **keywords)

        return compiled_function

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(compiled, "compiled_graph", lambda graph, arguments, options: graph)
    algorithm = make(3, "warm_up=0")
    compile_update(algorithm, windows(algorithm))
    assert capsys.readouterr().err.splitlines()[-1].startswith("compiled ") and not any(map(Path.exists, libraries))
    (elsewhere := tmp_path / "c.so").touch()
    assert not delete_damaged(RuntimeError(f"{elsewhere}: file too short")) and elsewhere.exists()

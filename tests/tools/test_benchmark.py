"""The benchmark: operation counts, timing, and output."""

import json
import re
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer.config.load import load_config
from dreamer.replay.step import Batch
from dreamer.tools import benchmark, measurements
from dreamer.training.cuda_graph import CudaGraphed
from tests.toys import SMALL, ToyEnv, fill, make_plan2explore

TINY = ["dreamer", *SMALL, "operation.device=cpu", "environment.benchmark=gym", "environment.task_name=Pendulum-v1"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setitem(measurements.MATRIX_SIZE, "cpu", 64)
    monkeypatch.setattr(measurements, "MEASURING_SECONDS", 0.5)


# Operations, a multiply-add being two


def linear(rows, *sizes, inputs=True, weights=True):
    """Return the operations of linear layers: forward, and backward for weights and inputs."""
    forward = sum(2 * rows * size * next_size for size, next_size in pairwise(sizes))
    return forward * (2 + weights) - (0 if inputs else 2 * rows * sizes[0] * sizes[1])


def convolutions(images, channels, sides, kernels, inputs):
    """Return the operations of convolutions. sides: of the smaller grid of each layer, where the kernel is applied."""
    layers = zip(pairwise(channels), sides, kernels, strict=True)
    each = [2 * images * side**2 * kernel**2 * size * next_size for (size, next_size), side, kernel in layers]
    return 3 * sum(each) - (0 if inputs else each[0])


def behavior(reward):
    """Return the operations of learning a behaviour, including its reward."""
    for step in range(4):  # weights of the model are frozen; the first state is
        reward += linear(6, 230, 400, 400, 400, 400, 12, inputs=False)  # a constant, the action after it is not
        reward += linear(6, 36, 200, weights=False) + linear(6, 200, 600, weights=False)
        reward += linear(6, 200, 600, inputs=step > 0, weights=False) + linear(6, 200, 200, 60, weights=False)
    value = linear(30, 230, 400, 400, 400, 1, weights=False)  # of s_0, too: forward and back to the features
    return reward + value + linear(30, 230, 400, 400, 400, 1, inputs=False) - value // 2  # back to the critic's weights


def test_operations_of_an_update_match_a_count_by_hand():
    """The networks are the default ones for pixels, with B = 2, T = 3, H = 4 and actions of 6 numbers."""
    model = convolutions(6, [3, 32, 64, 128, 256], [31, 14, 6, 2], [4] * 4, inputs=False)
    for t in range(3):  # the first state is a constant: no gradient for it
        model += linear(2, 36, 200, inputs=t > 0) + linear(2, 200, 600) + linear(2, 200, 600, inputs=t > 0)
        model += linear(2, 200 + 1024, 200, 60)
    model += linear(6, 200, 200, 60)  # the prior
    model += linear(6, 230, 1024) + convolutions(6, [1024, 128, 64, 32, 3], [1, 5, 13, 30], [5, 5, 6, 6], inputs=True)
    behaviors = behavior(linear(24, 230, 400, 400, 1, weights=False))  # its reward, of s_1 … s_4
    dreamer = model + linear(6, 230, 400, 400, 1) + behaviors
    assert count("dmc-walker-walk") == count("dmc-walker-walk", "operation.precision=bfloat16") == dreamer

    ensemble = 230 + 6, 400, 400, 400, 400, 1024  # ten members learn from four transitions, and disagree about 24
    behaviors += behavior(10 * linear(24, *ensemble, weights=False))
    model += linear(6, 230, 400, 400, 1, inputs=False)  # the reward shapes nothing else
    assert count("p2e-dmc-walker-walk") == model + behaviors + 10 * linear(4, *ensemble, inputs=False)


def count(config, *overrides):
    sizes = [f"parameters.dreamer.{size}" for size in ("batch_size=2", "batch_length=3", "horizon_length=4")]
    pixels, actions = spaces.Box(0, 255, (3, 64, 64), np.uint8), spaces.Box(-1, 1, (6,))
    env = SimpleNamespace(observation_space=pixels, action_space=actions)
    zeros = [torch.zeros(2, 3, *shape) for shape in ((3, 64, 64), (6,), (), (), ())]
    batch = Batch(zeros[0].byte(), *zeros[1:])
    return measurements.count_operations(load_config(config, [*sizes, *overrides]), env, batch)["update_flops"]


# Clocks


class FakeClock:
    """A clock that only `after` advances."""

    def __init__(self, monkeypatch):
        self.seconds = 0.0
        monkeypatch.setattr(measurements, "timer", lambda: self.seconds)

    def after(self, seconds, result=None):
        self.seconds += seconds
        return result


@pytest.mark.parametrize(("units", "precisions"), [([], ["float32"]), (["amx_bf16"], ["float32", "bfloat16"])])
def test_matmul_speed_is_that_of_the_fastest_run(units, precisions, monkeypatch):
    """Runs of 2 * 64³ operations take 0.25, 0.5 and 0.4 s. bfloat16 is measured only with hardware support."""
    matrices = []

    def clock(statement, globals, num_threads):
        assert num_threads == torch.get_num_threads()
        matrices.append(eval(statement, globals))
        return SimpleNamespace(blocked_autorange=lambda min_run_time: SimpleNamespace(times=[0.5, 0.25, 0.4]))

    monkeypatch.setattr(measurements, "BFLOAT16", units)
    monkeypatch.setattr(measurements, "Timer", clock)
    gflops = measurements.matmul_gflops(torch.device("cpu"))
    assert gflops == {precision: pytest.approx(2 * 64**3 / 0.25 / 1e9) for precision in precisions}
    assert [str(matrix.dtype) for matrix in matrices] == [f"torch.{precision}" for precision in precisions]
    assert {matrix.shape for matrix in matrices} == {(64, 64)}


@pytest.mark.parametrize("num_envs", [None, 3])
def test_playing_is_timed_over_whole_episodes(num_envs, monkeypatch):
    """An episode has 20 steps of 0.05 s and a reset of 0.6 s. A collection step takes 0.1 s and the policy 0.02 s."""
    clock, env, episodes_asked = FakeClock(monkeypatch), ToyEnv(), []
    step, reset = env.step, env.reset
    env.step, env.reset = lambda action: clock.after(0.05, step(action)), lambda: clock.after(0.6, reset())

    def collect(policy, episodes):
        episodes_asked.append(episodes)
        trainer.replay.end += 21 * episodes
        for _ in range(20):
            clock.after(0.1, policy("steps"))

    collection_policies = SimpleNamespace(policy_for=lambda algorithm: lambda step: clock.after(0.02))
    train_env = SimpleNamespace(num_envs=num_envs) if num_envs else env
    parts = {"algorithm": None, "collection_policies": collection_policies, "replay": SimpleNamespace(end=7)}
    trainer = SimpleNamespace(env=train_env, collect=collect, **parts)
    monkeypatch.setattr(measurements, "MEASURING_SECONDS", 20)
    speed = (num_envs or 1) / 0.12
    expected = {"rendering_fps": 20 / 1.6, "collection_steps_per_second": speed, "acting_ms": 20}
    figures = measurements.measure_playing(trainer, env)
    assert figures == pytest.approx(expected | {"collection_of_rendering": speed / (20 / 1.6)})
    assert episodes_asked == 3 * [num_envs or 1], "an episode in each, in turns of 4 s until 10 are over"


# Parts

PARTS = {"world model's loss", "observed states", "behaviour's losses", "imagination"}
PARTS |= {"backward pass", "optimiser", "novelty", "intrinsic reward"}


def test_part_seconds_measures_all_parts_of_an_update():
    agent = fill(make_plan2explore(ToyEnv()), 2)
    agent.update(agent.trainer.learner.sample())
    started = time.perf_counter()
    parts = measurements.part_seconds(agent.trainer, 3)
    seconds = time.perf_counter() - started
    assert set(parts) == PARTS and all(part > 0 for part in parts.values())
    assert parts["observed states"] < parts["world model's loss"] and parts["imagination"] < parts["behaviour's losses"]
    outer = ["world model's loss", "behaviour's losses", "backward pass", "optimiser"]
    assert 0 < sum(parts[part] for part in outer) < seconds / 3


# The program

FIGURES = """variant config overrides device processor units caches torch precision variants update_seconds update_flops
    update_operations matmul
    matmul_gflops fraction_of_peak parts sampling_ms sampling_percent resident_gb rendering_fps
    collection_steps_per_second collection_of_rendering acting_ms"""


def test_json_and_table(capsys):
    """The table has each figure's name and unit, and the peak that its share refers to."""
    assert benchmark.main(["--config", *TINY, "--updates", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == set(FIGURES.split())
    assert figures["device"].startswith("cpu") and figures["precision"] == "float32" and figures["variants"] == []
    assert figures["matmul_gflops"] == figures["matmul"]["float32"]
    gflops = figures["update_flops"] / figures["update_seconds"] / 1e9
    assert figures["fraction_of_peak"] == pytest.approx(gflops / figures["matmul_gflops"])
    assert figures["sampling_percent"] == pytest.approx(figures["sampling_ms"] / 1000 / figures["update_seconds"] * 100)
    assert figures["acting_ms"] > 0 and 0.05 < figures["resident_gb"] < 50
    table = benchmark.table(figures, [])
    assert re.search(r"^an update +[\d.]+ m?s$", table, re.MULTILINE)
    assert re.search(r"^  share of the peak +[\d.e-]+ % +of [\d,]+ GFLOP/s, .*; good: above", table, re.MULTILINE)
    assert re.search(r"^  imagination +[\d.]+ m?s$", table, re.MULTILINE)
    assert re.search(r"^sampling a batch +[\d.]+ ms +good: below", table, re.MULTILINE)
    assert re.search(r"^memory +[\d.]+ GB", table, re.MULTILINE)


@pytest.mark.parametrize("fast_paths", [True, False])
def test_benchmark_uses_the_trainers_process_settings(fast_paths, monkeypatch):
    """Settings and CUDA graphs are as in training, and a replay may be smaller than the usual play."""
    trainers, tuned = [], []
    measure = measurements.measure_updates
    monkeypatch.setattr(measurements, "tune", lambda config, device: tuned.append(config.operation.fast_paths))
    monkeypatch.setattr(measurements, "measure_updates", lambda *all: trainers.append(all[1]) or measure(*all))
    overrides = [*TINY[1:], f"operation.fast_paths={fast_paths}", "parameters.dreamer.buffer.capacity=30"]
    assert set(measurements.measure(["dreamer"], overrides, ["memory"], 1)) >= {"resident_gb"}
    assert isinstance(trainers[0].learner.run_update, CudaGraphed) == fast_paths and tuned == [fast_paths]


@pytest.mark.parametrize("units", [[], ["avx512_bf16"]])
def test_processor_without_bfloat16_has_no_bfloat16_peak(units, monkeypatch):
    """The output has no peak for bfloat16."""
    monkeypatch.setattr(measurements, "BFLOAT16", units)
    figures = measurements.measure(TINY[:1], [*TINY[1:], "operation.precision=bfloat16"], ["update"], 1)
    assert ("bfloat16" in figures["matmul"]) == bool(units)
    assert ("fraction_of_peak" in figures) == ("matmul_gflops" in figures) == bool(units)


MACHINE = dict.fromkeys(["config", "processor", "units", "caches", "device", "torch", "precision"], "x")
MACHINE |= {"overrides": [], "update_flops": 2e9, "update_operations": 30}


def test_variants_take_turns(monkeypatch, capsys):
    """Each variant has its own process. Results are medians over the rounds and ratios to the first variant."""
    commands = []

    def measured(command, **_):
        assert command[:4] == [sys.executable, "-m", "dreamer", "benchmark"]
        commands.append(benchmark.parse(command[4:]))
        seconds = [5.0, 8.0, 1.0, 20.0, 4.0, 6.0][len(commands) - 1]
        return SimpleNamespace(stdout=json.dumps({**MACHINE, "update_seconds": seconds, "matmul": {"a": seconds}}))

    monkeypatch.setattr(subprocess, "run", measured)
    variant = "--config dreamer operation.seed=7 --only update --updates 9"
    arguments = ["--config", "dmc-walker-run", "operation.seed=5", "--device", "cpu", "--only", "update,memory"]
    arguments += ["--variant", variant, "--rounds", "3"]
    assert benchmark.main([*arguments, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    (second,) = first["variants"]
    assert (first["update_seconds"], second["update_seconds"], first["matmul"]) == (4.0, 8.0, {"a": 4.0})
    assert second["variant"] == variant and second["ratios"] == {"update_seconds": 2.0}
    assert [command.config for command in commands] == [["dmc-walker-run"], ["dreamer"]] * 3
    one, other = commands[:2]
    assert one.overrides == ["operation.seed=5", "operation.device=cpu"] and one.only == ["update", "memory"]
    assert other.overrides[-1] == "operation.seed=7" and other.only == ["update"] and other.updates == 9
    assert one.json and not one.variant
    commands.clear()
    assert benchmark.main(arguments) == 0
    assert f"{variant}\n  8 s an update, 2.00 of the first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["batch_size=3"], "override: unknown key batch_size; the nearest is parameters.dreamer.batch_size"),
        (["--config", "dmc-walker-wolk"], "no configuration 'dmc-walker-wolk'"),
        (["--variant", "batch_size=3"], "override: unknown key batch_size"),
        (["environment.domain_name=wolker"], "no 'wolker' here; did you mean walker"),
        (["--device", "cuda:99"], "no cuda:99 here"),
    ],
)
def test_invalid_input_is_a_one_line_error(arguments, line, capsys, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("measured before all was checked"))
    assert benchmark.main([*arguments, "--only", "memory"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and line in error[0]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--only", "memory,speed"], "argument --only: no 'speed'; there are update, parts, memory, "),
        (["--only", "update,"], "argument --only: no ''; there are update, "),
        (["--only", ""], "argument --only: no ''; there are update, "),
        (["--variant", "'"], "argument --variant: No closing quotation: '"),
    ],
)
def test_invalid_arguments_are_refused(arguments, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(arguments)
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and line in error


def test_variants_run_in_processes_and_a_failure_ends_the_benchmark(monkeypatch, capfd):
    """The first variant is measured in this process; the second fails, and its message ends the benchmark."""
    calls, run = [], subprocess.run

    def first_here(command, **keywords):
        calls.append(command)
        if len(calls) == 2:
            return run(command, **keywords)
        assert benchmark.main(command[4:]) == 0
        told = capfd.readouterr().out
        assert json.loads(told)["sampling_ms"] > 0 and "update_seconds" not in json.loads(told)
        return SimpleNamespace(stdout=told)

    monkeypatch.setattr(subprocess, "run", first_here)
    arguments = ["--only", "sampling", "--variant", "environment.task_name=CartPole-v9"]
    assert benchmark.main(["--config", *TINY, *arguments]) == 2
    assert len(calls) == 2 and calls[0][:4] == [sys.executable, "-m", "dreamer", "benchmark"]
    assert "error: environment.task_name: gym cannot make 'CartPole-v9'" in capfd.readouterr().err

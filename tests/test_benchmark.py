"""The benchmark: its operations counted by hand, its clocks, what it prints."""

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dreamer.algorithms.policy import random_policy
from dreamer.benchmark import __main__ as benchmark
from dreamer.benchmark import measure, timing
from dreamer.benchmark.parts import part_seconds
from dreamer.benchmark.report import complete, medians
from dreamer.build import build_algorithm, build_networks
from dreamer.collect import run_episode
from dreamer.config import load_config
from dreamer.replay import Batch
from tests.toys import SMALL, Recorder, ToyEnv, fill, make_dreamer, make_plan2explore

TINY = [
    "dreamer",
    *SMALL,
    "operation.device=cpu",
    "environment.benchmark=gym",
    "environment.task_name=Pendulum-v1",
]


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch):
    monkeypatch.setitem(timing.MATRIX, "cpu", 64)


# Operations, a multiply-add being two


def linear(rows, *sizes, inputs=True, weights=True):
    """Of linear layers: forward, and backward for the gradient of weights and of inputs."""
    pairs = list(zip(sizes, sizes[1:], strict=False))
    forward = sum(2 * rows * size * next_size for size, next_size in pairs)
    backward = forward * (weights + 1)
    return forward + backward - (0 if inputs else 2 * rows * sizes[0] * sizes[1])


def convolutions(images, channels, sides, kernels, inputs):
    """Of convolutions; sides: of the smaller grid of each layer, where its kernel is applied."""
    layers = zip(channels, channels[1:], sides, kernels, strict=False)
    each = [2 * images * side**2 * kernel**2 * size * next_size for size, next_size, side, kernel in layers]
    return 3 * sum(each) - (0 if inputs else each[0])


def test_operations_of_an_update_by_hand():
    """The default networks from pixels, as `update` runs them: B = 2, T = 3, H = 4, actions of 6 numbers."""
    sizes = ["batch_size=2", "batch_length=3", "horizon_length=4"]
    config = load_config("dmc-walker-walk", [*measure.PLAIN, *(f"parameters.dreamer.{size}" for size in sizes)])

    def zeros(*shape):
        return torch.zeros(2, 3, *shape)

    buffer = SimpleNamespace(sample=lambda *_: Batch(zeros(3, 64, 64).byte(), zeros(6), zeros(), zeros(), zeros()))
    networks = build_networks(config, (3, 64, 64), 6, False)
    networks = {name: network.to("meta") for name, network in networks.items()}
    plain = build_algorithm(config, networks, buffer, Recorder(), Recorder())

    model = convolutions(6, [3, 32, 64, 128, 256], [31, 14, 6, 2], [4] * 4, inputs=False)
    for t in range(3):  # the first state is a constant: no gradient for it
        model += linear(2, 36, 200, inputs=t > 0) + linear(2, 200, 600) + linear(2, 200, 600, inputs=t > 0)
        model += linear(2, 200 + 1024, 200, 60)
    model += linear(6, 200, 200, 60)  # the prior
    model += linear(6, 230, 1024) + convolutions(6, [1024, 128, 64, 32, 3], [1, 5, 13, 30], [5, 5, 6, 6], inputs=True)
    model += linear(6, 230, 400, 400, 1)  # the reward

    behavior = 0
    for step in range(4):  # weights of the model are frozen; the first state is
        behavior += linear(6, 230, 400, 400, 400, 400, 12, inputs=False)  # a constant, the action after it is not
        behavior += linear(6, 36, 200, weights=False) + linear(6, 200, 600, weights=False)
        behavior += linear(6, 200, 600, inputs=step > 0, weights=False) + linear(6, 200, 200, 60, weights=False)
    behavior += linear(24, 230, 400, 400, 1, weights=False)  # the reward of s_1 … s_4
    value = linear(24, 230, 400, 400, 400, 1, weights=False)  # of them, forward and back to the features
    behavior += value + linear(24, 230, 400, 400, 400, 1, inputs=False) - value // 2  # back to the critic's weights
    assert measure.count_flops(plain) == model + behavior


# Clocks


class FakeClock:
    """Time passes only where the test says so."""

    def __init__(self, monkeypatch):
        self.seconds = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.seconds)

    def after(self, seconds, result=None):
        self.seconds += seconds
        return result


def test_a_clock_waits_for_a_gpu(monkeypatch):
    clock, gpu = FakeClock(monkeypatch), torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: clock.after(5 if device == gpu else 1000))
    assert timing.timed(gpu, clock.after, 2, "result") == (2 + 5, "result")
    assert timing.timed(torch.device("cpu"), clock.after, 2, "result") == (2, "result")


def test_the_speed_of_products_is_that_of_the_best(monkeypatch):
    """2 * 64³ operations in 0.25, 0.5 and 0.4 s; the first product, which loads a library, does not count."""
    clock, seconds = FakeClock(monkeypatch), iter([0.1, 0.25, 0.5, 0.4])
    monkeypatch.setattr(torch, "mm", lambda *_: clock.after(next(seconds)))
    assert timing.matmul_gflops(torch.device("cpu"), torch.float32) == pytest.approx(2 * 64**3 / 0.25 / 1e9)
    monkeypatch.setattr(torch, "mm", lambda *_: clock.after(30))
    assert timing.matmul_gflops(torch.device("cpu"), torch.float32) == pytest.approx(2 * 64**3 / 30 / 1e9)
    assert clock.seconds < 32, "one product is enough where it takes long"


def test_a_stopwatch_counts_what_is_inside_once(monkeypatch):
    clock, stopwatch = FakeClock(monkeypatch), timing.Stopwatch(torch.device("cpu"))
    place = SimpleNamespace(inner=lambda: clock.after(2), outer=lambda: clock.after(1, place.inner()))
    untouched = dict(vars(place))
    with stopwatch.watching([(place, "inner", "inner"), (place, "outer", lambda: "out" + "er")]):
        place.outer()
        place.inner()
        place.outer()
    assert stopwatch.seconds == {("outer",): 2, ("outer", "inner"): 4, ("inner",): 2}
    assert vars(place) == untouched


def test_playing_is_timed_from_call_to_call(monkeypatch):
    """An episode of 20 steps: 0.1 s each in the environment, 0.02 s in the policy, and 0.6 s for a reset."""
    clock, env = FakeClock(monkeypatch), ToyEnv()
    step, reset = env.step, env.reset
    env.step = lambda action: clock.after(0.1, step(action))
    env.reset = lambda: clock.after(0.6, reset())
    random = random_policy(env)
    result = measure.play(lambda step: clock.after(0.02, random(step)), lambda policy: list(run_episode(env, policy)))
    assert result == pytest.approx((0.12 + 2 * 0.6 / 50, 0.02)), "two resets fall into 50 steps"


def test_the_steps_of_all_environments_count(monkeypatch):
    """Three of them in lockstep, 0.1 s for each step and 0.02 s for the policy; one alone takes 0.05 s."""
    clock, single, asked = FakeClock(monkeypatch), ToyEnv(), []
    step = single.step
    single.step = lambda action: clock.after(0.05, step(action))

    def interact(env, policy, episodes):
        asked.append(episodes)
        for _ in range(20):
            clock.after(0.1, policy("steps"))

    algorithm = SimpleNamespace(
        collection_policy=lambda env: lambda step: clock.after(0.02), environment_interaction=interact
    )
    figures = measure.measure_playing(measure.Subject(algorithm, None, SimpleNamespace(num_envs=3), single))
    assert figures == pytest.approx({"rendering_fps": 20, "collection_steps_per_second": 3 / 0.12, "acting_ms": 20})
    assert set(asked) == {3}, "an episode in each"


def test_memory_is_in_gigabytes():
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    assert peak * 1024 / 1e9 == pytest.approx(measure.measure_memory(torch.device("cpu"))["resident_gb"], rel=0.5)


# Parts

LEARNER = {"total", "backward", "optimizer", "imagination"}
DREAMER_PARTS = {
    "world model": {"total", "encoder", "observe", "heads and losses", "backward", "optimizer", "other"},
    "behavior": LEARNER | {"rewards, values, returns"},
}
PLAN2EXPLORE_PARTS = DREAMER_PARTS | {
    "ensemble": {"total", "backward", "optimizer", "prediction and loss"},
    "explorer": LEARNER | {"intrinsic reward", "values, returns"},
}


@pytest.mark.parametrize(("make", "expected"), [(make_dreamer, DREAMER_PARTS), (make_plan2explore, PLAN2EXPLORE_PARTS)])
def test_the_parts_make_up_an_update(make, expected, monkeypatch):
    env = ToyEnv()
    agent = make(env)
    fill(agent, env, 2)
    spent = []
    update = agent.update
    monkeypatch.setattr(agent, "update", lambda batch: spent.append(timing.timed(agent.device, update, batch)[0]))
    parts = part_seconds(agent, 3)
    assert {part: set(pieces) for part, pieces in parts.items()} == expected
    assert all(seconds > 0 for pieces in parts.values() for seconds in pieces.values())
    totals = [pieces.pop("total") for pieces in parts.values()]
    assert totals == pytest.approx([sum(pieces.values()) for pieces in parts.values()])
    assert 0.1 * sum(spent) / 3 < sum(totals) < sum(spent) / 3


# The program

FIGURES = {
    *("variant", "config", "overrides", "device", "processor", "torch", "precision", "variants"),
    *("update_seconds", "update_flops", "matmul", "matmul_gflops", "fraction_of_peak", "parts"),
    *("sampling_ms", "sampling_percent", "resident_gb"),
    *("rendering_fps", "collection_steps_per_second", "collection_of_rendering", "acting_ms"),
}


def test_json(capsys):
    assert benchmark.main(["--config", *TINY, "--updates", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == FIGURES
    assert figures["device"].startswith("cpu") and figures["precision"] == "float32" and figures["variants"] == []
    assert figures["matmul_gflops"] == figures["matmul"]["float32"]
    gflops = figures["update_flops"] / figures["update_seconds"] / 1e9
    assert figures["fraction_of_peak"] == pytest.approx(gflops / figures["matmul_gflops"])
    assert figures["sampling_percent"] == pytest.approx(figures["sampling_ms"] / 1000 / figures["update_seconds"] * 100)
    ratio = figures["collection_steps_per_second"] / figures["rendering_fps"]
    assert figures["collection_of_rendering"] == pytest.approx(ratio)
    assert figures["acting_ms"] > 0 and all(gflops > 0 for gflops in figures["matmul"].values())


def test_table_of_what_was_asked_for(capsys):
    """Of a replay, too, that holds less than is usually played."""
    capacity = "parameters.dreamer.buffer.capacity=30"
    assert benchmark.main(["--config", *TINY, capacity, "--only", "sampling,memory"]) == 0
    output = capsys.readouterr().out
    assert "sampling a batch" in output and "memory, peak" in output
    assert "an update" not in output and "collection" not in output


def test_variants_take_turns(monkeypatch, capsys):
    """Medians over the rounds, and ratios to the first."""
    commands = []

    def measured(command):
        commands.append(benchmark.parse(command))
        seconds = [5.0, 8.0, 1.0, 20.0, 4.0, 6.0][len(commands) - 1]
        figures = {"config": "c", "overrides": [], "precision": "bfloat16"}
        figures |= {"update_seconds": seconds, "update_flops": 6e9, "matmul": {"float32": 1.0, "bfloat16": 3.0}}
        return complete(figures)

    monkeypatch.setattr(benchmark, "measure_apart", measured)
    variant = "--config dreamer operation.seed=7 --only update --updates 9"
    arguments = ["--config", "dmc-walker-run", "operation.seed=5", "--device", "cpu", "--only", "update,memory"]
    arguments += ["--variant", variant, "--rounds", "3"]
    assert benchmark.main([*arguments, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    (second,) = first["variants"]
    assert (first["update_seconds"], second["update_seconds"]) == (4.0, 8.0) and second["variant"] == variant
    assert first["fraction_of_peak"] == pytest.approx(6 / 4 / 3) and second["ratios"]["update_seconds"] == 2.0
    assert [command.config for command in commands] == ["dmc-walker-run", "dreamer"] * 3
    one, other = commands[:2]
    assert one.overrides == ["operation.seed=5", "operation.device=cpu"] and one.only == ["update", "memory"]
    assert other.overrides[-1] == "operation.seed=7" and other.only == ["update"] and other.updates == 9
    commands.clear()
    assert benchmark.main(arguments) == 0
    assert re.search(rf"{variant} +8 \(2.00\)", capsys.readouterr().out)


def test_the_set_that_is_measured_by_default():
    assert len(benchmark.commands(benchmark.parse([]))) == 1 + len(benchmark.VARIANTS)


def test_a_process_of_its_own():
    figures = benchmark.measure_apart(["--config", *TINY, "--only", "sampling"])
    assert figures["sampling_ms"] > 0 and "update_seconds" not in figures


def test_medians_of_rounds():
    rounds = [{"a": 1, "b": {"c": 2.0}, "d": "x"}, {"a": 9, "b": {"c": 6.0}, "d": "x"}]
    assert medians(rounds) == {"a": 5, "b": {"c": 4.0}, "d": "x"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["batch_size=3"], "command line: unknown key batch_size; the nearest is parameters.dreamer.batch_size"),
        (["--config", "dmc-walker-wolk"], "no configuration 'dmc-walker-wolk'"),
        (["--variant", "batch_size=3"], "command line: unknown key batch_size"),
        (["environment.domain_name=wolker"], "no 'wolker' here; did you mean walker"),
        (["--device", "cuda:99"], "no cuda:99 here"),
    ],
)
def test_bad_input_gets_one_line(arguments, line, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "measure_apart", lambda command: pytest.fail("measured before all was checked"))
    assert benchmark.main([*arguments, "--only", "memory"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and line in error[0]


def test_a_variant_that_fails_ends_it(monkeypatch):
    def fail(command):
        raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(benchmark, "measure_apart", fail)
    assert benchmark.main(["--config", *TINY, "--variant", "operation.seed=1"]) == 2

"""Data-parallel workers: together they make the update of one process and resume as one run."""

import contextlib
import inspect
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.utils._pytree import tree_leaves

import main
from dreamer import distributed
from dreamer.algorithms.actor_critic import ReturnScale
from dreamer.algorithms.optim import ClippedAdam, KerasAdam, LaProp
from dreamer.build import build_algorithm
from dreamer.config.load import load_config
from dreamer.files import EVER_WRITTEN, delete
from dreamer.replay.buffer import ReplayBuffer
from dreamer.training.checkpoint import Checkpointer
from dreamer.training.checkpoint_file import checkpoints, copy_to_cpu, iteration_of, load_checkpoint
from dreamer.training.checkpoint_retention import CheckpointRetention
from dreamer.training.data_parallel import NoEvaluationRunner, NoLogger, NoProgress, config_of_rank, seed_of_rank
from dreamer.training.evaluation_runner import EvaluationRunner
from dreamer.training.learner import Learner
from dreamer.training.logger import Logger
from dreamer.training.progress import Progress
from dreamer.training.trainer import Trainer
from tests.small_algorithms import PIXELS, SIZES, VECTOR, windows
from tests.test_resume import same, scalars
from tests.toys import SMALL
from tests.two_workers import TwoWorkers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    two = TwoWorkers(tmp_path_factory.mktemp("store"))
    yield two
    two.close()


# One update


def state_and_metrics(names, overrides, pixels=False, count=3):
    """Update a small algorithm on this worker's part of each batch. Return its state and the last metrics.

    Everything is float64, and random numbers are constant.
    """
    with constant_float64_noise():
        algorithm = small_algorithm(names, overrides, pixels)
        for seed in range(count):
            metrics, _ = algorithm.update(own_rows(batch_for(algorithm, seed, pixels)))
        return copy_to_cpu(algorithm.state_dict()), distributed.average(
            {name: value.item() for name, value in metrics.items()}
        )


def small_algorithm(names, overrides, pixels=False):
    observations, actions = PIXELS if pixels else VECTOR, spaces.Box(-1, 1, (2,), np.float32)
    env = SimpleNamespace(observation_space=observations, action_space=actions)
    torch.manual_seed(0)
    return build_algorithm(load_config(names, small(overrides)), env, torch.device("cpu"))


def small(overrides):
    return [*SMALL, *(f"parameters.dreamer.{size}" for size in SIZES), *overrides]


@contextlib.contextmanager
def constant_float64_noise():
    """Replace random numbers by constants and float32 by float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with ExitStack() as patches:
        patches.enter_context(patch.object(torch, "randn_like", lambda like: torch.full_like(like, 0.5)))
        patches.enter_context(patch.object(torch, "rand_like", lambda like: torch.full_like(like, 0.3)))
        patches.enter_context(patch.object(torch.Tensor, "float", torch.Tensor.double))
        patches.enter_context(patch.object(torch, "rand", constant_rand))
        yield
    torch.set_default_dtype(before)


def constant_rand(*shape, generator=None, rand=torch.rand, **keywords):
    """Replace `torch.rand` by a constant, except with a generator."""
    return rand(*shape, generator=generator) if generator else torch.full(shape, 0.3, **keywords)


def batch_for(algorithm, seed, pixels=False):
    """Return a batch of four windows. The first two have more first steps and larger values."""
    algorithm = getattr(algorithm, "dreamer", algorithm)
    batch = windows(algorithm, seed, observations=PIXELS if pixels else VECTOR)
    batch.is_first[0, [2, 4]] = 1
    batch.reward[:2] *= 3
    if not pixels:
        batch.observation[:2] *= 3
    return batch


def own_rows(batch):
    size = len(batch.action) // distributed.count()
    return batch.rows(slice(distributed.rank() * size, (distributed.rank() + 1) * size))


def kl_of_halves(names):
    """Return the mean KL of the first and of the second half of the first batch."""
    with constant_float64_noise():
        algorithm = small_algorithm(names, [])
        batch = batch_for(algorithm, 0)
        halves = batch.rows(slice(0, 2)), batch.rows(slice(2, 4))
        return [algorithm.model_loss(half)[-1]["loss/kl"].item() for half in halves]


CLIPPED = ["parameters.dreamer.clip_grad=0.5", "parameters.dreamer.free_nats=0.01"]
EXPLORES = ["algorithm=plan2explore", "parameters.plan2explore.one_step_model.hidden_size=32"]
KINDS = {
    "v1": (["dreamer"], [*CLIPPED, "parameters.dreamer.use_continue_flag=True"]),
    "v2": (["dreamer-v2"], CLIPPED),
    "v3": (["dreamer-v3"], ["parameters.dreamer.agc=1e-3", "parameters.dreamer.warm_up=2"]),
    "plan2explore": (["dreamer"], [*CLIPPED, *EXPLORES]),
    "plan2explore, v2": (["dreamer-v2"], [*CLIPPED, *EXPLORES]),
    "pixels, v3": (["dreamer-v3"], ["parameters.dreamer.agc=1e-3", "environment.from_pixels=True"], True),
}


def assert_equal_update(both_workers, single_process):
    """Assert that both workers have the state and the metrics of the single process."""
    for state, metrics in both_workers:
        assert metrics == pytest.approx(single_process[1], rel=1e-9, abs=1e-12)
        for value, expected in zip(tree_leaves(state), tree_leaves(single_process[0]), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_update_equals_that_of_one_process(two_workers, kind):
    """The gradients are clipped, by the joint norm or (V3) by tensor, and the halves of the batch differ."""
    single_process, both_workers = state_and_metrics(*KINDS[kind]), two_workers(state_and_metrics, *KINDS[kind])
    assert_equal_update(both_workers, single_process)
    norms = [value for name, value in single_process[1].items() if name.startswith("grad_norm/model")]
    assert "v3" in kind or all(norm > 0.5 for norm in norms)
    assert same(both_workers[0][0], both_workers[1][0])  # bit for bit


def learn_ensemble():
    """Return weights and metrics of an ensemble after an update from a batch with a single transition."""
    with constant_float64_noise():
        explorer = small_algorithm(["dreamer"], EXPLORES)
        batch = batch_for(explorer, 0)
        batch.is_first[:, 1:] = 1
        batch.is_first[3, 2] = 0
        batch, (feature, target) = (
            own_rows(batch),
            (part.chunk(distributed.count())[distributed.rank()] for part in features_and_embeddings(explorer)),
        )
        metrics = explorer.novelty.learn(batch, SimpleNamespace(feature=feature), target)
        return explorer.novelty.one_step_model.state_dict(), {name: value.item() for name, value in metrics.items()}


def features_and_embeddings(explorer):
    """Return features and embeddings of a batch."""
    sizes = explorer.novelty.one_step_model.network[0].weight.shape[-2] - 2, explorer.model.encoder.embedding_size
    return [torch.linspace(-1, 1, 4 * 6 * size).sin().view(4, 6, size) for size in sizes]


def test_ensemble_loss_is_averaged_over_the_transitions_of_all_workers(two_workers):
    """The only transition is in the second worker's half."""
    weights, metrics = learn_ensemble()
    for result, its_metrics in two_workers(learn_ensemble):
        assert its_metrics["grad_norm/one_step_model"] == pytest.approx(metrics["grad_norm/one_step_model"], rel=1e-9)
        torch.testing.assert_close(result, weights, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("version", ["dreamer", "dreamer-v2"])
@pytest.mark.parametrize("half", ["lower", "higher"])
def test_free_nats_apply_to_the_kl_of_the_whole_batch(two_workers, version, half):
    """The free nats lie between the mean KL and that of one half, so one worker alone would decide differently."""
    halves = kl_of_halves([version])
    assert abs(halves[0] - halves[1]) > 0.1 * max(halves)
    free_nats = (sum(halves) / 2 + (min(halves) if half == "lower" else max(halves))) / 2
    arguments = [version], [f"parameters.dreamer.free_nats={free_nats}"], False, 1
    assert_equal_update(two_workers(state_and_metrics, *arguments), state_and_metrics(*arguments))


def weights_and_norms(kind):
    """Return weights and norms after two steps with gradients 3 and 5 in worker 0 and -1 and 1 in worker 1."""
    makers = {
        "adam": lambda module: ClippedAdam(module, 0.1, 1e-7, clip_grad=0.9, grad_norm_type=2.0),
        "keras": lambda module: KerasAdam(module, 0.1, 1e-5, clip_grad=0.9, grad_norm_type=2.0, weight_decay=0.0),
        "laprop": lambda module: LaProp(module, 0.1, warm_up=0, agc=0.5),
    }
    module = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(module.weight, 1.5)
    optimizer = makers[kind](module)
    gradients = {0: (3, 5), 1: (-1, 1)}[distributed.rank()] if distributed.count() > 1 else (1, 3)
    norms = [optimizer.step(gradient * module.weight.sum()).item() for gradient in gradients]
    return module.weight.item(), norms


@pytest.mark.parametrize("kind", ["adam", "keras", "laprop"])
def test_gradients_are_averaged_before_clipping(two_workers, kind):
    weight, norms = weights_and_norms(kind)
    assert norms == [1, 3]
    for result in two_workers(weights_and_norms, kind):
        assert result[0] == pytest.approx(weight, rel=1e-12) and result[1] == norms


def return_scales():
    """Return the scales of two batches of returns, split between the workers, and the final range."""
    scale = ReturnScale()
    returns = torch.arange(800.0).square().view(2, 100, 4)
    return [scale(part.chunk(distributed.count())[distributed.rank()]).item() for part in returns], scale.range.tolist()


def test_return_percentiles_are_over_all_workers_returns(two_workers):
    assert two_workers(return_scales) == [return_scales()] * 2
    assert return_scales()[0][0] > 100


# Collective operations


def collective_results(scale):
    """Return the results of collective operations on values that differ between workers."""
    module = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    torch.nn.init.constant_(module.weight, distributed.rank() + 1.0)
    distributed.broadcast_parameters([module])
    return {
        "total": distributed.total(distributed.rank() + 1, 10),
        "every": [distributed.all_workers(True), distributed.all_workers(distributed.rank() == 1)],
        "average": distributed.average(
            {"a": scale * (distributed.rank() + 1.0), "b": float("nan") if distributed.rank() else 0.0}
        ),
        "common": distributed.common({1, 2 + distributed.rank(), 5}),
        "first": distributed.broadcast_result(lambda: f"of {distributed.rank()}"),
        "nothing": distributed.broadcast_result(lambda: None),
        "weight": module.weight.unique().tolist(),
        "seed": seed_of_rank(7),
    }


def test_collective_operations_return_the_same_on_all_workers(two_workers):
    first, second = two_workers(collective_results, 2.0)
    assert first["seed"] == 7 != second.pop("seed") and first.pop("seed")
    for result in (first, second):
        assert np.isnan(result["average"].pop("b"))
        assert result == {
            "total": [3, 20],
            "every": [True, False],
            "average": {"a": 3.0},
            "common": {1, 5},
            "first": "of 0",
            "nothing": None,
            "weight": [1.0],
        }


def other_worker_arrived(folder):
    """Delay worker 1. Return whether it had arrived when this worker's snapshot was made."""
    folder = folder / str(distributed.rank())
    folder.mkdir()
    checkpointer = Checkpointer(folder, {"part": torch.nn.Linear(1, 1)}, CheckpointRetention(interval=10))
    if distributed.rank() == 1:
        time.sleep(0.5)
        (folder / "come").touch()
    checkpointer(1)
    return (folder.parent / "1" / "come").exists()


def test_checkpointer_waits_for_all_workers(two_workers, tmp_path):
    assert two_workers(other_worker_arrived, tmp_path) == [True, True]


def test_single_process_collectives_return_their_input():
    """They return the same tensors, so nothing is rounded."""
    tensor, values = torch.rand(3), {"a": 0.1}
    assert (
        distributed.mean(tensor) is tensor
        and distributed.gather(tensor) is tensor
        and distributed.average(values) is values
    )
    assert (distributed.rank(), distributed.count(), distributed.total(3, 4)) == (0, 1, [3, 4])
    config = load_config("dreamer")
    assert config_of_rank(config) is config and seed_of_rank(3) == 3


@pytest.mark.parametrize(
    "stand_in, real", [(NoLogger, Logger), (NoProgress, Progress), (NoEvaluationRunner, EvaluationRunner)]
)
def test_stand_ins_of_other_workers_have_the_real_signatures(stand_in, real):
    """They have no other names, so a misspelt call is an error in every worker."""
    names = [name for name in dir(stand_in) if not name.startswith("_")]
    for name in names:
        own, features_and_embeddings = (inspect.signature(getattr(each, name)).parameters for each in (stand_in, real))
        assert list(own) == list(features_and_embeddings), name
        assert [each.default for each in own.values()] == [each.default for each in features_and_embeddings.values()], (
            name
        )
    assert {"state_dict", "load_state_dict", "close"} < set(names)
    with pytest.raises(AttributeError):
        stand_in().phase("learning")


# Runs

SETTINGS = [
    "operation.device=cpu",
    "operation.video_interval=0",
    "environment.benchmark=gymnasium",
    "environment.task_name=tests.pausing_envs:UnevenEpisodes-v0",
    "environment.frame_skip=1",
    "parameters.dreamer.train_iterations=4",
    "parameters.dreamer.num_interaction_episodes=2",
    "parameters.dreamer.seed_episodes=6",
    "parameters.dreamer.deterministic_size=16",
    "parameters.dreamer.train_ratio=10",
]
INTERVAL = ["parameters.dreamer.train_ratio=null", "parameters.dreamer.collect_interval=1"]
UNEVEN = ["--config", "dreamer-v3", *small(SETTINGS)]


def run(folder, arguments, broken=None):
    """Run the program in a folder. Return exit status and stderr. broken: (name, function) that replaces a method of
    `Learner` in the second worker."""
    os.chdir(folder)
    output = io.StringIO()
    with ExitStack() as stack:
        if broken and distributed.rank() == 1:
            stack.enter_context(patch.object(Learner, *broken))
        stack.enter_context(contextlib.redirect_stderr(output))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        return main.main([str(argument) for argument in arguments]), output.getvalue()


def succeed(two_workers, folder, arguments):
    for status, output in two_workers(run, folder, arguments):
        assert status == 0, output


@pytest.fixture(scope="module")
def finished_run(two_workers, tmp_path_factory):
    """Return the folder of an uninterrupted run of two workers."""
    folder = tmp_path_factory.mktemp("finished")
    succeed(two_workers, folder, [*UNEVEN, "--folder", "run"])
    return folder / "run"


def states(run):
    """Return the states of both workers' newest checkpoints."""
    return [load_checkpoint(run / f"rank-{rank}")[1] for rank in range(2)]


def stored(run, rank):
    """Return all steps and latents of a worker's replay from the disk."""
    state = load_checkpoint(run / f"rank-{rank}")[1]["replay"]
    replay = ReplayBuffer(run / f"rank-{rank}", 2500000, (2,), np.float32, 1, 0, latent_size=32)
    replay.load_state_dict(state)
    steps = replay.read([0], state["end"])
    return [*steps[:-1], replay.read_latents(np.arange(state["end"])).numpy()]


def assert_same_run(run, reference, but=()):
    for state, expected in zip(states(run), states(reference), strict=True):
        for part in state.keys() - {"curves", "configuration", "replay", *but}:  # latents may be stored at other places
            assert same(state[part], expected[part]), part
        assert state["replay"]["end"] == expected["replay"]["end"]
    assert scalars(run) == scalars(reference)
    for rank in range(2):
        for part, expected in zip(stored(run, rank), stored(reference, rank), strict=True):
            np.testing.assert_array_equal(part, expected)


def test_workers_have_equal_weights_and_different_episodes(finished_run):
    first, second = states(finished_run)
    assert same(first["algorithm"], second["algorithm"])
    assert first["trainer"]["env_steps"] == second["trainer"]["env_steps"]
    assert not same(first["random"]["torch"], second["random"]["torch"])
    assert not np.array_equal(stored(finished_run, 0)[0][0, :5], stored(finished_run, 1)[0][0, :5])
    assert sum(part.is_dir() for part in finished_run.iterdir()) == 2 and not list(finished_run.glob("rank-*/events*"))


def test_train_ratio_counts_the_steps_of_all_workers(finished_run):
    """There are 10 replayed steps per stored step of any worker, in batches of 8 x 10. Env steps are summed."""
    learned_from = env_steps = 0
    for rank, state in enumerate(states(finished_run)):
        is_first = stored(finished_run, rank)[3][0]
        begins = np.flatnonzero(is_first)
        assert len(begins) == (6 + 4 * 2) / 2
        learned_from += state["replay"]["end"] - begins[3]  # three seed episodes each
        env_steps += state["replay"]["end"] - len(begins)  # the first step of an episode takes none
    first, second = states(finished_run)
    owed = learned_from * 10 / 80
    assert (
        len({state["replay"]["end"] for state in (first, second)}) == 2
    )  # the workers' episodes have different lengths
    updates = first["algorithm"]["optimizers"]["model"]["updates"].item()
    assert updates == int(owed) and first["trainer"]["updates_left"] == owed - int(owed)
    assert first["trainer"]["env_steps"] == env_steps
    assert scalars(finished_run)["replay/steps"][-1] == (env_steps, first["replay"]["end"] + second["replay"]["end"])


def test_updates_start_when_every_workers_replay_holds_a_window(two_workers, tmp_path):
    """After the seed episodes one worker has enough steps and the other has not."""
    overrides = ["batch_length=15", "seed_episodes=2", "train_iterations=2"]
    overrides = [f"parameters.dreamer.{override}" for override in overrides]
    succeed(two_workers, tmp_path, [*UNEVEN, *overrides, "--folder", "run"])
    ends = [state["replay"]["end"] for state in states(tmp_path / "run")]
    begins = [np.flatnonzero(stored(tmp_path / "run", rank)[3][0]) for rank in range(2)]
    lengths = [np.diff([*begin, end]) for begin, end in zip(begins, ends, strict=True)]
    owed, steps = 0, np.array([seeds[0] for seeds in lengths])
    assert steps.min() < 15 <= steps.max()
    for round_lengths in zip(*(each[1:] for each in lengths), strict=True):
        for step in range(max(round_lengths)):
            steps += np.array(round_lengths) > step
            owed += sum(np.array(round_lengths) > step) * 10 / (8 * 15) if steps.min() >= 15 else 0
    for state in states(tmp_path / "run"):
        updates = state["algorithm"]["optimizers"]["model"]["updates"].item()
        assert updates + state["trainer"]["updates_left"] == pytest.approx(owed) and updates > 1


def without_newest(run, rank):
    """Delete the newest checkpoint of a worker. Return its iteration."""
    newest = checkpoints(run / f"rank-{rank}")[0]
    newest.unlink()
    return iteration_of(newest)


@pytest.mark.parametrize("rank", [0, 1])
def test_resumes_from_the_newest_checkpoint_that_all_workers_have(two_workers, finished_run, tmp_path, rank):
    run = shutil.copytree(finished_run, tmp_path / "run")
    assert without_newest(run, rank) == 4
    succeed(two_workers, tmp_path, ["--resume", run])
    assert_same_run(run, finished_run)


def test_checkpoint_damaged_in_one_worker_is_used_by_none(two_workers, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    os.truncate(run / "rank-1" / "checkpoint-000004.pt", 1000)
    results = two_workers(run_resumed, tmp_path)
    assert [status for status, _ in results] == [0, 0] and "cannot be used" in results[1][1]
    assert_same_run(run, finished_run)


def run_resumed(folder):
    return run(folder, ["--resume", "run"])


def test_checkpoints_that_only_some_workers_have_are_deleted(two_workers, finished_run, tmp_path):
    """Otherwise a later run, which may differ on a GPU, could mix its checkpoints with the old ones."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    without_newest(run, 1)
    seen = two_workers(restored_checkpoints, tmp_path)
    newer = [[iteration for iteration in held if iteration > 2] for held in seen]  # the first may keep its best, 2
    assert newer == [[3], [3]]


def restored_checkpoints(folder):
    """Return the iterations in this worker's folder after restoring, before training continues."""
    seen = []

    def record_iterations(trainer, checkpoint):
        seen.extend(iteration_of(path) for path in checkpoints(folder / "run" / f"rank-{distributed.rank()}"))

    with patch.object(Trainer, "run", record_iterations):
        run(folder, ["--resume", "run"])
    return seen


def test_starts_from_the_beginning_if_one_worker_has_no_checkpoint(two_workers, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    delete(run / "rank-1", ["checkpoint-000003.pt", "checkpoint-000004.pt", EVER_WRITTEN])
    assert two_workers(restored_checkpoints, tmp_path) == [[], []]  # and ends again
    succeed(two_workers, tmp_path, ["--resume", run])
    assert_same_run(run, finished_run)


def test_all_workers_stop_if_one_has_a_non_finite_loss(two_workers, tmp_path):
    results = two_workers(run, tmp_path, [*UNEVEN, *INTERVAL], ("fetch", fetch_nan))
    assert [status for status, _ in results] == [1, 1]
    assert all("not finite in iteration 1: " in output and "loss/reward" in output for _, output in results)


def fetch_nan(learner, random=None, fetch=Learner.fetch):
    starts, batch = fetch(learner, random)
    return starts, batch._replace(reward=batch.reward * float("nan"))


def test_stop_saves_the_same_iteration_in_all_workers(two_workers, finished_run, tmp_path):
    """Ctrl-C in the third iteration; torchrun passes the signal on to its processes."""
    (tmp_path / "hold").touch()  # the sixth episode of each worker belongs to the third iteration
    two_workers.start(run, tmp_path, [*UNEVEN, "operation.checkpoint_interval=1000", "--folder", "run"])
    while len(list(tmp_path.glob("waiting-*"))) < 2:
        assert not two_workers.have_ended(), two_workers.results()
        time.sleep(0.02)
    two_workers.signal(signal.SIGINT)
    results = two_workers.results()
    assert [status for status, _ in results] == [130, 130]
    output = "".join(text for _, text in results)
    assert output.count("stopped; to resume: torchrun --nproc-per-node 2 ") == 1, output
    saved = [[iteration_of(path) for path in checkpoints(tmp_path / "run" / f"rank-{rank}")] for rank in range(2)]
    assert saved == [[2], [2]]
    (tmp_path / "hold").unlink()
    succeed(two_workers, tmp_path, ["--resume", "run"])
    assert_same_run(tmp_path / "run", finished_run, but=["kept"])  # fewer are saved, of which one is the best


REFUSED = {
    "parameters.dreamer.batch_size=7": "parameters.dreamer.batch_size: 7; expected a multiple of the 2 processes",
    "parameters.dreamer.num_interaction_episodes=3": "num_interaction_episodes: 3; expected a multiple of the 2",
    "parameters.dreamer.seed_episodes=5": "parameters.dreamer.seed_episodes: 5; expected a multiple of the 2 processes",
    "parameters.dreamer.buffer.capacity=12": "buffer.capacity: each process's part is shorter than batch_length",
    "operation.device=cuda:1": "operation.device: cuda:1; each process takes a device of its own: take auto",
}


@pytest.mark.parametrize("override", REFUSED)
def test_settings_that_cannot_be_divided_are_refused_once(two_workers, tmp_path, override):
    first, second = two_workers(run, tmp_path, [*UNEVEN, override])
    assert first[0] == second[0] == 2
    assert first[1].count("\n") == 1 and REFUSED[override] in first[1] and not second[1]
    assert not list(tmp_path.iterdir())


def test_resuming_with_another_number_of_workers_is_refused(two_workers, finished_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (["--resume", str(finished_run)], [*UNEVEN, "--folder", str(finished_run)]):
        assert main.main(call) == 2
        advice = "began with 2 of torchrun's processes, found 1; torchrun --nproc-per-node 2\n"
        assert capsys.readouterr().err.endswith(advice)
    assert main.main([*UNEVEN, "parameters.dreamer.train_iterations=1", "--folder", "alone"]) == 0
    (status, output), (other, no_output) = two_workers(run, tmp_path, ["--resume", "alone"])
    assert (status, other, no_output) == (2, 2, "")
    assert output.endswith("began with 1 of torchrun's processes, found 2; call it without torchrun\n")


def test_data_parallel_run_can_be_listed_and_evaluated(finished_run, capsys, monkeypatch, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    assert main.main(["--list"]) == 0 and "4 of 4" in capsys.readouterr().out
    assert main.main(["--evaluate", "latest", "--episodes", "1", "--json"]) == 0
    assert '"iteration": 4' in capsys.readouterr().out


@pytest.mark.parametrize("restarts, status", [("0", 0), ("3", 2)])
def test_torchrun_restarts_require_a_folder_name(two_workers, tmp_path, restarts, status):
    """Without a name each restart would begin a new run."""
    arguments = [*UNEVEN, "parameters.dreamer.train_iterations=1"]
    for result, output in two_workers(run_with_restarts, restarts, tmp_path, arguments):
        assert result == status and ("add --folder runs" in output) == (bool(status) and "error" in output)


def run_with_restarts(restarts, *arguments):
    with patch.dict(os.environ, {"TORCHELASTIC_MAX_RESTARTS": restarts}):
        return run(*arguments)


# Under torchrun


def torchrun(folder, *arguments, restarts=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    command += ["--monitor-interval", "0.1", "--standalone", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_killed_workers_restart_with_the_result_of_an_uninterrupted_run(finished_run, tmp_path):
    """Worker 0 is killed (SIGKILL) before it writes its third checkpoint, while the other writes its own."""
    process = torchrun(tmp_path, ROOT / "tests" / "killed_worker.py", "0:3", *UNEVEN, "--folder", "run", restarts=3)
    _, output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert [path.name for path in tmp_path.glob("killed-*")] == ["killed-0-3"]
    assert_same_run(tmp_path / "run", finished_run)

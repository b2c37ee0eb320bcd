"""Whole updates from pixels: repeatable, close in either precision, and on a GPU those of the CPU."""

from functools import partial

import pytest
import torch
from gymnasium import spaces

from dreamer.algorithms import algorithm as algorithm_module
from dreamer.algorithms.actor_critic import Values
from dreamer.build import build_algorithm
from dreamer.config.load import load_config
from dreamer.replay.step import Batch
from dreamer.training.checkpoint_file import copy_to_cpu
from dreamer.training.cuda_graph import CudaGraphed
from tests import versions
from tests.toys import SMALL, FrameEnv, spy

OVERRIDES = [
    *SMALL,
    *(f"parameters.dreamer.{part}={size}" for part, size in [("batch_size", 3), ("batch_length", 6)]),
    "parameters.dreamer.horizon_length=3",
    *(f"parameters.dreamer.{part}.depth=4" for part in ("encoder", "decoder")),
    "parameters.plan2explore.num_ensemble=3",
    "parameters.plan2explore.one_step_model.hidden_size=16",
    "parameters.dreamer.warm_up=2",
]
VERSIONS = {"dreamer": 1, "dreamer-v2": 2, "dreamer-v3": 3}
OWN = {  # what shows within a few updates
    "dreamer-v2": ["slow_critic_interval=2", "use_continue_flag=True"],
    "dreamer-v3": [f"{part}_learning_rate=1e-3" for part in ("model", "actor", "critic")],
}


class TwoActions(FrameEnv):
    action_space = spaces.Box(-1, 1, (2,))


def windows():
    """Batches of noise that repeat themselves."""
    torch.manual_seed(1)
    for _ in range(3):
        is_first = torch.zeros(3, 6)
        is_first[0, 0] = is_first[1, 3] = 1
        pixels = torch.randint(256, (3, 6, 3, 64, 64), dtype=torch.uint8)
        others = torch.rand(3, 6, 2) * 2 - 1, torch.randn(3, 6), is_first, torch.zeros(3, 6), torch.zeros(3, 0)
        yield Batch(pixels, *others)


def make(config, *overrides, device="cpu", env=TwoActions):
    torch.manual_seed(0)
    own = [
        f"parameters.dreamer.{override}" for override in OWN.get(config if isinstance(config, str) else config[-1], [])
    ]
    return build_algorithm(load_config(config, [*OVERRIDES, *own, *overrides]), env(), torch.device(device))


def learned(config, updates, *overrides, device="cpu", record=False):
    """An agent after some updates, and their metrics."""
    agent = make(config, *overrides, device=device)
    update = CudaGraphed(agent.update, agent.device) if record else agent.update
    batches, metrics = list(windows()), []
    for number in range(updates):
        batch = Batch(*(part.to(device) for part in batches[number % len(batches)]))
        metrics.append({name: value.item() for name, value in update(batch)[0].items()})
    assert not record or update.graph is not None
    return agent, metrics


def weights(agent):
    return {name: {k: v.cpu() for k, v in network.state_dict().items()} for name, network in agent.networks.items()}


@pytest.fixture
def constant(monkeypatch):
    """Noise that does not depend on how it is drawn."""
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.sin(torch.ones_like(like).cumsum(-1)))
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.sin(torch.ones_like(like).cumsum(-1)) / 2.01 + 0.5)
    monkeypatch.setattr(torch, "rand", lambda *shape, **kind: torch.ones(*shape, **kind).cumsum(0).sin() / 2.01 + 0.5)


@pytest.mark.parametrize("config", VERSIONS)
def test_ten_updates_in_bfloat16_stay_near_those_in_float32(config, constant):
    (_, expected), (other, got) = (learned(config, 10, f"operation.precision={p}") for p in ("float32", "bfloat16"))
    assert expected != got
    for name in ("loss/model", "loss/reconstruction", "loss/kl", "latent/posterior_entropy"):
        assert [row[name] for row in got] == pytest.approx([row[name] for row in expected], rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in other.model.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [*VERSIONS, "plan2explore"])
def test_the_same_seed_learns_the_same(config, precision):
    """Bit for bit: a run that is resumed goes on as if nothing had happened."""
    (one, first), (other, second) = (learned(config, 2, f"operation.precision={precision}") for _ in range(2))
    assert first == second
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


@pytest.mark.parametrize("config", ["dreamer-v2", "dreamer-v3", ["plan2explore", "dreamer-v3"]], ids=str)
@pytest.mark.parametrize("before", [2, 3])
def test_goes_on_from_a_state_with_all_that_an_update_remembers(config, before):
    """The slow critic and its count, the averages of optimisers and returns: another agent with other weights makes
    the same further updates, bit for bit."""
    scaled = [] if config == "dreamer-v2" else ["parameters.dreamer.agent.critic.outscale=1"]  # returns to be scaled
    batches, (agent, _) = list(windows()), learned(config, before, *scaled)
    other, metrics = make(config, *scaled), []
    other.update(batches[2])
    state = copy_to_cpu(agent.state_dict())
    remembered = {*state["networks"], *state["optimizers"]}
    assert remembered >= {"model", "actor", "critic", "slow_critic"} | (
        {"return_scale"} if config != "dreamer-v2" else set()
    )
    other.load_state_dict(state)
    for each in (agent, other):
        torch.manual_seed(3)
        metrics.append([{name: value.item() for name, value in each.update(batch)[0].items()} for batch in batches])
    assert metrics[0] == metrics[1]
    assert all(part.isfinite().all() for network in weights(agent).values() for part in network.values())
    torch.testing.assert_close(copy_to_cpu(agent.state_dict()), copy_to_cpu(other.state_dict()), rtol=0, atol=0)


def test_what_is_not_a_large_product_is_in_float32(monkeypatch):
    """In bfloat16, too: states, rewards, values, actions and the image's loss; and no step is under autocast."""
    agent, seen = make("plan2explore", "operation.precision=bfloat16"), []
    dreamer = agent.dreamer

    def watch(owner, name):
        original = getattr(owner, name)

        def call(*args, **keywords):
            result = original(*args, **keywords)
            seen.append((name, result, torch.is_autocast_enabled("cpu")))
            return result

        monkeypatch.setattr(owner, name, call)

    watched = [(dreamer.model.rssm, "observe"), (algorithm_module, "imagine"), (dreamer, "predicted_reward")]
    watched += [(agent.novelty, "reward"), (dreamer.actor_critic, "values"), (dreamer, "model_loss")]
    for owner, name in [*watched, *((optimizer, "move") for optimizer in agent.optimizers.values())]:
        watch(owner, name)
    agent.update(next(windows()))

    def tensors(result):
        if isinstance(result, torch.Tensor):
            return [result]
        if isinstance(result, Values):
            return [result.value]
        if hasattr(result, "mean") and not isinstance(result, tuple):
            return [result.mean]
        return [part for each in (result.values() if isinstance(result, dict) else result) for part in tensors(each)]

    assert len(seen) == 7 + 6, "imagination twice"
    for name, result, reduced in seen:
        assert reduced == (name != "move"), "weights that are remembered in bfloat16 must be forgotten when they change"
        assert {part.dtype for part in tensors(result)} == {torch.float32}, name


# On a GPU

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ON_A_GPU = [*VERSIONS, "plan2explore", ["plan2explore", "dreamer-v3"]]


@needs_cuda
@pytest.mark.parametrize("config", ON_A_GPU, ids=str)
def test_an_update_on_a_gpu_is_that_of_the_cpu(config, constant):
    """The first, from the same weights; convolutions take TF32 there."""
    (_, (expected, *_)), (_, (got, *_)) = (learned(config, 1, device=device) for device in ("cpu", "cuda"))
    assert got == pytest.approx(expected, rel=1e-2, abs=1e-2)


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", ON_A_GPU, ids=str)
def test_recorded_updates_are_those_that_run_step_by_step(config, precision, constant):
    run = partial(learned, config, 10, f"operation.precision={precision}", device="cuda")
    (recorded, got), (plain, expected) = run(record=True), run()
    tolerance = 5e-3 if precision == "float32" else 5e-2
    for one, same in zip(expected, got, strict=True):
        assert same["loss/model"] == pytest.approx(one["loss/model"], rel=tolerance)
    torch.testing.assert_close(weights(recorded), weights(plain), rtol=1e-1, atol=1e-2)


@needs_cuda
@pytest.mark.parametrize("config", VERSIONS)
def test_a_recording_draws_new_random_numbers_each_time(config):
    """DreamerV3's values, too, do not begin at 0 here."""
    agent = make(config, "parameters.dreamer.agent.critic.outscale=1", device="cuda")
    update, batch = CudaGraphed(agent.update, agent.device), Batch(*(part.cuda() for part in next(windows())))
    assert len({float(update(batch)[0]["behavior/imagined_return"]) for _ in range(7)}) == 7


@pytest.mark.parametrize("last", [2, 6, 9])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_imagination_starts_from_the_last_states_of_each_window(version, last, monkeypatch):
    """In the order of the windows, with the ends of the same steps; 6 is the windows' length."""
    algorithm = versions.make(version, f"imagine_last={last}")
    observed = spy(monkeypatch, algorithm.model.rssm, "observe")
    imagined = spy(monkeypatch, algorithm, "behavior_losses")
    batch = versions.windows(algorithm)
    algorithm.update(batch)
    ((_, (_, posterior)),), (((_, start, is_terminal, *_), _),) = observed, imagined
    assert torch.equal(start.feature, posterior.feature[:, -last:].flatten(0, 1)) and not start.feature.requires_grad
    assert torch.equal(is_terminal, batch.is_terminal[:, -last:].flatten())

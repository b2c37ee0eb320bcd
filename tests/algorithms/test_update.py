"""Whole updates from pixels: they are repeatable, close in both precisions, and equal on CPU and GPU."""

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
from tests import small_algorithms
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
VERSION_OVERRIDES = {  # settings that have an effect within a few updates
    "dreamer-v2": ["slow_critic_interval=2", "use_continue_flag=True"],
    "dreamer-v3": [f"{part}_learning_rate=1e-3" for part in ("model", "actor", "critic")],
}


class TwoActions(FrameEnv):
    action_space = spaces.Box(-1, 1, (2,))


def windows():
    """Yield three batches of noise, the same at each call."""
    torch.manual_seed(1)
    for _ in range(3):
        is_first = torch.zeros(3, 6)
        is_first[0, 0] = is_first[1, 3] = 1
        pixels = torch.randint(256, (3, 6, 3, 64, 64), dtype=torch.uint8)
        others = torch.rand(3, 6, 2) * 2 - 1, torch.randn(3, 6), is_first, torch.zeros(3, 6), torch.zeros(3, 0)
        yield Batch(pixels, *others)


def make(config, *overrides, device="cpu", env=TwoActions):
    torch.manual_seed(0)
    version_overrides = [
        f"parameters.dreamer.{override}"
        for override in VERSION_OVERRIDES.get(config if isinstance(config, str) else config[-1], [])
    ]
    return build_algorithm(
        load_config(config, [*OVERRIDES, *version_overrides, *overrides]), env(), torch.device(device)
    )


def run_updates(config, updates, *overrides, device="cpu", record=False):
    """Make some updates. Return the agent and the metrics of each update. record: as a CUDA graph."""
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
def constant_noise(monkeypatch):
    """Replace random numbers by fixed values that do not depend on device or precision."""
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.sin(torch.ones_like(like).cumsum(-1)))
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.sin(torch.ones_like(like).cumsum(-1)) / 2.01 + 0.5)
    monkeypatch.setattr(torch, "rand", lambda *shape, **kind: torch.ones(*shape, **kind).cumsum(0).sin() / 2.01 + 0.5)


@pytest.mark.parametrize("config", VERSIONS)
def test_ten_bfloat16_updates_stay_close_to_float32(config, constant_noise):
    (_, expected), (other, got) = (run_updates(config, 10, f"operation.precision={p}") for p in ("float32", "bfloat16"))
    assert expected != got
    for name in ("loss/model", "loss/reconstruction", "loss/kl", "latent/posterior_entropy"):
        assert [row[name] for row in got] == pytest.approx([row[name] for row in expected], rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in other.model.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [*VERSIONS, "plan2explore"])
def test_same_seed_gives_identical_updates(config, precision):
    """Metrics and weights are equal bit for bit, which exact resuming needs."""
    (agent, first), (other, second) = (run_updates(config, 2, f"operation.precision={precision}") for _ in range(2))
    assert first == second
    torch.testing.assert_close(weights(agent), weights(other), rtol=0, atol=0)


@pytest.mark.parametrize("config", ["dreamer-v2", "dreamer-v3", ["plan2explore", "dreamer-v3"]], ids=str)
@pytest.mark.parametrize("before", [2, 3])
def test_restored_agent_makes_identical_updates(config, before):
    """The state includes the slow critic and its count, optimiser averages and the return scale, so another agent makes
    the same updates, bit for bit."""
    scaled = [] if config == "dreamer-v2" else ["parameters.dreamer.agent.critic.outscale=1"]  # returns to be scaled
    batches, (agent, _) = list(windows()), run_updates(config, before, *scaled)
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


def test_states_rewards_and_losses_are_float32_under_autocast(monkeypatch):
    """With precision bfloat16, states, rewards, values, actions and losses are float32, and optimisers step outside
    autocast."""
    agent, results = make("plan2explore", "operation.precision=bfloat16"), []
    dreamer = agent.dreamer

    def watch(owner, name):
        original = getattr(owner, name)

        def call(*args, **keywords):
            result = original(*args, **keywords)
            results.append((name, result, torch.is_autocast_enabled("cpu")))
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

    assert len(results) == 7 + 6, "imagination twice"
    for name, result, autocast in results:
        assert autocast == (name != "move"), (
            "weights that are remembered in bfloat16 must be forgotten when they change"
        )
        assert {part.dtype for part in tensors(result)} == {torch.float32}, name


# On a GPU

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ON_A_GPU = [*VERSIONS, "plan2explore", ["plan2explore", "dreamer-v3"]]


@needs_cuda
@pytest.mark.parametrize("config", ON_A_GPU, ids=str)
def test_gpu_update_matches_the_cpu(config, constant_noise):
    """The first update from the same weights; the tolerance covers TF32 convolutions."""
    (_, (expected, *_)), (_, (got, *_)) = (run_updates(config, 1, device=device) for device in ("cpu", "cuda"))
    assert got == pytest.approx(expected, rel=1e-2, abs=1e-2)


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", ON_A_GPU, ids=str)
def test_cuda_graph_updates_match_eager_updates(config, precision, constant_noise):
    run = partial(run_updates, config, 10, f"operation.precision={precision}", device="cuda")
    (recorded, got), (plain, expected) = run(record=True), run()
    tolerance = 5e-3 if precision == "float32" else 5e-2
    for one, same in zip(expected, got, strict=True):
        assert same["loss/model"] == pytest.approx(one["loss/model"], rel=tolerance)
    torch.testing.assert_close(weights(recorded), weights(plain), rtol=1e-1, atol=1e-2)


@needs_cuda
@pytest.mark.parametrize("config", VERSIONS)
def test_cuda_graph_draws_new_random_numbers_at_each_replay(config):
    """The critic's outscale makes DreamerV3's initial values nonzero."""
    agent = make(config, "parameters.dreamer.agent.critic.outscale=1", device="cuda")
    update, batch = CudaGraphed(agent.update, agent.device), Batch(*(part.cuda() for part in next(windows())))
    assert len({float(update(batch)[0]["behavior/imagined_return"]) for _ in range(7)}) == 7


@pytest.mark.parametrize("last", [2, 6, 9])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_imagination_starts_from_the_last_states_of_each_window(version, last, monkeypatch):
    """The start states keep the order of the windows and have the terminal flags of the same steps. A window has 6
    steps."""
    algorithm = small_algorithms.make(version, f"imagine_last={last}")
    observe_calls = spy(monkeypatch, algorithm.model.rssm, "observe")
    behavior_calls = spy(monkeypatch, algorithm, "behavior_losses")
    batch = small_algorithms.windows(algorithm)
    algorithm.update(batch)
    ((_, (_, posterior)),), (((_, start, is_terminal, *_), _),) = observe_calls, behavior_calls
    assert torch.equal(start.feature, posterior.feature[:, -last:].flatten(0, 1)) and not start.feature.requires_grad
    assert torch.equal(is_terminal, batch.is_terminal[:, -last:].flatten())

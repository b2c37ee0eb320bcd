"""Each fast path against the plain form: what it gives, its gradients, and ten updates of the whole."""

import copy

import pytest
import torch
from torch import nn

from dreamer.build import build_algorithm, build_networks
from dreamer.config import load_config
from dreamer.modules.ensemble import OneStepModel
from dreamer.modules.fast import FASTER, FastConvTranspose2d, _RowByRow, accelerate
from dreamer.modules.pixels import normalize_pixels
from dreamer.modules.rssm import RSSM, RecurrentModel
from dreamer.replay import Batch
from tests.toys import SMALL, Recorder

NETWORK = {"hidden_size": 24, "activation": "ELU"}
HEAD = {**NETWORK, "num_layers": 2, "min_std": 0.1}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Noise that does not depend on how many calls draw it."""
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.sin(torch.ones_like(like).cumsum(-1)))
    torch.manual_seed(0)


def pair(plain):
    fast = accelerate(copy.deepcopy(plain))
    assert type(fast) is FASTER[type(plain)]
    return plain, fast


def outcomes(module, call, *inputs):
    """What a call gives, and the gradients with respect to the inputs and the parameters."""
    inputs = [each.clone().requires_grad_() for each in inputs]
    results = call(module, *inputs)
    weights = [torch.cos(torch.arange(float(result.numel()))).view(result.shape) for result in results]
    total = sum((weight * result).sum() for weight, result in zip(weights, results, strict=True))
    wanted = [*inputs, *module.parameters()]
    return *results, *torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)


def assert_same(plain, fast, call, *inputs, **tolerance):
    expected, got = (outcomes(module, call, *inputs) for module in (plain, fast))
    assert sum(part.abs().sum() > 0 for part in expected) > len(inputs) + 1
    for one, same in zip(expected, got, strict=True):
        torch.testing.assert_close(same, one, **tolerance)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sizes, side, kernel", [((6, 5), 1, 5), ((6, 5), 4, 5), ((4, 3), 5, 6), ((4, 2), (3, 5), 4)])
def test_transposed_convolution(sizes, side, kernel, memory):
    height, width = side if isinstance(side, tuple) else (side, side)
    plain, fast = pair(nn.ConvTranspose2d(*sizes, kernel, 2))
    image = torch.randn(3, sizes[0], height, width).contiguous(memory_format=memory)
    assert_same(plain, fast, lambda module, x: [module(x)], image, rtol=1e-4, atol=1e-4)
    assert fast(image).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 3])
def test_other_strides_are_what_they_are(stride):
    plain, fast = pair(nn.ConvTranspose2d(4, 3, 5, stride))
    assert_same(plain, fast, lambda module, x: [module(x)], torch.randn(2, 4, 3, 3), rtol=1e-4, atol=1e-4)


def test_the_bias_of_a_transposed_convolution_is_in_the_configured_precision():
    fast = accelerate(nn.ConvTranspose2d(4, 3, 6, 2))
    image = torch.randn(2, 4, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = fast(image)
    assert reduced.dtype == torch.bfloat16
    torch.testing.assert_close(reduced.float(), fast(image), rtol=0.05, atol=0.05)
    reduced.float().sum().backward()
    assert fast.weight.grad.dtype == fast.bias.grad.dtype == torch.float32
    assert torch.equal(fast.bias.grad, torch.full((3,), 2.0 * 14 * 14))


@pytest.mark.parametrize("layers", [1, 2])
def test_observe(layers):
    """Episodes begin in the middle, too."""
    model = {**HEAD, "num_layers": layers}
    plain, fast = pair(RSSM(2, 7, 12, 5, NETWORK, model, model))
    is_first = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0], [1, 1, 0, 0, 0, 1]])

    def observe(rssm, embedding, action):
        prior, posterior = rssm.observe(embedding, action, is_first)
        return [*prior[2:], *posterior]

    assert_same(plain, fast, observe, torch.randn(3, 6, 7), torch.randn(3, 6, 2), rtol=1e-4, atol=1e-5)


def test_imagine():
    plain, fast = pair(RSSM(2, 7, 12, 5, NETWORK, HEAD, HEAD))
    call = lambda rssm, action: rssm.imagine(rssm.initial_state(3), action)  # noqa: E731
    assert_same(plain, fast, lambda *arguments: list(call(*arguments)), torch.randn(3, 6, 2), rtol=1e-4, atol=1e-5)


def test_the_recurrence_in_bfloat16():
    """A state that is far from where it goes shows which way each gate turns."""
    plain, fast = pair(RecurrentModel(5, 12, 2, **NETWORK))
    hidden, state = 3 * torch.randn(64, 24), 5 * torch.randn(64, 12)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = fast.step(hidden, state)
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(reduced, plain.step(hidden, state), rtol=0, atol=0.1)
    assert (reduced - plain.step(hidden, state)).abs().mean() < 0.02 < (reduced - state).abs().mean()


@pytest.mark.parametrize("measure", ["variance", "std"])
def test_disagreement(measure, monkeypatch):
    """In chunks that do not come out even; of frozen members, so only the inputs have gradients."""
    monkeypatch.setattr(_RowByRow, "ROWS", 4)
    plain, fast = pair(OneStepModel(8, 2, 16, 5, 32, 2, "ELU"))
    inputs = [torch.randn(7, 3, size, requires_grad=True) for size in (8, 2)]
    upstream = torch.randn(7, 3)
    results = []
    for module in (plain, fast):
        value = module.disagreement(*inputs, measure)
        results.append([value.detach(), *torch.autograd.grad(value, inputs, upstream)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    assert all(parameter.grad is None for parameter in fast.parameters())


def test_what_is_accelerated_keeps_its_parameters_and_its_checkpoints():
    plain, fast = pair(nn.ConvTranspose2d(4, 3, 5, 2))
    assert isinstance(fast, FastConvTranspose2d) and plain.state_dict().keys() == fast.state_dict().keys()
    fast.load_state_dict(nn.ConvTranspose2d(4, 3, 5, 2).state_dict())
    plain.load_state_dict(fast.state_dict())
    assert torch.equal(plain.weight, fast.weight)


# The whole update

OVERRIDES = [
    *SMALL,
    *(f"parameters.dreamer.{part}={size}" for part, size in [("batch_size", 3), ("batch_length", 6)]),
    "parameters.dreamer.horizon_length=3",
    "environment.from_pixels=True",
    *(f"parameters.dreamer.{part}.depth=4" for part in ("encoder", "decoder")),
    "parameters.plan2explore.one_step_model.hidden_size=32",
]


def windows(size=2):
    """Batches of pixels and of everything that comes with them."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(size):
        pixels = torch.randint(256, (3, 6, 3, 64, 64), generator=generator, dtype=torch.uint8)
        reward, chance = torch.rand(2, 3, 6, generator=generator)
        is_first = (chance < 0.2).float()
        action = 2 * torch.rand(3, 6, 2, generator=generator) - 1
        yield Batch(normalize_pixels(pixels, True), action, reward, is_first, torch.zeros(3, 6))


def learned(config, updates, *overrides, device="cpu"):
    """An agent after some updates, and their metrics."""
    config = load_config(config, [*OVERRIDES, *overrides])
    torch.manual_seed(0)
    networks = build_networks(config, (3, 64, 64), 2, discrete=False)
    networks = {name: network.to(device) for name, network in networks.items()}
    agent = build_algorithm(config, networks, None, Recorder(), Recorder())
    batches, metrics = list(windows()), []
    for update in range(updates):
        batch = Batch(*(part.to(device) for part in batches[update % len(batches)]))
        metrics.append({name: value.item() for name, value in agent.run_update(batch).items()})
    return agent, metrics


def weights(agent):
    return {name: {k: v.cpu() for k, v in network.state_dict().items()} for name, network in agent.networks.items()}


@pytest.fixture
def constant(monkeypatch):
    """Actions whose noise, too, does not depend on how it is drawn."""
    monkeypatch.setattr(
        "torch.distributions.normal._standard_normal",
        lambda shape, dtype, device: torch.ones(shape, dtype=dtype, device=device).cumsum(-1).sin(),
    )


@pytest.mark.parametrize("config", ["dreamer", "plan2explore"])
def test_ten_updates_are_those_of_the_plain_form(config, constant):
    (plain, expected), (fast, got) = (learned(config, 10, f"operation.fast_paths={flag}") for flag in (False, True))
    for one, same in zip(expected, got, strict=True):
        assert same == pytest.approx(one, rel=5e-3, abs=5e-3)
    assert expected[0] != expected[-2] and expected[0].keys() == got[0].keys()
    torch.testing.assert_close(weights(fast), weights(plain), rtol=1e-2, atol=1e-3)


def test_ten_updates_in_bfloat16_stay_near_those_in_float32(constant):
    (one, expected), (other, got) = (
        learned("dreamer", 10, f"operation.precision={p}") for p in ("float32", "bfloat16")
    )
    assert expected != got
    for name in ("loss/model", "loss/reconstruction", "loss/kl", "latent/posterior_entropy"):
        assert [row[name] for row in got] == pytest.approx([row[name] for row in expected], rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in other.model.parameters())


@pytest.mark.parametrize("setting", ["fast_paths=False", "fast_paths=True", "precision=bfloat16"])
@pytest.mark.parametrize("config", ["dreamer", "plan2explore"])
def test_the_same_seed_learns_the_same(config, setting):
    """Bit for bit, whatever makes it faster: a run that is resumed goes on as if nothing had happened."""
    (one, first), (other, second) = (learned(config, 2, f"operation.{setting}") for _ in range(2))
    assert first == second
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


def test_what_is_not_a_large_product_is_in_float32(monkeypatch):
    """In bfloat16, too: states, rewards, values, actions and the image's loss; and no step is under autocast."""
    agent, _ = learned("plan2explore", 0, "operation.precision=bfloat16")
    seen = []

    def watch(owner, name):
        original = getattr(owner, name)

        def call(*args, **keywords):
            result = original(*args, **keywords)
            seen.append((name, result, torch.is_autocast_enabled("cpu")))
            return result

        monkeypatch.setattr(owner, name, call)

    for owner, name in [(agent.model.rssm, "observe"), (agent, "imagine"), (agent, "predicted_reward")]:
        watch(owner, name)
    for owner, name in [(agent, "intrinsic_reward"), (agent.behavior.critic, "forward"), (agent, "model_losses")]:
        watch(owner, name)
    for optimizer in agent.optimizers.values():
        watch(optimizer, "step")
    agent.run_update(next(windows()))

    def tensors(result):
        if isinstance(result, torch.Tensor):
            return [result]
        if hasattr(result, "mean") and not isinstance(result, tuple):
            return [result.mean]
        return [part for each in (result.values() if isinstance(result, dict) else result) for part in tensors(each)]

    assert len(seen) == 6 + 1 + 2 + 1 + 1 + 1 + 1
    for name, result, reduced in seen:
        assert reduced == (name != "step"), "weights that are remembered in bfloat16 must be forgotten when they change"
        assert {part.dtype for part in tensors(result)} == {torch.float32}, name


# On a GPU

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", ["dreamer", "plan2explore"])
def test_recorded_updates_are_those_that_run_step_by_step(config, precision, constant):
    settings = f"operation.precision={precision}"
    recorded, got = learned(config, 10, settings, device="cuda")
    assert recorded.recorded.graph is not None
    plain, expected = learned(config, 10, settings, "operation.fast_paths=False", device="cuda")
    tolerance = 5e-3 if precision == "float32" else 5e-2
    for one, same in zip(expected, got, strict=True):
        assert same["loss/model"] == pytest.approx(one["loss/model"], rel=tolerance)
    torch.testing.assert_close(weights(recorded), weights(plain), rtol=1e-1, atol=1e-2)


@needs_cuda
def test_a_recording_draws_new_random_numbers_each_time(monkeypatch):
    monkeypatch.undo()
    agent, _ = learned("dreamer", 4, device="cuda")
    batch = Batch(*(part.cuda() for part in next(windows())))
    for parameter in agent.model.parameters():
        parameter.requires_grad_(True)
    assert len({float(agent.run_update(batch)["behavior/imagined_return"]) for _ in range(3)}) == 3

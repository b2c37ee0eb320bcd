"""Compare with numbers from the authors' DreamerV3 code (JAX, float32)."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from dreamer.algorithms.actor_critic import ReturnScale
from dreamer.algorithms.dreamer_v3 import episode_ends, replay_return, returns_and_weights
from dreamer.algorithms.losses import actor_loss, critic_loss
from dreamer.algorithms.optim import LaProp
from dreamer.modules.actor import bounded_normal
from dreamer.modules.categorical import TwoHot
from dreamer.modules.decoder import UpsamplingDecoder
from dreamer.modules.distributions import DiagonalNormal
from dreamer.modules.encoder import PooledEncoder
from dreamer.modules.heads import SymexpTwoHot
from dreamer.modules.latents import CategoricalModel
from dreamer.modules.layers import BlockLinear, RMSNorm
from dreamer.modules.recurrent import BlockRecurrentModel
from dreamer.modules.rssm import RSSM, State
from dreamer.replay.step import Batch
from tests.algorithms.golden import assert_close, load, one_hots, to_tensor, weight
from tests.toys import settings_of

GOLDEN = load("golden_dreamer_v3.json")
STYLE = {"activation": "SiLU", "norm": "rms", "initialization": "truncated_normal"}


# Distributions


def test_two_hot():
    bins, i = SymexpTwoHot().bins, torch.arange(255)
    expected = GOLDEN["twohot_bins"]
    assert len(bins) == expected["len"]
    for place in (0, 1, 100, 126, 127, 128, 129, 254):
        assert_close(bins[place], expected[f"bins[{place}]"])
    head = TwoHot(0.1 * torch.sin(0.7 * i) - 0.5 * ((i - 130) / 6) ** 2, bins)
    assert_close(head.mean, GOLDEN["twohot_pred"])
    for value, loss in GOLDEN["twohot_loss"].items():
        assert_close(-head.log_prob(torch.tensor(float(value))), loss)


def test_two_hot_of_zero_logits_predicts_zero():
    head = TwoHot(torch.zeros(255), SymexpTwoHot().bins)
    assert head.mean == GOLDEN["twohot_pred_zero_logits"] == 0
    assert_close(-head.log_prob(torch.tensor(3.0)), GOLDEN["twohot_loss_zero_logits"])


def test_bounded_normal():
    expected = GOLDEN["bounded_normal"]
    policy = bounded_normal(to_tensor(expected["mean raw"] + expected["std raw"]), min_std=0.1, max_std=1.0)
    assert_close(policy.mean, expected["mean"])
    assert_close(policy.scale, expected["std"])
    assert_close(policy.log_prob(to_tensor([0.5, -1.4])), expected["logp([0.5,-1.4])"])
    assert_close(policy.entropy(), expected["entropy"])


def test_rms_norm():
    assert_close(RMSNorm(4)(to_tensor(GOLDEN["rmsnorm"]["x"])), GOLDEN["rmsnorm"]["y"][0])


# Networks


def fill(layer, section, name, scale=1.0):
    """Set a layer by the formula. The authors' kernels are (in, out), (block, in, out) or (height, width, in, out)."""
    kernel = scale * weight(f"{name}/kernel", section[f"{name}/kernel"])
    if kernel.dim() == 2:
        kernel = kernel.T
    elif kernel.dim() == 4:
        kernel = kernel.permute(3, 2, 0, 1)
    assert layer.weight.shape == kernel.shape, name
    layer.weight.data = kernel.contiguous()
    layer.bias.data = weight(f"{name}/bias", section[f"{name}/bias"])


def fill_all(module, section, names, scaled=False):
    """Set all layers of a module in order, and all norm scales to 1.1."""
    kinds = nn.Linear, nn.Conv2d, BlockLinear
    for layer, name in zip((each for each in module.modules() if isinstance(each, kinds)), names, strict=True):
        size = math.prod(section[f"{name}/kernel"][:-1])
        fill(layer, section, name, 2 / size**0.5 if scaled else 1.0)
    for norm in (each for each in module.modules() if isinstance(each, RMSNorm)):
        norm.weight.data.fill_(1.1)


@pytest.fixture
def rssm():
    layers = {"hidden_size": 4} | STYLE
    latent = 2, 3, 0.01
    rssm = RSSM(
        BlockRecurrentModel(6, 8, 2, blocks=2, **layers),
        CategoricalModel(8, *latent, **layers, num_layers=2),
        CategoricalModel(8 + 5, *latent, **layers, num_layers=1),
        (8, 6),
    )
    names = ["dynin0", "dynin1", "dynin2", "dynhid0", "dyngru", "prior0", "prior1", "priorlogit", "obs0", "obslogit"]
    fill_all(rssm, GOLDEN["rssm"]["weights"], [f"dyn/{name}" for name in names])
    return rssm


def test_one_step_of_the_rssm(rssm):
    expected = GOLDEN["rssm"]
    state = State(torch.linspace(-1, 1, 16).view(2, 8), one_hots([[0, 2], [1, 1]], 3), None)
    action, tokens = to_tensor(expected["inputs"]["action"]), torch.linspace(0, 1, 10).view(2, 5)
    posterior = rssm.observe_step(state, action, tokens, torch.zeros(2))
    prior = rssm.prior(posterior.deterministic)
    assert_close(posterior.deterministic, expected["deter"])
    for got, name in ((prior, "prior logits"), (posterior, "posterior logits")):
        mixed = 0.99 * to_tensor(expected[name]).softmax(-1) + 0.01 / 3
        assert_close(got.distribution.probs, mixed)
    assert_close(kl_divergence(posterior.distribution, prior.distribution), expected["KL(post,prior) with unimix"])
    reset = rssm.observe_step(state, action, tokens, torch.ones(2))
    assert_close(reset.deterministic[0], expected["deter of row 0 when is_first"])


def image():
    """Return a test image, (1, 3, 64, 64), with values from 0 to 255."""
    return (7 * torch.arange(64 * 64 * 3) % 256).view(1, 64, 64, 3).movedim(-1, 1).float()


def test_encoder():
    encoder, expected = PooledEncoder((3, 64, 64), 1, 5, strided=False, **STYLE), GOLDEN["image"]
    fill_all(encoder, expected["weights"], [f"enc/cnn{stage}" for stage in range(4)], scaled=True)
    output = encoder(image() / 255 - 0.5).view(4, 4, 4)  # channels first
    assert_close(output.sum((1, 2)), expected["encoder output (4,4,4) h,w,c: sum over h,w"], atol=1e-4)
    assert_close(output[:, 0, 0], expected["encoder[0,0]"])
    assert_close(output[:, 3, 1], expected["encoder[3,1]"])


def test_decoder():
    expected = GOLDEN["image"]
    decoder = UpsamplingDecoder((8, 6), (3, 64, 64), "squared_error", 1, 5, blocks=2, hidden_size=4, **STYLE)
    names = ["sp0", "sp1", "sp2", "conv2", "conv1", "conv0", "imgout"]
    fill_all(decoder, expected["weights"], [f"dec/{name}" for name in names], scaled=True)
    feature = torch.cat([torch.linspace(-1, 1, 8), one_hots([[0, 2]], 3)[0]])[None]
    decoded = decoder(feature)
    pixels = decoded.mean[0] + 0.5
    assert_close(pixels.mean((1, 2)), expected["decoder mean per channel"])
    for row, column in ((0, 0), (20, 41), (63, 63)):
        assert_close(pixels[:, row, column], expected[f"decoder[{row},{column}]"])
    assert_close(-decoded.log_prob(image() / 255 - 0.5)[0], expected["image loss"], rtol=1e-5)


# Behaviour


def two_hot_at(values):
    """Return a two-hot head with these means, built as the fixture describes."""
    bins = SymexpTwoHot().bins
    below = torch.bucketize(values, bins, right=True) - 1
    share = (values - bins[below]) / (bins[below + 1] - bins[below])
    logits = torch.full((*values.shape, 255), -40.0)
    logits.scatter_(-1, below[..., None], (1 - share).clamp(min=1e-12).log()[..., None])
    logits.scatter_(-1, below[..., None] + 1, share.clamp(min=1e-12).log()[..., None])
    return TwoHot(logits, bins)


@pytest.fixture
def imagined_returns():
    given = {name: to_tensor(each) for name, each in GOLDEN["imag_loss"]["inputs"].items()}
    return given, *returns_and_weights(given["rew"][:, 1:], given["value"], given["con"], 0.95)


def test_returns_and_weights(imagined_returns):
    _, returns, weight = imagined_returns
    assert_close(returns, GOLDEN["imag_loss"]["ret"])
    assert_close(weight, GOLDEN["imag_loss"]["weight"])


def test_actor_loss(imagined_returns):
    given, returns, weight = imagined_returns
    policy = DiagonalNormal(given["policy mean"][:, :-1, None], given["policy std"].expand(2, 3, 1))
    action = given["action"][..., None]  # the last one is not used
    settings = "reinforce", settings_of(["dreamer-v3"]).entropy_scale, ReturnScale()(returns)
    loss, _ = actor_loss(policy, action, returns, given["value"][:, :-1], weight, *settings)
    assert_close(loss, to_tensor(GOLDEN["imag_loss"]["policy loss (B,H)"]).mean())


def test_critic_loss(imagined_returns):
    given, returns, weight = imagined_returns
    loss = critic_loss(two_hot_at(given["value"])[:, :-1], returns, weight, given["slow value"][:, :-1])
    assert_close(loss, to_tensor(GOLDEN["imag_loss"]["value loss (B,H)"]).mean())


def test_return_scale(imagined_returns):
    _, returns, _ = imagined_returns
    scale = ReturnScale()
    assert [scale(returns) for _ in range(2)] == [1, 1]
    assert_close(scale.range, GOLDEN["imag_loss"]["retnorm lo,hi after 2 updates (from 0)"])


def test_replay_returns():
    inputs = {name: to_tensor(each) for name, each in GOLDEN["replay_lambda_return"].items()}
    is_first = torch.cat([torch.zeros(2, 1), inputs["last"][:, :-1]], 1)
    batch = Batch(None, None, inputs["rew"], is_first, inputs["term"], torch.empty(2, 0))
    is_last = episode_ends(batch)
    assert_close(is_last[:, :-1], inputs["last"][:, :-1])
    returns = replay_return(batch, is_last, inputs["boot"], 1 - 1 / 333, 0.95)
    assert_close(returns, inputs["ret"])
    assert_close(1 - is_last[:, :-1], inputs["weight"])


def test_three_updates_of_the_optimiser():
    """The weights are float64 because the updates are smaller than float32 can resolve."""
    expected = GOLDEN["optimizer"]
    module = nn.ParameterDict({name: nn.Parameter(to_tensor(expected[f"{name}0"]).double()) for name in ("w", "b")})
    optimizer = LaProp(module, 4e-5, warm_up=1000, agc=0.3)
    for gradients, updates in zip(expected["grads"], expected["updates"], strict=True):
        before = {name: each.detach().clone() for name, each in module.items()}
        optimizer.step(sum((to_tensor(gradients[name]) * each).sum() for name, each in module.items()))
        for name, update in updates.items():
            assert_close((1e7 * (module[name] - before[name])).float(), 1e7 * to_tensor(update))

"""Against numbers that the authors' released code gives on tiny inputs: tests/data/golden_dreamer_v1.json.

The file describes weights by formulas and lists the noise. Where our order of axes, inputs or gates differs, the
weights are reordered here.
"""

import re

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import kl_divergence

from dreamer.algorithms.losses import lambda_return
from dreamer.algorithms.optim import ClippedAdam
from dreamer.build import build_algorithm
from dreamer.config.load import load_config
from dreamer.modules.ensemble import disagreement
from dreamer.modules.latents import Gaussian, GaussianModel
from dreamer.modules.recurrent import RecurrentModel
from dreamer.modules.rssm import RSSM, State
from dreamer.replay.step import Batch
from tests.algorithms.golden import assert_close, load, number_of, to_tensor, weight
from tests.toys import FrameEnv

GOLDEN = load("golden_dreamer_v1.json")
DYNAMICS, NETWORKS = GOLDEN["recurrent state-space model"], GOLDEN["networks"]
D, S, A, HORIZON = 4, 3, 2, 4


def by_formula(text, *shape):
    """Return the values of a formula such as 1.2*sin(1.1*n+0.3), where n counts the elements in C order."""
    scale, rate, shift = map(float, re.fullmatch(r"([\d.]+)\*sin\(([\d.]+)\*n\+([\d.]+)\)", text).groups())
    n = np.arange(np.prod(shape))
    return to_tensor(scale * np.sin(rate * n + shift)).view(shape)


def golden_weight(name, shape):
    n = np.arange(np.prod(shape), dtype=float)
    if name == "actor/hout/bias":
        values = np.array(NETWORKS["exception to the weight formula: actor/hout/bias"])
    elif len(shape) == 4:
        values = 2 / np.sqrt(np.prod(shape[:-1])) * np.sin(n * n + number_of(name))
    else:
        values = weight(name, shape).numpy()
    if name.endswith("bias") and name.startswith(("encode", "decode")):
        values = np.abs(values)
    return to_tensor(values).view(*shape)


def golden_weights(section):
    return {name: golden_weight(name, shape) for name, shape in section["weight shapes"].items()}


def features_first(kernel):
    """Reorder the input rows of a dense kernel from stochastic, deterministic to deterministic, stochastic."""
    return torch.cat([kernel[S:], kernel[:S]])


def set_layer(layer, weights, name, order=lambda kernel: kernel):
    """Set a layer from a kernel (in, out) or a channels-last convolution kernel (height, width, ·, ·)."""
    kernel = order(weights[f"{name}/kernel"])
    layer.weight.data.copy_(kernel.T if kernel.dim() == 2 else kernel.permute(3, 2, 0, 1))
    layer.bias.data.copy_(weights[f"{name}/bias"])


def set_network(network, weights, names, order=features_first):
    layers = [layer for layer in network if hasattr(layer, "weight")]
    for layer, name in zip(layers, names, strict=True):
        set_layer(layer, weights, name, order)
        order = lambda kernel: kernel  # noqa: E731


def set_rssm(rssm, weights, embedding_order=lambda kernel: kernel):
    gru = rssm.recurrent_model.gru
    set_layer(rssm.recurrent_model.linear, weights, "dynamics/img1")

    def gates(parts):  # z, r, n → r, z, n
        z, r, n = parts.chunk(3, -1)
        return torch.cat([r, z, n], -1)

    gru.weight_ih.data.copy_(gates(weights["dynamics/cell/kernel"]).T)
    gru.weight_hh.data.copy_(gates(weights["dynamics/cell/recurrent_kernel"]).T)
    for bias, row in zip((gru.bias_ih, gru.bias_hh), gates(weights["dynamics/cell/bias"]), strict=True):
        bias.data.copy_(row)
    set_network(rssm.transition_model.network, weights, ["dynamics/img2", "dynamics/img3"], lambda kernel: kernel)
    set_network(rssm.representation_model.network, weights, ["dynamics/obs1", "dynamics/obs2"], embedding_order)


class Noise:
    """Replaces random draws by listed noise. As in the authors' code, one row of noise is used for the whole batch."""

    def __init__(self, monkeypatch):
        self.latents, self.actions = [], []
        monkeypatch.setattr(torch, "randn_like", self.draw)

    def draw(self, like):
        listed = self.actions if like.shape[-1] == A else self.latents
        return to_tensor(listed.pop(0)).expand_as(like)


@pytest.fixture
def noise(monkeypatch):
    return Noise(monkeypatch)


# The recurrent state-space model


@pytest.fixture
def rssm():
    sizes = {"hidden_size": 5, "activation": "ELU"}
    gaussian = {**sizes, "num_layers": 1, "min_std": 0.1}
    models = GaussianModel(D, S, **gaussian), GaussianModel(D + 6, S, **gaussian)
    rssm = RSSM(RecurrentModel(S, D, A, **sizes), *models, (D, S))
    set_rssm(rssm, golden_weights(DYNAMICS))
    return rssm


def assert_state(state, expected):
    mean, std = state.parameters
    got = {"deterministic": state.deterministic, "mean": mean, "std": std, "sample": state.stochastic}
    for name, part in got.items():
        assert_close(part, expected[name])


def test_one_step_of_the_rssm(rssm, noise):
    inputs = DYNAMICS["inputs of one step"]
    deterministic = by_formula(inputs["previous deterministic state (2,4)"], 2, D)
    stochastic = by_formula(inputs["previous stochastic state (2,3)"], 2, S)
    state = State(deterministic, stochastic, Gaussian(stochastic, stochastic))
    action, embedding = to_tensor(inputs["action (2,2)"]), by_formula(inputs["embedding (2,6)"], 2, 6)
    noise.latents = [inputs["noise of img_step (3)"], inputs["noise of the posterior in obs_step (3)"]]
    assert_state(rssm.imagine_step(state, action), DYNAMICS["img_step: prior"])
    posterior = rssm.observe_step(state, action, embedding, torch.zeros(2))
    assert_state(posterior, DYNAMICS["obs_step: posterior"])
    noise.latents = [inputs["noise of the prior in obs_step (3)"]]
    assert_state(rssm.prior(posterior.deterministic), DYNAMICS["obs_step: prior"])


def test_observe_and_kl(rssm, noise):
    inputs, kl = DYNAMICS["inputs of observe"], DYNAMICS["kl"]
    action = by_formula(inputs["action (2,5,2)"], 2, 5, A)
    embedding = by_formula(inputs["embedding (2,5,6)"], 2, 5, 6)
    noise.latents = [*inputs["noise of the posteriors (5,3), by time"], inputs["noise of the priors (5,3), by time"]]
    prior, posterior = rssm.observe(embedding, action, torch.zeros(2, 5))
    assert_state(prior, DYNAMICS["observe: prior (2,5,.)"])
    assert_state(posterior, DYNAMICS["observe: posterior (2,5,.)"])
    divergence = kl_divergence(posterior.distribution, prior.distribution)
    assert_close(divergence, kl["each state (2,5), KL(posterior || prior), summed over the stochastic axis"])
    assert_close(divergence.mean(), kl["mean over batch and time"])
    assert_close(prior.distribution.entropy().mean(), kl["mean entropy of the priors"])
    assert_close(posterior.distribution.entropy().mean(), kl["mean entropy of the posteriors"])


# Encoder, decoder, heads, actor: `build_algorithm` at tiny sizes


class Env(FrameEnv):
    action_space = spaces.Box(-1, 1, (A,))


@pytest.fixture
def make():
    def make(*overrides):
        sizes = [f"deterministic_size={D}", f"stochastic_size={S}", f"horizon_length={HORIZON}", "clip_grad=1e9"]
        sizes += [f"rssm.{part}_model.hidden_size=5" for part in ("recurrent", "transition", "representation")]
        sizes += [f"{part}.hidden_size=6" for part in ("reward", "continue_", "agent.actor", "agent.critic")]
        sizes += ["encoder.depth=1", "decoder.depth=1", "use_continue_flag=True", *overrides]
        config = load_config("dreamer", [f"parameters.dreamer.{size}" for size in sizes])
        dreamer, weights = build_algorithm(config, Env(), torch.device("cpu")), golden_weights(NETWORKS)
        model, same = dreamer.model, lambda kernel: kernel
        set_network(model.encoder.network, weights, [f"encode/h{i}" for i in range(1, 5)], same)
        set_network(model.decoder.network, weights, [f"decode/h{i}" for i in range(1, 6)])
        set_rssm(model.rssm, weights, channels_first)
        heads = {"reward": model.reward_model, "value": dreamer.actor_critic.critic, "actor": dreamer.actor}
        if model.continue_model:
            heads["pcont"] = model.continue_model
        for name, head in heads.items():
            layers = sorted({key.split("/")[1] for key in weights if key.startswith(f"{name}/")})
            set_network(head.network, weights, [f"{name}/{layer}" for layer in layers])
        return dreamer

    return make


def channels_first(kernel):
    """Reorder kernel rows from an embedding flattened as (height, width, channel) to (channel, height, width)."""
    return torch.cat([kernel[:D], kernel[D:].view(2, 2, 8, -1).permute(2, 0, 1, 3).flatten(0, 2)])


def image(k):
    """Return the k-th test image, uint8 (3, 64, 64)."""
    n = np.arange(64 * 64 * 3)
    return torch.from_numpy(((n * n // 97 + 37 * k) % 256).astype(np.uint8).reshape(64, 64, 3).transpose(2, 0, 1))


def feature():
    """Return the test features, (2, 5, F), in our order: deterministic, stochastic."""
    golden = by_formula(NETWORKS["feature (2,5,7), stochastic 3 then deterministic 4"], 2, 5, S + D)
    return torch.cat([golden[..., S:], golden[..., :S]], -1)


def test_encoder(make):
    model = make().model
    embedding = model.encoder(model.normalize(torch.stack([image(0), image(1)])))
    expected = to_tensor(NETWORKS["encoder"]["embedding of images 0 and 1 (2,32)"])
    assert_close(embedding, expected.view(2, 2, 2, 8).permute(0, 3, 1, 2).flatten(1))


def test_decoder(make):
    model, expected = make().model, NETWORKS["decoder"]
    decoded = model.decoder(feature()[:, 0])
    assert_close(decoded.mean.mean((2, 3)), expected["mean over height and width (2,3)"])
    places = [(0, 0), (1, 62), (31, 40), (63, 63)]
    pixels = torch.stack([decoded.mean[:, :, row, column] for row, column in places], 1)
    assert_close(pixels, expected["pixels at (height,width) (0,0),(1,62),(31,40),(63,63) (2,4,3)"])
    log_prob = decoded.log_prob(model.normalize(torch.stack([image(0), image(1)])))
    assert_close(log_prob, expected["log_prob of images 0 and 1, summed over height, width, channel, std 1"])


def test_reward_value_and_continue_heads(make):
    dreamer, expected = make(), NETWORKS["heads"]
    target = to_tensor(expected["target (2,5)"])
    for name, head in (("reward", dreamer.model.reward_model), ("value", dreamer.actor_critic.critic)):
        assert_close(head(feature()).mean, expected[f"{name}: mean"])
        assert_close(head(feature()).log_prob(target), expected[f"{name}: log_prob of target"])
    continue_probability = dreamer.model.continue_model(feature())
    assert_close(continue_probability.mean, expected["pcont: mean (probability)"])
    for flag in (0, 1):
        assert_close(
            continue_probability.log_prob(torch.full((2, 5), float(flag))), expected[f"pcont: log_prob of {flag}"]
        )


def test_actor(make, noise):
    distribution, expected = make().actor(feature()), NETWORKS["actor"]
    base = distribution.normal
    assert_close(base.loc, expected["mean before tanh (2,5,2)"])
    assert_close(base.scale, expected["std before tanh (2,5,2)"])
    noise.actions = [expected["noise (2,5,2)"]]
    action = distribution.rsample()
    assert_close(action, expected["sample = tanh(mean + std*noise)"])
    assert_close(distribution.log_prob(action), expected["log_prob of that sample (2,5)"], atol=1e-4)
    other_actions = by_formula("0.95*sin(0.83*n+0.3)", 2, 5, A)
    log_prob = make().actor(feature()).log_prob(other_actions)
    assert_close(log_prob, expected["log_prob of the actions 0.95*sin(0.83*n+0.3) (2,5,2)"])


# One update


def test_lambda_return():
    section = GOLDEN["lambda return"]
    reward, value, pcont = (to_tensor(section[name]).T for name in ("reward", "value", "pcont"))
    next_value = torch.cat([value[:, 1:], to_tensor(section["bootstrap (3)"])[:, None]], 1)
    for discount, lambda_, text in [
        (torch.full_like(pcont, 0.99), 0.95, "return with pcont 0.99 everywhere"),
        (pcont, 0.95, "return with the listed pcont"),
        (pcont, 0.0, "return with the listed pcont, lambda 0"),
        (pcont, 1.0, "return with the listed pcont, lambda 1"),
    ]:
        assert_close(lambda_return(reward, discount, next_value, lambda_).T, section[text])


def golden_batch(update):
    pixels = torch.stack([torch.stack([image(5 * row + time) for time in range(5)]) for row in range(2)])
    action = by_formula(update["action (2,5,2)"], 2, 5, A)
    flags = torch.zeros(2, 5), torch.zeros(2, 5)
    return Batch(pixels, action, to_tensor(update["reward (2,5)"]), *flags, torch.zeros(2, 0))


def named_parameters(dreamer):
    """Map each of the authors' variable names to our parameters that together correspond to it."""
    model = dreamer.model
    networks = {"encode": model.encoder.network, "decode": model.decoder.network, "reward": model.reward_model.network}
    networks |= {"actor": dreamer.actor.network, "value": dreamer.actor_critic.critic.network}
    layers_by_name = {}
    for name, network in networks.items():
        layers = [layer for layer in network if hasattr(layer, "weight")]
        dense = [f"h{i}" for i in range(len(layers) - 1)] + ["hout"]
        names = [f"h{i}" for i in range(1, 6)] if name in ("encode", "decode") else dense
        layers_by_name |= {f"{name}/{layer}": module for layer, module in zip(names, layers, strict=False)}
    rssm = model.rssm
    layers_by_name["dynamics/img1"] = rssm.recurrent_model.linear
    for kind, part in (("img2 img3", rssm.transition_model), ("obs1 obs2", rssm.representation_model)):
        layers_by_name |= {f"dynamics/{layer}": part.network[2 * i] for i, layer in enumerate(kind.split())}
    parameters = {f"{name}/kernel": [layer.weight] for name, layer in layers_by_name.items()}
    parameters |= {f"{name}/bias": [layer.bias] for name, layer in layers_by_name.items()}
    gru = rssm.recurrent_model.gru
    cell = {"kernel": [gru.weight_ih], "recurrent_kernel": [gru.weight_hh], "bias": [gru.bias_ih, gru.bias_hh]}
    return parameters | {f"dynamics/cell/{name}": parts for name, parts in cell.items()}


@pytest.mark.parametrize("free_nats, bound", [(3, "does not bind"), (20, "binds")])
def test_losses_and_gradients_of_an_update(make, noise, monkeypatch, free_nats, bound):
    """All losses use the weights before any step, so the optimisers are disabled."""
    update, dreamer = GOLDEN["one update"], make("use_continue_flag=False", f"free_nats={free_nats}")
    for optimizer in dreamer.optimizers.values():
        monkeypatch.setattr(optimizer.adam, "step", lambda: None)
    noise.latents = [*update["noise of the posteriors (5,3)"], update["noise of the priors (5,3)"]]
    noise.latents += update["noise of imagined priors (4,3)"]
    noise.actions = list(update["noise of imagined actions (4,10,2), by imagined step, start 5*row + time"])
    noise.actions.append(np.zeros((10, HORIZON - 1, A)))  # for the entropy's estimate
    metrics, _ = dreamer.update(golden_batch(update))
    assert not noise.latents and not noise.actions
    expected = update[f"without pcont, free nats {free_nats} ({bound})"]
    for name, text in {
        "loss/model": "model loss",
        "loss/kl": "mean KL",
        "loss/actor": "actor loss",
        "loss/critic": "value loss",
        "grad_norm/model": "gradient norm of the model loss, before clipping",
        "grad_norm/actor": "gradient norm of the actor loss, before clipping",
        "grad_norm/critic": "gradient norm of the value loss, before clipping",
    }.items():
        assert metrics[name].item() == pytest.approx(expected[text], rel=1e-5), name
    assert -metrics["loss/reconstruction"].item() == pytest.approx(expected["image log_prob, mean over batch and time"])
    assert -metrics["loss/reward"].item() == pytest.approx(expected["reward log_prob, mean"], rel=1e-5)
    returns = to_tensor(update["without pcont: returns (3,10)"]).mean()
    assert_close(metrics["behavior/imagined_return"], returns)
    if free_nats == 3:
        norms = update["gradient norm of each variable, before clipping; without pcont, free nats 3"]
        ours = named_parameters(dreamer)
        assert ours.keys() == norms.keys()
        for name, parameters in ours.items():
            norm = torch.stack([parameter.grad.norm() for parameter in parameters]).norm().item()
            assert norm == pytest.approx(norms[name], rel=2e-5), name


# The optimiser


@pytest.mark.parametrize("gradients_kind", ["ordinary and clipped gradients", "tiny gradients, where epsilon matters"])
def test_three_steps_of_the_optimiser(gradients_kind):
    """Keras adds ε before the bias correction, so this test rescales our ε at each step to match."""
    section = GOLDEN["adam"]
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(to_tensor(section["weights at start"]))
    optimizer = ClippedAdam(module, 6e-4, 1e-7, clip_grad=100.0, grad_norm_type=2.0)
    steps = zip(*(section[gradients_kind][f"{name}"] for name in ADAM), strict=True)
    for number, (gradient, norm, after) in enumerate(steps, 1):
        optimizer.adam.param_groups[0]["eps"] = 1e-7 / (1 - 0.999**number) ** 0.5
        assert_close(optimizer.step((module.weight * to_tensor(gradient)).sum()), norm)
        assert_close(module.weight, after, atol=1e-7, rtol=1e-6)


ADAM = ("gradients", "norm before clipping", "weights after each update")


# Plan2Explore


def test_disagreement():
    """The authors' code divides the variance by K; we divide by K - 1, as the paper does."""
    section = GOLDEN["plan2explore disagreement"]
    mean = to_tensor(section["predictions (4,2,3,3): member, row, time, embedding"])
    expected = to_tensor(section[next(key for key in section if key.startswith("disagreement (2,3)"))])
    assert_close(disagreement(mean, "variance"), expected * 4 / 3)

"""Compare with numbers from the authors' DreamerV2 code (TensorFlow, float32)."""

import pytest
import torch

from dreamer.algorithms.dreamer_v2 import returns_and_weights
from dreamer.algorithms.losses import actor_loss, critic_loss, kl_loss
from dreamer.algorithms.optim import KerasAdam
from dreamer.modules.actor import one_hot, truncated_normal
from dreamer.modules.distributions import TruncatedNormal, UnitNormal
from dreamer.modules.latents import Categorical, CategoricalModel
from dreamer.modules.recurrent import LayerNormGRUCell, RecurrentModel
from dreamer.modules.rssm import RSSM, State
from tests.algorithms.golden import assert_close, load, one_hots, to_tensor, weight
from tests.toys import settings_of

GOLDEN = load("golden_dreamer_v2.json")
D, GROUPS, CLASSES, A, E = 4, 2, 3, 2, 5
Z = GROUPS * CLASSES


@pytest.fixture
def rssm():
    layers = {"hidden_size": 3, "activation": "ELU"}
    latent = GROUPS, CLASSES, 0.0
    rssm = RSSM(
        RecurrentModel(Z, D, A, **layers, cell=LayerNormGRUCell),
        CategoricalModel(D, *latent, **layers, num_layers=1),
        CategoricalModel(D + E, *latent, **layers, num_layers=1),
        (D, Z),
    )
    shapes = GOLDEN["rssm"]["weights"]
    prior, posterior, cell = rssm.transition_model.network, rssm.representation_model.network, rssm.recurrent_model.gru
    layers = {"img_in": rssm.recurrent_model.linear, "img_out_0": prior[0], "img_dist_0": prior[2]}
    layers |= {"obs_out": posterior[0], "obs_dist": posterior[2], "gru": cell.linear}
    for name, layer in layers.items():
        layer.weight.data = weight(f"{name}/kernel", shapes[f"{name}/kernel"]).T.contiguous()
        layer.bias.data = weight(f"{name}/bias", shapes[f"{name}/bias"])
    cell.norm.weight.data.fill_(1.1)
    cell.norm.bias.data = weight("gru_norm/beta", shapes["gru_norm/beta"])
    return rssm


def inputs():
    values = GOLDEN["rssm"]["inputs"]
    state = State(torch.linspace(-1, 1, 8).view(2, D), one_hots([[0, 2], [1, 1]], CLASSES), None)
    return state, to_tensor(values["action"]), torch.linspace(0, 1, 10).view(2, E)


def test_one_step_of_the_rssm(rssm):
    expected = GOLDEN["rssm"]
    state, action, embedding = inputs()
    posterior = rssm.observe_step(state, action, embedding, torch.zeros(2))
    assert_close(posterior.deterministic, expected["deter"])
    prior = rssm.prior(posterior.deterministic)
    for state_got, name in ((prior, "prior logits"), (posterior, "posterior logits")):
        assert_close(state_got.parameters.log_probs, to_tensor(expected[name]).log_softmax(-1))
    reset = rssm.observe_step(state, action, embedding, torch.ones(2))
    assert_close(reset.deterministic[0], expected["deter of row 0 when is_first"])


@pytest.mark.parametrize("free_nats, per_step", [(0.0, False), (1.0, False), (1.0, True)])
def test_kl_balancing(free_nats, per_step):
    expected, given = GOLDEN[f"kl free={free_nats} free_avg={not per_step}"], GOLDEN["kl inputs"]
    logits = [to_tensor(given[f"{name} logits (3,2,3)"]).requires_grad_() for name in ("prior", "posterior")]
    prior, posterior = (State(part.sum((1, 2)), part, Categorical(part.log_softmax(-1))) for part in logits)
    settings = settings_of("dreamer-v2")
    scales = settings.kl_dynamics_scale, settings.kl_representation_scale
    loss, kl = kl_loss(posterior, prior, free_nats, per_step, *scales)
    loss.backward()
    assert_close(loss, expected["loss"])
    assert_close(kl, to_tensor(expected["value per element"]).mean())
    assert_close(logits[0].grad.norm(), expected["grad norm prior logits"])
    assert_close(logits[1].grad.norm(), expected["grad norm posterior logits"])


def test_truncated_normal():
    expected = GOLDEN["trunc_normal"]
    policy = truncated_normal(to_tensor(expected["out"] + expected["std raw"]), min_std=0.1)
    assert_close(policy.mode, expected["mode"])
    assert_close(policy.std, expected["scale"])
    assert_close(policy.log_prob(to_tensor([0.5, -0.9])), expected["log_prob([0.5,-0.9])"])
    assert_close(policy.entropy(), expected["entropy"])


def test_samples_of_the_truncated_normal():
    """The mean and the gradient equal the authors'. The gradient is the one that TensorFlow uses, not the exact one."""
    torch.manual_seed(0)
    out = to_tensor(GOLDEN["trunc_normal"]["out"] + GOLDEN["trunc_normal"]["std raw"])
    policy = truncated_normal(out.expand(200_000, 4), min_std=0.1)
    mean, std = (part.requires_grad_() for part in (policy.mode, policy.std))
    samples = TruncatedNormal(mean, std).rsample()
    assert samples.abs().max() < 1
    assert_close(samples.mean(0), GOLDEN["trunc_normal"]["mean"], atol=4e-3)
    of_mean, of_std = torch.autograd.grad(samples.sum(), (mean, std))
    assert (of_mean == 1).all()
    assert_close(of_std, ((samples - mean) / std).detach())


# Behaviour


def behaviour_inputs():
    """Return the inputs of the behaviour fixture, (N, H + 1, ·)."""
    given = GOLDEN["behaviour"]
    return {name: to_tensor(given[name]).transpose(0, 1) for name in ("discount", "slow value", "actor logits")} | {
        "reward": to_tensor(given["reward (H+1,B)"]).T,
        "action": torch.tensor(given["actions (index 0 is zeros)"]).T,
    }


def returns_and_weights_of_fixture():
    """Return the fixture's returns and weights, (N, H). Its second start state is terminal."""
    given = behaviour_inputs()
    ended = torch.tensor([0.0, 1.0])
    return returns_and_weights(given["reward"], given["slow value"], given["discount"], ended, 0.99, 0.95)


def test_returns_and_weights():
    expected, (returns, weight) = GOLDEN["behaviour"], returns_and_weights_of_fixture()
    assert_close(returns.T, expected["target (H,B)"])
    assert_close(weight.T, expected["weight"][:-1])


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics"])
def test_actor_loss(gradient):
    """The loss does not use the last return or the last two values."""
    given, (returns, weight) = behaviour_inputs(), returns_and_weights_of_fixture()
    count = returns.shape[1] - 1
    policy = one_hot(given["actor logits"][:, :count], unimix=0)
    action = torch.nn.functional.one_hot(given["action"][:, 1:], 3).float()
    baseline = given["slow value"][:, :count]
    loss, _ = actor_loss(policy, action, returns[:, 1:], baseline, weight[:, :-1], gradient, 0.001, 1)
    assert_close(loss, GOLDEN["behaviour"][f"actor loss {gradient}"])


def test_critic_loss():
    value, (returns, weight) = 0.9 * behaviour_inputs()["slow value"] + 0.1, returns_and_weights_of_fixture()
    loss = critic_loss(UnitNormal(value[:, :-1], event_dims=0), returns, weight)
    assert_close(loss, GOLDEN["behaviour"]["critic loss"])


def test_three_updates_of_the_optimiser():
    given = GOLDEN["optimizer"]
    module = torch.nn.ParameterList([torch.nn.Parameter(to_tensor(start)) for start in given["start"]])
    optimizer = KerasAdam(module, given["lr"], given["eps"], given["clip"], 2.0, given["wd"])
    for gradients, after in zip(given["gradients"], given["after each step"], strict=True):
        loss = sum((to_tensor(gradient) * each).sum() for gradient, each in zip(gradients, module, strict=True))
        optimizer.step(loss)
        for each, expected in zip(module, after, strict=True):
            assert_close(each, expected, atol=2e-7, rtol=2e-7)

"""Recurrent models of DreamerV2 and V3 in the RSSM. test_golden_v2.py and test_golden_v3.py check single steps."""

import pytest
import torch

from dreamer.modules.latents import CategoricalModel
from dreamer.modules.recurrent import BlockRecurrentModel, LayerNormGRUCell, RecurrentModel
from dreamer.modules.rssm import RSSM

B, T, A, D, G, C, E = 3, 5, 4, 16, 3, 4, 6
Z = G * C


@pytest.fixture(params=["layer_norm_gru", "block_gru"])
def rssm(request):
    torch.manual_seed(0)
    layers = {"hidden_size": 8, "activation": "SiLU"}
    if request.param == "block_gru":
        recurrent_model = BlockRecurrentModel(Z, D, A, blocks=4, **layers)
    else:
        recurrent_model = RecurrentModel(Z, D, A, cell=LayerNormGRUCell, **layers)
    latent = {"unimix": 0.01, "num_layers": 1} | layers
    return RSSM(recurrent_model, CategoricalModel(D, G, C, **latent), CategoricalModel(D + E, G, C, **latent), (D, Z))


def random_state(rssm):
    z = torch.eye(C)[torch.randint(C, (B, G))].flatten(1)
    return rssm.restored(torch.cat([torch.randn(B, D), z], -1))


@pytest.mark.parametrize("action", [torch.eye(A)[[0, 0, 0]], torch.randn(B, A)], ids=["the first one-hot", "numbers"])
def test_first_step_ignores_the_previous_state_and_action(rssm, action):
    """With is_first = 1 state and action count as zeros, also a one-hot action, and the given action is not
    modified."""
    embedding, action_before = torch.randn(B, E), action.clone()
    with_past = rssm.observe_step(random_state(rssm), action, embedding, torch.ones(B))
    without_past = rssm.observe_step(rssm.initial_state(B), torch.zeros(B, A), embedding, torch.zeros(B))
    assert torch.equal(with_past.deterministic, without_past.deterministic)
    assert torch.equal(with_past.parameters.log_probs, without_past.parameters.log_probs)
    other = rssm.observe_step(rssm.initial_state(B), action, embedding, torch.zeros(B))
    assert (other.deterministic != without_past.deterministic).any() and torch.equal(action, action_before)


def test_initial_state_is_zero_and_not_learned(rssm):
    state = rssm.initial_state(B)
    assert state.feature.shape == (B, D + Z) and not state.feature.any() and not state.feature.requires_grad
    parts = rssm.recurrent_model, rssm.transition_model, rssm.representation_model
    assert len(list(rssm.parameters())) == sum(len(list(part.parameters())) for part in parts)


def test_windows_start_from_stored_states(rssm):
    """They start from zeros where an episode begins or where the stored states have size 0."""
    embedding, action, is_first = torch.randn(B, T, E), torch.randn(B, T, A), torch.zeros(B, T)
    is_first[0, 0] = 1

    def first(stored):
        return rssm.observe(embedding, action, is_first, stored)[1].deterministic[:, 0]

    from_zero, stored = first(None), random_state(rssm).feature
    assert torch.equal(first(torch.zeros(B, 0)), from_zero) and torch.equal(first(torch.zeros(B, D + Z)), from_zero)
    continued = first(stored)
    step = rssm.observe_step(rssm.restored(stored), action[:, 0], embedding[:, 0], is_first[:, 0])
    assert torch.equal(continued, step.deterministic)
    assert torch.equal(continued[0], from_zero[0]) and (continued[1:] != from_zero[1:]).any(-1).all()


def test_actions_beyond_the_bounds_are_scaled_to_them_with_a_gradient():
    """DreamerV3 uses a / max(1, |a|) for each component, without a gradient of the denominator."""
    torch.manual_seed(0)
    model, weight = BlockRecurrentModel(Z, D, A, 8, "SiLU", blocks=4), torch.randn(D)
    h, z = torch.randn(1, D), torch.randn(1, Z)

    def outcome(action):
        result, _ = model(h, z, action)
        return result, torch.autograd.grad((weight * result).sum(), action)[0]

    inside, outside = (torch.tensor([row], requires_grad=True) for row in ([0.4, 1, -1, 1], [0.4, 2.0, -4.0, 1.0]))
    (result, gradient), (result_outside, gradient_outside) = map(outcome, (inside, outside))
    torch.testing.assert_close(result, result_outside)
    torch.testing.assert_close(gradient / torch.tensor([1, 2, 4, 1]), gradient_outside)
    assert (gradient != 0).all()


def test_blocks_are_independent_after_the_input_layer():
    """Each block of the new h depends only on the same block of the old h, except through the shared input layer."""
    torch.manual_seed(0)
    model = BlockRecurrentModel(Z, D, A, 8, "SiLU", blocks=4)
    model.activation = torch.nn.SiLU()  # the norm is over all blocks
    with torch.no_grad():
        model.inputs[0][0].weight.zero_()  # the only path from h to all blocks
    h = torch.randn(1, D, requires_grad=True)
    result = model(h, torch.randn(1, Z), torch.randn(1, A))[0][0]
    depends = torch.stack([torch.autograd.grad(each, h, retain_graph=True)[0][0] != 0 for each in result])
    assert torch.equal(depends, torch.block_diag(*[torch.ones(4, 4)] * 4).bool())


def test_recurrent_state_is_float32_under_autocast(rssm):
    """The result equals float32 exactly. DreamerV2's layer before the cell runs in bfloat16."""
    model, inputs = rssm.recurrent_model, (torch.randn(B, D), torch.randn(B, Z), torch.randn(B, A))
    with torch.autocast("cpu", torch.bfloat16):
        from_autocast, _ = model(*inputs)
        hidden = model.activation(model.linear(torch.cat(inputs[1:], -1))) if hasattr(model, "gru") else None
    exact = model(*inputs)[0] if hidden is None else model.gru(hidden.float(), inputs[0])
    assert from_autocast.dtype == torch.float32 and torch.equal(from_autocast, exact)

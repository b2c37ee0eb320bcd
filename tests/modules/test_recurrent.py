"""The paths of h and the RSSM around them. One step of each is in test_golden_v2.py and test_golden_v3.py."""

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
def test_at_the_beginning_of_an_episode_nothing_counts_that_was_before(rssm, action):
    """Neither the state nor the action, not even the one-hot vector of action 0; and neither is written to."""
    embedding, given = torch.randn(B, E), action.clone()
    with_past = rssm.observe_step(random_state(rssm), action, embedding, torch.ones(B))
    without = rssm.observe_step(rssm.initial_state(B), torch.zeros(B, A), embedding, torch.zeros(B))
    assert torch.equal(with_past.deterministic, without.deterministic)
    assert torch.equal(with_past.parameters.log_probs, without.parameters.log_probs)
    other = rssm.observe_step(rssm.initial_state(B), action, embedding, torch.zeros(B))
    assert (other.deterministic != without.deterministic).any() and torch.equal(action, given)


def test_the_initial_state_is_zero_and_not_learned(rssm):
    state = rssm.initial_state(B)
    assert state.feature.shape == (B, D + Z) and not state.feature.any() and not state.feature.requires_grad
    parts = rssm.recurrent_model, rssm.transition_model, rssm.representation_model
    assert len(list(rssm.parameters())) == sum(len(list(part.parameters())) for part in parts)


def test_windows_go_on_from_the_states_before_them(rssm):
    """Unless an episode begins there, or the stored states are of size 0."""
    embedding, action, is_first = torch.randn(B, T, E), torch.randn(B, T, A), torch.zeros(B, T)
    is_first[0, 0] = 1

    def first(stored):
        return rssm.observe(embedding, action, is_first, stored)[1].deterministic[:, 0]

    anew, stored = first(None), random_state(rssm).feature
    assert torch.equal(first(torch.zeros(B, 0)), anew) and torch.equal(first(torch.zeros(B, D + Z)), anew)
    gone_on = first(stored)
    step = rssm.observe_step(rssm.restored(stored), action[:, 0], embedding[:, 0], is_first[:, 0])
    assert torch.equal(gone_on, step.deterministic)
    assert torch.equal(gone_on[0], anew[0]) and (gone_on[1:] != anew[1:]).any(-1).all()


def test_an_action_beyond_the_bounds_counts_as_at_them_but_keeps_its_gradient():
    """DreamerV3: a / max(1, |a|), each component for itself, the denominator without gradient."""
    torch.manual_seed(0)
    model, weight = BlockRecurrentModel(Z, D, A, 8, "SiLU", blocks=4), torch.randn(D)
    h, z = torch.randn(1, D), torch.randn(1, Z)

    def outcome(action):
        result, _ = model(h, z, action)
        return result, torch.autograd.grad((weight * result).sum(), action)[0]

    inside, outside = (torch.tensor([row], requires_grad=True) for row in ([0.4, 1, -1, 1], [0.4, 2.0, -4.0, 1.0]))
    (result, gradient), (same, smaller) = map(outcome, (inside, outside))
    torch.testing.assert_close(result, same)
    torch.testing.assert_close(gradient / torch.tensor([1, 2, 4, 1]), smaller)
    assert (gradient != 0).all()


def test_blocks_meet_in_the_input_alone():
    """Of h itself each block of the result sees its own block; of what all share, everything."""
    torch.manual_seed(0)
    model = BlockRecurrentModel(Z, D, A, 8, "SiLU", blocks=4)
    model.activation = torch.nn.SiLU()  # the norm is over all blocks
    with torch.no_grad():
        model.inputs[0][0].weight.zero_()  # what all blocks see of h
    h = torch.randn(1, D, requires_grad=True)
    result = model(h, torch.randn(1, Z), torch.randn(1, A))[0][0]
    reached = torch.stack([torch.autograd.grad(each, h, retain_graph=True)[0][0] != 0 for each in result])
    assert torch.equal(reached, torch.block_diag(*[torch.ones(4, 4)] * 4).bool())


def test_the_recurrence_keeps_float32_in_a_lower_precision(rssm):
    """Exactly, but for DreamerV2's layer before the cell, as in Dreamer."""
    model, inputs = rssm.recurrent_model, (torch.randn(B, D), torch.randn(B, Z), torch.randn(B, A))
    with torch.autocast("cpu", torch.bfloat16):
        reduced, _ = model(*inputs)
        hidden = model.activation(model.linear(torch.cat(inputs[1:], -1))) if hasattr(model, "gru") else None
    exact = model(*inputs)[0] if hidden is None else model.gru(hidden.float(), inputs[0])
    assert reduced.dtype == torch.float32 and torch.equal(reduced, exact)

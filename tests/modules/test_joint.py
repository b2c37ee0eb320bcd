"""Joint distributions over actions that have several parts."""

from functools import partial

import pytest
import torch
from torch.distributions import Categorical

from dreamer.algorithms.losses import actor_loss
from dreamer.modules.actor import bounded_normal, joint
from dreamer.modules.joint import Group, group_parts

GROUPS = group_parts([3, 0, 0, 2, 2])
NUMBERS = partial(bounded_normal, min_std=0.1, max_std=1.0)
OUTPUT = torch.randn(6, 5, 11, generator=torch.Generator().manual_seed(0))  # 3 logits, 2 means, 2 stds, 2 logits twice


def make(output=OUTPUT, straight_through=True, unimix=0.0):
    return joint(output, GROUPS, NUMBERS, unimix, straight_through)


def test_adjacent_parts_of_one_kind_form_a_group():
    assert group_parts([3, 0, 0, 2, 2]) == (Group(1, 3), Group(2, 0), Group(2, 2))
    assert [group.size for group in GROUPS] == [3, 2, 4] and [group.outputs for group in GROUPS] == [3, 4, 4]


@pytest.mark.parametrize("unimix", [0.0, 0.2])
def test_entropies_and_log_probabilities_are_summed(unimix):
    choices = [Categorical(logits=logits) for logits in OUTPUT[..., [0, 1, 2]].split(3, -1)]
    choices += [Categorical(logits=logits) for logits in OUTPUT[..., 7:].split(2, -1)]
    choices = [Categorical((1 - unimix) * each.probs + unimix / each.probs.shape[-1]) for each in choices]
    numbers, distribution = NUMBERS(OUTPUT[..., 3:7]), make(unimix=unimix)
    action = distribution.sample()
    indices = [part.argmax(-1) for part in (action[..., :3], action[..., 5:7], action[..., 7:])]
    choices_log_prob = sum(each.log_prob(index) for each, index in zip(choices, indices, strict=True))
    log_prob = choices_log_prob + numbers.log_prob(action[..., 3:5])
    torch.testing.assert_close(distribution.log_prob(action), log_prob)
    torch.testing.assert_close(distribution.discrete_log_prob(action), choices_log_prob)
    entropy = sum(each.entropy() for each in choices) + numbers.entropy()
    torch.testing.assert_close(distribution.entropy(), entropy)


def test_samples_and_mode_keep_the_order_of_the_parts():
    distribution = make(OUTPUT[0, 0].expand(20_000, -1))
    samples, output = distribution.sample(), OUTPUT[0, 0]
    assert (samples[:, :3].sum(1) == 1).all() and (samples[:, 5:7].sum(1) == 1).all()
    expected = torch.cat([output[part].softmax(-1) for part in ([0, 1, 2], [7, 8], [9, 10])])
    torch.testing.assert_close(samples[:, [0, 1, 2, 5, 6, 7, 8]].mean(0), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(samples[:, 3:5].mean(0), output[3:5].tanh(), atol=0.04, rtol=0)
    mode = distribution.mode[0]
    assert mode[:3].argmax() == output[:3].argmax() and mode[5:7].argmax() == output[7:9].argmax()
    torch.testing.assert_close(mode[3:5], output[3:5].tanh())


def gradient(actor_gradient):
    """Return the gradient of the actor loss with respect to the network output. The returns are linear in the
    action."""
    torch.manual_seed(0)
    output = OUTPUT.clone().requires_grad_()
    policy = make(output, straight_through=actor_gradient != "by_kind")
    action = policy.rsample()
    returns = action @ torch.linspace(-1, 1, 9)
    baseline, weight = torch.full_like(returns, 0.3), torch.ones_like(returns)
    loss, _ = actor_loss(policy, action, returns, baseline, weight, actor_gradient, 0.0, 2.0)
    return torch.autograd.grad(loss, output)[0]


def test_by_kind_uses_dynamics_for_numbers_and_reinforce_for_choices():
    by_kind, dynamics, reinforce = map(gradient, ["by_kind", "dynamics", "reinforce"])
    numbers, choices = slice(3, 7), [0, 1, 2, 7, 8, 9, 10]
    torch.testing.assert_close(by_kind[..., numbers], dynamics[..., numbers])
    torch.testing.assert_close(by_kind[..., choices], reinforce[..., choices])
    assert (dynamics[..., choices] - reinforce[..., choices]).abs().max() > 1e-3, "the two differ"

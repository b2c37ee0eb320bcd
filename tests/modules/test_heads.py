"""Sizes of the heads. The golden tests check their means and likelihoods."""

import pytest
import torch

from dreamer.errors import ConfigError
from dreamer.modules.heads import Head, NormalHead, SymexpTwoHot


def test_head_has_the_configured_layers_and_outputs():
    for distribution, size in ((NormalHead(), 1), (SymexpTwoHot(), 255), (SymexpTwoHot(63), 63)):
        head = Head(8, distribution, hidden_size=16, num_layers=3, activation="ELU")
        assert head(torch.randn(2, 5, 8)).mean.shape == (2, 5) and head.network[-1].out_features == size
        assert len([layer for layer in head.network if isinstance(layer, torch.nn.ELU)]) == 3


@pytest.mark.parametrize("bins", [63, 255])
def test_two_hot_bins_are_symmetric_about_0_and_keep_a_number_exactly(bins):
    head = SymexpTwoHot(bins)
    assert len(head.bins) == bins and head.bins[bins // 2] == 0 and head.bins[0] == -head.bins[-1]
    number = torch.tensor([3.7])
    logits = torch.zeros(1, bins, requires_grad=True)
    for _ in range(2000):  # to the minimum of the loss, whose mean is the number
        (gradient,) = torch.autograd.grad(-head(logits).log_prob(number).sum(), logits)
        logits = (logits - gradient).detach().requires_grad_()
    high = int(torch.searchsorted(head.bins, number[0]))
    probabilities = logits.softmax(-1)[0, high - 1 : high + 1]
    mean = (probabilities.detach() * head.bins[high - 1 : high + 1]).sum() / probabilities.sum()
    assert abs(float(mean.detach()) - 3.7) < 1e-3


def test_even_number_of_bins_is_refused():
    with pytest.raises(ConfigError, match="bins: expected an odd number, so that one bin is 0, found 64"):
        SymexpTwoHot(64)

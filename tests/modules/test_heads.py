"""Sizes of the heads. The golden tests check their means and likelihoods."""

import torch

from dreamer.modules.heads import Head, NormalHead, SymexpTwoHot


def test_head_has_the_configured_layers_and_outputs():
    for distribution, size in ((NormalHead, 1), (SymexpTwoHot, 255)):
        head = Head(8, distribution, hidden_size=16, num_layers=3, activation="ELU")
        assert head(torch.randn(2, 5, 8)).mean.shape == (2, 5) and head.network[-1].out_features == size
        assert len([layer for layer in head.network if isinstance(layer, torch.nn.ELU)]) == 3

"""What golden numbers do not say of the heads; those numbers hold their means and likelihoods."""

import torch

from dreamer.modules.heads import Head, NormalHead, SymexpTwoHot


def test_as_many_layers_and_outputs_as_are_asked_for():
    for distribution, size in ((NormalHead, 1), (SymexpTwoHot, 255)):
        head = Head(8, distribution, hidden_size=16, num_layers=3, activation="ELU")
        assert head(torch.randn(2, 5, 8)).mean.shape == (2, 5) and head.network[-1].out_features == size
        assert len([layer for layer in head.network if isinstance(layer, torch.nn.ELU)]) == 3

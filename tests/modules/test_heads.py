"""What golden numbers do not say of the heads; those numbers hold their means and likelihoods."""

import torch

from dreamer.modules.heads import Head


def test_as_many_layers_and_outputs_as_are_asked_for():
    head = Head(8, torch.tanh, hidden_size=16, num_layers=3, activation="ELU", output_size=7)
    assert head(torch.randn(2, 5, 8)).shape == (2, 5, 7)
    assert len([layer for layer in head.network if isinstance(layer, torch.nn.ELU)]) == 3

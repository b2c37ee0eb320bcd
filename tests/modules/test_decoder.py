import pytest
import torch
from torch import nn

from dreamer.config import ConfigError
from dreamer.modules.decoder import make_decoder

SETTINGS = {"depth": 32, "kernel_size": 5, "stride": 2, "hidden_size": 24, "num_layers": 2, "activation": "ReLU"}


def test_the_papers_image_decoder():
    """Appendix A: Linear to 1024, kernels 5, 5, 6, 6, stride 2, channels 128, 64, 32, 3; no activation at the end."""
    decoder = make_decoder(230, (3, 64, 64), **SETTINGS)
    linear, *layers = [layer for layer in decoder.network if isinstance(layer, (nn.Linear, nn.ConvTranspose2d))]
    assert (linear.in_features, linear.out_features) == (230, 1024)
    assert [layer.in_channels for layer in layers] == [1024, 128, 64, 32]
    assert [layer.out_channels for layer in layers] == [128, 64, 32, 3]
    assert [layer.kernel_size[0] for layer in layers] == [5, 5, 6, 6]
    assert {layer.stride for layer in layers} == {(2, 2)}
    assert isinstance(decoder.network[-1], nn.ConvTranspose2d)
    assert not isinstance(decoder.network[1], nn.ReLU), "the linear layer is not activated"


def test_likelihood_sums_over_the_pixels():
    decoder = make_decoder(230, (3, 64, 64), **SETTINGS)
    image = torch.rand(2, 5, 3, 64, 64) - 0.5
    distribution = decoder(torch.randn(2, 5, 230))
    assert distribution.mean.shape == image.shape
    expected = torch.distributions.Normal(distribution.mean, 1.0).log_prob(image).sum((-3, -2, -1))
    torch.testing.assert_close(distribution.log_prob(image), expected)


def test_leading_axes_are_only_a_batch():
    decoder = make_decoder(6, (3, 64, 64), **SETTINGS)
    feature = torch.randn(2, 3, 6)
    torch.testing.assert_close(decoder(feature).mean[1, 2], decoder(feature[1, 2][None]).mean[0])


def test_sizes_that_the_kernels_can_make():
    decoder = make_decoder(8, (3, 80, 96), **(SETTINGS | {"depth": 2}))
    assert decoder(torch.randn(1, 8)).mean.shape == (1, 3, 80, 96)


@pytest.mark.parametrize("side", [32, 63, 65, 84])
def test_sizes_that_they_cannot(side):
    with pytest.raises(ConfigError, match=rf"make sides of 64, 80, 96, … pixels, not {side}"):
        make_decoder(8, (3, 64, side), **SETTINGS)


def test_vectors():
    decoder = make_decoder(8, (7,), **SETTINGS)
    vector, distribution = torch.randn(2, 5, 7), decoder(torch.randn(2, 5, 8))
    assert distribution.mean.shape == (2, 5, 7) and distribution.log_prob(vector).shape == (2, 5)

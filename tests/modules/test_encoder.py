import pytest
import torch

from dreamer.config import ConfigError
from dreamer.modules.encoder import VectorEncoder, make_encoder

SETTINGS = {"depth": 32, "kernel_size": 4, "stride": 2, "hidden_size": 24, "num_layers": 2, "activation": "ReLU"}


def test_the_papers_image_encoder():
    """Appendix A: channels 32, 64, 128, 256, kernel 4, stride 2, ReLU after each; 1024 outputs."""
    encoder = make_encoder((3, 64, 64), **SETTINGS)
    convolutions = [layer for layer in encoder.network if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [32, 64, 128, 256]
    assert {(layer.kernel_size, layer.stride) for layer in convolutions} == {((4, 4), (2, 2))}
    assert encoder.embedding_size == 1024
    embedding = encoder(torch.rand(2, 5, 3, 64, 64) - 0.5)
    assert embedding.shape == (2, 5, 1024)
    assert (embedding >= 0).all() and (embedding > 0).any(), "the last layer is activated too"


def test_leading_axes_are_only_a_batch():
    encoder = make_encoder((3, 64, 64), **SETTINGS)
    images = torch.rand(2, 3, 3, 64, 64)
    torch.testing.assert_close(encoder(images)[1, 2], encoder(images[1, 2][None])[0])


def test_other_image_sizes_derive_another_embedding():
    encoder = make_encoder((3, 80, 96), **SETTINGS)
    assert encoder(torch.rand(1, 3, 80, 96)).shape == (1, encoder.embedding_size) == (1, 256 * 3 * 4)


def test_too_small_an_image():
    with pytest.raises(ConfigError, match="45x64 pixels are too few"):
        make_encoder((3, 45, 64), **SETTINGS)


def test_vectors():
    encoder = make_encoder((7,), **SETTINGS)
    assert isinstance(encoder, VectorEncoder) and encoder.embedding_size == 24
    assert encoder(torch.randn(2, 5, 7)).shape == (2, 5, 24)
    assert len([layer for layer in encoder.modules() if isinstance(layer, torch.nn.Linear)]) == 2

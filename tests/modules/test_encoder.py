import numpy as np
import pytest
import torch
from gym import spaces

from dreamer.config import ConfigError
from dreamer.modules.encoder import make_encoder

SETTINGS = {"depth": 32, "kernel_size": 4, "stride": 2, "hidden_size": 24, "num_layers": 2, "activation": "ReLU"}
SETTINGS |= {"architecture": "valid", "norm": "none", "initialization": "glorot"}


def make(shape, **settings):
    space = spaces.Box(-np.inf, np.inf, shape) if len(shape) == 1 else spaces.Box(0, 255, shape, np.uint8)
    return make_encoder(space, **(SETTINGS | settings))


def test_the_papers_image_encoder():
    """Appendix A: channels 32, 64, 128, 256, kernel 4, stride 2, ReLU after each; 1024 outputs."""
    encoder = make((3, 64, 64))
    convolutions = [layer for layer in encoder.network if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [32, 64, 128, 256]
    assert {(layer.kernel_size, layer.stride) for layer in convolutions} == {((4, 4), (2, 2))}
    assert encoder.embedding_size == 1024
    images = torch.rand(2, 3, 3, 64, 64) - 0.5
    embedding = encoder(images)
    assert (embedding >= 0).all() and (embedding > 0).any(), "the last layer is activated too"
    torch.testing.assert_close(embedding[1, 2], encoder(images[1, 2][None])[0])


@pytest.mark.parametrize("shape, size", [((3, 80, 96), 256 * 3 * 4), ((7,), 24)])
def test_the_embeddings_size_follows_from_the_observations(shape, size):
    encoder = make(shape)
    assert encoder(torch.rand(2, 5, *shape)).shape == (2, 5, size) and encoder.embedding_size == size


def test_too_small_an_image():
    with pytest.raises(ConfigError, match="45x64 pixels are too few"):
        make((3, 45, 64))


def test_a_vectors_layers_are_as_many_as_asked_for():
    linear = [layer for layer in make((7,)).modules() if isinstance(layer, torch.nn.Linear)]
    assert len(linear) == SETTINGS["num_layers"]

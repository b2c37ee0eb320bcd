import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer.errors import ConfigError
from dreamer.modules.encoder import halving, make_encoder

SETTINGS = {"depth": 32, "kernel_size": 4, "stride": 2, "hidden_size": 24, "num_layers": 2, "activation": "ReLU"}
SETTINGS |= {"architecture": "valid", "norm": "none", "initialization": "glorot"}


def make(shape, **settings):
    space = spaces.Box(-np.inf, np.inf, shape) if len(shape) == 1 else spaces.Box(0, 255, shape, np.uint8)
    return make_encoder(space, **(SETTINGS | settings))


def test_image_encoder_has_the_papers_layers():
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
def test_embedding_size_follows_from_the_observation_shape(shape, size):
    encoder = make(shape)
    assert encoder(torch.rand(2, 5, *shape)).shape == (2, 5, size) and encoder.embedding_size == size


def test_too_small_images_are_rejected():
    with pytest.raises(ConfigError, match="45x64 pixels are too few"):
        make((3, 45, 64))
    with pytest.raises(ConfigError, match="64x64 .* kernel 40 and stride 2; .* a smaller kernel_size"):
        make((3, 64, 64), kernel_size=40)


def test_vector_encoder_has_num_layers_linear_layers():
    linear = [layer for layer in make((7,)).modules() if isinstance(layer, torch.nn.Linear)]
    assert len(linear) == SETTINGS["num_layers"]


# DreamerV3's encoder

V3 = {"depth": 2, "kernel_size": 5, "norm": "rms", "initialization": "truncated_normal"}


@pytest.mark.parametrize("architecture", ["max_pool", "strided"])
def test_each_stage_halves_the_image(architecture):
    encoder, images = make((3, 32, 48), architecture=architecture, **V3), torch.rand(2, 5, 3, 32, 48) - 0.5
    assert encoder(images).shape == (2, 5, 4 * 2 * 2 * 3) and encoder.embedding_size == 48
    torch.testing.assert_close(encoder(images)[1, 2], encoder(images[1, 2][None])[0])
    with pytest.raises(ConfigError, match="32x40; this architecture needs multiples of 16"):
        make((3, 32, 40), architecture=architecture, **V3)


def test_strided_stages_pad_like_jax_same():
    """JAX's SAME padding adds an odd pixel on the far side."""
    convolution = torch.nn.Conv2d(1, 1, 5, 2, bias=False)
    pad, _ = halving(1, 1, 5, strided=True)
    assert pad.padding == (1, 2, 1, 2)
    assert convolution(pad(torch.zeros(1, 1, 8, 6))).shape == (1, 1, 4, 3)


def test_vector_encoder_has_a_norm_after_each_linear_layer():
    kinds = [type(layer).__name__ for layer in make((7,), **V3).modules() if not list(layer.children())]
    assert kinds == SETTINGS["num_layers"] * ["Linear", "RMSNorm", "ReLU"]


def test_dict_observations_concatenate_the_embeddings_of_their_parts():
    parts = {"image": spaces.Box(0, 255, (3, 32, 32), np.uint8), "vector": spaces.Box(-1, 1, (7,))}
    encoder = make_encoder(spaces.Dict(parts), **(SETTINGS | V3 | {"architecture": "max_pool"}))
    observation = {"image": torch.rand(2, 5, 3, 32, 32), "vector": torch.rand(2, 5, 7)}
    embedding = encoder(observation)
    assert embedding.shape == (2, 5, encoder.embedding_size) and encoder.embedding_size == 24 + 4 * 2 * 4
    torch.testing.assert_close(embedding[..., :24], encoder.encoders["vector"](observation["vector"]))

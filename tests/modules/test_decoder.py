import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from dreamer.errors import ConfigError
from dreamer.modules.convolutions import plain_upsampled_convolution
from dreamer.modules.decoder import JointObservation, TransposedConvolution, UpsampledConvolution, make_decoder

SETTINGS = {"depth": 32, "kernel_size": 5, "stride": 2, "hidden_size": 24, "num_layers": 2, "activation": "ReLU"}
SETTINGS |= {"architecture": "transposed", "likelihood": "normal", "blocks": 8, "norm": "none"}
SETTINGS |= {"initialization": "glorot"}


def make(sizes, shape, **settings):
    space = spaces.Box(-np.inf, np.inf, shape) if len(shape) == 1 else spaces.Box(0, 255, shape, np.uint8)
    return make_decoder(sizes, space, **(SETTINGS | settings))


def test_image_decoder_has_the_papers_layers():
    """Appendix A: Linear to 1024, kernels 5, 5, 6, 6, stride 2, channels 128, 64, 32, 3; no activation at the end."""
    decoder = make((200, 30), (3, 64, 64))
    linear, *layers = [layer for layer in decoder.network if isinstance(layer, (nn.Linear, nn.ConvTranspose2d))]
    assert (linear.in_features, linear.out_features) == (230, 1024)
    assert [layer.in_channels for layer in layers] == [1024, 128, 64, 32]
    assert [layer.out_channels for layer in layers] == [128, 64, 32, 3]
    assert [layer.kernel_size[0] for layer in layers] == [5, 5, 6, 6]
    assert {layer.stride for layer in layers} == {(2, 2)}
    assert isinstance(decoder.network[-1], nn.ConvTranspose2d)
    assert not isinstance(decoder.network[1], nn.ReLU), "the linear layer is not activated"


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 80, 96), (7,)])
def test_likelihood_sums_over_the_pixels_or_components(shape):
    """Leading axes are batch axes."""
    decoder, feature = make((5, 3), shape, depth=2), torch.randn(2, 5, 8)
    observation, distribution = torch.randn(2, 5, *shape), decoder(feature)
    assert distribution.mean.shape == observation.shape
    torch.testing.assert_close(distribution.mean[1, 2], decoder(feature[1, 2][None]).mean[0])
    expected = torch.distributions.Normal(distribution.mean, 1.0).log_prob(observation)
    torch.testing.assert_close(distribution.log_prob(observation), expected.flatten(2).sum(-1))


@pytest.mark.parametrize("side", [32, 63, 65, 84])
def test_transposed_decoder_rejects_unsupported_image_sizes(side):
    with pytest.raises(ConfigError, match=rf"{side} pixels; expected 64, 80, 96, …"):
        make((5, 3), (3, 64, side))


# The transposed convolution


def result_and_gradients(layer, image):
    """Return the result and its gradients with respect to the image and the parameters."""
    image = image.clone().requires_grad_()
    result = layer(image)
    weight = torch.cos(torch.arange(float(result.numel()))).view(result.shape)
    return result, *torch.autograd.grad((weight * result).sum(), [image, *layer.parameters()])


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "sizes, side, kernel, stride",
    [
        ((6, 5), (1, 1), 5, 2),
        ((6, 5), (4, 4), 5, 2),
        ((4, 3), (5, 5), 6, 2),
        ((4, 2), (3, 5), 4, 2),
        ((4, 3), (3, 3), 5, 1),
        ((4, 3), (3, 3), 5, 3),
    ],
)
def test_transposed_convolution_matches_torch(sizes, side, kernel, stride, memory):
    layer, plain = (kind(*sizes, kernel, stride) for kind in (TransposedConvolution, nn.ConvTranspose2d))
    layer.load_state_dict(plain.state_dict())
    image = torch.randn(3, sizes[0], *side).contiguous(memory_format=memory)
    torch.testing.assert_close(
        result_and_gradients(layer, image), result_and_gradients(plain, image), rtol=1e-4, atol=1e-4
    )
    if stride == 2:
        assert layer(image).is_contiguous(memory_format=torch.channels_last)


def test_transposed_convolution_in_bfloat16_has_float32_gradients():
    """The result is bfloat16; the gradients of weight and bias are float32."""
    layer, image = TransposedConvolution(4, 3, 6, 2), torch.randn(2, 4, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(image)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), layer(image), rtol=0.05, atol=0.05)
    result.float().sum().backward()
    assert layer.weight.grad.dtype == layer.bias.grad.dtype == torch.float32
    assert torch.equal(layer.bias.grad, torch.full((3,), 2.0 * 14 * 14))


# DreamerV3's decoder


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize("kernel", [1, 3, 4, 5, 7])
def test_upsampled_convolution_matches_torch(kernel, memory):
    """Result and gradients equal those of repeating each pixel, followed by torch's convolution."""
    layer, plain = UpsampledConvolution(4, 3, kernel), nn.Conv2d(4, 3, kernel, padding="same")
    plain.load_state_dict(layer.state_dict())

    class Plain(nn.Sequential):
        def forward(self, image):
            return plain_upsampled_convolution(image, plain.weight, plain.bias)

    image = torch.randn(2, 4, 5, 3).contiguous(memory_format=memory)
    torch.testing.assert_close(
        result_and_gradients(layer, image), result_and_gradients(Plain(plain), image), rtol=1e-4, atol=1e-4
    )


V3 = {"architecture": "upsampled", "likelihood": "squared_error", "depth": 2, "norm": "rms", "activation": "SiLU"}
V3 |= {"initialization": "truncated_normal"}


def test_upsampling_decoder_predicts_a_shifted_sigmoid_with_squared_error():
    """The mean is a sigmoid minus 0.5, and the loss is the squared error without the factor 1/2."""
    decoder, feature = make((16, 6), (3, 32, 64), **V3), torch.randn(2, 5, 22)
    distribution, observation = decoder(feature), torch.rand(2, 5, 3, 32, 64) - 0.5
    assert distribution.mean.shape == observation.shape and distribution.mean.abs().max() < 0.5
    expected = -(distribution.mean - observation).square().sum((2, 3, 4))
    torch.testing.assert_close(distribution.log_prob(observation), expected)
    torch.testing.assert_close(distribution.mean[1, 2], decoder(feature[1, 2][None]).mean[0])


def test_upsampling_decoder_rejects_unsupported_sizes_and_depths():
    with pytest.raises(ConfigError, match="multiples of 16"):
        make((16, 6), (3, 64, 40), **V3)
    with pytest.raises(ConfigError, match="decoder.depth"):
        make((16, 6), (3, 64, 64), **(V3 | {"depth": 3}))


def test_dict_observations_sum_the_log_probabilities_of_their_parts():
    parts = {"image": spaces.Box(0, 255, (3, 32, 32), np.uint8), "vector": spaces.Box(-1, 1, (7,))}
    decoder, feature = make_decoder((16, 6), spaces.Dict(parts), **(SETTINGS | V3)), torch.randn(2, 5, 22)
    observation = {"image": torch.randn(2, 5, 3, 32, 32), "vector": torch.randn(2, 5, 7)}
    joint = decoder(feature)
    assert isinstance(joint, JointObservation)
    expected = sum(decoder.decoders[name](feature).log_prob(part) for name, part in observation.items())
    torch.testing.assert_close(joint.log_prob(observation), expected)
    assert {name: part.shape for name, part in joint.mean.items()} == {
        name: part.shape for name, part in observation.items()
    }

"""Feature to observation: p(o_t | s_t)."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from dreamer.config import ConfigError
from dreamer.modules.distributions import UnitNormal
from dreamer.modules.layers import initialize, mlp


class PixelDecoder(nn.Module):
    """A linear layer and four transposed convolutions (Appendix A: kernels k, k, k + 1, k + 1 with
    k = 5, stride 2, channels depth · (4, 2, 1), 3).

    (..., F) → UnitNormal over (..., 3, height, width), its log-likelihood summed over the pixels.
    Raises ConfigError for an image size that the kernels cannot make.
    """

    def __init__(self, feature_size, observation_shape, depth, kernel_size, stride, activation):
        super().__init__()
        channels, height, width = observation_shape
        kernels = [kernel_size, kernel_size, kernel_size + 1, kernel_size + 1]
        grid = [_first_side(side, kernels, stride) for side in (height, width)]
        outputs = [4 * depth, 2 * depth, depth, channels]
        layers = [
            nn.Linear(feature_size, 32 * depth * grid[0] * grid[1]),
            nn.Unflatten(-1, (32 * depth, *grid)),
        ]
        inputs = [32 * depth, *outputs]
        for size, next_size, kernel in zip(inputs, outputs, kernels, strict=False):
            layers += [TransposedConvolution(size, next_size, kernel, stride), getattr(nn, activation)()]
        self.network = nn.Sequential(*layers[:-1]).apply(initialize)  # the image itself has no activation

    def forward(self, feature):
        image = self.network(feature.flatten(0, -2))
        return UnitNormal(image.unflatten(0, feature.shape[:-1]), event_dims=3)


def _first_side(side, kernels, stride):
    """The side of the grid that the transposed convolutions grow into an image of this side."""
    size = side
    for kernel in reversed(kernels):
        size, remainder = divmod(size - kernel, stride)
        if remainder or size < 0:
            smallest = 1
            for kernel in kernels:
                smallest = (smallest - 1) * stride + kernel
            raise ConfigError(
                f"environment.height and width: transposed convolutions with kernels {kernels} and stride {stride} "
                f"make sides of {smallest}, {smallest + stride**4}, {smallest + 2 * stride**4}, … pixels, not {side}"
            )
        size += 1
    return size


class VectorDecoder(nn.Module):
    """(..., F) → UnitNormal over (..., size), summed over the components. Not in the paper."""

    def __init__(self, feature_size, observation_size, hidden_size, num_layers, activation):
        super().__init__()
        self.network = mlp(feature_size, observation_size, hidden_size, num_layers, activation).apply(initialize)

    def forward(self, feature):
        return UnitNormal(self.network(feature), event_dims=1)


class TransposedConvolution(nn.ConvTranspose2d):
    """torch's, without padding, in the form that is fastest: a matrix product where the image is one pixel, and
    on a CPU with a stride of 2 a plain convolution, whose result is put in order."""

    def forward(self, inputs):
        if inputs.shape[-2:] == (1, 1):  # one pixel: a matrix product
            weight = self.weight.movedim(1, -1)  # channels last
            image = functional.linear(inputs.flatten(1), weight.flatten(1).t()).unflatten(1, weight.shape[1:])
            return (image + self.bias).movedim(-1, 1)
        if inputs.is_cuda or self.stride != (2, 2):
            return super().forward(inputs)
        arguments = inputs, self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            arguments = (argument.to(torch.get_autocast_dtype("cpu")) for argument in arguments)
        return _SubpixelConvolution.apply(*arguments)


class _SubpixelConvolution(torch.autograd.Function):
    """What a transposed convolution of stride 2 gives, where CPUs are slow at it.

    Every second pixel of the result, in either direction, is a plain convolution of its own with
    every second weight; one convolution computes all four kinds, and their order is then mended.
    Going backwards only the gradient of the bias is slow, so it is taken apart.
    """

    @staticmethod
    def forward(ctx, inputs, weight, bias):
        ctx.save_for_backward(inputs, weight)
        size_in, size_out, kernel, _ = weight.shape
        side = -(-kernel // 2)
        phases = functional.pad(weight, (0, 2 * side - kernel) * 2).view(size_in, size_out, side, 2, side, 2)
        phases = phases.flip(2, 4).permute(3, 5, 1, 0, 2, 4).reshape(4 * size_out, size_in, side, side)
        image = functional.conv2d(inputs, phases, bias.repeat(4), padding=side - 1).unflatten(1, (2, 2, size_out))
        shape = len(inputs), size_out, *(2 * (length - 1) + kernel for length in inputs.shape[2:])
        result = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=torch.channels_last)
        for row, column in itertools.product((0, 1), repeat=2):
            pixels = result[:, :, row::2, column::2]
            pixels.copy_(image[:, row, column, :, : pixels.shape[2], : pixels.shape[3]])
        return result

    @staticmethod
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[:2], False]
        arguments = None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1, wanted
        to_inputs, to_weight, _ = torch.ops.aten.convolution_backward(gradient, inputs, weight, *arguments)
        return to_inputs, to_weight, gradient.sum((0, 2, 3))


def make_decoder(feature_size, observation_shape, depth, kernel_size, stride, hidden_size, num_layers, activation):
    """The decoder for observations of this shape: (channels, height, width) or (size,)."""
    if len(observation_shape) == 3:
        return PixelDecoder(feature_size, observation_shape, depth, kernel_size, stride, activation)
    return VectorDecoder(feature_size, observation_shape[0], hidden_size, num_layers, activation)

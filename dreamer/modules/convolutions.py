"""Faster forms of convolutions.

Beside each function stands its plain form, `plain_…`. Tests compare the two, results and gradients.
"""

import itertools
import math
from typing import Any

import torch
from torch.nn import functional

FEW_IMAGES = 4  # below this many images torch's own kernel is faster than oneDNN's


def convolution(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: tuple[int, ...]
) -> torch.Tensor:
    """Return a convolution without padding: `functional.conv2d`.

    For a few images on a CPU, as in acting, torch's own kernel computes it: oneDNN reorders the weights in each call,
    which takes longer.
    """
    is_acting = len(inputs) < FEW_IMAGES and inputs.device.type == "cpu" and not torch.is_grad_enabled()
    if is_acting and not torch.compiler.is_compiling():
        return torch.ops.aten.thnn_conv2d(inputs, weight, weight.shape[2:], bias, stride)
    return plain_convolution(inputs, weight, bias, stride)


def plain_convolution(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: tuple[int, ...]
) -> torch.Tensor:
    return functional.conv2d(inputs, weight, bias, stride)


def transposed_convolution(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: tuple[int, ...]
) -> torch.Tensor:
    """Return a transposed convolution without padding: `functional.conv_transpose2d`.

    For images of one pixel it is computed as a matrix product. On a CPU with a stride of 2 it is computed as a plain
    convolution whose pixels are then put in order.
    """
    if inputs.shape[-2:] == (1, 1):
        weight = weight.movedim(1, -1)  # channels last
        image = functional.linear(inputs.flatten(1), weight.flatten(1).t()).unflatten(1, weight.shape[1:])
        return (image + bias).movedim(-1, 1)
    if inputs.is_cuda or stride != (2, 2):
        return functional.conv_transpose2d(inputs, weight, bias, stride)
    if torch.is_autocast_enabled("cpu"):
        precision = torch.get_autocast_dtype("cpu")
        return _SubpixelConvolution.apply(inputs.to(precision), weight.to(precision), bias.to(precision))
    return _SubpixelConvolution.apply(inputs, weight, bias)


def plain_transposed_convolution(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: tuple[int, ...]
) -> torch.Tensor:
    return functional.conv_transpose2d(inputs, weight, bias, stride)


class _SubpixelConvolution(torch.autograd.Function):
    """A transposed convolution of stride 2. Every second pixel of the result, in either direction, is a plain
    convolution with every second weight. So there are four kinds of pixels, by whether row and column are even or odd;
    one convolution computes all four. The bias's gradient, which torch computes slowly, is computed apart."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        channels_in, channels_out, kernel_size, _ = weight.shape
        side = math.ceil(kernel_size / 2)  # of the kernel of each kind of pixel
        padded = functional.pad(weight, (0, 2 * side - kernel_size) * 2)
        kernels = padded.view(channels_in, channels_out, side, 2, side, 2).flip(2, 4).permute(3, 5, 1, 0, 2, 4)
        kernels = kernels.reshape(4 * channels_out, channels_in, side, side)
        kinds = functional.conv2d(inputs, kernels, bias.repeat(4), padding=side - 1)
        height, width = kinds.shape[2:]
        pixels = kinds.unflatten(1, (2, 2, channels_out)).permute(0, 3, 4, 1, 5, 2)  # (N, C, height, 2, width, 2)
        shape = len(inputs), channels_out, 2 * height, 2 * width
        image = torch.empty(shape, dtype=kinds.dtype, device=kinds.device, memory_format=torch.channels_last)
        image.view(len(inputs), channels_out, height, 2, width, 2).copy_(pixels)
        if kernel_size % 2:  # then the last row and column are not part of the result
            image = image[:, :, :-1, :-1].contiguous(memory_format=torch.channels_last)
        return image

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        inputs, weight = ctx.saved_tensors
        input_gradient, weight_gradient, _ = torch.ops.aten.convolution_backward(
            gradient,
            inputs,
            weight,
            bias_sizes=None,
            stride=[2, 2],
            padding=[0, 0],
            dilation=[1, 1],
            transposed=True,
            output_padding=[0, 0],
            groups=1,
            output_mask=[*ctx.needs_input_grad[:2], False],
        )
        return input_gradient, weight_gradient, gradient.sum((0, 2, 3))


def upsampled_convolution(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, fold: torch.Tensor
) -> torch.Tensor:
    """Return a convolution of the image at twice its size, each pixel repeated, computed at the image's own size.

    Several pixels under a kernel are the same, so their weights are added up first. Each of the four kinds of pixels of
    the result is then a smaller convolution, and one convolution computes all four. fold: `folding` of the kernel size.
    """
    kernels = torch.einsum("oiyx,pyr,qxc->opqirc", weight, fold, fold).flatten(0, 2)
    kinds = functional.conv2d(inputs, kernels, bias.repeat_interleave(4), padding="same")
    return functional.pixel_shuffle(kinds, 2)


def plain_upsampled_convolution(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.conv2d(functional.interpolate(inputs, scale_factor=2), weight, bias, padding="same")


def folding(kernel_size: int) -> torch.Tensor:
    """Return (2, kernel, smaller kernel): for even and for odd pixels of the large image, a 1 where a weight of the
    kernel falls on a pixel of the small one."""
    reach = (kernel_size // 2 + 1) // 2
    fold = torch.zeros(2, kernel_size, 2 * reach + 1)
    for is_odd, position in itertools.product(range(2), range(kernel_size)):
        fold[is_odd, position, (is_odd + position - (kernel_size - 1) // 2) // 2 + reach] = 1
    return fold

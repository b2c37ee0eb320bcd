"""Faster forms of convolutions.

Beside each function stands its plain form, `plain_…`. Tests compare the two, results and gradients.
"""

import itertools
from typing import Any

import torch
from torch.nn import functional

FEW_IMAGES = 4  # below this many images torch's own kernel is faster than oneDNN's


def convolution(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: tuple[int, ...]
) -> torch.Tensor:
    """Return a convolution without padding: `functional.conv2d`.

    On a CPU, for a few images as in acting, it is computed by torch's own kernel: oneDNN reorders the weights in each
    call, which takes longer.
    """
    few = len(inputs) < FEW_IMAGES and inputs.device.type == "cpu"
    if few and not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
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
    convolution with every second weight; one convolution computes all four kinds. Of torch's backward pass only the
    bias's gradient is slow, so it is computed apart."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        size_in, size_out, kernel, _ = weight.shape
        side = -(-kernel // 2)
        kinds = functional.pad(weight, (0, 2 * side - kernel) * 2).view(size_in, size_out, side, 2, side, 2)
        kinds = kinds.flip(2, 4).permute(3, 5, 1, 0, 2, 4).reshape(4 * size_out, size_in, side, side)
        image = functional.conv2d(inputs, kinds, bias.repeat(4), padding=side - 1)
        height, width = image.shape[2:]
        shape = len(inputs), size_out, 2 * height, 2 * width
        result = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=torch.channels_last)
        pixels = image.unflatten(1, (2, 2, size_out)).permute(0, 3, 4, 1, 5, 2)  # (N, C, height, 2, width, 2)
        result.view(len(inputs), size_out, height, 2, width, 2).copy_(pixels)
        if kernel % 2:  # the last row and column are of no pixel
            result = result[:, :, :-1, :-1].contiguous(memory_format=torch.channels_last)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        inputs, weight = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[:2], False]
        arguments = None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1, wanted
        to_inputs, to_weight, _ = torch.ops.aten.convolution_backward(gradient, inputs, weight, *arguments)
        return to_inputs, to_weight, gradient.sum((0, 2, 3))


def upsampled_convolution(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, fold: torch.Tensor
) -> torch.Tensor:
    """Return a convolution of the image at twice its size, each pixel repeated, computed at the image's own size.

    Several pixels under a kernel are the same, so their weights are added up first. Each of the four kinds of pixels of
    the result is then a smaller convolution, and one convolution computes all four. fold: `folding` of the kernel size.
    """
    weight = torch.einsum("oiyx,pyr,qxc->opqirc", weight, fold, fold).flatten(0, 2)
    image = functional.conv2d(inputs, weight, bias.repeat_interleave(4), padding="same")
    return functional.pixel_shuffle(image, 2)


def plain_upsampled_convolution(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.conv2d(functional.interpolate(inputs, scale_factor=2), weight, bias, padding="same")


def folding(kernel_size: int) -> torch.Tensor:
    """Return (2, kernel, smaller kernel): for even and for odd pixels of the large image, a 1 where a weight of the
    kernel falls on a pixel of the small one."""
    reach = (kernel_size // 2 + 1) // 2
    fold = torch.zeros(2, kernel_size, 2 * reach + 1)
    for kind, place in itertools.product(range(2), range(kernel_size)):
        fold[kind, place, (kind + place - (kernel_size - 1) // 2) // 2 + reach] = 1
    return fold

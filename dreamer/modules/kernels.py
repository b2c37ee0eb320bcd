"""Faster forms of textbook operations. The modules that call these functions read like the papers.

Beside each function stands its plain form, `plain_…`. Tests compare the two, results and gradients.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

FEW_IMAGES = 4
FEW_CLASSES = 16  # below this many classes a softmax is faster along the first axis
ROWS = 2048  # computed at a time by `row_by_row` on a CPU, so that they fit its cache; on a GPU eight times as many


# RMSNorm


def rms_norm(inputs: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return x · (mean(x²) + 1e-4)^(-1/2) · scale over the last axis, (..., C), (C,) → (..., C).

    The gradient is written out, in fewer operations than autograd takes: in small networks most time is spent here.
    """
    if torch.is_grad_enabled() and (inputs.requires_grad or scale.requires_grad):
        return _RMSNorm.apply(inputs, scale)
    return inputs * _inverse_rms(inputs) * scale


def plain_rms_norm(inputs: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return inputs * (inputs.square().mean(-1, keepdim=True) + 1e-4).rsqrt() * scale


def _inverse_rms(inputs: torch.Tensor) -> torch.Tensor:
    length = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
    return length.square_().div_(inputs.shape[-1]).add_(1e-4).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        inverse = _inverse_rms(inputs)
        normed = inputs * inverse
        ctx.save_for_backward(normed, inverse, scale)
        return normed * scale

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normed, inverse, scale = ctx.saved_tensors
        product = gradient * normed
        along = torch.matmul(product, scale).div_(scale.shape[0])[..., None]
        to_inputs = torch.addcmul(gradient * scale, normed, along, value=-1).mul_(inverse)
        return to_inputs, product.flatten(0, -2).sum(0)


# Softmax over few classes


def over_classes(function: Callable[[torch.Tensor, int], torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """Return function(logits, -1), where the function is a softmax such as `torch.log_softmax`.

    Along a short last axis torch takes five times as long as along the first.
    """
    if logits.shape[-1] < FEW_CLASSES:
        return function(logits.movedim(-1, 0), 0).movedim(0, -1)
    return function(logits, -1)


# Linear layers in blocks


def block_linear(
    inputs: torch.Tensor, shared: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Return `blocks` linear layers side by side, (N, output).

    inputs: (N, input); block k reads the k-th part. shared: (N, shared), also read by every block; or None. weight:
    (blocks, input / blocks + shared, output / blocks). bias: (output,).
    """
    blocks, size = len(weight), inputs.shape[-1] // len(weight)
    inputs, bias = inputs.view(len(inputs), blocks, size).transpose(0, 1), bias.view(blocks, 1, -1)
    if shared is None:
        output = torch.baddbmm(bias, inputs, weight)
    elif torch.is_grad_enabled():  # with the weights in one piece, as their gradient should be
        inputs = torch.cat([inputs, shared.expand(blocks, -1, -1)], -1)
        output = torch.baddbmm(bias, inputs, weight)
    else:  # with the weights in two pieces, so that nothing is copied for each block
        output = torch.baddbmm(bias, inputs, weight[:, :size])
        output = torch.baddbmm(output, shared.expand(blocks, -1, -1), weight[:, size:])
    return output.transpose(0, 1).flatten(1)


def plain_block_linear(
    inputs: torch.Tensor, shared: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    outputs = []
    for part, own_weight, own_bias in zip(inputs.chunk(len(weight), -1), weight, bias.chunk(len(weight)), strict=True):
        part = part if shared is None else torch.cat([part, shared], -1)
        outputs.append(part @ own_weight + own_bias)
    return torch.cat(outputs, -1)


# Convolutions


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
        image = functional.conv2d(inputs, kinds, bias.repeat(4), padding=side - 1).unflatten(1, (2, 2, size_out))
        shape = len(inputs), size_out, *(2 * (length - 1) + kernel for length in inputs.shape[2:])
        result = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=torch.channels_last)
        for row, column in itertools.product((0, 1), repeat=2):
            pixels = result[:, :, row::2, column::2]
            pixels.copy_(image[:, row, column, :, : pixels.shape[2], : pixels.shape[3]])
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


# Functions of independent rows


def row_by_row(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], feature: torch.Tensor, action: torch.Tensor
) -> torch.Tensor:
    """Return function(feature, action), one number for each row, computed a few thousand rows at a time.

    feature: (..., F). action: (..., A). The gradient of each row is computed at once, and nothing else is kept for the
    backward pass: a third of the memory and half of the time. It reaches only feature and action, not the function's
    parameters.
    """
    return _RowByRow.apply(feature, action, function)


def plain_row_by_row(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], feature: torch.Tensor, action: torch.Tensor
) -> torch.Tensor:
    return function(feature, action)


class _RowByRow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: torch.Tensor, action: torch.Tensor, function: Callable) -> torch.Tensor:
        rows = ROWS * (8 if feature.is_cuda else 1)
        differentiable = any(ctx.needs_input_grad)
        values, gradients = [], []
        features, actions = feature.flatten(0, -2).split(rows), action.flatten(0, -2).split(rows)
        for some_features, some_actions in zip(features, actions, strict=True):
            some_features = some_features.detach().requires_grad_(differentiable)
            some_actions = some_actions.detach().requires_grad_(differentiable)
            with torch.set_grad_enabled(differentiable):
                value = function(some_features, some_actions)
                if differentiable:
                    gradients.append(torch.autograd.grad(value.sum(), [some_features, some_actions]))
            values.append(value.detach())
        if differentiable:
            to_feature, to_action = map(torch.cat, zip(*gradients, strict=True))
            ctx.save_for_backward(to_feature.view_as(feature), to_action.view_as(action))
        return torch.cat(values).view(feature.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return *(gradient[..., None] * kept for kept in ctx.saved_tensors), None

"""Faster forms of textbook operations. Each function has its plain form beside it, which its test compares it with.

The modules that call these read like the papers; here is what a CPU or a GPU likes better.
"""

import itertools
from contextlib import contextmanager

import torch
from torch.nn import functional

FEW_CLASSES = 16  # below this many classes a softmax is faster along the first axis
ROWS = 2048  # computed at a time by `row_by_row` on a CPU, where they fit the cache; a GPU takes eight times as many


# RMSNorm


def rms_norm(inputs, scale):
    """Return x · (mean(x²) + 1e-4)^(-1/2) · scale over the last axis. The gradient is written out, in fewer operations
    than autograd takes, since small networks mostly consist of this."""
    return _RMSNorm.apply(inputs, scale)


def plain_rms_norm(inputs, scale):
    return inputs * (inputs.square().mean(-1, keepdim=True) + 1e-4).rsqrt() * scale


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, scale):
        length = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
        inverse = length.square_().div_(inputs.shape[-1]).add_(1e-4).rsqrt_()
        normed = inputs * inverse
        ctx.save_for_backward(normed, inverse, scale)
        return normed * scale

    @staticmethod
    def backward(ctx, gradient):
        normed, inverse, scale = ctx.saved_tensors
        product = gradient * normed
        along = torch.matmul(product, scale).div_(scale.shape[0])[..., None]
        to_inputs = torch.addcmul(gradient * scale, normed, along, value=-1).mul_(inverse)
        return to_inputs, product.flatten(0, -2).sum(0)


# Softmax over few classes


def over_classes(function, logits):
    """Return a softmax over the last axis: function(logits, -1), such as `torch.log_softmax`. Along a short last axis
    torch takes five times as long as along the first."""
    if logits.shape[-1] < FEW_CLASSES:
        return function(logits.movedim(-1, 0), 0).movedim(0, -1)
    return function(logits, -1)


# Linear layers in blocks


def block_linear(inputs, shared, weight, bias):
    """Return `blocks` linear layers side by side, (N, output).

    inputs: (N, input); block k reads its k-th part. shared: (N, shared), which all blocks read, too, or None. weight:
    (blocks, input / blocks + shared, output / blocks). bias: (output,).
    """
    blocks, size = len(weight), inputs.shape[-1] // len(weight)
    inputs, bias = inputs.unflatten(-1, (blocks, -1)).transpose(0, 1), bias.view(blocks, 1, -1)
    if shared is None:
        output = torch.baddbmm(bias, inputs, weight)
    elif torch.is_grad_enabled():  # with the weights in one piece, as their gradient should be
        inputs = torch.cat([inputs, shared.expand(blocks, -1, -1)], -1)
        output = torch.baddbmm(bias, inputs, weight)
    else:  # with the weights in two pieces, so that nothing is copied for each block
        output = torch.baddbmm(bias, inputs, weight[:, :size])
        output = torch.baddbmm(output, shared.expand(blocks, -1, -1), weight[:, size:])
    return output.transpose(0, 1).flatten(1)


def plain_block_linear(inputs, shared, weight, bias):
    outputs = []
    for part, own_weight, own_bias in zip(inputs.chunk(len(weight), -1), weight, bias.chunk(len(weight)), strict=True):
        part = part if shared is None else torch.cat([part, shared], -1)
        outputs.append(part @ own_weight + own_bias)
    return torch.cat(outputs, -1)


# Convolutions


@contextmanager
def without_onednn(wanted):
    """Do not let oneDNN compute convolutions, if `wanted`: it reorders the weights in each call, which takes longer
    than the convolution of one image."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = before and not wanted
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def transposed_convolution(inputs, weight, bias, stride):
    """Return a transposed convolution without padding: `functional.conv_transpose2d`.

    Of an image of one pixel it is a matrix product. On a CPU with a stride of 2 it is a plain convolution, whose pixels
    are put in order.
    """
    if inputs.shape[-2:] == (1, 1):
        weight = weight.movedim(1, -1)  # channels last
        image = functional.linear(inputs.flatten(1), weight.flatten(1).t()).unflatten(1, weight.shape[1:])
        return (image + bias).movedim(-1, 1)
    if inputs.is_cuda or stride != (2, 2):
        return functional.conv_transpose2d(inputs, weight, bias, stride)
    arguments = inputs, weight, bias
    if torch.is_autocast_enabled("cpu"):
        arguments = (argument.to(torch.get_autocast_dtype("cpu")) for argument in arguments)
    return _SubpixelConvolution.apply(*arguments)


def plain_transposed_convolution(inputs, weight, bias, stride):
    return functional.conv_transpose2d(inputs, weight, bias, stride)


class _SubpixelConvolution(torch.autograd.Function):
    """A transposed convolution of stride 2. Every second pixel of the result, in either direction, is a plain
    convolution with every second weight; one convolution computes all four kinds. In the backward pass only the
    gradient of the bias is slow, so it is computed apart."""

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


def upsampled_convolution(inputs, weight, bias, fold):
    """Return a convolution of the image at twice its size, each pixel repeated, computed at the image's own size.

    Several pixels under a kernel are the same, so their weights are added up first. Each of the four kinds of pixels of
    the result is then a smaller convolution, and one convolution computes all four. fold: `folding` of the kernel size.
    """
    weight = torch.einsum("oiyx,pyr,qxc->opqirc", weight, fold, fold).flatten(0, 2)
    image = functional.conv2d(inputs, weight, bias.repeat_interleave(4), padding="same")
    return functional.pixel_shuffle(image, 2)


def plain_upsampled_convolution(inputs, weight, bias):
    return functional.conv2d(functional.interpolate(inputs, scale_factor=2), weight, bias, padding="same")


def folding(kernel_size):
    """Return which weight of a kernel, for a pixel of either kind, falls on which pixel of the image: (2, kernel,
    smaller kernel)."""
    reach = (kernel_size // 2 + 1) // 2
    fold = torch.zeros(2, kernel_size, 2 * reach + 1)
    for kind, place in itertools.product(range(2), range(kernel_size)):
        fold[kind, place, (kind + place - (kernel_size - 1) // 2) // 2 + reach] = 1
    return fold


# Functions of independent rows


def row_by_row(function, feature, action):
    """Return function(feature, action), one number for each row, computed a few thousand rows at a time.

    feature: (..., F). action: (..., A). The gradient of a row is computed with its number, so nothing else is kept for
    the backward pass: a third of the memory and half of the time. It reaches feature and action alone, not the
    parameters of the function.
    """
    return _RowByRow.apply(feature, action, function)


def plain_row_by_row(function, feature, action):
    return function(feature, action)


class _RowByRow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, feature, action, function):
        rows = ROWS * (8 if feature.is_cuda else 1)
        differentiable = any(ctx.needs_input_grad)
        values, gradients = [], []
        for part in zip(*(inputs.flatten(0, -2).split(rows) for inputs in (feature, action)), strict=True):
            part = [inputs.detach().requires_grad_(differentiable) for inputs in part]
            with torch.set_grad_enabled(differentiable):
                value = function(*part)
                if differentiable:
                    gradients.append(torch.autograd.grad(value.sum(), part))
            values.append(value.detach())
        if differentiable:
            to_feature, to_action = map(torch.cat, zip(*gradients, strict=True))
            ctx.save_for_backward(to_feature.view_as(feature), to_action.view_as(action))
        return torch.cat(values).view(feature.shape[:-1])

    @staticmethod
    def backward(ctx, gradient):
        return *(gradient[..., None] * kept for kept in ctx.saved_tensors), None

"""Faster forms of textbook operations, so that the modules that call them read like the papers. Those of convolutions
are in `convolutions.py`.

Beside each function stands its plain form, `plain_…`. Tests compare the results and gradients of both.
"""

from collections.abc import Callable
from typing import Any

import torch

FEW_CLASSES = 16  # with fewer classes a softmax is faster along the first axis
ROWS = 2048  # `row_by_row` computes this many at a time on a CPU, to fit its cache; on a GPU eight times as many


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
    norm = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
    return norm.square_().div_(inputs.shape[-1]).add_(1e-4).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        inverse_rms = _inverse_rms(inputs)
        normed = inputs * inverse_rms
        ctx.save_for_backward(normed, inverse_rms, scale)
        return normed * scale

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normed, inverse_rms, scale = ctx.saved_tensors
        scale_gradient = gradient * normed  # of each row
        projection = torch.matmul(scale_gradient, scale).div_(scale.shape[0])  # mean(gradient · scale · normed)
        projection = projection[..., None]
        input_gradient = torch.addcmul(gradient * scale, normed, projection, value=-1).mul_(inverse_rms)
        return input_gradient, scale_gradient.flatten(0, -2).sum(0)


# Softmax over few classes


def over_classes(function: Callable[[torch.Tensor, int], torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """Return function(logits, -1), where the function is a softmax such as `torch.log_softmax`.

    Along a short last axis torch takes five times as long as along the first axis.
    """
    if logits.shape[-1] < FEW_CLASSES:
        return function(logits.movedim(-1, 0), 0).movedim(0, -1)
    return function(logits, -1)


# Linear layers in blocks


def block_linear(
    inputs: torch.Tensor, shared: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Return `blocks` parallel linear layers, (N, output).

    inputs: (N, input); block k reads the k-th part. shared: (N, shared), also read by every block; or None. weight:
    (blocks, input / blocks + shared, output / blocks). bias: (output,).
    """
    blocks = len(weight)
    block_size = inputs.shape[-1] // blocks
    inputs = inputs.view(len(inputs), blocks, block_size).transpose(0, 1)
    bias = bias.view(blocks, 1, -1)
    if shared is None:
        output = torch.baddbmm(bias, inputs, weight)
    elif torch.is_grad_enabled():  # the weights are not sliced, which would cost time in the backward pass
        inputs = torch.cat([inputs, shared.expand(blocks, -1, -1)], -1)
        output = torch.baddbmm(bias, inputs, weight)
    else:  # two products, so that `shared` is not copied for each block
        output = torch.baddbmm(bias, inputs, weight[:, :block_size])
        output = torch.baddbmm(output, shared.expand(blocks, -1, -1), weight[:, block_size:])
    return output.transpose(0, 1).flatten(1)


def plain_block_linear(
    inputs: torch.Tensor, shared: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    blocks = len(weight)
    outputs = []
    for block, block_weight, block_bias in zip(inputs.chunk(blocks, -1), weight, bias.chunk(blocks), strict=True):
        if shared is not None:
            block = torch.cat([block, shared], -1)
        outputs.append(block @ block_weight + block_bias)
    return torch.cat(outputs, -1)


# Functions of independent rows


def row_by_row(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], feature: torch.Tensor, action: torch.Tensor
) -> torch.Tensor:
    """Return function(feature, action), one number for each row (...), computed a few thousand rows at a time.

    feature: (..., F). action: (..., A). The forward pass already computes the gradients and saves nothing else for the
    backward pass: a third of the memory and half of the time. They reach only feature and action, not the function's
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
        chunk_size = ROWS * (8 if feature.is_cuda else 1)
        feature_chunks = feature.flatten(0, -2).split(chunk_size)
        action_chunks = action.flatten(0, -2).split(chunk_size)
        needs_gradient = any(ctx.needs_input_grad)
        values, gradients = [], []
        for feature_chunk, action_chunk in zip(feature_chunks, action_chunks, strict=True):
            feature_chunk = feature_chunk.detach().requires_grad_(needs_gradient)
            action_chunk = action_chunk.detach().requires_grad_(needs_gradient)
            with torch.set_grad_enabled(needs_gradient):
                value = function(feature_chunk, action_chunk)
                if needs_gradient:
                    gradients.append(torch.autograd.grad(value.sum(), [feature_chunk, action_chunk]))
            values.append(value.detach())
        if needs_gradient:
            feature_gradient, action_gradient = map(torch.cat, zip(*gradients, strict=True))
            ctx.save_for_backward(feature_gradient.view_as(feature), action_gradient.view_as(action))
        return torch.cat(values).view(feature.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        feature_gradient, action_gradient = ctx.saved_tensors
        return gradient[..., None] * feature_gradient, gradient[..., None] * action_gradient, None

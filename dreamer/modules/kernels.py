"""Faster forms of textbook operations; `convolutions.py` has those of convolutions. The modules that call them read
like the papers.

Beside each function stands its plain form, `plain_…`. Tests compare the two, results and gradients.
"""

from collections.abc import Callable
from typing import Any

import torch

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
    """Return `blocks` parallel linear layers, (N, output).

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

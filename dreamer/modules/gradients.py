"""Direct gradients: through a module without reaching its weights, or separately to its inputs and to its weights.

Beside each faster form stands its plain form, `plain_…`, which tests compare it with.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let gradients flow through modules in this block, but not to their weights."""
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def split_gradients(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return network(inputs) twice: gradients of the first reach only the inputs, those of the second only the weights.

    The network runs once. `plain_split_gradients` runs it twice.
    """
    if not (inputs.requires_grad and torch.is_grad_enabled()):
        output = network(inputs)
        return output.detach(), output
    if torch.compiler.is_compiling():
        return plain_split_gradients(network, inputs)
    return _SplitGradients.apply(network, inputs, *network.parameters())


def plain_split_gradients(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    return functional_call(network, weights, (inputs,)), network(inputs.detach())


class _SplitGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, network: nn.Module, inputs: torch.Tensor, *weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            ctx.inputs = inputs.detach().requires_grad_()
            ctx.output = network(ctx.inputs)
        ctx.weights = weights
        return ctx.output.detach(), ctx.output.detach()

    @staticmethod
    def backward(
        ctx: Any, first_gradient: torch.Tensor, second_gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        (input_gradient,) = torch.autograd.grad(ctx.output, ctx.inputs, first_gradient, retain_graph=True)
        weight_gradients = torch.autograd.grad(ctx.output, ctx.weights, second_gradient)
        return None, input_gradient, *weight_gradients

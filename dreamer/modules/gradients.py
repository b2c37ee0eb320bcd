"""Where gradients go: through a module but not to its weights; apart to inputs and to weights; through a scan.

Beside each faster form stands its plain form, `plain_…`, which tests compare it with.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let gradients flow through modules in this block, but not to their weights."""
    with at_rest([weight for module in modules for weight in module.parameters()]):
        yield


def apart(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return network(inputs) twice: gradients of the first reach only the inputs, those of the second only the weights.

    The network runs once. `plain_apart` runs it twice.
    """
    if not (inputs.requires_grad and torch.is_grad_enabled()):
        output = network(inputs)
        return output.detach(), output
    if torch.compiler.is_compiling():
        return plain_apart(network, inputs)
    return _Apart.apply(network, inputs, *network.parameters())


def plain_apart(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    return functional_call(network, weights, (inputs,)), network(inputs.detach())


class _Apart(torch.autograd.Function):
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
    def backward(ctx: Any, of_first: torch.Tensor, of_second: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (to_inputs,) = torch.autograd.grad(ctx.output, ctx.inputs, of_first, retain_graph=True)
        return None, to_inputs, *torch.autograd.grad(ctx.output, ctx.weights, of_second)


def scan(
    step: Callable[..., tuple[torch.Tensor, ...]],
    weights: Sequence[torch.Tensor],
    carry: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, ...]:
    """Return the results of all steps of a recurrence, (T, B, ·) each; the weights' gradients are taken once.

    step(*carry, *inputs of the step) → results, (B, ·) each, of which the first ones are the next carry; it must treat
    each row for itself. carry: (B, ·) each, before the first step. inputs: (T, B, ·) each. weights: all those that
    `step` reads. Backwards, the gradient goes from step to step through the carry alone; then one step over all T·B
    rows gives the gradients of weights and inputs.
    """
    return _Scan.apply(step, len(carry), weights, *carry, *inputs, *weights)


def plain_scan(
    step: Callable[..., tuple[torch.Tensor, ...]], carry: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    results = []
    for parts in zip(*inputs, strict=True):
        results.append(step(*carry, *parts))
        carry = results[-1][: len(carry)]
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, step: Callable, carried: int, weights: Sequence[torch.Tensor], *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        carry, inputs = tensors[:carried], tensors[carried : len(tensors) - len(weights)]
        ctx.step, ctx.weights, ctx.inputs, ctx.chain = step, weights, inputs, []
        with torch.enable_grad(), at_rest(weights):
            for parts in zip(*(part.detach() for part in inputs), strict=True):
                carry = tuple(part.detach().requires_grad_() for part in carry)
                results = step(*carry, *parts)
                ctx.chain.append((carry, results))
                carry = results[:carried]
        return tuple(torch.stack(parts) for parts in zip(*(results for _, results in ctx.chain), strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_steps, carried = list(zip(*gradients, strict=True)), len(ctx.chain[0][0])
        to_carry: Sequence[torch.Tensor] = ()
        for number in reversed(range(len(ctx.chain))):
            if to_carry:
                of_carry = torch._foreach_add(list(of_steps[number][:carried]), list(to_carry))
                of_steps[number] = (*of_carry, *of_steps[number][carried:])
            carry, results = ctx.chain[number]
            to_carry = torch.autograd.grad(results, carry, of_steps[number])
        rows = [torch.stack(parts).flatten(0, 1) for parts in zip(*(carry for carry, _ in ctx.chain), strict=True)]
        of_rows = [torch.cat(parts) for parts in zip(*of_steps, strict=True)]
        first = 3 + carried
        wanted = ctx.needs_input_grad[first : first + len(ctx.inputs)]
        pairs = list(zip(ctx.inputs, wanted, strict=True))
        inputs = [part.detach().flatten(0, 1).requires_grad_(want) for part, want in pairs]
        learning = [part for part in inputs if part.requires_grad]
        with torch.enable_grad():
            results = ctx.step(*(part.detach() for part in rows), *inputs)
        found = iter(torch.autograd.grad(results, [*learning, *ctx.weights], of_rows))
        to_inputs = [next(found).view_as(part) if want else None for part, want in pairs]
        return None, None, None, *to_carry, *to_inputs, *found


@contextmanager
def at_rest(weights: Sequence[torch.Tensor]) -> Iterator[None]:
    """Let no gradient reach some weights in this block."""
    learning = [weight for weight in weights if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)

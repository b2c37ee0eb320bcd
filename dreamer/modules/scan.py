"""The loop over the steps of a recurrent network, computed by three compiled graphs.

Shapes: B batch; T time, here dim 0.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from dreamer.modules.tracing import Tensors, forward_and_backward, graph_of

Compiler = Callable[[Any, list[torch.Tensor]], Callable[..., Any]]  # a graph and example arguments → its compiled form


class Scan:
    """Computes this loop and its gradients:

        for t in range(T):
            outputs[t] = step(*carry, *inputs[t])       # graph 1, the step
            carry = outputs[t][:carried]

    Backward, graph 2, the backward step, takes the gradient of the carry from the last step to the first. Then graph 3
    gives the gradients of weights and inputs at once, from one step over all T·B rows. The graphs are compiled when
    they are first needed, for each number of rows.

    With an `actor`, the step is step(*carry, actor(*carry), *inputs[t]), and the outputs end with the actor's. No
    gradient reaches the carry through the actor. Graph 3 then gives the gradients of the actor's weights alone.
    """

    def __init__(self, step: nn.Module, carried: int, compiler: Compiler, actor: nn.Module | None = None):
        """step: (*carry, *inputs of a step) → outputs, (B, ·) each; it must treat each row for itself. carried: the
        number of tensors in a carry. compiler: returns the compiled form of a graph. actor: (*carry) → (B, ·)."""
        self.module, self.actor, self.carried, self.compiler = step, actor, carried, compiler
        step_weights = dict(step.named_parameters())
        actor_weights = {} if actor is None else dict(actor.named_parameters())
        self.step_names, self.actor_names = list(step_weights), list(actor_weights)
        self.step_weights: list[torch.Tensor] = list(step_weights.values())
        self.actor_weights: list[torch.Tensor] = list(actor_weights.values())
        self.weights = [*self.step_weights, *self.actor_weights]
        self.num_outputs = 0  # of a step, with the actor's; known once a step is compiled
        self.steps: dict[int, tuple[Callable, Callable]] = {}  # graphs 1 and 2, by B
        self.gradients: dict[int, Callable] = {}  # graph 3, by T·B

    def __call__(self, carry: Tensors, inputs: Tensors) -> tuple[torch.Tensor, ...]:
        """Return the outputs of all steps, (T, B, ·) each, and after them those of the actor.

        carry: (B, ·) each, before the first step. inputs: (T, B, ·) each. Every tensor is float.
        """
        return _Scan.apply(self, *carry, *inputs, *self.weights)

    def step(self, weights: Tensors, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs of a step with given weights."""
        return functional_call(self.module, dict(zip(self.step_names, weights, strict=True)), arguments)

    def act(self, weights: Tensors, *carry: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the actor's output with given weights, in a tuple, which is empty without an actor."""
        if self.actor is None:
            return ()
        return (functional_call(self.actor, dict(zip(self.actor_names, weights, strict=True)), carry),)

    def make_steps(self, carry: Tensors, inputs: Tensors) -> tuple[Callable, Callable]:
        """Return the compiled step and its compiled backward step, for tensors like these of one step.

        step: weights, carry and inputs → outputs and saved tensors. backward step: saved tensors, gradients of the
        outputs, and gradients of the new carry from the next step → gradients of the old carry and, for graph 3, the
        total gradients of the new carry (with an actor: the total gradient of the actor's output).
        """
        num_weights, carried = len(self.step_weights), self.carried
        with torch.no_grad():
            actor_output = self.act(self.actor_weights, *carry)
            num_step_outputs = len(self.step(self.step_weights, *carry, *actor_output, *inputs))
        self.num_outputs = num_step_outputs + len(actor_output)
        step_arguments = [*self.step_weights, *carry, *actor_output, *inputs]
        needs_gradient = [False] * num_weights + [True] * (carried + len(actor_output)) + [False] * len(inputs)
        forward, backward = forward_and_backward(
            lambda *arguments: self.step(arguments[:num_weights], *arguments[num_weights:]),
            step_arguments,
            needs_gradient,
        )

        def step(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            step_weights, actor_weights, carry, inputs = split(tensors, num_weights, len(self.actor_weights), carried)
            actor_output = self.act(actor_weights, *carry)
            step_outputs, saved = split(forward(*step_weights, *carry, *actor_output, *inputs), num_step_outputs)
            outputs = [output.contiguous() for output in (*step_outputs, *actor_output)]
            return *outputs, *saved

        def backward_step(*tensors: torch.Tensor) -> list[torch.Tensor]:
            num_saved = len(tensors) - self.num_outputs - carried
            saved, output_gradients, next_gradients = split(tensors, num_saved, self.num_outputs)
            carry_gradients, other_gradients = split(output_gradients[:num_step_outputs], carried)
            carry_gradients = [here + later for here, later in zip(carry_gradients, next_gradients, strict=True)]
            gradients = backward(*saved, *carry_gradients, *other_gradients)
            assert len(gradients) == len(step_arguments), "torch returns other gradients than those of the arguments"
            _, old_carry_gradients, rest = split(gradients, num_weights, carried)
            old_carry_gradients = [
                torch.zeros_like(like) if gradient is None else gradient.contiguous()
                for gradient, like in zip(old_carry_gradients, next_gradients, strict=True)
            ]
            if self.actor is None:
                return [*old_carry_gradients, *carry_gradients]
            actor_output_gradient = rest[0] + output_gradients[-1]
            return [*old_carry_gradients, actor_output_gradient]

        arguments = [*self.weights, *carry, *inputs]
        compiled_step = self.compiler(graph_of(step, arguments), arguments)
        outputs, saved = split(compiled_step(*arguments), self.num_outputs)
        arguments = [*saved, *outputs, *outputs[:carried]]  # a gradient is laid out like its tensor
        return compiled_step, self.compiler(graph_of(backward_step, arguments), arguments)

    def make_gradients(self, needs_gradient: Sequence[bool], rows: Tensors, gradients: Tensors) -> Callable:
        """Return a compiled graph: the learning weights, rows and gradients → the gradients of these weights and of the
        rows that need one.

        rows: carry and inputs of all steps, (T·B, ·) each; with an actor the carry alone. gradients: of the outputs;
        with an actor of its output alone.
        """
        weights, function = self.learning
        arguments_need_gradient = [True] * len(weights) + list(needs_gradient)

        def gradients_of(*tensors: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            arguments, output_gradients = split(tensors, len(arguments_need_gradient))
            arguments = [
                argument.detach().requires_grad_(needs)
                for argument, needs in zip(arguments, arguments_need_gradient, strict=True)
            ]
            with torch.enable_grad():
                outputs = function(arguments[: len(weights)], *arguments[len(weights) :])
            differentiated = [argument for argument in arguments if argument.requires_grad]
            return torch.autograd.grad(outputs, differentiated, output_gradients, allow_unused=True)

        arguments = [*weights, *rows, *gradients]
        return self.compiler(graph_of(gradients_of, arguments), arguments)

    @property
    def learning(self) -> tuple[list[torch.Tensor], Callable[..., Tensors]]:
        """The weights that learn, and the function that they belong to: the step's, or the actor's."""
        if self.actor is None:
            return self.step_weights, self.step
        return self.actor_weights, self.act


class _Scan(torch.autograd.Function):
    """The loop for autograd. Every tensor that a graph takes is made contiguous: a compiled graph does not check it."""

    @staticmethod
    def forward(ctx: Any, scan: Scan, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        num_inputs = len(tensors) - scan.carried - len(scan.weights)
        carry, inputs, _ = split(tensors, scan.carried, num_inputs)
        batch_size = len(carry[0])
        ctx.scan, ctx.inputs = scan, [part.contiguous() for part in inputs]
        ctx.carry_by_step, ctx.saved_by_step, outputs_by_step = [], [], []
        for step_inputs in zip(*ctx.inputs, strict=True):
            carry = tuple(part.contiguous() for part in carry)
            if batch_size not in scan.steps:
                scan.steps[batch_size] = scan.make_steps(carry, step_inputs)
            step, _ = scan.steps[batch_size]
            outputs, saved = split(step(*scan.weights, *carry, *step_inputs), scan.num_outputs)
            ctx.carry_by_step.append(carry)
            ctx.saved_by_step.append(saved)
            outputs_by_step.append(outputs)
            carry = outputs[: scan.carried]
        return tuple(torch.stack(steps) for steps in zip(*outputs_by_step, strict=True))

    @staticmethod
    def backward(ctx: Any, *output_gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scan, carried, num_inputs = ctx.scan, ctx.scan.carried, len(ctx.inputs)
        output_gradients = tuple(gradient.contiguous() for gradient in output_gradients)

        # Step by step, backwards: the gradients of the carry.
        _, backward_step = scan.steps[len(ctx.carry_by_step[0][0])]
        carry_gradients: Tensors = [torch.zeros_like(part) for part in ctx.carry_by_step[0]]
        gradients_by_step = []
        for saved, *step_gradients in reversed(list(zip(ctx.saved_by_step, *output_gradients, strict=True))):
            gradients = backward_step(*saved, *step_gradients, *carry_gradients)
            carry_gradients, gradients_for_weights = split(gradients, carried)
            gradients_by_step.append(gradients_for_weights)

        # All steps at once: the gradients of weights and inputs.
        rows = [torch.cat(steps) for steps in zip(*ctx.carry_by_step, strict=True)]
        row_gradients = [torch.cat(steps[::-1]) for steps in zip(*gradients_by_step, strict=True)]
        inputs_need_gradient = [False] * num_inputs
        rows_need_gradient = [False] * carried
        if scan.actor is None:
            inputs_need_gradient = list(ctx.needs_input_grad[1 + carried :][:num_inputs])
            rows_need_gradient += inputs_need_gradient
            rows += [part.flatten(0, 1) for part in ctx.inputs]
            row_gradients += [gradient.flatten(0, 1) for gradient in output_gradients[carried:]]
        weights, _ = scan.learning
        num_rows = len(rows[0])
        if num_rows not in scan.gradients:
            scan.gradients[num_rows] = scan.make_gradients(rows_need_gradient, rows, row_gradients)
        weight_gradients, gradients = split(scan.gradients[num_rows](*weights, *rows, *row_gradients), len(weights))
        remaining = iter(gradients)
        input_gradients = [
            next(remaining).view_as(part) if needs else None
            for part, needs in zip(ctx.inputs, inputs_need_gradient, strict=True)
        ]
        frozen = [None] * (len(scan.weights) - len(weights))  # the step's weights, with an actor
        return None, *carry_gradients, *input_gradients, *frozen, *weight_gradients


def split(tensors: Tensors, *sizes: int) -> list[Tensors]:
    """Return consecutive parts of a sequence: one of each size, and the rest."""
    parts = []
    for size in sizes:
        parts.append(tensors[:size])
        tensors = tensors[size:]
    return [*parts, tensors]

"""A recurrence whose step is a compiled graph, and whose weights' gradients are taken once.

Shapes: B batch; T time, here dim 0.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from dreamer.modules.tracing import Tensors, forward_and_backward, graph_of

Compiler = Callable[[Any, list[torch.Tensor]], Callable[..., Any]]  # takes a graph and the tensors of a call


class Scan:
    """Calls a step for each part of its inputs. The step's first results are the carry, which the next step takes.

    Backwards, the gradient goes from step to step through the carry alone; then one step over all T·B rows gives the
    gradients of weights and inputs. So three graphs compute everything: the step, its backward step, and the gradients.
    They are made when they are first needed, for each number of rows.

    With a `choice`, a network that reads the carry, the step takes what it says; no gradient reaches the carry through
    it. Then its weights learn, the step's own and the inputs do not.
    """

    def __init__(self, step: nn.Module, carried: int, compiler: Compiler, choice: nn.Module | None = None):
        """step: (*carry, *inputs of a step) → results, (B, ·) each; it must treat each row for itself. carried: the
        number of tensors in a carry. compiler: returns the compiled form of a graph. choice: (*carry) → (B, ·), which
        the step takes before its inputs."""
        self.module, self.choice, self.carried, self.compiler = step, choice, carried, compiler
        own, of_choice = dict(step.named_parameters()), dict(choice.named_parameters() if choice else ())
        self.names, self.names_of_choice, self.own = list(own), list(of_choice), len(own)
        self.weights: list[torch.Tensor] = [*own.values(), *of_choice.values()]
        self.results = 0  # the number of a step's results
        self.steps: dict[int, tuple[Callable, Callable]] = {}  # the step and its backward step, by B
        self.gradients: dict[int, Callable] = {}  # by T·B

    def __call__(self, carry: Tensors, inputs: Tensors) -> tuple[torch.Tensor, ...]:
        """Return the results of all steps, (T, B, ·) each, the last of them what a choice said.

        carry: (B, ·) each, before the first step. inputs: (T, B, ·) each. Every tensor is float.
        """
        return _Scan.apply(self, *carry, *inputs, *self.weights)

    def step(self, weights: Tensors, *parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the results of a step with given weights."""
        return functional_call(self.module, dict(zip(self.names, weights, strict=True)), parts)

    def choose(self, weights: Tensors, *carry: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what the choice says with given weights, alone in a tuple, which is empty without one."""
        if self.choice is None:
            return ()
        return (functional_call(self.choice, dict(zip(self.names_of_choice, weights, strict=True)), carry),)

    def make_steps(self, carry: Tensors, inputs: Tensors) -> tuple[Callable, Callable]:
        """Return two compiled graphs: weights, carry and inputs → results and what the backward step needs of them;
        this, the results' gradients and the later steps' gradients of the carry → the gradients of the carry before the
        step, and what the weights learn from: the gradients of the carry after it, or those of what the choice said."""
        own, carried, first = self.own, self.carried, len(self.weights)
        with torch.no_grad():
            chosen = self.choose(self.weights[own:], *carry)
        parts_of_step = [*self.weights[:own], *carry, *chosen, *inputs]
        learn = range(own, own + carried + len(chosen))
        forward, backward = forward_and_backward(
            lambda *parts: self.step(parts[:own], *parts[own:]),
            parts_of_step,
            [number in learn for number in range(len(parts_of_step))],
        )
        with torch.no_grad():
            count = len(self.step(self.weights[:own], *parts_of_step[own:]))
        self.results = count + len(chosen)

        def step(*parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
            carry, inputs = parts[first : first + carried], parts[first + carried :]
            chosen = self.choose(parts[own:first], *carry)
            after = forward(*parts[:own], *carry, *chosen, *inputs)
            return *(part.contiguous() for part in (*after[:count], *chosen)), *after[count:]

        def backward_step(*parts: torch.Tensor) -> list[torch.Tensor]:
            kept, gradients = parts[: -self.results - carried], parts[-self.results - carried : -carried]
            later = parts[-carried:]
            of_carry = [part + more for part, more in zip(gradients, later, strict=False)]
            found = backward(*kept, *of_carry, *gradients[carried:count])
            assert len(found) == len(parts_of_step), "torch returns other gradients than those of the arguments"
            to_carry = [
                torch.zeros_like(part) if to is None else to.contiguous()
                for to, part in zip(found[own:], later, strict=False)
            ]
            return to_carry + ([found[own + carried] + gradients[-1]] if chosen else of_carry)

        arguments = [*self.weights, *carry, *inputs]
        compiled_step = self.compiler(graph_of(step, arguments), arguments)
        after = compiled_step(*arguments)
        like_gradients = after[: self.results]
        arguments = [*after[self.results :], *like_gradients, *like_gradients[:carried]]
        return compiled_step, self.compiler(graph_of(backward_step, arguments), arguments)

    def make_gradients(self, wanted: Sequence[bool], rows: list[torch.Tensor], gradients: Tensors) -> Callable:
        """Return a compiled graph: the weights that learn, rows and gradients → the gradients of these weights and of
        wanted rows.

        rows: carry and inputs of all rows, with a choice only the carry. gradients: of the results, with a choice only
        of what it said.
        """
        weights, function = self.learning
        learn = [*(True for _ in weights), *wanted]

        def gradients_of(*tensors: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            before = [part.detach().requires_grad_(does) for part, does in zip(tensors, learn, strict=False)]
            with torch.enable_grad():
                results = function(before[: len(weights)], *before[len(weights) :])
            learning = [part for part in before if part.requires_grad]
            return torch.autograd.grad(results, learning, tensors[len(learn) :], allow_unused=True)

        arguments = [*weights, *rows, *gradients]
        return self.compiler(graph_of(gradients_of, arguments), arguments)

    @property
    def learning(self) -> tuple[list[torch.Tensor], Callable[..., Tensors]]:
        """The weights that learn, and the function that they belong to: the step's, or the choice's."""
        if self.choice is None:
            return self.weights, self.step
        return self.weights[self.own :], self.choose


class _Scan(torch.autograd.Function):
    """Every tensor that a graph takes is contiguous, as a compiled form does not check it."""

    @staticmethod
    def forward(ctx: Any, scan: Scan, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        last = len(tensors) - len(scan.weights)
        carry, inputs = tensors[: scan.carried], [part.contiguous() for part in tensors[scan.carried : last]]
        ctx.scan, ctx.inputs, ctx.carries, ctx.kept, found = scan, inputs, [], [], []
        rows = len(carry[0])
        for parts in zip(*inputs, strict=True):
            carry = tuple(part.contiguous() for part in carry)
            if rows not in scan.steps:
                scan.steps[rows] = scan.make_steps(carry, parts)
            after = scan.steps[rows][0](*scan.weights, *carry, *parts)
            ctx.carries.append(carry)
            ctx.kept.append(after[scan.results :])
            found.append(after[: scan.results])
            carry = after[: scan.carried]
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scan, carried = ctx.scan, ctx.scan.carried
        gradients = tuple(part.contiguous() for part in gradients)
        to_carry: Tensors = [torch.zeros_like(part) for part in ctx.carries[0]]
        to_learn = []
        _, backward_step = scan.steps[len(ctx.carries[0][0])]
        for kept, *of_step in reversed(list(zip(ctx.kept, *gradients, strict=True))):
            found = backward_step(*kept, *of_step, *to_carry)
            to_carry = found[:carried]
            to_learn.append(found[carried:])
        rows = [torch.cat(parts) for parts in zip(*ctx.carries, strict=True)]
        of_rows = [torch.cat(parts[::-1]) for parts in zip(*to_learn, strict=True)]
        wanted = [False] * len(ctx.inputs)
        if scan.choice is None:
            wanted = list(ctx.needs_input_grad[1 + carried :][: len(ctx.inputs)])
            rows += [part.flatten(0, 1) for part in ctx.inputs]
            of_rows += [part.flatten(0, 1) for part in gradients[carried:]]
        weights, _ = scan.learning
        count = len(rows[0])
        if count not in scan.gradients:
            wanted_rows = [False] * carried + wanted
            scan.gradients[count] = scan.make_gradients(wanted_rows[: len(rows)], rows, of_rows)
        found = scan.gradients[count](*weights, *rows, *of_rows)
        to_weights, others = found[: len(weights)], iter(found[len(weights) :])
        to_inputs = [
            next(others).view_as(part) if want else None for part, want in zip(ctx.inputs, wanted, strict=True)
        ]
        frozen = [None] * (len(scan.weights) - len(weights))
        return None, *to_carry, *to_inputs, *frozen, *to_weights

"""Optimisers. Each moves only its own parameters and returns the norm of their gradient."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.profiler import record_function

from dreamer import distributed
from dreamer.config.load import Config

# Imported now, since torch would import it later, and it crashes once Mesa has drawn a frame with another LLVM.
with suppress(ImportError):
    import triton  # noqa: F401


class Optimizer:
    """Moves the parameters of a module that need a gradient; frozen ones are ignored.

    Subclasses define `move` and the saved state, and count their `updates`.
    """

    updates: torch.Tensor  # steps made so far, a scalar

    def __init__(self, module: nn.Module):
        self.parameters: list[torch.Tensor] = [
            parameter for parameter in module.parameters() if parameter.requires_grad
        ]

    def step(self, loss: torch.Tensor) -> torch.Tensor:
        """Make a step down a scalar loss. Return the gradient's norm before any clipping, a scalar."""
        return step_together(loss, [self])[0]

    def move(self) -> torch.Tensor:
        """Make a step along the gradients that the parameters hold. Return their norm before any clipping."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs of the optimiser."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to a saved state, which may come from another kind of device."""
        raise NotImplementedError


def step_together(loss: torch.Tensor, optimizers: Sequence[Optimizer]) -> list[torch.Tensor]:
    """Make one step of each optimiser down a scalar loss, in one backward pass. Return the gradients' norms.

    Gradients flow through other modules but accumulate only in these optimisers' parameters.
    """
    parameters = [parameter for optimizer in optimizers for parameter in optimizer.parameters]
    for parameter in parameters:
        parameter.grad = None
    with record_function("backward pass"):
        loss.backward(inputs=parameters)
    distributed.average_gradients(parameters)
    with record_function("optimiser"):
        return [optimizer.move() for optimizer in optimizers]


class ClippedAdam(Optimizer):
    """torch's Adam, with the gradient's norm clipped at `clip_grad` before each step (Dreamer)."""

    def __init__(
        self, module: nn.Module, learning_rate: float, adam_epsilon: float, clip_grad: float, grad_norm_type: float
    ):
        super().__init__(module)
        device = self.parameters[0].device.type
        self.kernels: dict[str, Any] = {"fused": device != "meta", "capturable": device == "cuda"}
        self.adam = torch.optim.Adam(self.parameters, lr=learning_rate, eps=adam_epsilon, **self.kernels)
        self.clip_grad = clip_grad
        self.grad_norm_type = grad_norm_type

    def move(self) -> torch.Tensor:
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_grad, self.grad_norm_type)
        self.adam.step()
        return norm

    @property
    def updates(self) -> torch.Tensor:  # type: ignore[override]  # torch counts them
        """The number of steps made so far, a scalar."""
        steps = [state["step"] for state in self.adam.state.values()]
        return max(steps, default=torch.zeros(()))

    def state_dict(self) -> dict[str, Any]:
        return self.adam.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        groups = [group | self.kernels for group in state["param_groups"]]
        self.adam.load_state_dict({**state, "param_groups": groups})
        for parameter, saved in self.adam.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # fused steps need the memory layout of the parameter
                saved[name] = torch.empty_like(parameter).copy_(saved[name])


class MovingAverages(Optimizer):
    """Keeps two moving averages of each gradient and the number of updates, all on the device, so that a CUDA graph can
    hold a step.

    Each average, and the step, is one vector of all parameters: one operation on it is faster than one for each tensor.
    """

    def __init__(self, module: nn.Module, learning_rate: float):
        super().__init__(module)
        self.learning_rate = learning_rate
        self.sizes = [parameter.numel() for parameter in self.parameters]
        self.updates = self.parameters[0].new_zeros(())
        self.first = self.parameters[0].new_zeros(sum(self.sizes))  # of the gradient or the step
        self.second = torch.zeros_like(self.first)  # of the squared gradient
        self.change = torch.zeros_like(self.first)  # what a step subtracts from the parameters
        self.change_by_parameter = self.by_parameter(self.change)

    @property
    def gradients(self) -> list[torch.Tensor]:
        """The gradient of each parameter; zeros for a parameter that no loss reaches."""
        gradients = []
        for parameter in self.parameters:
            gradients.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        return gradients

    def by_parameter(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Return the parts of a vector of all parameters, each in its parameter's shape, as views."""
        parts = vector.split(self.sizes)
        return [part.view(parameter.shape) for part, parameter in zip(parts, self.parameters, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        return {
            "updates": self.updates,
            "first": self.by_parameter(self.first),
            "second": self.by_parameter(self.second),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates.copy_(state["updates"])
        self.first.copy_(joined(state["first"]))
        self.second.copy_(joined(state["second"]))


def joined(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the numbers of several tensors in one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


class KerasAdam(MovingAverages):
    """DreamerV2's: clips the norm of the gradient g, multiplies every parameter θ by (1 - weight_decay), whatever the
    learning rate, and makes step t of Keras' Adam, whose ε is added before the bias of v is corrected:

        m = 0.9 m + 0.1 g,    v = 0.999 v + 0.001 g²
        θ = (1 - weight_decay) θ - learning_rate · √(1 - 0.999^t) / (1 - 0.9^t) · m / (√v + ε)

    m is `first`, v is `second`.
    """

    def __init__(
        self,
        module: nn.Module,
        learning_rate: float,
        adam_epsilon: float,
        clip_grad: float,
        grad_norm_type: float,
        weight_decay: float,
    ):
        super().__init__(module, learning_rate)
        self.epsilon, self.clip_grad, self.grad_norm_type = adam_epsilon, clip_grad, grad_norm_type
        self.keep = 1 - weight_decay  # the factor of every parameter in a step

    @torch.no_grad()
    def move(self) -> torch.Tensor:
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_grad, self.grad_norm_type)
        gradient = joined(self.gradients)
        self.updates += 1
        torch._foreach_mul_(self.parameters, self.keep)
        self.first.lerp_(gradient, 0.1)
        self.second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        rate = self.learning_rate * (1 - 0.999**self.updates).sqrt() / (1 - 0.9**self.updates)
        torch.div(self.first, self.second.sqrt().add_(self.epsilon), out=self.change).mul_(rate)
        torch._foreach_sub_(self.parameters, self.change_by_parameter)
        return norm


class LaProp(MovingAverages):
    """DreamerV3's: the gradient g of each tensor is clipped by the tensor's own norm (AGC), divided by the root of its
    average square, and then averaged. Step t:

        v = 0.999 v + 0.001 g²
        m = 0.9 m + 0.1 g / (√(v / (1 - 0.999^t)) + 1e-20)
        θ = θ - learning_rate · m / (1 - 0.9^t)

    m is `first`, v is `second`. The learning rate grows from 0 in `warm_up` updates.
    """

    def __init__(self, module: nn.Module, learning_rate: float, warm_up: int, agc: float):
        """agc: the largest norm of a gradient, as a fraction of its tensor's norm."""
        super().__init__(module, learning_rate)
        self.warm_up, self.agc = warm_up, agc
        self.sizes_on_device = torch.tensor(self.sizes, device=self.first.device)

    @torch.no_grad()
    def move(self) -> torch.Tensor:
        gradients = self.gradients
        gradient_norms = torch.stack(torch._foreach_norm(gradients))
        parameter_norms = torch.stack(torch._foreach_norm(self.parameters)).clamp(min=1e-3)
        excess = (gradient_norms / (self.agc * parameter_norms)).clamp(min=1)  # above 1 where a gradient is clipped
        excess = excess.repeat_interleave(self.sizes_on_device, output_size=len(self.first))
        gradient = joined(gradients).div_(excess)
        warm_up_factor = (self.updates / self.warm_up).clamp(max=1) if self.warm_up else 1
        self.updates += 1
        self.second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        root_mean_square = (self.second / (1 - 0.999**self.updates)).sqrt_().add_(1e-20)
        self.first.lerp_(gradient.div_(root_mean_square), 0.1)
        torch.mul(self.first, self.learning_rate * warm_up_factor / (1 - 0.9**self.updates), out=self.change)
        torch._foreach_sub_(self.parameters, self.change_by_parameter)
        return gradient_norms.norm()


def make_optimizer(config: Config, module: nn.Module, learning_rate: float) -> Optimizer:
    """Return the configured optimiser of a module. config: the sub-tree `parameters.dreamer`."""
    if config.optimizer == "laprop":
        return LaProp(module, learning_rate, config.warm_up, config.agc)
    epsilon, clip_grad, grad_norm_type = config.adam_epsilon, config.clip_grad, config.grad_norm_type
    if config.optimizer == "keras_adam":
        return KerasAdam(module, learning_rate, epsilon, clip_grad, grad_norm_type, config.weight_decay)
    return ClippedAdam(module, learning_rate, epsilon, clip_grad, grad_norm_type)

"""Optimisers. Each moves its own parameters only, and tells the norm of their gradient."""

from contextlib import suppress

import torch
from torch import nn
from torch.profiler import record_function

from dreamer import distributed

with suppress(ImportError):  # which the first optimiser does; once Mesa, with another LLVM, has drawn, that crashes
    import triton  # noqa: F401


class Optimizer:
    """Moves the parameters of a module that need a gradient. Subclasses define `move` and count their `updates`."""

    def __init__(self, module):
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def step(self, loss):
        """Make a step down `loss`. Return the gradient's norm before any clipping."""
        return step_together([(loss, [self])])[0]

    def move(self):
        """One step along the gradients that the parameters hold. Returns their norm from before any clipping."""
        raise NotImplementedError


def step_together(losses):
    """One step of each optimiser, after the gradients of all losses are known. Returns the gradients' norms.

    losses: pairs of a loss and the optimisers that descend it. Where one is in several pairs, it descends their sum.
    Gradients flow through other modules but accumulate only in these optimisers' parameters.
    """
    optimizers = list(dict.fromkeys(optimizer for _, several in losses for optimizer in several))
    parameters = parameters_of(optimizers)
    for parameter in parameters:
        parameter.grad = None
    with record_function("backward pass"):
        for number, (loss, several) in enumerate(losses, 1):
            loss.backward(inputs=parameters_of(several), retain_graph=number < len(losses))
    distributed.average_gradients(parameters)
    with record_function("optimiser"):
        return [optimizer.move() for optimizer in optimizers]


def parameters_of(optimizers):
    return [parameter for optimizer in optimizers for parameter in optimizer.parameters]


class ClippedAdam(Optimizer):
    """torch's Adam, the gradient's norm clipped at `clip_grad` before each step."""

    def __init__(self, module, learning_rate, adam_epsilon, clip_grad, grad_norm_type):
        super().__init__(module)
        device = self.parameters[0].device.type
        self.kernels = {"fused": device != "meta", "capturable": device == "cuda"}
        self.adam = torch.optim.Adam(self.parameters, lr=learning_rate, eps=adam_epsilon, **self.kernels)
        self.clip_grad = clip_grad
        self.grad_norm_type = grad_norm_type

    def move(self):
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_grad, self.grad_norm_type)
        self.adam.step()
        return norm

    @property
    def updates(self):
        """The steps made so far, a scalar tensor."""
        steps = [state["step"] for state in self.adam.state.values()]
        return max(steps, default=torch.zeros(()))

    def state_dict(self):
        return self.adam.state_dict()

    def load_state_dict(self, state):
        """Go back to a state, which may come from another kind of device."""
        groups = [group | self.kernels for group in state["param_groups"]]
        self.adam.load_state_dict(state | {"param_groups": groups})
        for parameter, saved in self.adam.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # may lie in another order, which fused steps do not take
                saved[name] = torch.empty_like(parameter).copy_(saved[name])


class MovingAverages(Optimizer):
    """Keeps two averages of each gradient, and how many updates there were: on the device, so that a step can be
    recorded."""

    def __init__(self, module, learning_rate):
        super().__init__(module)
        self.learning_rate = learning_rate
        self.updates = self.parameters[0].new_zeros(())
        self.first, self.second = ([torch.zeros_like(each) for each in self.parameters] for _ in range(2))

    @property
    def gradients(self):
        """Of each parameter; zeros for one that the loss does not reach."""
        return [torch.zeros_like(each) if each.grad is None else each.grad for each in self.parameters]

    def state_dict(self):
        return {"updates": self.updates, "first": self.first, "second": self.second}

    def load_state_dict(self, state):
        self.updates.copy_(state["updates"])
        for name in ("first", "second"):
            for average, saved in zip(getattr(self, name), state[name], strict=True):
                average.copy_(saved)


class KerasAdam(MovingAverages):
    """DreamerV2's: the gradient's norm clipped, every parameter times (1 - weight_decay), whatever the learning rate,
    then Keras' Adam, whose epsilon is added before the bias of the second average is corrected."""

    def __init__(self, module, learning_rate, adam_epsilon, clip_grad, grad_norm_type, weight_decay):
        super().__init__(module, learning_rate)
        self.epsilon, self.clip_grad, self.grad_norm_type = adam_epsilon, clip_grad, grad_norm_type
        self.keep = 1 - weight_decay

    @torch.no_grad()
    def move(self):
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_grad, self.grad_norm_type)
        gradients = self.gradients
        self.updates += 1
        torch._foreach_mul_(self.parameters, self.keep)
        torch._foreach_lerp_(self.first, gradients, 0.1)
        torch._foreach_mul_(self.second, 0.999)
        torch._foreach_addcmul_(self.second, gradients, gradients, 0.001)
        size = torch._foreach_sqrt(self.second)
        torch._foreach_add_(size, self.epsilon)
        step = torch._foreach_div(self.first, size)
        rate = self.learning_rate * (1 - 0.999**self.updates).sqrt() / (1 - 0.9**self.updates)
        torch._foreach_mul_(step, rate)
        torch._foreach_sub_(self.parameters, step)
        return norm


class LaProp(MovingAverages):
    """DreamerV3's: the gradient of each tensor is clipped by the tensor's own norm (AGC), divided by the root of its
    average square, and then averaged; the learning rate, outside of the average, grows from 0 in `warm_up` updates."""

    def __init__(self, module, learning_rate, warm_up, agc):
        """agc: how large a gradient's norm may be, as a part of its tensor's norm."""
        super().__init__(module, learning_rate)
        self.warm_up, self.agc = warm_up, agc

    @torch.no_grad()
    def move(self):
        gradients = self.gradients
        norms = torch.stack(torch._foreach_norm(gradients))
        sizes = torch.stack(torch._foreach_norm(self.parameters)).clamp(min=1e-3)
        gradients = torch._foreach_div(gradients, list((norms / (self.agc * sizes)).clamp(min=1).unbind()))
        warmth = (self.updates / self.warm_up).clamp(max=1) if self.warm_up else 1
        self.updates += 1
        torch._foreach_mul_(self.second, 0.999)
        torch._foreach_addcmul_(self.second, gradients, gradients, 0.001)
        size = torch._foreach_div(self.second, 1 - 0.999**self.updates)
        torch._foreach_sqrt_(size)
        torch._foreach_add_(size, 1e-20)
        torch._foreach_div_(gradients, size)
        torch._foreach_lerp_(self.first, gradients, 0.1)
        step = torch._foreach_mul(self.first, self.learning_rate * warmth / (1 - 0.9**self.updates))
        torch._foreach_sub_(self.parameters, step)
        return norms.norm()


def make_optimizer(config, module, learning_rate):
    """The configuration's optimiser. config: the sub-tree `parameters.dreamer`."""
    if config.optimizer == "laprop":
        return LaProp(module, learning_rate, config.warm_up, config.agc)
    clipped = module, learning_rate, config.adam_epsilon, config.clip_grad, config.grad_norm_type
    return KerasAdam(*clipped, config.weight_decay) if config.optimizer == "keras_adam" else ClippedAdam(*clipped)

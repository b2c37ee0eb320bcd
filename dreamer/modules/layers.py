"""Building blocks of all networks here.

norm: of each hidden layer, before its activation: "none", "layer" (with the epsilon of DreamerV2's code) or "rms"
(DreamerV3). initialization: "glorot" (Dreamer, DreamerV2: Keras' defaults) or "truncated_normal" (DreamerV3).
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from dreamer.modules.kernels import block_linear, rms_norm


def mlp(
    input_size: int,
    output_size: int,
    hidden_size: int,
    num_layers: int,
    activation: str,
    norm: str = "none",
    initialization: str = "glorot",
    outscale: float = 1.0,
    linear: Callable[[int, int], nn.Module] = nn.Linear,
) -> nn.Sequential:
    """Return `num_layers` hidden layers of `hidden_size` and a linear output layer: (..., input) → (..., output).

    activation: a class name of torch.nn. outscale: factor of the output layer's initial weights. linear: makes a linear
    layer from its sizes.
    """
    sizes = [input_size] + [hidden_size] * num_layers
    layers: list[nn.Module] = []
    for size, next_size in zip(sizes, sizes[1:], strict=False):
        layers += [linear(size, next_size), *normed_activation(next_size, activation, norm)]
    output_layer = linear(sizes[-1], output_size)
    network = Float32Sequential(*layers, output_layer).apply(INITIALIZE[initialization])
    if outscale != 1:
        with torch.no_grad():
            output_layer.get_parameter("weight").mul_(outscale)
    return network


def normed_activation(
    size: int, activation: str, norm: str, wrapper: Callable[[nn.Module], nn.Module] | None = None
) -> list[nn.Module]:
    """Return the layers that follow a linear layer of `size` outputs: the norm, if any, and the activation.

    wrapper: wraps the norm, for example in a `ChannelNorm`.
    """
    layers: list[nn.Module] = []
    if norm != "none":
        norm_layer = NORMS[norm](size)
        layers.append(wrapper(norm_layer) if wrapper else norm_layer)
    layers.append(getattr(nn, activation)())
    return layers


class Float32Sequential(nn.Sequential):
    """Layers in sequence whose result is float32, whatever the precision of the products within."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).float()


def without_autocast(device: str) -> AbstractContextManager:
    """Return a context that turns autocast off on a type of device. Where it is off already, it costs nothing."""
    is_on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if is_on else nullcontext()


def bound_action(action: torch.Tensor) -> torch.Tensor:
    """Return a / max(1, |a|) for each component, with the maximum as a constant (DreamerV3).

    So a component beyond [-1, 1] counts as -1 or 1.
    """
    if not (torch.is_grad_enabled() and action.requires_grad):
        return action.clamp(-1, 1)
    return action / action.abs().clamp(min=1).detach()


class LayerNorm(nn.LayerNorm):
    """torch's layer norm with the epsilon of DreamerV2's code."""

    def __init__(self, size: int):
        super().__init__(size, eps=1e-3)


class RMSNorm(nn.Module):
    """x · (mean(x²) + 1e-4)^(-1/2) · scale over the last axis, in float32 (DreamerV3)."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return rms_norm(inputs.float(), self.weight)


NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm}


class ChannelNorm(nn.Module):
    """A norm over the channels of each pixel: (N, C, height, width) → the same shape."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.norm(image.movedim(1, -1)).movedim(-1, 1)


class EnsembleLinear(nn.Module):
    """K linear layers with weights of their own in one batched product: (K, N, input) → (K, N, output)."""

    def __init__(self, ensemble_size: int, input_size: int, output_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(ensemble_size, input_size, output_size))
        self.bias = nn.Parameter(torch.empty(ensemble_size, 1, output_size))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, inputs, self.weight)


class BlockLinear(nn.Module):
    """`blocks` parallel linear layers: (N, input) and (N, shared) → (N, output).

    Block k reads the k-th part of the input and all that is shared, and gives the k-th part of the output.
    """

    def __init__(self, input_size: int, output_size: int, blocks: int, shared_size: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, input_size // blocks + shared_size, output_size // blocks))
        self.bias = nn.Parameter(torch.empty(output_size))

    def forward(self, inputs: torch.Tensor, shared: torch.Tensor | None = None) -> torch.Tensor:
        return block_linear(inputs, shared, self.weight, self.bias)


def initialize_glorot(module: nn.Module) -> None:
    """Initialise a layer as the released code of Dreamer and DreamerV2 does (Keras' defaults): Glorot-uniform weights,
    zero biases, orthogonal recurrent weights. Use it as `network.apply(initialize_glorot)`."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.get_parameter("bias"))
    elif isinstance(module, (EnsembleLinear, BlockLinear)):
        for weight in module.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.GRUCell):
        nn.init.xavier_uniform_(module.weight_ih)
        nn.init.orthogonal_(module.weight_hh)
        nn.init.zeros_(module.bias_ih)
        nn.init.zeros_(module.bias_hh)


def initialize_truncated_normal(module: nn.Module) -> None:
    """Initialise a layer as the released code of DreamerV3 does: weights from a normal truncated at two of its standard
    deviations and scaled to a variance of 1 / fan in; zero biases. Use it as `initialize_glorot`."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, EnsembleLinear, BlockLinear)):
        std = 1.1368 / math.sqrt(fan_in(module))
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(module.get_parameter("bias"))
    elif isinstance(module, nn.GRUCell):
        initialize_glorot(module)  # DreamerV3 has no such cell


def fan_in(module: nn.Module) -> int:
    """Return the number of inputs of each output of a layer; for a `BlockLinear` those of all its blocks."""
    weight = module.get_parameter("weight")
    if isinstance(module, EnsembleLinear):
        return weight.shape[1]
    if isinstance(module, BlockLinear):
        return weight.shape[0] * weight.shape[1]
    if isinstance(module, nn.ConvTranspose2d):
        return weight[:, 0].numel()
    return weight[0].numel()


INITIALIZE = {"glorot": initialize_glorot, "truncated_normal": initialize_truncated_normal}

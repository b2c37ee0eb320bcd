"""Feature to observation: p(o_t | s_t)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from dreamer.errors import ConfigError
from dreamer.modules.convolutions import folding, transposed_convolution, upsampled_convolution
from dreamer.modules.distributions import SquaredError, UnitNormal
from dreamer.modules.encoder import STAGES, Space, check_sides
from dreamer.modules.layers import INITIALIZE, BlockLinear, ChannelNorm, mlp, normed_activation

LIKELIHOODS = {"normal": UnitNormal, "squared_error": SquaredError}


class PixelDecoder(nn.Module):
    """A linear layer and four transposed convolutions (Dreamer, Appendix A: kernels k, k, k + 1, k + 1 with k = 5,
    stride 2, channels depth · (4, 2, 1), 3).

    (..., F) → a distribution over (..., 3, height, width), its log-likelihood summed over the pixels. Raises
    ConfigError for an image size that the kernels cannot produce.
    """

    def __init__(
        self,
        feature_size: int,
        observation_shape: tuple[int, int, int],
        likelihood: str,
        depth: int,
        kernel_size: int,
        stride: int,
        activation: str,
        norm: str,
        initialization: str,
    ):
        super().__init__()
        self.likelihood = LIKELIHOODS[likelihood]
        channels, height, width = observation_shape
        kernels = [kernel_size, kernel_size, kernel_size + 1, kernel_size + 1]
        grid = [_first_side(side, kernels, stride) for side in (height, width)]
        channels_out = [4 * depth, 2 * depth, depth, channels]
        channels_in = [32 * depth, *channels_out[:-1]]
        layers: list[nn.Module] = [
            nn.Linear(feature_size, 32 * depth * grid[0] * grid[1]),
            nn.Unflatten(-1, (32 * depth, *grid)),
        ]
        for size, next_size, kernel in zip(channels_in, channels_out, kernels, strict=True):
            layers += [TransposedConvolution(size, next_size, kernel, stride)]
            layers += [nn.Sequential(*normed_activation(next_size, activation, norm, ChannelNorm))]
        without_last = layers[:-1]  # the image itself has neither norm nor activation
        self.network = nn.Sequential(*without_last).apply(INITIALIZE[initialization])

    def forward(self, feature: torch.Tensor) -> UnitNormal:
        image = self.network(feature.flatten(0, -2))
        return self.likelihood(image.unflatten(0, feature.shape[:-1]), event_dims=3)


def _first_side(side: int, kernels: list[int], stride: int) -> int:
    """Return the side of the grid from which the transposed convolutions produce an image of this side.

    Raises ConfigError if there is none.
    """
    size = side
    for kernel in reversed(kernels):
        size, remainder = divmod(size - kernel, stride)
        if remainder or size < 0:
            smallest = 1
            for kernel in kernels:
                smallest = (smallest - 1) * stride + kernel
            raise ConfigError(
                f"environment.height and width: {side} pixels; expected {smallest}, {smallest + stride**4}, "
                f"{smallest + 2 * stride**4}, …, which kernels of {kernels} and a stride of {stride} can make"
            )
        size += 1
    return size


class TransposedConvolution(nn.ConvTranspose2d):
    """A transposed convolution without padding."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # torch's takes an output size
        return transposed_convolution(inputs, self.weight, self.get_parameter("bias"), self.stride)


class UpsamplingDecoder(nn.Module):
    """DreamerV3's: a grid of a 16th of the image's sides, the sum of a block linear layer of h and an MLP of z; then
    four times: each pixel repeated to twice the size, and a convolution; channels depth · (4, 4, 3, 2), 3.

    (..., F) → a distribution over (..., 3, height, width), whose mean is a sigmoid less a half. Raises ConfigError for
    sides that are not multiples of 16.
    """

    def __init__(
        self,
        sizes: tuple[int, int],
        observation_shape: tuple[int, int, int],
        likelihood: str,
        depth: int,
        kernel_size: int,
        blocks: int,
        hidden_size: int,
        activation: str,
        norm: str,
        initialization: str,
    ):
        """sizes: D and S, of h and z. blocks: the number of blocks of h; each gives channels of its own. hidden_size:
        half the size of the MLP's hidden layer."""
        super().__init__()
        channels, *sides = observation_shape
        check_sides(sides)
        self.sizes, self.blocks = sizes, blocks
        self.likelihood = LIKELIHOODS[likelihood]
        self.grid = [side // 2**STAGES for side in sides]
        size = 4 * depth  # channels of the grid, then of each layer
        if size % blocks:
            raise ConfigError(
                f"parameters.dreamer.decoder.depth: {size} channels; expected a multiple of decoder.blocks, {blocks}"
            )
        grid_size = size * self.grid[0] * self.grid[1]
        self.of_deterministic = BlockLinear(sizes[0], grid_size, blocks)
        style: dict[str, Any] = {"activation": activation, "norm": norm, "initialization": initialization}
        self.of_stochastic = mlp(sizes[1], grid_size, 2 * hidden_size, 1, **style)
        layers = normed_activation(size, activation, norm, ChannelNorm)
        for factor in (4, 3, 2):
            layers += [UpsampledConvolution(size, depth * factor, kernel_size)]
            layers += normed_activation(depth * factor, activation, norm, ChannelNorm)
            size = depth * factor
        self.network = nn.Sequential(*layers, UpsampledConvolution(size, channels, kernel_size))
        self.apply(INITIALIZE[initialization])

    def forward(self, feature: torch.Tensor) -> UnitNormal:
        deterministic, stochastic = feature.flatten(0, -2).split(self.sizes, -1)
        by_block = self.of_deterministic(deterministic).unflatten(-1, (self.blocks, *self.grid, -1))
        grid = by_block.movedim(1, 3).flatten(3)  # (N, height, width, C)
        grid = grid + self.of_stochastic(stochastic).unflatten(-1, (*self.grid, -1))
        image = torch.sigmoid(self.network(grid.movedim(-1, 1)).float()) - 0.5
        return self.likelihood(image.unflatten(0, feature.shape[:-1]), event_dims=3)


class UpsampledConvolution(nn.Conv2d):
    """A convolution of an image at twice its size, each pixel repeated."""

    fold: torch.Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int):
        super().__init__(channels_in, channels_out, kernel_size)
        self.register_buffer("fold", folding(kernel_size), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return upsampled_convolution(inputs, self.weight, self.get_parameter("bias"), self.fold)


class VectorDecoder(nn.Module):
    """(..., F) → a distribution over (..., size), its log-likelihood summed over the components.

    Not in the first paper.
    """

    def __init__(self, feature_size: int, observation_size: int, likelihood: str, **layers: Any):
        """layers: arguments of `mlp`."""
        super().__init__()
        self.network = mlp(feature_size, observation_size, **layers)
        self.likelihood = LIKELIHOODS[likelihood]

    def forward(self, feature: torch.Tensor) -> UnitNormal:
        return self.likelihood(self.network(feature), event_dims=1)


class JointDecoder(nn.Module):
    """(..., F) → `JointObservation` distribution over the parts of an observation."""

    def __init__(self, decoders: dict[str, nn.Module]):
        """decoders: by the names of the observation's parts."""
        super().__init__()
        self.decoders = nn.ModuleDict(decoders)

    def forward(self, feature: torch.Tensor) -> "JointObservation":
        return JointObservation({name: decoder(feature) for name, decoder in self.decoders.items()})


class JointObservation(NamedTuple):
    """A distribution over observations of several parts, which are independent."""

    parts: dict[str, UnitNormal]  # the distribution of each part, by name

    @property
    def mean(self) -> dict[str, torch.Tensor]:
        """The mean of each part."""
        return {name: part.mean for name, part in self.parts.items()}

    def log_prob(self, value: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return ln p of an observation in parts, (...)."""
        return torch.as_tensor(sum(part.log_prob(value[name]) for name, part in self.parts.items()))


def make_decoder(sizes: tuple[int, int], space: Space, **settings: Any) -> nn.Module:
    """Return a decoder for observations of a space of pixels (C, height, width), vectors (size,), or a Dict of both.

    sizes: D and S, of h and z. settings: further arguments of `make_decoder_of_part`. Raises ConfigError for an image
    size that it cannot make.
    """
    parts = getattr(space, "spaces", None)
    if not parts:
        return make_decoder_of_part(sizes, space, **settings)
    return JointDecoder({name: make_decoder_of_part(sizes, part, **settings) for name, part in parts.items()})


def make_decoder_of_part(
    sizes: tuple[int, int],
    space: Space,
    architecture: str,
    likelihood: str,
    depth: int,
    kernel_size: int,
    stride: int,
    blocks: int,
    hidden_size: int,
    num_layers: int,
    **style: Any,
) -> nn.Module:
    """Return a decoder for a space of pixels or vectors. The arguments are the keys of `decoder` in a configuration.

    sizes: D and S, of h and z. architecture: of the decoder of pixels: "transposed" (Dreamer, DreamerV2) or "upsampled"
    (DreamerV3). style: activation, norm and initialization. Raises ConfigError as `make_decoder`.
    """
    if len(space.shape) == 1:
        layers = {"hidden_size": hidden_size, "num_layers": num_layers} | style
        return VectorDecoder(sum(sizes), space.shape[0], likelihood, **layers)
    if architecture == "transposed":
        return PixelDecoder(sum(sizes), space.shape, likelihood, depth, kernel_size, stride, **style)
    return UpsamplingDecoder(sizes, space.shape, likelihood, depth, kernel_size, blocks, hidden_size, **style)

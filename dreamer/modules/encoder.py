"""Observation to embedding (..., E).

An observation is an image (..., 3, height, width) in [-0.5, 0.5], a vector (..., size), or a dict of an "image" and a
"vector".
"""

from typing import Any

import torch
from torch import nn

from dreamer.errors import ConfigError
from dreamer.modules.convolutions import convolution
from dreamer.modules.layers import INITIALIZE, ChannelNorm, mlp, normed_activation

STAGES = 4  # of convolutions; each halves the image, or nearly so

Space = Any  # a Box, or a Dict of Boxes, as gym and gymnasium define them


class Encoder(nn.Module):
    """A network from observations to embeddings (..., E)."""

    embedding_size: int  # E


class PixelEncoder(Encoder):
    """Four convolutions (Dreamer, Appendix A: kernel 4, stride 2, channels depth · (1, 2, 4, 8)).

    E follows from the image size: 1024 at 64x64. Raises ConfigError if the image is too small for the convolutions.
    """

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        depth: int,
        kernel_size: int,
        stride: int,
        activation: str,
        norm: str,
        initialization: str,
    ):
        super().__init__()
        channels, *size = observation_shape
        layers: list[nn.Module] = []
        for factor in (1, 2, 4, 8):
            layers += [Convolution(channels, depth * factor, kernel_size, stride)]
            layers += normed_activation(depth * factor, activation, norm, ChannelNorm)
            channels = depth * factor
            size = [(side - kernel_size) // stride + 1 for side in size]
            if min(size) < 1:
                raise ConfigError(
                    f"environment.height and width: {observation_shape[1]}x{observation_shape[2]} pixels are too few "
                    f"for four convolutions of kernel {kernel_size} and stride {stride}; "
                    "take more, or a smaller kernel_size"
                )
        self.network = nn.Sequential(*layers, nn.Flatten()).apply(INITIALIZE[initialization])
        self.embedding_size = channels * size[0] * size[1]

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return embed(self.network, observation)


class Convolution(nn.Conv2d):
    """A convolution without padding."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return convolution(inputs, self.weight, self.get_parameter("bias"), self.stride)


class PooledEncoder(Encoder):
    """DreamerV3's: four convolutions that keep the size, each followed by a maximum over 2x2 pixels, a norm and an
    activation; channels depth · (2, 3, 4, 4).

    Raises ConfigError for sides that are not multiples of 16.
    """

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        depth: int,
        kernel_size: int,
        activation: str,
        norm: str,
        initialization: str,
        strided: bool,
    ):
        """strided: whether convolutions of stride 2 replace the maximum, at a quarter of the cost."""
        super().__init__()
        channels, *size = observation_shape
        check_sides(size)
        layers: list[nn.Module] = []
        for factor in (2, 3, 4, 4):
            layers += halving(channels, depth * factor, kernel_size, strided)
            layers += normed_activation(depth * factor, activation, norm, ChannelNorm)
            channels = depth * factor
        self.network = nn.Sequential(*layers, nn.Flatten()).apply(INITIALIZE[initialization])
        self.embedding_size = channels * size[0] * size[1] // 4**STAGES

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return embed(self.network, observation)


def embed(network: nn.Module, observation: torch.Tensor) -> torch.Tensor:
    """Return a network's result (..., E) in float32 for images (..., C, height, width); the network takes (N, ...)."""
    embedding = network(observation.flatten(0, -4)).float()
    return embedding.unflatten(0, observation.shape[:-3])


def halving(channels_in: int, channels_out: int, kernel_size: int, strided: bool) -> list[nn.Module]:
    """Return layers that convolve an image and halve its size."""
    if strided:  # an even size is padded to a multiple of the stride; the odd pixel goes to the far side
        padding = ((kernel_size - 2) // 2, (kernel_size - 1) // 2) * 2
        return [nn.ZeroPad2d(padding), nn.Conv2d(channels_in, channels_out, kernel_size, 2)]
    return [nn.Conv2d(channels_in, channels_out, kernel_size, padding="same"), nn.MaxPool2d(2)]


def check_sides(sides: list[int]) -> None:
    """Raise ConfigError unless an image's height and width can be halved four times."""
    if any(side % 2**STAGES for side in sides):
        height, width = sides
        raise ConfigError(f"environment.height and width: {height}x{width}; this architecture needs multiples of 16")


class VectorEncoder(Encoder):
    """`num_layers` layers of `hidden_size`: (..., size) → (..., E) with E = hidden_size. Not in the first paper."""

    def __init__(
        self,
        observation_size: int,
        hidden_size: int,
        num_layers: int,
        activation: str,
        norm: str,
        initialization: str,
    ):
        super().__init__()
        style: dict[str, Any] = {"activation": activation, "norm": norm, "initialization": initialization}
        network = mlp(observation_size, hidden_size, hidden_size, num_layers - 1, **style)
        self.network = nn.Sequential(network, *normed_activation(hidden_size, activation, norm))
        self.embedding_size = hidden_size

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.network(observation)


class JointEncoder(Encoder):
    """Encodes the parts of an observation and concatenates their embeddings."""

    def __init__(self, encoders: dict[str, Encoder]):
        """encoders: by the names of the observation's parts, in the order of the embeddings."""
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.embedding_size = sum(encoder.embedding_size for encoder in encoders.values())

    def forward(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([encoder(observation[name]) for name, encoder in self.encoders.items()], -1)


def make_encoder(space: Space, **settings: Any) -> Encoder:
    """Return an encoder for a space of pixels (C, height, width), vectors (size,), or a Dict of both.

    settings: further arguments of `make_encoder_of_part`. Raises ConfigError for an image size that it cannot encode.
    """
    parts = getattr(space, "spaces", None)
    if not parts:
        return make_encoder_of_part(space, **settings)
    return JointEncoder({name: make_encoder_of_part(parts[name], **settings) for name in ("vector", "image")})


def make_encoder_of_part(
    space: Space,
    architecture: str,
    depth: int,
    kernel_size: int,
    stride: int,
    hidden_size: int,
    num_layers: int,
    **style: Any,
) -> Encoder:
    """Return an encoder for a space of pixels or vectors. The arguments are the keys of `encoder` in a configuration.

    architecture: of the encoder of pixels: "valid" (Dreamer, DreamerV2), "max_pool" or "strided" (DreamerV3). style:
    activation, norm and initialization. Raises ConfigError as `make_encoder`.
    """
    if len(space.shape) == 1:
        return VectorEncoder(space.shape[0], hidden_size, num_layers, **style)
    if architecture == "valid":
        return PixelEncoder(space.shape, depth, kernel_size, stride, **style)
    strided = architecture == "strided"
    return PooledEncoder(space.shape, depth, kernel_size, **style, strided=strided)

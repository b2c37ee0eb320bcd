"""Observation to embedding: (..., 3, height, width) in [-0.5, 0.5], (..., size), or a dict of an "image" and a
"vector", → (..., E)."""

import torch
from torch import nn

from dreamer.errors import ConfigError
from dreamer.modules.kernels import without_onednn
from dreamer.modules.layers import INITIALIZE, ChannelNorm, mlp, normed_activation

STAGES = 4  # of convolutions; each halves the image, or nearly so
FEW = 4  # images, as in acting


class PixelEncoder(nn.Module):
    """Four convolutions (Dreamer, Appendix A: kernel 4, stride 2, channels depth · (1, 2, 4, 8)).

    E follows from the image size: 1024 at 64x64. Raises ConfigError if the image is too small for the convolutions.
    """

    def __init__(self, observation_shape, depth, kernel_size, stride, activation, norm, initialization):
        super().__init__()
        channels, *size = observation_shape
        layers = []
        for factor in (1, 2, 4, 8):
            layers += [nn.Conv2d(channels, depth * factor, kernel_size, stride)]
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

    def forward(self, observation):
        few = observation.shape[:-3].numel() < FEW
        with without_onednn(few and observation.device.type == "cpu"):
            return embed(self.network, observation)


class PooledEncoder(nn.Module):
    """DreamerV3's: four convolutions that keep the size, each followed by a maximum over 2x2 pixels, a norm and an
    activation; channels depth · (2, 3, 4, 4). strided: convolutions of stride 2 in place of the maximum, at a quarter
    of the cost. Raises ConfigError for sides that are not multiples of 16.
    """

    def __init__(self, observation_shape, depth, kernel_size, activation, norm, initialization, strided):
        super().__init__()
        channels, *size = observation_shape
        check_sides(size)
        layers = []
        for factor in (2, 3, 4, 4):
            layers += halving(channels, depth * factor, kernel_size, strided)
            layers += normed_activation(depth * factor, activation, norm, ChannelNorm)
            channels = depth * factor
        self.network = nn.Sequential(*layers, nn.Flatten()).apply(INITIALIZE[initialization])
        self.embedding_size = channels * size[0] * size[1] // 4**STAGES

    def forward(self, observation):
        return embed(self.network, observation)


def embed(network, observation):
    """What a network of images (N, ...) gives for observations with any axes before those of an image, in float32."""
    embedding = network(observation.flatten(0, -4)).float()
    return embedding.unflatten(0, observation.shape[:-3])


def halving(channels_in, channels_out, kernel_size, strided):
    """Layers to half of the image's size."""
    if strided:  # what an even size lacks to a multiple of the stride is added on the far side first
        padding = ((kernel_size - 2) // 2, (kernel_size - 1) // 2) * 2
        return [nn.ZeroPad2d(padding), nn.Conv2d(channels_in, channels_out, kernel_size, 2)]
    return [nn.Conv2d(channels_in, channels_out, kernel_size, padding="same"), nn.MaxPool2d(2)]


def check_sides(sides):
    """Raise ConfigError unless they can be halved four times."""
    if any(side % 2**STAGES for side in sides):
        height, width = sides
        raise ConfigError(f"environment.height and width: {height}x{width}, but DreamerV3 takes multiples of 16")


class VectorEncoder(nn.Module):
    """`num_layers` layers of `hidden_size`: (..., size) → (..., E) with E = hidden_size. Not in the first paper."""

    def __init__(self, observation_size, hidden_size, num_layers, activation, norm, initialization):
        super().__init__()
        style = {"activation": activation, "norm": norm, "initialization": initialization}
        network = mlp(observation_size, hidden_size, hidden_size, num_layers - 1, **style)
        self.network = nn.Sequential(network, *normed_activation(hidden_size, activation, norm))
        self.embedding_size = hidden_size

    def forward(self, observation):
        return self.network(observation)


class JointEncoder(nn.Module):
    """The embeddings of a vector and of an image, side by side."""

    def __init__(self, encoders):
        """encoders: by the observation's names."""
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.embedding_size = sum(encoder.embedding_size for encoder in encoders.values())

    def forward(self, observation):
        return torch.cat([encoder(observation[name]) for name, encoder in self.encoders.items()], -1)


def make_encoder(space, architecture, depth, kernel_size, stride, hidden_size, num_layers, **style):
    """The encoder for observations of this space: a Box of pixels or of a vector, or a Dict of both.

    architecture: of pixels: "valid" (Dreamer, DreamerV2), "max_pool" or "strided" (DreamerV3).
    """
    if parts := getattr(space, "spaces", None):
        arguments = architecture, depth, kernel_size, stride, hidden_size, num_layers
        return JointEncoder({name: make_encoder(parts[name], *arguments, **style) for name in ("vector", "image")})
    if len(space.shape) == 1:
        return VectorEncoder(space.shape[0], hidden_size, num_layers, **style)
    if architecture == "valid":
        return PixelEncoder(space.shape, depth, kernel_size, stride, **style)
    return PooledEncoder(space.shape, depth, kernel_size, **style, strided=architecture == "strided")

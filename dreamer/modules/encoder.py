"""Observation to embedding."""

from torch import nn

from dreamer.config import ConfigError
from dreamer.modules.layers import initialize, mlp


class PixelEncoder(nn.Module):
    """Four convolutions (Appendix A: kernel 4, stride 2, channels depth · (1, 2, 4, 8)).

    (..., 3, height, width) in [-0.5, 0.5] → (..., E), where E follows from the image size:
    1024 at 64x64. Raises ConfigError if the image is too small for the convolutions.
    """

    def __init__(self, observation_shape, depth, kernel_size, stride, activation):
        super().__init__()
        channels, *size = observation_shape
        layers = []
        for factor in (1, 2, 4, 8):
            layers += [nn.Conv2d(channels, depth * factor, kernel_size, stride), getattr(nn, activation)()]
            channels = depth * factor
            size = [(side - kernel_size) // stride + 1 for side in size]
            if min(size) < 1:
                raise ConfigError(
                    f"environment.height and width: {observation_shape[1]}x{observation_shape[2]} pixels are too few "
                    f"for four convolutions of kernel {kernel_size} and stride {stride}; take 64x64"
                )
        self.network = nn.Sequential(*layers, nn.Flatten()).apply(initialize)
        self.embedding_size = channels * size[0] * size[1]

    def forward(self, observation):
        embedding = self.network(observation.flatten(0, -4)).float()
        return embedding.unflatten(0, observation.shape[:-3])


class VectorEncoder(nn.Module):
    """`num_layers` layers of `hidden_size`: (..., size) → (..., E) with E = hidden_size. Not in the paper."""

    def __init__(self, observation_size, hidden_size, num_layers, activation):
        super().__init__()
        network = mlp(observation_size, hidden_size, hidden_size, num_layers - 1, activation)
        self.network = nn.Sequential(network, getattr(nn, activation)()).apply(initialize)
        self.embedding_size = hidden_size

    def forward(self, observation):
        return self.network(observation)


def make_encoder(observation_shape, depth, kernel_size, stride, hidden_size, num_layers, activation):
    """The encoder for observations of this shape: (channels, height, width) or (size,)."""
    if len(observation_shape) == 3:
        return PixelEncoder(observation_shape, depth, kernel_size, stride, activation)
    return VectorEncoder(observation_shape[0], hidden_size, num_layers, activation)

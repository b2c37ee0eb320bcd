"""Feature to observation: p(o_t | s_t)."""

from torch import nn

from dreamer.config import ConfigError
from dreamer.modules.distributions import UnitNormal
from dreamer.modules.layers import initialize, mlp


class PixelDecoder(nn.Module):
    """A linear layer and four transposed convolutions (Appendix A: kernels k, k, k + 1, k + 1 with
    k = 5, stride 2, channels depth · (4, 2, 1), 3).

    (..., F) → UnitNormal over (..., 3, height, width), its log-likelihood summed over the pixels.
    Raises ConfigError for an image size that the kernels cannot make.
    """

    def __init__(self, feature_size, observation_shape, depth, kernel_size, stride, activation):
        super().__init__()
        channels, height, width = observation_shape
        kernels = [kernel_size, kernel_size, kernel_size + 1, kernel_size + 1]
        grid = [_first_side(side, kernels, stride) for side in (height, width)]
        outputs = [4 * depth, 2 * depth, depth, channels]
        layers = [
            nn.Linear(feature_size, 32 * depth * grid[0] * grid[1]),
            nn.Unflatten(-1, (32 * depth, *grid)),
        ]
        inputs = [32 * depth, *outputs]
        for size, next_size, kernel in zip(inputs, outputs, kernels, strict=False):
            layers += [nn.ConvTranspose2d(size, next_size, kernel, stride), getattr(nn, activation)()]
        self.network = nn.Sequential(*layers[:-1]).apply(initialize)  # the image itself has no activation

    def forward(self, feature):
        image = self.network(feature.flatten(0, -2))
        return UnitNormal(image.unflatten(0, feature.shape[:-1]), event_dims=3)


def _first_side(side, kernels, stride):
    """The side of the grid that the transposed convolutions grow into an image of this side."""
    size = side
    for kernel in reversed(kernels):
        size, remainder = divmod(size - kernel, stride)
        if remainder or size < 0:
            smallest = 1
            for kernel in kernels:
                smallest = (smallest - 1) * stride + kernel
            raise ConfigError(
                f"environment.height and width: transposed convolutions with kernels {kernels} and stride {stride} "
                f"make sides of {smallest}, {smallest + stride**4}, {smallest + 2 * stride**4}, … pixels, not {side}"
            )
        size += 1
    return size


class VectorDecoder(nn.Module):
    """(..., F) → UnitNormal over (..., size), summed over the components. Not in the paper."""

    def __init__(self, feature_size, observation_size, hidden_size, num_layers, activation):
        super().__init__()
        self.network = mlp(feature_size, observation_size, hidden_size, num_layers, activation).apply(initialize)

    def forward(self, feature):
        return UnitNormal(self.network(feature), event_dims=1)


def make_decoder(feature_size, observation_shape, depth, kernel_size, stride, hidden_size, num_layers, activation):
    """The decoder for observations of this shape: (channels, height, width) or (size,)."""
    if len(observation_shape) == 3:
        return PixelDecoder(feature_size, observation_shape, depth, kernel_size, stride, activation)
    return VectorDecoder(feature_size, observation_shape[0], hidden_size, num_layers, activation)

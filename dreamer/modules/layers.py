"""Building blocks that every network here is made of."""

import torch
from torch import nn


def mlp(input_size, output_size, hidden_size, num_layers, activation, linear=nn.Linear):
    """`num_layers` hidden layers of `hidden_size` with `activation` (a class name of torch.nn), then a linear one."""
    sizes = [input_size] + [hidden_size] * num_layers
    layers = []
    for size, next_size in zip(sizes, sizes[1:], strict=False):
        layers += [linear(size, next_size), getattr(nn, activation)()]
    return Float32Sequential(*layers, linear(sizes[-1], output_size))


class Float32Sequential(nn.Sequential):
    """Gives float32, whatever the precision of the products within."""

    def forward(self, inputs):
        return super().forward(inputs).float()


class EnsembleLinear(nn.Module):
    """K linear layers in one batched product: (K, N, input) → (K, N, output), each member its own weights."""

    def __init__(self, ensemble_size, input_size, output_size):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(ensemble_size, input_size, output_size))
        self.bias = nn.Parameter(torch.empty(ensemble_size, 1, output_size))

    def forward(self, inputs):
        return torch.baddbmm(self.bias, inputs, self.weight)


def initialize(module):
    """Initialise as the released code does (Keras' defaults): Glorot-uniform weights, zero biases,
    orthogonal recurrent weights. Use as `network.apply(initialize)`."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, EnsembleLinear):
        for weight in module.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.GRUCell):
        nn.init.xavier_uniform_(module.weight_ih)
        nn.init.orthogonal_(module.weight_hh)
        nn.init.zeros_(module.bias_ih)
        nn.init.zeros_(module.bias_hh)

"""Building blocks that every network here is made of."""

from torch import nn


def mlp(input_size, output_size, hidden_size, num_layers, activation):
    """`num_layers` hidden layers of `hidden_size` with `activation` (a class name of torch.nn), then a linear one."""
    sizes = [input_size] + [hidden_size] * num_layers
    layers = []
    for size, next_size in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(size, next_size), getattr(nn, activation)()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], output_size))


def initialize(module):
    """Initialise as the released code does (Keras' defaults): Glorot-uniform weights, zero biases,
    orthogonal recurrent weights. Use as `network.apply(initialize)`."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.GRUCell):
        nn.init.xavier_uniform_(module.weight_ih)
        nn.init.orthogonal_(module.weight_hh)
        nn.init.zeros_(module.bias_ih)
        nn.init.zeros_(module.bias_hh)

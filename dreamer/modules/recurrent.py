"""The deterministic path h_t = f(h_{t-1}, z_{t-1}, a_t) of each version.

They compute in float32, whatever the precision: what is rounded would add up over the steps.
Shapes: B batch, A action size, D deterministic, S stochastic.
"""

import torch
from torch import nn

from dreamer.modules.layers import INITIALIZE, BlockLinear, LayerNorm, bounded, normed_activation


class RecurrentModel(nn.Module):
    """A linear layer, an activation, and a GRU: torch's (Dreamer) or a LayerNormGRUCell (DreamerV2)."""

    memory_sizes = ()  # of what it carries from step to step beside h

    def __init__(
        self,
        stochastic_size,
        deterministic_size,
        action_size,
        hidden_size,
        activation,
        cell=nn.GRUCell,
        norm="none",
        initialization="glorot",
    ):
        super().__init__()
        self.linear = nn.Linear(stochastic_size + action_size, hidden_size)
        self.activation = nn.Sequential(*normed_activation(hidden_size, activation, norm))
        self.gru = cell(hidden_size, deterministic_size)
        self.apply(INITIALIZE[initialization])

    def forward(self, deterministic, stochastic, action, memory=()):
        """(B, D), (B, S), (B, A) → (B, D), and no memory."""
        hidden = self.activation(self.linear(torch.cat([stochastic, action], -1)))
        with torch.autocast(hidden.device.type, enabled=False):
            return self.gru(hidden.float(), deterministic), memory


class LayerNormGRUCell(nn.Module):
    """DreamerV2's: one layer norm over all three gates; the reset gate scales the candidate before its tanh, not h;
    the update gate starts at σ(-1), so that little is forgotten."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.linear = nn.Linear(input_size + hidden_size, 3 * hidden_size)
        self.norm = LayerNorm(3 * hidden_size)

    def forward(self, inputs, hidden):
        gates = self.norm(self.linear(torch.cat([inputs, hidden], -1)))
        return gated(hidden, *gates.chunk(3, -1))


def gated(hidden, reset, candidate, update):
    """A GRU's new state from its old one and what goes into its gates."""
    update = torch.sigmoid(update - 1)
    return torch.lerp(hidden, torch.tanh(torch.sigmoid(reset) * candidate), update)


class BlockRecurrentModel(nn.Module):
    """DreamerV3's: h in blocks, of which each has its own weights, and which meet in the input alone.

    Three hidden layers of `hidden_size` from h, z and a; a hidden layer of D from a block of h and all of these, for
    each block; from it the block's gates. An action beyond [-1, 1] counts as -1 or 1.
    """

    memory_sizes = ()  # of what it carries from step to step beside h

    def __init__(
        self,
        stochastic_size,
        deterministic_size,
        action_size,
        hidden_size,
        activation,
        blocks,
        norm="rms",
        initialization="truncated_normal",
    ):
        super().__init__()
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.Linear(size, hidden_size), *normed_activation(hidden_size, activation, norm))
            for size in (deterministic_size, stochastic_size, action_size)
        )
        self.hidden = BlockLinear(deterministic_size, deterministic_size, blocks, shared_size=3 * hidden_size)
        self.activation = nn.Sequential(*normed_activation(deterministic_size, activation, norm))
        self.gates = BlockLinear(deterministic_size, 3 * deterministic_size, blocks)
        self.blocks = blocks
        self.apply(INITIALIZE[initialization])

    def forward(self, deterministic, stochastic, action, memory=()):
        """(B, D), (B, S), (B, A) → (B, D), and no memory."""
        with torch.autocast(deterministic.device.type, enabled=False):
            inputs = zip(self.inputs, (deterministic, stochastic, bounded(action)), strict=True)
            shared = torch.cat([layer(part) for layer, part in inputs], -1)
            hidden = self.activation(self.hidden(deterministic, shared))
            gates = self.gates(hidden).unflatten(-1, (self.blocks, 3, -1)).unbind(2)
            return gated(deterministic.unflatten(-1, (self.blocks, -1)), *gates).flatten(1), memory

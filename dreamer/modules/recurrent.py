"""The deterministic path h_t = f(h_{t-1}, z_{t-1}, a_t) of each version.

Computed in float32, whatever the configured precision: rounding errors would add up over the steps.
Shapes: B batch, A action size, D deterministic, S stochastic, M memory.
"""

import torch
from torch import nn

from dreamer.modules.layers import INITIALIZE, BlockLinear, LayerNorm, bound_action, normed_activation, without_autocast

Memory = tuple[torch.Tensor, ...]  # (B, M) each


class Recurrence(nn.Module):
    """Computes h_t. A subclass may carry memory from step to step beside h, which only the recurrence itself reads."""

    memory_sizes: tuple[int, ...] = ()  # the size M of each tensor of the memory

    def forward(
        self,
        deterministic: torch.Tensor,
        stochastic: torch.Tensor,
        action: torch.Tensor,
        memory: Memory = (),
    ) -> tuple[torch.Tensor, Memory]:
        """Return h_t (B, D) and the new memory from h_{t-1} (B, D), z_{t-1} (B, S), a_t (B, A) and the memory, each
        (B, M). Where an episode begins they are zeros."""
        raise NotImplementedError


class RecurrentModel(Recurrence):
    """A linear layer, an activation, and a GRU: torch's (Dreamer) or a `LayerNormGRUCell` (DreamerV2)."""

    def __init__(
        self,
        stochastic_size: int,
        deterministic_size: int,
        action_size: int,
        hidden_size: int,
        activation: str,
        cell: type[nn.Module] = nn.GRUCell,
        norm: str = "none",
        initialization: str = "glorot",
    ):
        super().__init__()
        self.linear = nn.Linear(stochastic_size + action_size, hidden_size)
        self.activation = nn.Sequential(*normed_activation(hidden_size, activation, norm))
        self.gru = cell(hidden_size, deterministic_size)
        self.apply(INITIALIZE[initialization])

    def forward(
        self,
        deterministic: torch.Tensor,
        stochastic: torch.Tensor,
        action: torch.Tensor,
        memory: Memory = (),
    ) -> tuple[torch.Tensor, Memory]:
        hidden = self.activation(self.linear(torch.cat([stochastic, action], -1)))
        with without_autocast(hidden.device.type):
            return self.gru(hidden.float(), deterministic), memory


class LayerNormGRUCell(nn.Module):
    """DreamerV2's GRU: one layer norm over the inputs of all three gates; the reset gate scales the candidate before
    its tanh, not h; the update gate starts at σ(-1), so that little is forgotten."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.linear = nn.Linear(input_size + hidden_size, 3 * hidden_size)
        self.norm = LayerNorm(3 * hidden_size)

    def forward(self, inputs: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        reset, candidate, update = self.norm(self.linear(torch.cat([inputs, hidden], -1))).chunk(3, -1)
        return gru_update(hidden, reset, candidate, update)


def gru_update(
    hidden: torch.Tensor, reset: torch.Tensor, candidate: torch.Tensor, update: torch.Tensor
) -> torch.Tensor:
    """Return a GRU's new state from its old one and the inputs of its gates, all of one shape."""
    update = torch.sigmoid(update - 1)
    return torch.lerp(hidden, torch.tanh(torch.sigmoid(reset) * candidate), update)


class BlockRecurrentModel(Recurrence):
    """DreamerV3's: h in blocks, each with its own weights. They meet only in the layers that read all of h.

    Three layers of `hidden_size` read h, z and a. For each block, a hidden layer reads the block's part of h and these
    three; the block's gates follow from it. An action beyond [-1, 1] counts as -1 or 1.
    """

    def __init__(
        self,
        stochastic_size: int,
        deterministic_size: int,
        action_size: int,
        hidden_size: int,
        activation: str,
        blocks: int,
        norm: str = "rms",
        initialization: str = "truncated_normal",
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

    def forward(
        self,
        deterministic: torch.Tensor,
        stochastic: torch.Tensor,
        action: torch.Tensor,
        memory: Memory = (),
    ) -> tuple[torch.Tensor, Memory]:
        with without_autocast(deterministic.device.type):
            from_deterministic, from_stochastic, from_action = self.inputs
            shared = [
                from_deterministic(deterministic),
                from_stochastic(stochastic),
                from_action(bound_action(action)),
            ]
            hidden = self.activation(self.hidden(deterministic, torch.cat(shared, -1)))
            reset, candidate, update = self.gates(hidden).view(len(hidden), self.blocks, 3, -1).unbind(2)
            by_block = deterministic.view(len(hidden), self.blocks, -1)
            return gru_update(by_block, reset, candidate, update).flatten(1), memory

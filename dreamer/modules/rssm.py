"""The world model: the latent dynamics (RSSM), the reward model and the continue model.

Shapes: B batch, T time (dim 1), A action size, D deterministic, S stochastic, E embedding, F = D + S.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.distributions import Bernoulli
from torch.nn import functional

from dreamer.modules.distributions import UnitNormal, diagonal_normal
from dreamer.modules.layers import initialize, mlp


class State(NamedTuple):
    """The latent state s_t.

    The algorithms see only `feature`, `distribution`, `detach()`, `flatten()` and `last()`.
    """

    deterministic: torch.Tensor  # (..., D)
    stochastic: torch.Tensor  # (..., S), a sample of the distribution
    mean: torch.Tensor  # (..., S)
    std: torch.Tensor  # (..., S)

    @property
    def feature(self):
        """(..., F): what every head reads."""
        return torch.cat([self.deterministic, self.stochastic], -1)

    @property
    def distribution(self):
        return diagonal_normal(self.mean, self.std)

    def detach(self):
        return State(*(part.detach() for part in self))

    def flatten(self):
        """(B, T, ·) → (B·T, ·)."""
        return State(*(part.flatten(0, 1) for part in self))

    def last(self):
        """(B, T, ·) → (B, ·) at the last step."""
        return State(*(part[:, -1] for part in self))

    def reset(self, is_first):
        """The state, with the initial one (zeros) in its place wherever is_first (B,) is 1."""
        return State(*(part * (1 - is_first)[:, None] for part in self))


def stack(states):
    """A list of states (B, ·), one for each step → one State (B, T, ·)."""
    return State(*(torch.stack(parts, 1) for parts in zip(*states, strict=True)))


class RecurrentModel(nn.Module):
    """h_t = f(h_{t-1}, z_{t-1}, a_t): a linear layer, an activation, a GRU."""

    def __init__(self, stochastic_size, deterministic_size, action_size, hidden_size, activation):
        super().__init__()
        self.linear = nn.Linear(stochastic_size + action_size, hidden_size)
        self.activation = getattr(nn, activation)()
        self.gru = nn.GRUCell(hidden_size, deterministic_size)
        self.apply(initialize)

    def forward(self, state, action):
        return self.step(self.linear(torch.cat([state.stochastic, action], -1)), state.deterministic)

    def step(self, hidden, deterministic):
        """From what the linear layer gives and h_{t-1} to h_t."""
        return self.gru(self.activation(hidden), deterministic)


class GaussianModel(nn.Module):
    """What the prior and the posterior share: an MLP to mean and std = softplus(·) + min_std of z_t."""

    def __init__(self, input_size, stochastic_size, hidden_size, num_layers, activation, min_std):
        super().__init__()
        self.network = mlp(input_size, 2 * stochastic_size, hidden_size, num_layers, activation).apply(initialize)
        self.min_std = min_std

    def state(self, deterministic, inputs):
        output = self.network(inputs)
        noise = torch.randn_like(output[..., : output.shape[-1] // 2])
        return self.sample(deterministic, output, noise)

    def sample(self, deterministic, output, noise):
        """The state from what the network gives and standard normal noise (..., S)."""
        mean, std = output.chunk(2, -1)
        std = functional.softplus(std) + self.min_std
        return State(deterministic, mean + std * noise, mean, std)


class TransitionModel(GaussianModel):
    """The prior p(z_t | h_t)."""

    def __init__(self, deterministic_size, stochastic_size, **network):
        super().__init__(deterministic_size, stochastic_size, **network)

    def forward(self, deterministic):
        return self.state(deterministic, deterministic)


class RepresentationModel(GaussianModel):
    """The posterior q(z_t | h_t, o_t), which reads the observation through its embedding."""

    def __init__(self, deterministic_size, stochastic_size, embedding_size, **network):
        super().__init__(deterministic_size + embedding_size, stochastic_size, **network)

    def forward(self, deterministic, embedding):
        return self.state(deterministic, torch.cat([deterministic, embedding], -1))


class RSSM(nn.Module):
    """s_t = (h_t, z_t): training and acting go through the same `observe_step`, the first frame included."""

    def __init__(
        self,
        action_size,
        embedding_size,
        deterministic_size,
        stochastic_size,
        recurrent_model,
        transition_model,
        representation_model,
    ):
        super().__init__()
        sizes = deterministic_size, stochastic_size
        self.recurrent_model = RecurrentModel(stochastic_size, deterministic_size, action_size, **recurrent_model)
        self.transition_model = TransitionModel(*sizes, **transition_model)
        self.representation_model = RepresentationModel(*sizes, embedding_size, **representation_model)
        self.sizes = sizes
        self.feature_size = sum(sizes)

    def initial_state(self, batch_size):
        """Zeros, (B, ·), on the parameters' device."""
        deterministic, stochastic = (
            self.recurrent_model.linear.weight.new_zeros(batch_size, size) for size in self.sizes
        )
        return State(deterministic, stochastic, stochastic, stochastic)

    def observe_step(self, state, action, embedding, is_first):
        """The posterior s_t from s_{t-1}, the action a_t that led to o_t, (B, A), and o_t's embedding, (B, E).

        Where is_first (B,) is 1 an episode begins: state and action count as zeros.
        """
        action = action * (1 - is_first)[:, None]
        deterministic = self.recurrent_model(state.reset(is_first), action)
        return self.representation_model(deterministic, embedding)

    def imagine_step(self, state, action):
        """The prior s_t from s_{t-1} and a_t, without having seen o_t."""
        return self.transition_model(self.recurrent_model(state, action))

    def observe(self, embedding, action, is_first):
        """Filter windows from the initial state: (B, T, E), (B, T, A), (B, T) → prior, posterior of (B, T, ·)."""
        state, posteriors = self.initial_state(len(action)), []
        for t in range(action.shape[1]):
            state = self.observe_step(state, action[:, t], embedding[:, t], is_first[:, t])
            posteriors.append(state)
        posterior = stack(posteriors)
        return self.transition_model(posterior.deterministic), posterior

    def imagine(self, state, action):
        """Open loop: the priors (B, T, ·) that follow `state` under the actions (B, T, A)."""
        priors = []
        for t in range(action.shape[1]):
            state = self.imagine_step(state, action[:, t])
            priors.append(state)
        return stack(priors)


class RewardModel(nn.Module):
    """p(r_t | s_t): (..., F) → UnitNormal (...). The reward is the one received on arriving at s_t."""

    def __init__(self, feature_size, **network):
        super().__init__()
        self.network = mlp(feature_size, 1, **network).apply(initialize)

    def forward(self, feature):
        return UnitNormal(self.network(feature).squeeze(-1), event_dims=0)


class ContinueModel(nn.Module):
    """p(the task goes on after s_t): (..., F) → Bernoulli (...)."""

    def __init__(self, feature_size, **network):
        super().__init__()
        self.network = mlp(feature_size, 1, **network).apply(initialize)

    def forward(self, feature):
        return Bernoulli(logits=self.network(feature).squeeze(-1))


class WorldModel(nn.Module):
    """All that the model loss trains. `continue_model` may be None: then no imagined task ends."""

    def __init__(self, encoder, rssm, decoder, reward_model, continue_model):
        super().__init__()
        self.encoder = encoder
        self.rssm = rssm
        self.decoder = decoder
        self.reward_model = reward_model
        self.continue_model = continue_model

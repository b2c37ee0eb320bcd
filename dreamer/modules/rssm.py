"""The latent dynamics: the recurrent state-space model (RSSM) of Section 4.

Shapes: B batch, T time (dim 1), A action size, D deterministic, S stochastic, E embedding, F = D + S.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.profiler import record_function


class State(NamedTuple):
    """The latent state s_t = (h_t, z_t), and what else the recurrence carries from step to step."""

    deterministic: torch.Tensor  # (..., D), h_t
    stochastic: torch.Tensor  # (..., S), z_t: a sample of the distribution
    parameters: NamedTuple  # of z_t's distribution, such as `latents.Gaussian`; None if it is not known
    memory: tuple = ()  # tensors (..., M) that the recurrence carries beside h_t; a GRU has none

    @property
    def feature(self):
        """(..., F): what heads and actors read."""
        return torch.cat([self.deterministic, self.stochastic], -1)

    @property
    def stored(self):
        """(..., F + M): what the replay stores, and a window starts from; `RSSM.restored` is its inverse."""
        return torch.cat([self.deterministic, self.stochastic, *self.memory], -1)

    @property
    def distribution(self):
        """The distribution of z_t."""
        return self.parameters.distribution

    def detach(self):
        return self.map(torch.Tensor.detach)

    def flatten(self):
        """(B, T, ·) → (B·T, ·)."""
        return self.map(partial(torch.flatten, end_dim=1))

    def last(self):
        """(B, T, ·) → (B, ·) at the last step."""
        return self.map(lambda part: part[:, -1])

    def map(self, function):
        """Return the state with a function applied to each of its tensors."""
        parameters = type(self.parameters)(*map(function, self.parameters))
        memory = tuple(map(function, self.memory))
        return State(function(self.deterministic), function(self.stochastic), parameters, memory)


def stack(states):
    """Join a list of states (B, ·), one for each step, to one State (B, T, ·)."""
    deterministic, stochastic, parameters, memory = (list(parts) for parts in zip(*states, strict=True))
    parameters = type(parameters[0])(*(torch.stack(parts, 1) for parts in zip(*parameters, strict=True)))
    memory = tuple(torch.stack(parts, 1) for parts in zip(*memory, strict=True))
    return State(torch.stack(deterministic, 1), torch.stack(stochastic, 1), parameters, memory)


class RSSM(nn.Module):
    """Training and acting go through the same `observe_step`, the first frame included.

    recurrent_model: h_{t-1}, z_{t-1}, a_t and its memory → h_t and its new memory. transition_model: h_t → the prior
    p(z_t | h_t). representation_model: [h_t, embedding] → the posterior q(z_t | h_t, o_t). sizes: D and S.
    """

    def __init__(self, recurrent_model, transition_model, representation_model, sizes):
        super().__init__()
        self.recurrent_model = recurrent_model
        self.transition_model = transition_model
        self.representation_model = representation_model
        self.sizes = (*sizes, *recurrent_model.memory_sizes)
        self.stored_size = sum(self.sizes)  # F + M

    def initial_state(self, batch_size):
        """Return the states before the first frame, (B, ·), on the parameters' device: zeros."""
        return self.restored(next(self.parameters()).new_zeros(batch_size, self.stored_size))

    def restored(self, stored):
        """Return the state that was stored, (..., F + M), to go on from; its distribution is not known."""
        deterministic, stochastic, *memory = stored.split(self.sizes, -1)
        return State(deterministic, stochastic, None, tuple(memory))

    def observe_step(self, state, action, embedding, is_first):
        """Return the posterior s_t from s_{t-1}, the action a_t that led to o_t, (B, A), and o_t's embedding, (B, E).

        Where is_first (B,) is 1 an episode begins: state and action count as zeros.
        """
        keep = (1 - is_first)[:, None]
        memory = tuple(part * keep for part in state.memory)
        deterministic, memory = self.recurrent_model(
            state.deterministic * keep, state.stochastic * keep, action * keep, memory
        )
        posterior = self.representation_model(torch.cat([deterministic, embedding], -1))
        return State(deterministic, posterior.sample(), posterior, memory)

    def imagine_step(self, state, action):
        """Return the prior s_t from s_{t-1} and a_t, without having seen o_t."""
        deterministic, memory = self.recurrent_model(state.deterministic, state.stochastic, action, state.memory)
        return self.prior(deterministic, memory)

    def prior(self, deterministic, memory=()):
        """Sample the prior state s_t given h_t (..., D)."""
        prior = self.transition_model(deterministic)
        return State(deterministic, prior.sample(), prior, memory)

    @record_function("observed states")
    def observe(self, embedding, action, is_first, stored=None):
        """Filter windows: (B, T, E), (B, T, A), (B, T) → prior, posterior of (B, T, ·).

        stored: the stored states (B, F + M) before the windows (DreamerV3); None, or size 0: windows begin as episodes
        do. In float32, whatever the precision: its products are small.
        """
        is_stored = stored is not None and stored.shape[-1] > 0
        state = self.restored(stored) if is_stored else self.initial_state(len(action))
        posteriors = []
        with torch.autocast(action.device.type, enabled=False):
            for steps in zip(action.unbind(1), embedding.unbind(1), is_first.unbind(1), strict=True):
                state = self.observe_step(state, *steps)
                posteriors.append(state)
        posterior = stack(posteriors)
        return self.prior(posterior.deterministic, posterior.memory), posterior

    def imagine(self, state, action):
        """Return the priors (B, T, ·) that follow `state` under the actions (B, T, A): open loop."""
        priors = []
        for action_t in action.unbind(1):
            state = self.imagine_step(state, action_t)
            priors.append(state)
        return stack(priors)

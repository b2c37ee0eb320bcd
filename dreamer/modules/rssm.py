"""The latent dynamics: the recurrent state-space model (RSSM) of Section 4.

Shapes: B batch, T time (dim 1), A action size, D deterministic, S stochastic, E embedding, F = D + S.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import nn


class State(NamedTuple):
    """The latent state s_t = (h_t, z_t)."""

    deterministic: torch.Tensor  # (..., D), h_t
    stochastic: torch.Tensor  # (..., S), z_t: a sample of the distribution
    parameters: NamedTuple  # of the distribution, such as `latents.Gaussian`

    @property
    def feature(self):
        """(..., F): what every head reads."""
        return torch.cat([self.deterministic, self.stochastic], -1)

    @property
    def distribution(self):
        """Of z_t."""
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
        """The state with a function applied to each of its tensors."""
        parameters = type(self.parameters)(*map(function, self.parameters))
        return State(function(self.deterministic), function(self.stochastic), parameters)


def stack(states):
    """A list of states (B, ·), one for each step → one State (B, T, ·)."""
    deterministic, stochastic, parameters = (list(parts) for parts in zip(*states, strict=True))
    parameters = type(parameters[0])(*(torch.stack(parts, 1) for parts in zip(*parameters, strict=True)))
    return State(torch.stack(deterministic, 1), torch.stack(stochastic, 1), parameters)


class RSSM(nn.Module):
    """Training and acting go through the same `observe_step`, the first frame included.

    recurrent_model: h_{t-1}, z_{t-1}, a_t → h_t. transition_model: h_t → the prior p(z_t | h_t).
    representation_model: [h_t, embedding] → the posterior q(z_t | h_t, o_t). sizes: D and S.
    """

    def __init__(self, recurrent_model, transition_model, representation_model, sizes):
        super().__init__()
        self.recurrent_model = recurrent_model
        self.transition_model = transition_model
        self.representation_model = representation_model
        self.sizes = sizes

    def initial_state(self, batch_size):
        """Of B episodes that have not begun, (B, ·), on the parameters' device: zeros."""
        return self.state_of(next(self.parameters()).new_zeros(batch_size, sum(self.sizes)))

    def state_of(self, feature):
        """The state with this feature (..., F), to go on from; its distribution is not known."""
        return State(*feature.split(self.sizes, -1), parameters=None)

    def observe_step(self, state, action, embedding, is_first):
        """The posterior s_t from s_{t-1}, the action a_t that led to o_t, (B, A), and o_t's embedding, (B, E).

        Where is_first (B,) is 1 an episode begins: state and action count as zeros.
        """
        keep = (1 - is_first)[:, None]
        deterministic = self.recurrent_model(state.deterministic * keep, state.stochastic * keep, action * keep)
        posterior = self.representation_model(torch.cat([deterministic, embedding], -1))
        return State(deterministic, posterior.sample(), posterior)

    def imagine_step(self, state, action):
        """The prior s_t from s_{t-1} and a_t, without having seen o_t."""
        return self.prior(self.recurrent_model(state.deterministic, state.stochastic, action))

    def prior(self, deterministic):
        """The state s_t that h_t (..., D) lets expect."""
        prior = self.transition_model(deterministic)
        return State(deterministic, prior.sample(), prior)

    def observe(self, embedding, action, is_first, context=None):
        """Filter windows: (B, T, E), (B, T, A), (B, T) → prior, posterior of (B, T, ·).

        context: the features (B, F) of the states before the windows (DreamerV3); else they begin as episodes do.
        In float32, whatever the precision: its products are small.
        """
        has_context = context is not None and context.shape[-1] > 0
        state = self.state_of(context) if has_context else self.initial_state(len(action))
        posteriors = []
        with torch.autocast(action.device.type, enabled=False):
            for steps in zip(action.unbind(1), embedding.unbind(1), is_first.unbind(1), strict=True):
                state = self.observe_step(state, *steps)
                posteriors.append(state)
        posterior = stack(posteriors)
        return self.prior(posterior.deterministic), posterior

    def imagine(self, state, action):
        """Open loop: the priors (B, T, ·) that follow `state` under the actions (B, T, A)."""
        priors = []
        for action_t in action.unbind(1):
            state = self.imagine_step(state, action_t)
            priors.append(state)
        return stack(priors)

"""The latent dynamics: the recurrent state-space model (RSSM; Dreamer, Section 4; DreamerV2 and V3, Equation 1).

The action that leads to s_t is a_t here; the papers write a_{t-1}.
Shapes: B batch, T time (dim 1), A action size, D deterministic, S stochastic, E embedding, F = D + S, M memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributions import Distribution
from torch.profiler import record_function

from dreamer.modules.latents import LatentParameters
from dreamer.modules.recurrent import Memory, Recurrence
from dreamer.modules.scan import Scan


class State(NamedTuple):
    """The latent state s_t = (h_t, z_t), and what else the recurrence carries from step to step."""

    deterministic: torch.Tensor  # (..., D), h_t
    stochastic: torch.Tensor  # (..., S), z_t: a sample of the distribution
    parameters: LatentParameters | None  # of z_t's distribution; None in a state that was restored
    memory: Memory = ()  # (..., M) each, what the recurrence carries beside h_t; a GRU has none

    @property
    def feature(self) -> torch.Tensor:
        """[h_t, z_t], (..., F): what heads and actors read."""
        return torch.cat([self.deterministic, self.stochastic], -1)

    @property
    def stored(self) -> torch.Tensor:
        """[h_t, z_t, memory], (..., F + M), the form in the replay. `RSSM.restored` returns the state."""
        return torch.cat([self.deterministic, self.stochastic, *self.memory], -1)

    @property
    def distribution(self) -> Distribution:
        """The distribution of z_t, (...)."""
        assert self.parameters is not None, "a restored state has no distribution"
        return self.parameters.distribution

    def detach(self) -> State:
        """Return the state without gradient."""
        return self.map(torch.Tensor.detach)

    def flatten(self) -> State:
        """Return the state with batch and time joined, (B, T, ·) → (B·T, ·)."""
        return self.map(partial(torch.flatten, end_dim=1))

    def last(self) -> State:
        """Return the state at the last step, (B, T, ·) → (B, ·)."""
        return self.map(lambda tensor: tensor[:, -1])

    def last_steps(self, length: int) -> State:
        """Return the states at the last `length` steps, at most all, (B, T, ·) → (B, length, ·)."""
        return self.map(lambda tensor: tensor[:, -length:])

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> State:
        """Return the state with a function applied to each of its tensors."""
        parameters: Any = None
        if self.parameters is not None:
            parameters_type: Any = type(self.parameters)
            parameters = parameters_type(*map(function, self.parameters))
        memory = tuple(map(function, self.memory))
        return State(function(self.deterministic), function(self.stochastic), parameters, memory)


def stack(states: list[State]) -> State:
    """Join the states of T steps, (B, ·) each, to one of (B, T, ·). Each has the parameters of a distribution."""
    parameters_type: Any = type(states[0].parameters)
    parameters_by_step: list[Any] = [state.parameters for state in states]
    parameters = parameters_type(*(torch.stack(steps, 1) for steps in zip(*parameters_by_step, strict=True)))
    memory_by_step = [state.memory for state in states]
    memory = tuple(torch.stack(steps, 1) for steps in zip(*memory_by_step, strict=True))
    deterministic = torch.stack([state.deterministic for state in states], 1)
    stochastic = torch.stack([state.stochastic for state in states], 1)
    return State(deterministic, stochastic, parameters, memory)


class RSSM(nn.Module):
    """The recurrent state-space model. Its three networks, and their names in the papers:

        recurrent_model         h_t = f(h_{t-1}, z_{t-1}, a_t)            sequence model in DreamerV3
        transition_model        z_t ~ p(z_t | h_t), the prior             transition predictor in V2, dynamics in V3
        representation_model    z_t ~ q(z_t | h_t, o_t), the posterior    encoder in DreamerV3

    Training and acting go through the same `observe_step`, the first frame included.
    """

    def __init__(
        self,
        recurrent_model: Recurrence,
        transition_model: nn.Module,
        representation_model: nn.Module,
        sizes: tuple[int, int],
    ):
        """recurrent_model: h_{t-1}, z_{t-1}, a_t and its memory → h_t and its new memory. transition_model: h_t → the
        `LatentParameters` of the prior. representation_model: [h_t, embedding of o_t] → those of the posterior. sizes:
        D and S.
        """
        super().__init__()
        self.recurrent_model = recurrent_model
        self.transition_model = transition_model
        self.representation_model = representation_model
        self.sizes = (*sizes, *recurrent_model.memory_sizes)
        self.stored_size = sum(self.sizes)  # F + M
        # In compiled runs: the loop over observed states, and `prior`.
        self.compiled: tuple[Scan, Callable[..., State]] | None = None

    def initial_state(self, batch_size: int) -> State:
        """Return the states before the first frame, (B, ·), on the parameters' device: zeros."""
        return self.restored(next(self.parameters()).new_zeros(batch_size, self.stored_size))

    def restored(self, stored: torch.Tensor) -> State:
        """Return the state from its stored form, (..., F + M); its distribution is not known."""
        deterministic, stochastic, *memory = stored.split(self.sizes, -1)
        return State(deterministic, stochastic, None, tuple(memory))

    def observe_step(
        self,
        state: State,
        action: torch.Tensor,
        embedding: torch.Tensor,
        is_first: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> State:
        """Return the posterior s_t from s_{t-1}, the action a_t that led to o_t, (B, A), and o_t's embedding, (B, E).

        Where is_first (B,) is 1 an episode begins: state and action count as zeros. noise: (B, ·), from which z_t is
        computed; None draws it.
        """
        not_first = (1 - is_first)[:, None]
        memory = tuple(tensor * not_first for tensor in state.memory)
        deterministic, memory = self.recurrent_model(
            state.deterministic * not_first, state.stochastic * not_first, action * not_first, memory
        )
        parameters = self.representation_model(torch.cat([deterministic, embedding], -1))
        return State(deterministic, parameters.sample(noise), parameters, memory)

    def imagine_step(self, state: State, action: torch.Tensor) -> State:
        """Sample the prior s_t from s_{t-1} (B, ·) and a_t (B, A): o_t is not observed."""
        deterministic, memory = self.recurrent_model(state.deterministic, state.stochastic, action, state.memory)
        return self.prior(deterministic, memory)

    def prior(self, deterministic: torch.Tensor, memory: Memory = ()) -> State:
        """Sample the prior state s_t given h_t (..., D)."""
        parameters = self.transition_model(deterministic)
        return State(deterministic, parameters.sample(), parameters, memory)

    @record_function("observed states")
    def observe(
        self,
        embedding: torch.Tensor,
        action: torch.Tensor,
        is_first: torch.Tensor,
        stored: torch.Tensor | None = None,
    ) -> tuple[State, State]:
        """Return the prior and posterior states (B, T, ·) of windows.

        embedding: (B, T, E). action: (B, T, A). is_first: (B, T). stored: the stored states (B, F + M) before the
        windows (DreamerV3); with None, or size 0, windows start from zeros. Computed in float32, whatever the
        precision: the products are small.
        """
        state = self.initial_state(len(action))
        if stored is not None and stored.shape[-1] > 0:
            state = self.restored(stored)
        with torch.autocast(action.device.type, enabled=False):
            if self.compiled and torch.is_grad_enabled():
                scan, prior = self.compiled
                posterior = self.observe_by_scan(scan, state, action, embedding, is_first)
                return prior(posterior.deterministic, posterior.memory), posterior
            posteriors = []
            for action_t, embedding_t, is_first_t in zip(
                action.unbind(1), embedding.unbind(1), is_first.unbind(1), strict=True
            ):
                state = self.observe_step(state, action_t, embedding_t, is_first_t)
                posteriors.append(state)
        posterior = stack(posteriors)
        return self.prior(posterior.deterministic, posterior.memory), posterior

    def observe_by_scan(self, scan: Scan, state: State, *inputs: torch.Tensor) -> State:
        """Return the posteriors (B, T, ·) by a `Scan` of this module. inputs: (B, T, ·) each, for every step."""
        model: Any = self.representation_model
        batch_size, length = inputs[0].shape[:2]
        inputs_by_time = [tensor.transpose(0, 1) for tensor in inputs]
        inputs_by_time.append(model.noise(length, batch_size))
        outputs = scan([state.deterministic, state.stochastic, *state.memory], inputs_by_time)
        deterministic, stochastic, *rest = (tensor.transpose(0, 1) for tensor in outputs)
        num_memory = len(state.memory)
        parameters = model.parameters_type(*rest[num_memory:])
        return State(deterministic, stochastic, parameters, memory=tuple(rest[:num_memory]))

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return `observe_step` as a `Scan` calls it: h, z, memory, action, embedding, is_first and noise → h, z,
        memory and the parameters of z's distribution."""
        num_state_tensors = len(self.sizes)
        deterministic, stochastic, *memory = tensors[:num_state_tensors]
        state = State(deterministic, stochastic, None, tuple(memory))
        posterior = self.observe_step(state, *tensors[num_state_tensors:])
        parameters: Any = posterior.parameters
        return posterior.deterministic, posterior.stochastic, *posterior.memory, *parameters

    def imagine(self, state: State, action: torch.Tensor) -> State:
        """Return the priors (B, T, ·) after a state (B, ·) under given actions (B, T, A): open loop."""
        priors = []
        for action_t in action.unbind(1):
            state = self.imagine_step(state, action_t)
            priors.append(state)
        return stack(priors)

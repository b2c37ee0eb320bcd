"""The predictions of a world model without observations, in the environment's units.

Shapes: B batch, T time (dim 1), A action size, F feature size, M memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.distributions import kl_divergence

from dreamer.modules.actor import Actor
from dreamer.modules.categorical import symexp
from dreamer.modules.ensemble import OneStepModel
from dreamer.modules.heads import Head
from dreamer.modules.rssm import State, stack
from dreamer.modules.world_model import WorldModel


@dataclass(frozen=True)
class Dream:
    """The predictions for T consecutive latent states, NumPy arrays (T, ...), or (B, T, ...) of a batch."""

    frames: np.ndarray | None  # uint8 (..., height, width, channels); None if no pictures are observed
    vectors: np.ndarray | None  # float32 (..., size), all observed numbers; None if there are none
    rewards: np.ndarray  # (...), received on arriving at each state; their tanh with `reward_transform: tanh`
    values: np.ndarray | None  # (...), the critic's; None without a critic
    continues: np.ndarray  # (...), the probability that the task goes on after each state
    states: np.ndarray  # (..., F + M), in the form of `Agent.state`
    actions: Any = None  # (...), in the environment's own units; each led to the state at its index
    disagreement: np.ndarray | None = None  # (...), of Plan2Explore's ensemble about where each action leads


def act_in_imagination(
    model: WorldModel, actor: Actor, act: Callable[[Any], torch.Tensor], state: State, steps: int
) -> tuple[State, torch.Tensor]:
    """Follow an actor through the prior. Return the states (B, T, ·) after `state` (B, ·) and the actions (B, T, A).

    act: chooses actions from the actor's distribution.
    """
    states, actions = [], []
    for _ in range(steps):
        action = act(actor(state.feature))
        state = model.rssm.imagine_step(state, action)
        actions.append(action)
        states.append(state)
    return stack(states), torch.stack(actions, 1)


def predict(model: WorldModel, critic: Head | None, state: State, discount_in_continue: float) -> Dream:
    """Return the predictions for states (..., ·).

    discount_in_continue: γ if the continue model's target includes it, else 1.
    """
    feature = state.feature
    decoded = model.decoder(feature).mean
    if not isinstance(decoded, dict):
        decoded = {"image" if decoded.dim() == feature.dim() + 2 else "vector": decoded}
    frames, vectors = decoded.get("image"), decoded.get("vector")
    if vectors is not None and model.symlog_inputs:
        vectors = symexp(vectors)
    continues = torch.ones(feature.shape[:-1])
    if model.continue_model is not None:
        continues = (model.continue_model(feature).mean / discount_in_continue).clamp(max=1)
    return Dream(
        frames=None if frames is None else to_numpy(model.to_pixels(frames).movedim(-3, -1)),
        vectors=None if vectors is None else to_numpy(vectors),
        rewards=to_numpy(model.reward_model(feature).mean),
        values=None if critic is None else to_numpy(critic(feature).mean),
        continues=to_numpy(continues),
        states=to_numpy(state.stored),
    )


def disagreements(
    one_step_model: OneStepModel, start: State, states: State, action: torch.Tensor, measure: str
) -> np.ndarray:
    """Return the disagreement of Plan2Explore's one-step models about each step of a dream, (B, T).

    start: (B, ·), before the states (B, T, ·). action: (B, T, A). measure: as for `disagreement`.
    """
    previous_feature = torch.cat([start.feature[:, None], states.feature[:, :-1]], 1)
    return to_numpy(one_step_model.disagreement(previous_feature, action, measure))


def surprise(
    model: WorldModel, state: State, observation: Any, action: torch.Tensor, is_first: torch.Tensor
) -> np.ndarray:
    """Return KL(q(s_t | s_{t-1}, a_t, o_t) || p(s_t | s_{t-1}, a_t)) in nats, (B,): how unexpected o_t was.

    state: s_{t-1}, (B, ·). observation: o_t, as in the replay. action: a_t, (B, A). is_first: (B,).
    """
    embedding = model.encoder(model.normalize(observation))
    posterior = model.rssm.observe_step(state, action, embedding, is_first)
    prior = model.rssm.prior(posterior.deterministic, posterior.memory)
    return to_numpy(kl_divergence(posterior.distribution, prior.distribution))


def entropy(actor: Actor, state: State, samples: int = 16) -> np.ndarray:
    """Return the entropy of the actor's distribution in states (..., ·), in nats: (...).

    samples: number of estimates to average: the entropy of `TanhNormal` is an estimate.
    """
    feature = state.feature
    return to_numpy(actor(feature.expand(samples, *feature.shape)).entropy().mean(0))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a copy of a tensor as an array."""
    return tensor.cpu().numpy().copy()

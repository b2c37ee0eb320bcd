"""Equations that the versions of Dreamer share, as functions of plain values.

The state that a return belongs to, and its weight, differ between versions: each version's file has them.
Shapes: B batch, T time (dim 1), H horizon, N = B·T trajectories, K steps of each, A action size, F feature size.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.distributions import kl_divergence
from torch.profiler import record_function

from dreamer import distributed
from dreamer.modules.actor import Actor
from dreamer.modules.distributions import ActionDistribution, Prediction
from dreamer.modules.joint import Joint
from dreamer.modules.rssm import RSSM, State

SHARE_OF_DYNAMICS = 0.1  # weight of the dynamics term in `actor_loss` with actor_gradient "both"


class Imagination(NamedTuple):
    """Trajectories imagined from N states over H steps.

    index       0     1     …    H
    feature    s_0   s_1    …   s_H     s_0 is where imagination starts, a posterior state of the replay
    action           a_1    …   a_H     a_τ leads from s_{τ-1} to s_τ; `action[:, τ - 1]`
    """

    feature: torch.Tensor  # (N, H + 1, F)
    action: torch.Tensor  # (N, H, A)
    actor_output: torch.Tensor | None  # (N, H, ·), of the actor's network for each action; None: it had no gradient

    def policy(self, actor: Actor, count: int) -> ActionDistribution:
        """Return the distributions of the actions a_1 … a_count, (N, count), differentiable in the actor's weights."""
        output = self.actor_output
        if output is None:
            output = actor.network(self.feature[:, :-1])  # once more, on all steps at once
        return actor.policy(output[:, :count])


def imagine_step(
    rssm: RSSM, actor: Actor, state: State, feature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, State, torch.Tensor]:
    """Return the actor's output for a state (N, ·), the action (N, A), and the next state with its feature.

    feature: of the state, (N, F).
    """
    output = actor.network(feature.detach())
    action = actor.policy(output).rsample()
    state = rssm.imagine_step(state, action)
    return output, action, state, state.feature


@record_function("imagination")
def imagine(
    rssm: RSSM,
    actor: Actor,
    start: State,
    horizon: int,
    through_dynamics: bool,
    step: Callable[..., tuple[torch.Tensor, torch.Tensor, State, torch.Tensor]] = imagine_step,
    scan: Callable[[State, int], Imagination] | None = None,
) -> Imagination:
    """Follow the actor through the prior for `horizon` steps, from states (N, ·).

    through_dynamics: whether the trajectories are differentiable in the actions. The actor sees features without
    gradient. step: `imagine_step` or its compiled form. scan: an `ImaginedScan`, used through the dynamics in float32.
    """
    if scan is not None and through_dynamics and not torch.is_autocast_enabled(start.deterministic.device.type):
        return scan(start, horizon)
    state, features, actions, outputs = start, [start.feature], [], []
    with torch.set_grad_enabled(through_dynamics):
        for _ in range(horizon):
            output, action, state, feature = step(rssm, actor, state, features[-1])
            features.append(feature)
            actions.append(action)
            outputs.append(output)
    actor_output = torch.stack(outputs, 1) if through_dynamics else None
    return Imagination(torch.stack(features, 1), torch.stack(actions, 1), actor_output)


def imagined_discount(
    continue_model: nn.Module | None, feature: torch.Tensor, discount: float, discount_in_continue: bool
) -> torch.Tensor:
    """Return the discount γ_k of each state, (N, H + 1, F) → (N, H + 1): γ times the predicted probability that the
    task continues, or γ where no continue model is learned.

    discount: γ. discount_in_continue: whether the prediction contains γ already.
    """
    if continue_model is None:
        return torch.full(feature.shape[:-1], discount, device=feature.device)
    probability = continue_model(feature).mean
    return probability if discount_in_continue else discount * probability


def lambda_return(
    reward: torch.Tensor, discount: torch.Tensor, next_value: torch.Tensor, lambda_: float | torch.Tensor
) -> torch.Tensor:
    """Return V_λ (Dreamer, Equation 6; DreamerV2, Equation 4; R^λ in DreamerV3, Equation 5), (N, K), computed from the
    last state backwards:

        V_λ(s_τ) = r_τ + γ_τ [ (1 - λ) v(s_{τ+1}) + λ V_λ(s_{τ+1}) ],    V_λ(s_H) = v(s_H)

    reward, discount, next_value: (N, K), of K steps. The discount γ_τ weighs everything after the reward r_τ; the
    caller decides which state the reward belongs to. lambda_: a number, or a tensor that broadcasts to (N, K).
    """
    lambda_ = lambda_ * torch.ones_like(reward)
    next_return = next_value[:, -1]
    returns = []
    for t in reversed(range(reward.shape[1])):
        future = torch.lerp(next_value[:, t], next_return, lambda_[:, t])
        next_return = reward[:, t] + discount[:, t] * future
        returns.append(next_return)
    return torch.stack(returns[::-1], 1)


def actor_loss(
    policy: ActionDistribution,
    action: torch.Tensor,
    returns: torch.Tensor,
    baseline: torch.Tensor,
    weight: torch.Tensor,
    actor_gradient: str,
    entropy_scale: float,
    scale: float | torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the actor's loss, a scalar, and the entropies of its policy, (N, K), in nats:

        -mean(weight · (objective + entropy_scale · entropy))

    policy: the distributions of the actions a_1 … a_K. action: (N, H, A), the actions drawn, H ≥ K. returns: (N, K),
    the returns R that follow these actions. baseline: (N, K), the values v of the states before them. weight: (N, K).
    scale: S, the number that returns are divided by.

    The objective depends on actor_gradient (sg: without gradient):

        dynamics     R / S; its gradient reaches the actions through the imagined dynamics (Dreamer, Equation 7)
        reinforce    ln π(a) sg((R - v) / S) (DreamerV2 and DreamerV3, Equation 6)
        both         a tenth of dynamics plus nine tenths of reinforce (DreamerV2's code)
        by_kind      for a `Joint`: dynamics for its numbers plus reinforce for its one-hot vectors, whose samples pass
                     no gradient
    """
    entropy = policy.entropy()
    drawn_action = action[:, : returns.shape[1]].detach()
    if actor_gradient == "dynamics":
        objective = returns / scale
    elif actor_gradient == "reinforce":
        objective = reinforce_objective(policy.log_prob(drawn_action), returns, baseline, scale)
    elif actor_gradient == "both":
        reinforce = reinforce_objective(policy.log_prob(drawn_action), returns, baseline, scale)
        dynamics = returns / scale
        objective = torch.lerp(reinforce, dynamics, SHARE_OF_DYNAMICS)
    else:
        assert actor_gradient == "by_kind" and isinstance(policy, Joint), actor_gradient
        reinforce = reinforce_objective(policy.discrete_log_prob(drawn_action), returns, baseline, scale)
        dynamics = returns / scale
        objective = reinforce + dynamics
    if entropy_scale:
        objective = objective + entropy_scale * entropy
    return -(weight * objective).mean(), entropy


def reinforce_objective(
    log_prob: torch.Tensor, returns: torch.Tensor, baseline: torch.Tensor, scale: float | torch.Tensor
) -> torch.Tensor:
    """Return ln π(a) sg((R - v) / S), the log-probability of each action times its advantage, all (N, K)."""
    advantage = (returns - baseline) / scale
    return log_prob * advantage.detach()


def critic_loss(
    prediction: Prediction, returns: torch.Tensor, weight: torch.Tensor, slow_value: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the weighted negative log-likelihood of the returns, a scalar (Dreamer, Equation 8; DreamerV2 and
    DreamerV3, Equation 5).

    prediction: the critic's distributions (N, K). returns, weight: (N, K). slow_value: (N, K), the values of a slow
    critic, further targets (DreamerV3), or None.
    """
    log_prob = prediction.log_prob(returns.detach())
    if slow_value is not None:
        log_prob = log_prob + prediction.log_prob(slow_value.detach())
    return -(weight * log_prob).mean()


def kl_loss(
    posterior: State,
    prior: State,
    free_nats: float,
    free_nats_per_step: bool,
    dynamics_scale: float | None = None,
    representation_scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of KL(posterior || prior) with its free nats and the KL's plain mean, scalars, in nats.

    posterior, prior: states (B, T, ·). The two scales split the KL into two losses of the same value (KL balancing,
    DreamerV2, Algorithm 2; L_dyn and L_rep in DreamerV3, Equation 3; sg: without gradient):

        dynamics_scale · KL(sg(posterior) || prior)          moves only the prior
        representation_scale · KL(posterior || sg(prior))    moves only the posterior

    With None one KL moves both (Dreamer, Equation 10).
    """
    kl = kl_divergence(posterior.distribution, prior.distribution)
    if dynamics_scale is None or representation_scale is None:
        loss = above_free_nats(kl, free_nats, free_nats_per_step)
    else:
        dynamics_kl = kl_divergence(posterior.detach().distribution, prior.distribution)
        representation_kl = kl_divergence(posterior.distribution, prior.detach().distribution)
        dynamics_loss = above_free_nats(dynamics_kl, free_nats, free_nats_per_step)
        representation_loss = above_free_nats(representation_kl, free_nats, free_nats_per_step)
        loss = dynamics_scale * dynamics_loss + representation_scale * representation_loss
    return loss, kl.mean()


def above_free_nats(kl: torch.Tensor, free_nats: float, per_step: bool) -> torch.Tensor:
    """Return the mean of the KLs (B, T), each at least `free_nats`; with per_step False only the mean is at least that.

    distributed.mean: the mean over all data-parallel workers, so that the whole batch is clamped as one.
    """
    if per_step:
        return kl.clamp(min=free_nats).mean()
    return distributed.mean(kl.mean()).clamp(min=free_nats)


def continue_loss(
    continue_model: nn.Module | None, feature: torch.Tensor, is_terminal: torch.Tensor, discount: float
) -> torch.Tensor:
    """Return the loss of predicting whether the task continues after each state, a scalar; 0 without a continue model.

    feature: (B, T, F). is_terminal: (B, T). discount: the target where the task continues, γ or 1.
    """
    if continue_model is None:
        return torch.zeros((), device=feature.device)
    return -continue_model(feature).log_prob((1 - is_terminal) * discount).mean()

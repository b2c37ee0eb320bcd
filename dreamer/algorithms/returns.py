"""The value target of imagined trajectories."""

import torch


def lambda_return(reward, value, discount, bootstrap, lambda_):
    """V_λ of Dreamer, Equation 6, by its recursion from the last imagined state backwards:

        V_λ(s_τ) = r_τ + γ_τ [ (1 - λ) v(s_{τ+1}) + λ V_λ(s_{τ+1}) ],    V_λ(s_H) = v(s_H)

    reward, value, discount: (N, H-1), of the states s_1 … s_{H-1}; the reward r_τ is received on
    arriving at s_τ, the discount γ_τ weighs everything after s_τ. bootstrap: (N,), v(s_H).
    Returns (N, H-1).
    """
    next_value = torch.cat([value[:, 1:], bootstrap[:, None]], 1)
    returns, following = [], bootstrap
    for t in reversed(range(reward.shape[1])):
        mixed = (1 - lambda_) * next_value[:, t] + lambda_ * following
        following = reward[:, t] + discount[:, t] * mixed
        returns.append(following)
    return torch.stack(returns[::-1], 1)

import pytest
import torch

from dreamer.algorithms.losses import lambda_return


def equation_6(reward, value, discount, bootstrap, lambda_):
    """Return V_λ of one trajectory as the paper defines it: the mixture of the k-step returns V_N^k (Equation 5).

    The lists start at s_1: reward and discount of s_1 … s_{H-1}, value of s_1 … s_H.
    """
    values, horizon = [*value, bootstrap], len(reward)  # index of s_H: horizon

    def k_step(tau, k):
        h = min(tau + k, horizon)
        total, product = 0.0, 1.0
        for n in range(tau, h):
            total += product * reward[n]
            product *= discount[n]
        return total + product * values[h]

    def mixture(tau):
        steps = horizon - tau
        mixed = sum((1 - lambda_) * lambda_ ** (k - 1) * k_step(tau, k) for k in range(1, steps))
        return mixed + lambda_ ** (steps - 1) * k_step(tau, steps)

    return [mixture(tau) for tau in range(horizon)]


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_lambda_return_is_equation_6(lambda_):
    """One trajectory contains a terminal step."""
    generator = torch.Generator().manual_seed(0)
    reward, value, discount = (torch.rand(3, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    discount[0, 2] = 0
    trajectory = reward, value, discount, torch.rand(3, generator=generator, dtype=torch.float64)
    next_value = torch.cat([value[:, 1:], trajectory[-1][:, None]], 1)
    returns = lambda_return(reward, discount, next_value, lambda_)
    for row in range(3):
        expected = equation_6(*(part[row].tolist() for part in trajectory), lambda_)
        torch.testing.assert_close(returns[row], torch.tensor(expected, dtype=torch.float64))

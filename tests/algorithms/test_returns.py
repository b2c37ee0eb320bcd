import pytest
import torch

from dreamer.algorithms.returns import lambda_return


def equation_6(reward, value, discount, bootstrap, lambda_):
    """V_λ of one trajectory as the paper prints it: the mixture of the k-step returns V_N^k (Equation 5).

    With s_1 … s_H in 0-based lists: reward and discount of s_1 … s_{H-1}, value of s_1 … s_H.
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


@pytest.fixture
def trajectory():
    generator = torch.Generator().manual_seed(0)
    reward, value, discount = (torch.rand(3, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    return reward, value, discount, torch.rand(3, generator=generator, dtype=torch.float64)


def test_by_hand():
    """Two steps, γ = 0.5, λ = 0.5: V(s_2) = 2 + 0.5 · 8 = 6; V(s_1) = 1 + 0.5 · (0.5 · 4 + 0.5 · 6) = 3.5."""
    returns = lambda_return(
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([[100.0, 4.0]]),  # v(s_1) has no part in its own return
        torch.tensor([[0.5, 0.5]]),
        bootstrap=torch.tensor([8.0]),
        lambda_=0.5,
    )
    torch.testing.assert_close(returns, torch.tensor([[3.5, 6.0]]))


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_is_equation_6(trajectory, lambda_):
    returns = lambda_return(*trajectory, lambda_)
    for row in range(3):
        expected = equation_6(*(part[row].tolist() for part in trajectory), lambda_)
        torch.testing.assert_close(returns[row], torch.tensor(expected, dtype=torch.float64))


def test_lambda_0_is_one_step(trajectory):
    reward, value, discount, bootstrap = trajectory
    next_value = torch.cat([value[:, 1:], bootstrap[:, None]], 1)
    torch.testing.assert_close(lambda_return(*trajectory, 0.0), reward + discount * next_value)


def test_lambda_1_is_the_discounted_sum(trajectory):
    reward, _, discount, bootstrap = trajectory
    expected = bootstrap
    for t in reversed(range(6)):
        expected = reward[:, t] + discount[:, t] * expected
    torch.testing.assert_close(lambda_return(*trajectory, 1.0)[:, 0], expected)


def test_an_ended_task_has_no_future(trajectory):
    reward, value, discount, bootstrap = trajectory
    discount[:, 2] = 0
    torch.testing.assert_close(lambda_return(reward, value, discount, bootstrap, 0.95)[:, 2], reward[:, 2])

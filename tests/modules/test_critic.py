import torch

from dreamer.modules.critic import Critic


def test_is_a_unit_normal_per_state():
    critic = Critic(8, hidden_size=16, num_layers=3, activation="ELU")
    feature, target = torch.randn(2, 5, 8), torch.randn(2, 5)
    distribution = critic(feature)
    assert distribution.mean.shape == (2, 5)
    expected = torch.distributions.Normal(distribution.mean, 1.0).log_prob(target)
    torch.testing.assert_close(distribution.log_prob(target), expected)
    assert len([layer for layer in critic.network if isinstance(layer, torch.nn.ELU)]) == 3

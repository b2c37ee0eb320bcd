import torch
from torch.nn import functional

from dreamer.modules.heads import Head, bernoulli, normal

NETWORK = {"hidden_size": 16, "num_layers": 3, "activation": "ELU"}
FEATURE = torch.randn(2, 5, 8)


def test_a_normal_number_for_each_state():
    head, target = Head(8, normal, **NETWORK), torch.randn(2, 5)
    distribution = head(FEATURE)
    assert distribution.mean.shape == (2, 5)
    expected = torch.distributions.Normal(head.network(FEATURE).squeeze(-1), 1.0).log_prob(target)
    torch.testing.assert_close(distribution.log_prob(target), expected)
    assert len([layer for layer in head.network if isinstance(layer, torch.nn.ELU)]) == 3


def test_a_probability_for_each_state():
    head, goes_on = Head(8, bernoulli, **NETWORK), torch.randint(2, (2, 5)).float()
    logit = head.network(FEATURE).squeeze(-1)
    expected = goes_on * functional.logsigmoid(logit) + (1 - goes_on) * functional.logsigmoid(-logit)
    torch.testing.assert_close(head(FEATURE).log_prob(goes_on), expected)
    torch.testing.assert_close(head(FEATURE).mean, logit.sigmoid())


def test_as_many_outputs_as_the_distribution_takes():
    head = Head(8, torch.softmax, **NETWORK, output_size=7)
    head.distribution = lambda output: torch.softmax(output, -1)
    assert head(FEATURE).shape == (2, 5, 7)

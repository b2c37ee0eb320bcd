"""The number of parameters of each network equals that of the authors' code. Networks are on the meta device."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer.build import build_algorithm
from dreamer.config.load import load_config
from dreamer.envs.actions import ActionParts

STATE = spaces.Box(-np.inf, np.inf, (24,), np.float32)
PIXELS, GREY = (spaces.Box(0, 255, shape, np.uint8) for shape in ((3, 64, 64), (1, 64, 64)))
LARGE_GREY = spaces.Box(0, 255, (1, 96, 96), np.uint8)
CONTINUOUS, DISCRETE, ALL = spaces.Box(-1, 1, (6,)), ActionParts([6]), ActionParts([18])

V2, V3 = ["dmc-walker-walk", "dreamer-v2"], ["dmc-walker-walk", "dreamer-v3"]
V2_ATARI, V3_ATARI = ["atari-pong", "dreamer-v2-atari"], ["atari-pong", "dreamer-v3", "atari200m"]

# encoder, RSSM, decoder, reward and continue model, actor, critic
TABLE = {
    "V2 pixels": (V2, PIXELS, CONTINUOUS, 1_551_312, 1_247_248, 9_886_611, 971_601, 0, 976_012, 971_601),
    "V2 state": (V2, STATE, CONTINUOUS, 491_200, 1_020_048, 980_824, 971_601, 0, 976_012, 971_601),
    "V2 Atari": (
        *(V2_ATARI, GREY, DISCRETE, 1_549_776, 5_657_648, 10_497_553),
        *(1_131_601, 1_131_601, 1_133_606, 1_131_601),
    ),
    "1m state": (V3, STATE, CONTINUOUS, 10_112, 364_416, 51_096, 57_663, 41_153, 50_316, 66_111),
    "1m pixels": (V3, PIXELS, CONTINUOUS, 14_304, 376_704, 80_595, 57_663, 41_153, 50_316, 66_111),
    "12m state": (V3, STATE, CONTINUOUS, 138_752, 5_783_040, 794_136, 721_407, 656_129, 791_052, 853_503),
    "12m pixels": (V3, PIXELS, CONTINUOUS, 220_416, 5_979_648, 1_272_003, 721_407, 656_129, 791_052, 853_503),
    "25m": (V3, PIXELS, CONTINUOUS, 493_824, 13_442_304, 2_857_635, 1_573_503, 1_475_713, 1_776_396, 1_869_951),
    "50m": (V3, PIXELS, DISCRETE, 876_032, 23_886_848, 5_076_355, 2_753_279, 2_622_977, 3_151_878, 3_279_615),
    "100m": (V3, PIXELS, DISCRETE, 1_966_848, 53_721_600, 11_413_059, 6_095_871, 5_900_545, 7_087_110, 7_278_591),
    "200m": (
        *(V3, PIXELS, CONTINUOUS, 3_492_864, 95_483_904, 20_282_115),
        *(10_749_183, 10_488_833, 12_601_356, 12_850_431),
    ),
    "200m Atari": (
        *(V3_ATARI, LARGE_GREY, ALL, 3_486_464, 100_739_072, 36_014_593),
        *(10_749_183, 10_488_833, 12_607_506, 12_850_431),
    ),
    "400m": (
        *(V3, PIXELS, DISCRETE, 7_850_496, 214_791_168, 45_617_283),
        *(23_987_967, 23_597_569, 28_329_990, 28_712_703),
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_number_of_parameters_equals_the_authors(case):
    names, observations, actions, *expected = TABLE[case]
    names = names if case.startswith("V2") else [*names, f"size{case.split()[0]}"]
    env = SimpleNamespace(observation_space=observations, action_space=actions)
    with torch.device("meta"):
        algorithm = build_algorithm(load_config(names), env, torch.device("meta"))
    model = algorithm.model
    parts = model.encoder, model.rssm, model.decoder, model.reward_model, model.continue_model
    assert [size(part) for part in (*parts, algorithm.actor, algorithm.actor_critic.critic)] == expected


def size(module):
    return sum(parameter.numel() for parameter in module.parameters()) if module else 0


def test_default_size_of_dreamer_v3_is_size12m():
    default, named = load_config(V3), load_config([*V3, "size12m"])
    assert default.parameters == named.parameters

"""experiments/random_actions.py."""

import pytest

from dreamer.config.load import load_config
from dreamer.envs.make import make_eval_env
from experiments import random_actions

CARTPOLE = ["--config", "quick-v3-cartpole", "environment.frame_skip=3"]


def test_returns_are_those_of_sampled_actions(capsys):
    env, returns = make_eval_env(load_config("quick-v3-cartpole", CARTPOLE[2:]).environment, 0), []
    for _ in range(3):
        env.reset()
        returns.append(0)
        ended = False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            returns[-1] += reward
            ended = terminated or truncated
    mean = sum(returns) / 3
    std = (sum((value - mean) ** 2 for value in returns) / 2) ** 0.5
    assert std > 0
    assert random_actions.main([*CARTPOLE, "--episodes", "3"]) == 0
    assert capsys.readouterr().out == f"{mean:.4g} ± {std:.3g} in 3 episodes\n"


@pytest.mark.parametrize("words", [["--config", "nope"], [*CARTPOLE, "environment.task_name=Cort-v1"]])
def test_invalid_input_is_a_one_line_error(words, capsys):
    assert random_actions.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")

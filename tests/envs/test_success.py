"""Success of episodes, from an environment's info to the logged curves."""

import math
from functools import partial

import numpy as np
import pytest

from dreamer.config.load import load_config
from dreamer.envs.make import make_train_env
from dreamer.envs.workers import InTurn, ParallelEnvs
from dreamer.errors import EnvError
from dreamer.training.collect import run_episodes
from tests.envs.toy import make as make_any
from tests.toys import ToyEnv, make_dreamer, train

make = partial(make_any, benchmark="gymnasium", task_name="tests.envs.toy_gymnasium:Goal-v0", from_pixels=False)


def successes(env, episodes=3):
    """Play episodes and return the success value of their last steps."""
    played = run_episodes(env, lambda step: np.zeros((*np.shape(step.is_first), 1), np.float32), episodes)
    return [list(episode)[-1].success for episode in played]


@pytest.mark.parametrize("said", [bool, float, np.bool_, lambda value: np.array([value])])
@pytest.mark.parametrize("key", ["success", "is_success"])
def test_one_successful_step_makes_the_episode_a_success(key, said):
    """This also holds in the first of two action repeats."""
    assert successes(make(frame_skip=2, kwargs={"key": key, "said": said})) == [1.0, 0.0, 1.0]


def test_success_key_selects_the_info_entry():
    assert successes(make(kwargs={"key": "won"}, success_key="won")) == [1.0, 0.0, 1.0]
    assert all(map(math.isnan, successes(make(success_key="won"))))
    assert all(map(math.isnan, successes(make(kwargs={"key": "won"}))))


def test_non_boolean_success_is_refused_only_with_a_success_key():
    words = {"said": lambda value: "perhaps"}
    assert all(map(math.isnan, successes(make(kwargs=words))))
    words = r"the environment's step \(episode 1, env step 1\) gave info\['success'\] 'perhaps'; expected True or False"
    with pytest.raises(EnvError, match=words):
        successes(make(kwargs={"said": lambda value: "perhaps"}, success_key="success"))


def test_parallel_environments_report_success_separately(monkeypatch):
    """Episodes of a round are in the order of the environments."""
    monkeypatch.setattr("dreamer.envs.workers.Workers", InTurn)
    own = {"benchmark": "gymnasium", "task_name": "tests.envs.toy_gymnasium:Goal-v0", "from_pixels": False}
    env = make_train_env({**load_config("dreamer").environment, **own, "num_envs": 2}, 0)
    assert isinstance(env, ParallelEnvs) and successes(env, 4) == [1.0, 1.0, 0.0, 0.0]


class Lucky(ToyEnv):
    """Every third episode is a success."""

    episodes = 0

    def step(self, action):
        *rest, info = super().step(action)
        self.episodes += rest[3]
        return *rest, {**info, "success": float(self.episodes % 3 == 0)}


def test_success_is_logged_as_the_mean_over_episodes():
    settings = ["train_iterations=2", "collect_interval=1", "seed_episodes=1", "num_evaluate=2"]
    logger = train(make_dreamer(Lucky(), *settings), Lucky()).trainer.logger
    assert logger.of("train/success") == [0.0, 0.0, 1.0] and logger.of("eval/success") == [0.0, 0.5]
    logger = train(make_dreamer(ToyEnv(), *settings), ToyEnv()).trainer.logger
    assert logger.of("eval/return") and not logger.of("train/success") + logger.of("eval/success")

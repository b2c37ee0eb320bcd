import gym
import numpy as np
import pytest
import torch
from gym import spaces

from dreamer.checkpoint import copy_to_cpu
from tests.toys import CoinEnv, ToyEnv, make_dreamer, make_evaluator, parameters

SETTINGS = ["train_iterations=3", "collect_interval=1", "seed_episodes=1", "batch_size=2", "batch_length=7"]


class Frames(ToyEnv):
    """In pixels, all of one shade, which tells the episode and the step."""

    observation_space = spaces.Box(0, 255, (3, 64, 64), np.uint8)
    episode = 0

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        return super().reset()

    def observe(self):
        return np.full((3, 64, 64), 20 * self.episode + self.count, np.uint8)


class Saved(gym.Wrapper):
    """What the next episode starts from can be saved."""

    def state_dict(self):
        return {"random": self.env.random.bit_generator.state}

    def load_state_dict(self, state):
        self.env.random.bit_generator.state = state["random"]


def train(env, *overrides, video_interval=0):
    depths = ["encoder.depth=1", "decoder.depth=1"] if isinstance(env, Frames) else []
    dreamer = make_dreamer(env, *SETTINGS, *depths, *overrides)
    dreamer.operation.video_interval = video_interval
    dreamer.train(env, make_evaluator(dreamer, type(env)(length=12)))
    return dreamer


def assert_same_training(one, other):
    assert one.logger.of("train/return") == other.logger.of("train/return")
    assert one.logger.of("loss/actor") == other.logger.of("loss/actor")
    torch.testing.assert_close(parameters(one), parameters(other), rtol=0, atol=0)


def test_evaluating_does_not_change_training():
    often, seldom = (train(ToyEnv(length=12), f"evaluate_interval={interval}") for interval in (1, 2))
    assert len(often.logger.of("eval/return")) == 3 and len(seldom.logger.of("eval/return")) == 2
    assert_same_training(often, seldom)


def test_nor_do_videos():
    filmed, unseen = (train(Frames(length=12), video_interval=interval) for interval in (1, 0))
    assert {tag for tag, *_ in filmed.logger.videos} == {"evaluation/episode", "prediction/open_loop"}
    assert unseen.logger.videos == []
    assert_same_training(filmed, unseen)
    assert filmed.logger.of("eval/return") == unseen.logger.of("eval/return")


@pytest.fixture
def evaluator():
    return make_evaluator(make_dreamer(ToyEnv()), Saved(CoinEnv()))


def weights_of(seed):
    dreamer = make_dreamer(ToyEnv(), seed=seed)
    return {"model": dreamer.model.state_dict(), "actor": dreamer.behavior.actor.state_dict()}


def evaluation(evaluator, state, seed=1, **changes):
    """What comes of an evaluation that starts from a state."""
    job = {"weights": weights_of(seed), "iteration": 3, "env_steps": 7, "episodes": 2, "film": False, **changes}
    evaluator.load_state_dict(state)
    evaluator.start(**job)
    return evaluator.result()


def test_what_returns_follow_from(evaluator):
    """The weights, the iteration, the seed and the state of the environment, and nothing else."""
    state = copy_to_cpu(evaluator.state_dict())
    first = evaluation(evaluator, state)
    after = evaluator.state_dict()
    torch.rand(5)
    assert evaluation(evaluator, state) == first and (first.env_steps, len(first.returns)) == (7, 2)
    others = [
        evaluation(evaluator, state, seed=2),
        evaluation(evaluator, state, iteration=4),
        evaluation(evaluator, after),
    ]
    evaluator.seed += 1
    others.append(evaluation(evaluator, state))
    assert all(other.returns != first.returns for other in others)


def test_a_result_is_there_once(evaluator):
    assert evaluator.result() is None
    assert evaluation(evaluator, evaluator.state_dict()) is not None
    assert evaluator.result() is None


def test_an_evaluation_that_was_under_way_is_played_again(evaluator):
    state = copy_to_cpu(evaluator.state_dict())
    first = evaluation(evaluator, state)
    after = copy_to_cpu(evaluator.state_dict())
    job = {"weights": weights_of(1), "iteration": 3, "env_steps": 7, "episodes": 2, "film": False}
    evaluator.load_state_dict({**state, "pending": job})
    assert evaluator.result() == first and copy_to_cpu(evaluator.state_dict()) == after != state


def test_the_first_episode_is_filmed():
    env = Frames(length=3)
    dreamer = make_dreamer(env, "encoder.depth=1", "decoder.depth=1")
    evaluator = make_evaluator(dreamer, env)
    weights = {"model": dreamer.model.state_dict(), "actor": dreamer.behavior.actor.state_dict()}
    for film in (True, False):
        evaluator.start(weights, iteration=1, env_steps=0, episodes=2, film=film)
        _, returns, frames = evaluator.result()
        assert len(returns) == 2
        if film:
            assert frames.shape == (4, 64, 64, 3) and frames.dtype == np.uint8
            assert frames[:, 0, 0, 0].tolist() == [20, 21, 22, 23]
    assert frames is None


def test_vectors_are_not_filmed(evaluator):
    assert evaluation(evaluator, evaluator.state_dict(), film=True).frames is None

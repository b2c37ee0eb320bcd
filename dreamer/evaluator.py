"""Evaluation: episodes under the mode of an actor, in an environment and with random numbers of its own."""

from typing import NamedTuple

import numpy as np

from dreamer.algorithms.policy import Policy
from dreamer.collect import run_episode
from dreamer.seeding import own_randomness
from dreamer.speed import one_thread


class Evaluation(NamedTuple):
    """What came of an evaluation."""

    env_steps: int  # of the run when it was started
    returns: list  # of its episodes
    frames: np.ndarray | None  # of the first one, if they were asked for and are seen: uint8 (T, height, width, 3)


class Evaluator:
    """Plays evaluations at once, in this process.

    What they return follows from the weights, the environment's state, `seed` and the iteration; the
    random numbers of everything else stay as they are. model, actor: its own, for the weights that it is given.
    """

    def __init__(self, env, model, actor, pixel_norm, seed):
        self.env, self.pixel_norm, self.seed = env, pixel_norm, seed
        self.networks = {"model": model, "actor": actor}
        self.evaluation = None  # the last one, until it is asked for

    def start(self, weights, iteration, env_steps, episodes, film):
        """Play an evaluation. weights: a state_dict each of "model" and "actor". film: whether to keep the frames."""
        for name, network in self.networks.items():
            network.load_state_dict(weights[name])
        seen = []
        film = film and len(self.env.observation_space.shape) == 3
        returns = self.play(iteration, episodes, (lambda step: seen.append(step.observation)) if film else None)
        self.evaluation = Evaluation(env_steps, returns, np.stack(seen).transpose(0, 2, 3, 1) if film else None)

    def result(self, wait=True):
        """The evaluation that was started, once; None if there is none. wait: for its end; here it has ended."""
        evaluation, self.evaluation = self.evaluation, None
        return evaluation

    def play(self, iteration, episodes, watch=None):
        """The returns of episodes, as a list. watch: called with each `Step` of the first one."""
        device, returns = next(self.networks["model"].parameters()).device, []
        with own_randomness(self.seed, iteration), one_thread():
            policy = Policy(**self.networks, pixel_norm=self.pixel_norm, exploration_noise=None, device=device)
            for episode in range(episodes):
                returns.append(0.0)
                for step in run_episode(self.env, policy):
                    returns[-1] += step.reward
                    if watch and episode == 0:
                        watch(step)
        return returns

    def state_dict(self):
        """The environment's. Of an evaluation under way, see `BackgroundEvaluator`, also "pending": what started it."""
        return self.env.state_dict()

    def load_state_dict(self, state):
        """Go back to a state; an evaluation that was under way is played again."""
        self.env.load_state_dict(state)
        if "pending" in state:
            self.start(**state["pending"])

    def close(self):
        self.env.close()

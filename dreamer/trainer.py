"""Algorithm 1 as a schedule: seed episodes, then iterations of learning, interaction, evaluation and a checkpoint."""

import time

import numpy as np

from dreamer.algorithms.policy import random_policy
from dreamer.algorithms.prediction import open_loop_prediction
from dreamer.collect import run_episodes
from dreamer.config import ConfigError
from dreamer.device import one_thread
from dreamer.evaluation import Request
from dreamer.metrics import ExponentialAverage, Means, check_finite
from dreamer.recorded import Recorded, ahead, to_device
from dreamer.seeding import own_randomness
from dreamer.video import prediction_frames


class Trainer:
    """Lets an algorithm learn and collect.

    config: the whole configuration. env: to collect in. evaluations: `Evaluations`. logger and progress take what
    there is to report.
    """

    def __init__(self, config, algorithm, env, evaluations, replay, logger, progress):
        self.settings, self.operation = config.parameters.dreamer, config.operation
        self.algorithm, self.env, self.evaluations, self.replay = algorithm, env, evaluations, replay
        self.logger, self.progress = logger, progress
        self.evaluation_average = ExponentialAverage(span=20)
        self.iteration = self.env_steps = 0
        self.interaction_steps = 1000  # env steps of the last interaction; at the beginning as if of so many
        self.updates_left = 0.0  # a part of an update that was due and could not be made
        self.learner = self.run_update = None  # the algorithm's phase that learns, and its update

    def run(self, checkpoint=lambda iteration, last: None):
        """Algorithm 1. checkpoint: called at the end of each iteration. After `load_state_dict` it goes on from there.

        Raises ConfigError if the seed episodes are too short for a window, NotFiniteError, EnvError.
        """
        if self.iteration == 0:
            self.play_seed_episodes()
        while self.iteration < self.settings.train_iterations:
            self.iteration += 1
            last = self.iteration == self.settings.train_iterations
            self.progress.begin(self.iteration)
            started, env_steps = time.perf_counter(), self.env_steps
            algorithm = self.algorithm.phase(self.env_steps)
            self.learn(algorithm)
            self.collect(algorithm.collector(self.env), self.settings.num_interaction_episodes)
            self.interaction_steps = self.env_steps - env_steps
            if last or self.iteration % self.settings.evaluate_interval == 0:
                self.evaluate(last)
            self.report_evaluation(self.evaluations.result(wait=last))
            speed = (self.env_steps - env_steps) / (time.perf_counter() - started)
            self.log({"speed/env_steps_per_second": speed, "replay/steps": len(self.replay)})
            self.progress.end()
            checkpoint(self.iteration, last)

    # Learning

    def learn(self, algorithm):
        """The updates that are due; logs the means over them. Raises NotFiniteError if any is not finite."""
        started, updates, metrics = time.perf_counter(), self.updates_due(), Means()
        if not updates:
            return
        if algorithm is not self.learner:
            recorded = Recorded(algorithm.update, algorithm.device) if self.operation.fast_paths else algorithm.update
            self.learner, self.run_update = algorithm, recorded
        for update, batch in enumerate(ahead(self.sample, updates), 1):
            self.progress.phase(f"learning {update}/{updates}")
            metrics.add(self.run_update(batch))
        means = metrics.result()  # the first moment at which the device must have finished
        check_finite(means, self.iteration)
        self.log(means | {"speed/updates_per_second": updates / (time.perf_counter() - started)})

    def updates_due(self):
        """How many updates this iteration makes: `collect_interval`, or with `proportional_updates` so many for every
        1,000 env steps of the last interaction."""
        proportion = self.interaction_steps / 1000 if self.settings.proportional_updates else 1
        due = self.updates_left + proportion * self.settings.collect_interval
        self.updates_left = due - int(due)
        return int(due)

    def sample(self, random=None):
        """A batch of windows on the device, (B, T, ·), pixels as they are; random: as in `ReplayBuffer.sample`."""
        batch = self.replay.sample(self.settings.batch_size, self.settings.batch_length, random)
        return to_device(batch, self.algorithm.device)

    # Interaction

    def play_seed_episodes(self):
        """Uniformly random actions."""
        episodes = self.settings.seed_episodes
        if self.env.max_agent_steps:
            self.check_window(episodes * (self.env.max_agent_steps + 1))
        self.collect(random_policy(self.env), episodes)
        self.check_window(len(self.replay))

    def check_window(self, stored):
        """Raise ConfigError if no window fits into the steps that the seed episodes store."""
        if stored < self.settings.batch_length:
            raise ConfigError(
                f"parameters.dreamer.batch_length: {self.settings.batch_length} agent steps, but the seed episodes "
                f"store {stored}; lower it, or raise parameters.dreamer.seed_episodes"
            )

    def collect(self, policy, episodes):
        """Play episodes into the replay."""
        self.progress.phase("collecting")
        with one_thread():
            for episode in run_episodes(self.env, policy, episodes):
                self.store(episode)

    def store(self, episode):
        """Play an episode, step by step, into the replay."""
        episode_return = length = 0
        for step in episode:
            self.replay.add(step)
            episode_return += step.reward
            length += step.env_steps
            self.progress.stepped(step.env_steps)
        self.env_steps += length
        self.progress.finished(episode_return)
        self.log({"train/return": episode_return, "train/length": length})

    # Evaluation

    def evaluate(self, last):
        """Ask for `num_evaluate` episodes. One evaluation at a time: the one before is waited for."""
        self.progress.phase("evaluating")
        self.report_evaluation(self.evaluations.result())
        number, interval = self.iteration // self.settings.evaluate_interval, self.operation.video_interval
        film = bool(interval and (last or (number - 1) % interval == 0))
        weights = {"model": self.algorithm.model.state_dict(), "actor": self.algorithm.actor.state_dict()}
        request = Request(weights, self.iteration, self.env_steps, self.settings.num_evaluate, film)
        self.evaluations.start(request)
        if film:
            self.show_prediction()

    def report_evaluation(self, evaluation):
        """Log an `Evaluation` at the env steps at which it was started; None: there is none to log."""
        if evaluation:
            mean = sum(evaluation.returns) / len(evaluation.returns)
            scalars = {"eval/return": mean, "eval/return_ema20": self.evaluation_average.add(mean)}
            self.logger.scalars(scalars, evaluation.env_steps)
            self.progress.evaluated(mean)
            if evaluation.frames is not None:
                self.logger.video("evaluation/episode", evaluation.frames, evaluation.env_steps)

    def show_prediction(self):
        """An open-loop prediction of pixels, as a video. Its random numbers are its own, as an evaluation's are."""
        with own_randomness(self.operation.seed, self.iteration):
            batch = self.sample(np.random.default_rng((self.operation.seed, self.iteration)))
            if batch.observation.dim() == 5:
                truth, prediction, context = open_loop_prediction(self.algorithm.model, batch)
                if len(truth):
                    frames = prediction_frames(truth.cpu().numpy(), prediction.cpu().numpy(), context)
                    self.logger.video("prediction/open_loop", frames, self.env_steps, frames_per_second=5)

    # Reporting, saving

    def log(self, values):
        self.logger.scalars(values, self.env_steps)

    def state_dict(self):
        """All that counts, between two iterations. What learns is the algorithm's."""
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "interaction_steps": self.interaction_steps,
            "updates_left": self.updates_left,
            "evaluation_average": self.evaluation_average.state_dict(),
        }

    def load_state_dict(self, state):
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]
        self.interaction_steps, self.updates_left = state["interaction_steps"], state["updates_left"]
        self.evaluation_average.load_state_dict(state["evaluation_average"])

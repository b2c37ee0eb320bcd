"""Run Algorithm 1 of Dreamer: seed episodes, then iterations of learning, collecting, evaluating and saving."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dreamer import distributed
from dreamer.algorithms.algorithm import Algorithm
from dreamer.algorithms.policy import random_policy
from dreamer.config.load import Config
from dreamer.replay.buffer import ReplayBuffer
from dreamer.replay.step import Step
from dreamer.training.background_collection import BackgroundCollection, CollectionRequest
from dreamer.training.checkpoint_retention import CheckpointRetention
from dreamer.training.collect import PolicyLike, run_episodes
from dreamer.training.collection_policies import CollectionPolicies, weights_of
from dreamer.training.data_parallel import NoEvaluationRunner, NoLogger, NoProgress
from dreamer.training.device import on_one_thread
from dreamer.training.evaluation import Evaluation, EvaluationRequest
from dreamer.training.evaluation_runner import EvaluationRunner
from dreamer.training.film import prediction_film
from dreamer.training.learner import Learner
from dreamer.training.logger import Logger
from dreamer.training.metrics import EpisodeTotals, ExponentialAverage
from dreamer.training.progress import Progress
from dreamer.training.schedule import check_window, is_over, longest_seed_window
from dreamer.training.seeding import seeded_randomness


class Trainer:
    """Lets an algorithm learn and collect. Each data-parallel worker has a `Trainer`; all make the same updates.

    `pretrain` updates are owed after the seed episodes; then `collect_interval` before the episodes of each iteration
    or, with `train_ratio`, a fraction of one per stored step. Whole ones are made at once; a fraction is carried over.

    config: the whole configuration, or a worker's share of it. env: the training environment.
    """

    def __init__(
        self,
        config: Config,
        algorithm: Algorithm,
        env: Any,
        evaluations: EvaluationRunner | NoEvaluationRunner,
        replay: ReplayBuffer,
        logger: Logger | NoLogger,
        progress: Progress | NoProgress,
        collection: BackgroundCollection | None = None,  # plays each iteration's episodes; None: this process does
    ):
        self.settings, self.operation = config.parameters.dreamer, config.operation
        self.algorithm, self.env, self.evaluations, self.replay = algorithm, env, evaluations, replay
        self.logger, self.progress = logger, progress
        self.evaluation_average = ExponentialAverage(span=20)
        self.retention = CheckpointRetention(self.operation.checkpoint_interval, self.operation.keep_every)
        self.iteration = self.env_steps = 0
        self.collection, self.collection_policies = collection, CollectionPolicies(env, self.operation.fast_paths)
        self.learner = Learner(config, algorithm.device, replay, progress)

    def run(self, checkpoint: Callable[[int, bool], None] = lambda iteration, last: None) -> None:
        """Run Algorithm 1, from the iteration after the last finished one.

        checkpoint: called at the end of each iteration with its number and whether it is the last one. Raises
        ConfigError if the seed episodes are too short for a window, NotFiniteError, EnvError.
        """
        if self.iteration == 0:
            self.play_seed_episodes()
            self.learner.owed += self.settings.pretrain
            self.learn(self.algorithm.active(self.env_steps))
        while not self.is_over():
            self.iteration += 1
            self.progress.begin(self.iteration)
            started, env_steps = time.perf_counter(), self.env_steps
            self.learn_and_collect()
            last = self.is_over()
            if distributed.rank() == 0 and (last or self.iteration % self.settings.evaluate_interval == 0):
                self.evaluate(last)
            self.report_evaluation(self.evaluations.result(wait=last))
            self.report_speed(self.env_steps - env_steps, time.perf_counter() - started)
            self.progress.end(last)
            checkpoint(self.iteration, last)

    def learn_and_collect(self) -> None:
        """Make the updates and play the episodes of an iteration."""
        algorithm = self.algorithm.active(self.env_steps)
        policy = self.collection_policies.policy_for(algorithm)
        episodes = self.settings.num_interaction_episodes
        if self.collection:
            self.learn_while_collecting(algorithm, policy, episodes)
        elif self.settings.train_ratio and self.settings.collect:
            self.collect(policy, episodes, algorithm)
            self.report_updates()
        else:
            self.learner.owed += self.settings.collect_interval
            self.learn(algorithm)
            self.collect(policy, episodes)

    def learn_while_collecting(self, algorithm: Algorithm, policy: PolicyLike, episodes: int) -> None:
        """Make the updates owed while another process plays with the weights from before them; then store its episodes.

        With `train_ratio`, the stored steps owe updates, which the next iteration makes.
        """
        assert self.collection
        request = CollectionRequest(weights_of(policy), self.iteration, self.env_steps, episodes)
        self.collection.start(self.env.state_dict(), request)
        if not self.settings.train_ratio:
            self.learner.owed += self.settings.collect_interval
        self.learn(algorithm)
        self.progress.set_activity("collecting")
        played_episodes, env_state = self.collection.result()
        self.env.load_state_dict(env_state)
        for episode in played_episodes:
            self.store_episode(episode)
            if self.settings.train_ratio:
                self.learner.owe_for(len(episode))

    def is_over(self) -> bool:
        """Return whether the run has reached its number of iterations or of env steps."""
        return is_over(self.iteration, self.env_steps, self.settings.train_iterations, self.settings.max_env_steps)

    # Learning

    def learn(self, algorithm: Algorithm) -> None:
        """Make the updates owed and log their means. Raises NotFiniteError."""
        self.learner.make_owed(algorithm)
        self.report_updates()

    def report_updates(self) -> None:
        """Log the means over the updates since the last report. Raises NotFiniteError."""
        means = self.learner.report(self.iteration)
        if means:
            self.log(means)

    # Collecting

    def play_seed_episodes(self) -> None:
        """Play the seed episodes, by random actions or by the collecting policy (`seed_policy`)."""
        longest_window = longest_seed_window(self.settings, self.env.max_agent_steps)
        if longest_window:
            check_window(self.settings, longest_window)
        at_random = self.settings.seed_policy == "random"
        policy = random_policy(self.env) if at_random else self.collection_policies.policy_for(self.algorithm.active(0))
        self.collect(policy, self.settings.seed_episodes)
        check_window(self.settings, self.replay.longest_window())

    def collect(self, policy: PolicyLike, episodes: int, algorithm: Algorithm | None = None) -> None:
        """Play episodes into the replay.

        algorithm: makes the updates that the stored steps owe, each after its step is stored and before the policy
        chooses the next action. `ParallelEnvs` are an exception: they play a whole round first.
        """
        if not self.settings.collect:
            return
        self.progress.set_activity("collecting")
        for episode in on_one_thread(run_episodes(self.env, policy, episodes)):
            self.store_episode(episode, algorithm)

    def store_episode(self, episode: Iterable[Step], algorithm: Algorithm | None = None) -> None:
        """Store the steps of an episode in the replay, and log its return. algorithm: as for `collect`.

        A generator plays each step when it is asked for. The logged numbers are means over the workers.
        """
        totals = EpisodeTotals()
        for step in on_one_thread(episode):
            self.replay.add(step)
            totals.add(step)
            self.progress.add_env_steps(int(step.env_steps))
            if algorithm:
                self.learner.learn_from_step(algorithm)
        while algorithm and self.learner.learn_from_step(algorithm, stored=0):
            continue  # other workers still play, and all workers make each update together
        self.replay.finish_episode()
        [env_steps] = distributed.total(totals.env_steps)
        self.env_steps += env_steps
        self.progress.add_env_steps(env_steps - totals.env_steps)
        self.progress.end_episode(totals.episode_return)
        self.log(totals.curves(getattr(self.env, "achievements", {})))

    # Evaluating

    def evaluate(self, last: bool) -> None:
        """Begin an evaluation of `num_evaluate` episodes, after waiting for the previous one."""
        self.progress.set_activity("evaluating")
        self.report_evaluation(self.evaluations.result())
        evaluation_number = self.iteration // self.settings.evaluate_interval
        video_interval = self.operation.video_interval
        film = video_interval > 0 and (last or (evaluation_number - 1) % video_interval == 0)
        weights = {"model": self.algorithm.model.state_dict(), "actor": self.algorithm.actor.state_dict()}
        request = EvaluationRequest(weights, self.iteration, self.global_step, self.settings.num_evaluate, film)
        self.retention.begin_evaluation(self.iteration, last)
        self.evaluations.start(request)
        if film:
            self.show_prediction()

    def report_evaluation(self, evaluation: Evaluation | None) -> None:
        """Log an evaluation, if there is one, at the env steps at which it began."""
        if evaluation is None:
            return
        average = self.evaluation_average.add(evaluation.mean_return)
        self.retention.end_evaluation(average)
        self.logger.scalars(evaluation.curves(average), evaluation.env_steps, evaluation.iteration)
        self.progress.end_evaluation(evaluation.mean_return)
        if evaluation.frames is not None:
            self.logger.video(
                "evaluation/episode", evaluation.frames, evaluation.env_steps, evaluation.frames_per_second
            )

    def show_prediction(self) -> None:
        """Log an open-loop prediction of pixels as a video, if the replay holds a window. Restore the random states."""
        if self.replay.longest_window() < self.settings.batch_length:
            return
        with seeded_randomness(self.operation.seed, self.iteration):
            batch = self.learner.sample(np.random.default_rng((self.operation.seed, self.iteration)))
            frames = prediction_film(self.algorithm.model, batch)
        if frames is not None:
            self.logger.video("prediction/open_loop", frames, self.global_step, frames_per_second=5)

    # Reporting, saving

    def report_speed(self, env_steps: int, seconds: float) -> None:
        """Log the speed of an iteration, and the number of steps in the replays of all workers."""
        [steps] = distributed.total(len(self.replay))
        self.log({"speed/env_steps_per_second": env_steps / seconds, "replay/steps": steps})

    def log(self, values: dict[str, float]) -> None:
        """Log {tag: number} at `global_step`."""
        self.logger.scalars(values, self.global_step, self.iteration)

    @property
    def global_step(self) -> int:
        """Return the run's place on the horizontal axis of curves: its env steps, or its updates if it is offline."""
        return self.env_steps if self.settings.collect else int(self.learner.made)

    def state_dict(self) -> dict[str, Any]:
        """Return counters and averages at the end of an iteration. Networks and optimizers are saved elsewhere."""
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "updates_left": self.learner.owed,  # as older checkpoints call it
            "updates_made": int(self.learner.made),
            "evaluation_average": self.evaluation_average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state, possibly of an older version."""
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]
        made = state.get("updates_made", self.algorithm.optimizers["model"].updates)  # older checkpoints lack it
        self.learner.restore_counts(state["updates_left"], int(made))
        self.evaluation_average.load_state_dict(state["evaluation_average"])

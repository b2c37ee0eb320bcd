"""Algorithm 1 of Dreamer: seed episodes, then iterations of learning, collecting, evaluating and saving."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from dreamer import distributed
from dreamer.algorithms.algorithm import Algorithm
from dreamer.algorithms.policy import random_policy
from dreamer.algorithms.prediction import image_of, open_loop_prediction
from dreamer.config.load import Config
from dreamer.replay.buffer import Batch, ReplayBuffer
from dreamer.replay.mapped import aligned_empty
from dreamer.replay.step import Step
from dreamer.training.collect import run_episodes
from dreamer.training.cuda_graph import CudaGraphed, pinned, prefetched, to_device
from dreamer.training.data_parallel import NoEvaluations, NoLogger, NoProgress
from dreamer.training.device import on_one_thread
from dreamer.training.evaluation import Evaluation, Evaluations, Request
from dreamer.training.logger import Logger
from dreamer.training.metrics import ExponentialAverage, Means, check_finite
from dreamer.training.progress import Progress
from dreamer.training.schedule import check_window, is_over, longest_seed_window
from dreamer.training.seeding import own_randomness
from dreamer.training.video import prediction_frames

Policy = Callable[[Step], np.ndarray]


def keep_nothing(iteration: int, last: bool) -> None:
    """Stand for a checkpoint that is not written."""


class Trainer:
    """Lets an algorithm learn and collect. Data-parallel workers have one each and make the same updates together.

    Updates are owed: `pretrain` of them after the seed episodes; then `collect_interval` before the episodes of each
    iteration or, with `train_ratio`, a fraction of one for each step that is stored. Whole updates are made at once;
    the fraction is carried over.

    config: the whole configuration, or a worker's share of it. env: the one to collect in.
    """

    def __init__(
        self,
        config: Config,
        algorithm: Algorithm,
        env: Any,
        evaluations: Evaluations | NoEvaluations,
        replay: ReplayBuffer,
        logger: Logger | NoLogger,
        progress: Progress | NoProgress,
    ):
        self.settings, self.operation = config.parameters.dreamer, config.operation
        self.algorithm, self.env, self.evaluations, self.replay = algorithm, env, evaluations, replay
        self.logger, self.progress = logger, progress
        self.evaluation_average = ExponentialAverage(span=20)
        self.iteration = self.env_steps = 0
        self.updates_owed = 0.0
        self.updates_made = torch.zeros((), dtype=torch.int64, device=algorithm.device)
        self.learner: Algorithm | None = None  # the one that made the last update
        self.run_update: Callable = algorithm.update  # that of the learner, in a CUDA graph if possible
        self.metrics, self.unreported, self.seconds = Means(), 0, 0.0  # of the updates since the last report

    def run(self, checkpoint: Callable[[int, bool], None] = keep_nothing) -> None:
        """Run Algorithm 1, from the iteration after the last one.

        checkpoint: called at the end of each iteration with its number and whether it is the last one. Raises
        ConfigError if the seed episodes are too short for a window, NotFiniteError, EnvError.
        """
        if self.iteration == 0:
            self.play_seed_episodes()
            self.updates_owed += self.settings.pretrain
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
        policy, episodes = algorithm.collector(self.env), self.settings.num_interaction_episodes
        if self.settings.train_ratio:
            self.collect(policy, episodes, learner=algorithm)
            self.report_updates()
        else:
            self.updates_owed += self.settings.collect_interval
            self.learn(algorithm)
            self.collect(policy, episodes)

    def is_over(self) -> bool:
        """Return whether the last iteration is done."""
        return is_over(self.iteration, self.env_steps, self.settings.train_iterations, self.settings.max_env_steps)

    # Learning

    def learn(self, algorithm: Algorithm) -> None:
        """Make the updates owed and log their means. Raises NotFiniteError."""
        self.make_updates_owed(algorithm)
        self.report_updates()

    def make_updates_owed(self, algorithm: Algorithm) -> None:
        """Make the whole updates that are owed. A fraction of one is carried over."""
        updates = int(self.updates_owed)
        self.updates_owed -= updates
        self.make_updates(algorithm, updates)

    def make_updates(self, algorithm: Algorithm, updates: int) -> None:
        """Make gradient updates. Latent states are read before each, so it sees what the previous one stored."""
        if not updates:
            return
        started = time.perf_counter()
        if algorithm is not self.learner:
            self.learner, self.run_update = algorithm, algorithm.update
            if self.operation.fast_paths:
                self.run_update = CudaGraphed(algorithm.update, algorithm.device)
        for update, (starts, batch) in enumerate(prefetched(self.fetch, updates), 1):
            self.progress.set_activity(f"learning {update}/{updates}")
            metrics, stored = self.run_update(self.with_latents(starts, batch), self.updates_made)
            self.updates_made += 1
            self.metrics.add(metrics)
            if self.settings.replay_context:
                self.replay.write_latents(starts, stored)
        self.unreported += updates
        self.seconds += time.perf_counter() - started

    def report_updates(self) -> None:
        """Log the means over the updates since the last report, and over the workers.

        Raises NotFiniteError, in all workers, if any is not finite.
        """
        if not self.unreported:
            return
        started, updates = time.perf_counter(), self.unreported
        means = distributed.average(self.metrics.result())  # the first moment at which the device must have finished
        seconds = self.seconds + time.perf_counter() - started
        self.unreported, self.seconds = 0, 0.0
        check_finite(means, self.iteration)
        self.log(means | {"speed/updates_per_second": updates / seconds})

    def sample(self, random: np.random.Generator | None = None) -> Batch:
        """Return a batch of windows on the device, (B, T, ·), pixels as they are; random: as in `ReplayBuffer.draw`."""
        return self.with_latents(*self.fetch(random))

    def fetch(self, random: np.random.Generator | None = None) -> tuple[np.ndarray, Batch]:
        """Return the numbers of the windows' first steps (B,), and the batch without latent states."""
        starts = self.replay.draw(self.settings.batch_size, self.settings.batch_length, random)
        device = self.algorithm.device
        empty = pinned if device.type == "cuda" else aligned_empty
        return starts, to_device(self.replay.windows(starts, self.settings.batch_length, empty), device)

    def with_latents(self, starts: np.ndarray, batch: Batch) -> Batch:
        """Return the batch with the latent states that are stored now."""
        if not self.settings.replay_context:
            return batch
        return batch._replace(latent=to_device(self.replay.read_latents(starts), self.algorithm.device))

    # Collecting

    def play_seed_episodes(self) -> None:
        """Fill the replay with random actions, or with those of the policy that will collect."""
        longest = longest_seed_window(self.settings, self.env.max_agent_steps)
        if longest:
            check_window(self.settings, longest)
        at_random = self.settings.seed_policy == "random"
        policy = random_policy(self.env) if at_random else self.algorithm.active(0).collector(self.env)
        self.collect(policy, self.settings.seed_episodes)
        check_window(self.settings, self.replay.longest_window())

    def collect(self, policy: Policy, episodes: int, learner: Algorithm | None = None) -> None:
        """Play episodes into the replay.

        learner: makes the updates that the stored steps owe, each after its step is stored and before the policy
        chooses the next action. `ParallelEnvs` are an exception: they play a whole round first.
        """
        self.progress.set_activity("collecting")
        for episode in on_one_thread(run_episodes(self.env, policy, episodes)):
            self.store(episode, learner)

    def store(self, episode: Iterable[Step], learner: Algorithm | None = None) -> None:
        """Play an episode, step by step, into the replay, and log its return; learner: as for `collect`.

        Each worker plays one episode. The means over the workers are logged.
        """
        episode_return, length = 0.0, 0
        for step in on_one_thread(episode):
            self.replay.add(step)
            episode_return += float(step.reward)
            length += int(step.env_steps)
            self.progress.stepped(int(step.env_steps))
            if learner:
                self.learn_from_step(learner)
        while learner and self.learn_from_step(learner, stored=0):
            continue
        self.replay.finish_episode()
        [env_steps] = distributed.total(length)
        self.env_steps += env_steps
        self.progress.stepped(env_steps - length)
        self.progress.finished(episode_return)
        self.log(distributed.average({"train/return": episode_return, "train/length": length}))

    def learn_from_step(self, learner: Algorithm, stored: int = 1) -> int:
        """Make the updates owed after one more step is stored. While no window fits, a step owes nothing.

        stored: 0 in a worker whose episode is over before those of the others; it makes the updates that their steps
        owe. Returns the number of steps that all workers have stored.
        """
        settings, fits = self.settings, self.replay.longest_window() >= self.settings.batch_length
        stored, fitting = distributed.total(stored, int(fits))
        if fitting == distributed.count():
            replayed = stored / distributed.count() * settings.train_ratio
            self.updates_owed += replayed / (settings.batch_size * settings.batch_length)
            self.make_updates_owed(learner)
            self.progress.set_activity("collecting")
        return stored

    # Evaluating

    def evaluate(self, last: bool) -> None:
        """Begin an evaluation of `num_evaluate` episodes, once the one before has ended."""
        self.progress.set_activity("evaluating")
        self.report_evaluation(self.evaluations.result())
        number, interval = self.iteration // self.settings.evaluate_interval, self.operation.video_interval
        film = bool(interval and (last or (number - 1) % interval == 0))
        weights = {"model": self.algorithm.model.state_dict(), "actor": self.algorithm.actor.state_dict()}
        request = Request(weights, self.iteration, self.env_steps, self.settings.num_evaluate, film)
        self.evaluations.start(request)
        if film:
            self.show_prediction()

    def report_evaluation(self, evaluation: Evaluation | None) -> None:
        """Log an evaluation, if there is one, at the env steps at which it began."""
        if evaluation is None:
            return
        mean = sum(evaluation.returns) / len(evaluation.returns)
        scalars = {"eval/return": mean, "eval/return_ema20": self.evaluation_average.add(mean)}
        self.logger.scalars(scalars, evaluation.env_steps)
        self.progress.evaluated(mean)
        if evaluation.frames is not None:
            film = evaluation.frames, evaluation.env_steps, evaluation.frames_per_second
            self.logger.video("evaluation/episode", *film)

    def show_prediction(self) -> None:
        """Log an open-loop prediction of pixels as a video, if a window fits. Its random numbers are its own."""
        if self.replay.longest_window() < self.settings.batch_length:
            return
        with own_randomness(self.operation.seed, self.iteration):
            batch = self.sample(np.random.default_rng((self.operation.seed, self.iteration)))
            if image_of(batch.observation, axes=2) is None:
                return
            truth, prediction, context = open_loop_prediction(self.algorithm.model, batch)
            if len(truth):
                frames = prediction_frames(truth.cpu().numpy(), prediction.cpu().numpy(), context)
                self.logger.video("prediction/open_loop", frames, self.env_steps, frames_per_second=5)

    # Reporting, saving

    def report_speed(self, env_steps: int, seconds: float) -> None:
        """Log the speed of an iteration, and how many steps all workers hold."""
        [steps] = distributed.total(len(self.replay))
        self.log({"speed/env_steps_per_second": env_steps / seconds, "replay/steps": steps})

    def log(self, values: dict[str, float]) -> None:
        """Log {tag: number} at the present env steps."""
        self.logger.scalars(values, self.env_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return all that counts between two iterations, beside what learns."""
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "updates_left": self.updates_owed,  # as older checkpoints call it
            "updates_made": int(self.updates_made),
            "evaluation_average": self.evaluation_average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; it may be of an older version."""
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]
        self.updates_owed = state["updates_left"]
        made = state.get("updates_made", self.algorithm.optimizers["model"].updates)  # older runs do not say it
        self.updates_made.fill_(int(made))
        self.evaluation_average.load_state_dict(state["evaluation_average"])
        self.learner, self.run_update = (
            None,
            self.algorithm.update,
        )  # a CUDA graph would use the optimisers' old tensors

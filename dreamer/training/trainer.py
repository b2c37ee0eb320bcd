"""Algorithm 1 as a schedule: seed episodes, then iterations of learning, interaction, evaluation and a checkpoint."""

import time

import numpy as np
import torch

from dreamer import distributed
from dreamer.algorithms.policy import random_policy
from dreamer.algorithms.prediction import image_of, open_loop_prediction
from dreamer.errors import ConfigError
from dreamer.replay.mapped import aligned_empty
from dreamer.training.collect import run_episodes
from dreamer.training.cuda_graph import CudaGraphed, pinned, prefetched, to_device
from dreamer.training.device import on_one_thread
from dreamer.training.evaluation import Request
from dreamer.training.metrics import ExponentialAverage, Means, check_finite
from dreamer.training.schedule import is_over
from dreamer.training.seeding import own_randomness
from dreamer.training.video import prediction_frames


class Trainer:
    """Lets an algorithm learn and collect. Ranks, each with a Trainer, make the same updates at the same time.

    config: the whole configuration, or a rank's share of it. env: to collect in. evaluations: `Evaluations`. logger and
    progress take what there is to report.
    """

    def __init__(self, config, algorithm, env, evaluations, replay, logger, progress):
        self.settings, self.operation = config.parameters.dreamer, config.operation
        self.algorithm, self.env, self.evaluations, self.replay = algorithm, env, evaluations, replay
        self.logger, self.progress = logger, progress
        self.evaluation_average = ExponentialAverage(span=20)
        self.iteration = self.env_steps = 0
        self.interaction_steps = 1000  # env steps of the last interaction; at the beginning as if of so many
        self.updates_made = torch.zeros((), dtype=torch.int64, device=algorithm.device)
        self.updates_left = 0.0  # a part of an update that was due and could not be made
        self.learner = self.run_update = None  # the algorithm's phase that learns, and its update
        self.metrics, self.updates, self.seconds = Means(), 0, 0.0  # of the updates that are not reported yet

    def run(self, checkpoint=lambda iteration, last: None):
        """Algorithm 1; with `train_ratio` its updates do not come before the episodes of an iteration but between their
        steps. checkpoint: called at the end of each iteration. After `load_state_dict` it goes on from there.

        Raises ConfigError if the seed episodes are too short for a window, NotFiniteError, EnvError.
        """
        if self.iteration == 0:
            self.play_seed_episodes()
            self.make_updates(self.algorithm.active(self.env_steps), self.settings.pretrain)
            self.report_updates()
        while not self.is_over():
            self.iteration += 1
            self.progress.begin(self.iteration)
            started, env_steps = time.perf_counter(), self.env_steps
            algorithm = self.algorithm.active(self.env_steps)
            policy, episodes = algorithm.collector(self.env), self.settings.num_interaction_episodes
            if self.settings.train_ratio:
                self.collect(policy, episodes, learner=algorithm)
                self.report_updates()
            else:
                self.learn(algorithm)
                self.collect(policy, episodes)
            self.interaction_steps = self.env_steps - env_steps
            last = self.is_over()
            if distributed.rank() == 0 and (last or self.iteration % self.settings.evaluate_interval == 0):
                self.evaluate(last)
            self.report_evaluation(self.evaluations.result(wait=last))
            speed = (self.env_steps - env_steps) / (time.perf_counter() - started)
            [steps] = distributed.total(len(self.replay))
            self.log({"speed/env_steps_per_second": speed, "replay/steps": steps})
            self.progress.end(last)
            checkpoint(self.iteration, last)

    def is_over(self):
        return is_over(self.iteration, self.env_steps, self.settings.train_iterations, self.settings.max_env_steps)

    # Learning

    def learn(self, algorithm):
        """The updates that an iteration begins with. Raises NotFiniteError."""
        self.make_updates(algorithm, self.updates_due())
        self.report_updates()

    def updates_due(self):
        """How many these are: `collect_interval`, or with `proportional_updates` so many for every 1,000 env steps of
        the last interaction."""
        proportion = self.interaction_steps / 1000 if self.settings.proportional_updates else 1
        return self.whole(proportion * self.settings.collect_interval)

    def keep_up(self, algorithm, stored=1):
        """The updates that one more stored step makes due with `train_ratio`, a part of one as a rule. Nothing becomes
        due while no window fits.

        It is one step in each rank, but for those whose episode is over before the others': there nothing is `stored`
        and they go on with the updates that the others' steps make due. Returns the steps of all.
        """
        settings, fits = self.settings, self.replay.longest_window() >= self.settings.batch_length
        stored, fitting = distributed.total(stored, int(fits))
        if fitting == distributed.count():
            due = stored / distributed.count() * settings.train_ratio / (settings.batch_size * settings.batch_length)
            self.make_updates(algorithm, self.whole(due))
            self.progress.phase("collecting")
        return stored

    def whole(self, updates):
        """How many whole updates can be made when so many more are due; the rest is left for later."""
        due = self.updates_left + updates
        self.updates_left = due - int(due)
        return int(due)

    def make_updates(self, algorithm, updates):
        """So many updates. Each finds the latent states that the one before has stored."""
        if not updates:
            return
        started = time.perf_counter()
        if algorithm is not self.learner:
            recorded = (
                CudaGraphed(algorithm.update, algorithm.device) if self.operation.fast_paths else algorithm.update
            )
            self.learner, self.run_update = algorithm, recorded
        for update, (starts, batch) in enumerate(prefetched(self.fetch, updates), 1):
            self.progress.phase(f"learning {update}/{updates}")
            metrics, stored = self.run_update(self.with_latents(starts, batch), self.updates_made)
            self.updates_made += 1
            self.metrics.add(metrics)
            if self.settings.replay_context:
                self.replay.write_latents(starts, stored)
        self.updates += updates
        self.seconds += time.perf_counter() - started

    def report_updates(self):
        """Log the means over the updates since the last report, and over the ranks. Raises NotFiniteError, in all of
        them, if any is not finite."""
        if not self.updates:
            return
        started, updates = time.perf_counter(), self.updates
        means = distributed.average(self.metrics.result())  # the first moment at which the device must have finished
        seconds = self.seconds + time.perf_counter() - started
        self.updates, self.seconds = 0, 0.0
        check_finite(means, self.iteration)
        self.log(means | {"speed/updates_per_second": updates / seconds})

    def sample(self, random=None):
        """A batch of windows on the device, (B, T, ·), pixels as they are; random: as in `ReplayBuffer.draw`."""
        return self.with_latents(*self.fetch(random))

    def fetch(self, random=None):
        """The same without latent states, after the numbers of the windows' first steps (B,)."""
        starts = self.replay.draw(self.settings.batch_size, self.settings.batch_length, random)
        device = self.algorithm.device
        empty = pinned if device.type == "cuda" else aligned_empty
        return starts, to_device(self.replay.windows(starts, self.settings.batch_length, empty), device)

    def with_latents(self, starts, batch):
        """The batch with the latent states as they are stored now."""
        if not self.settings.replay_context:
            return batch
        return batch._replace(latent=to_device(self.replay.read_latents(starts), self.algorithm.device))

    # Interaction

    def play_seed_episodes(self):
        """Uniformly random actions, or those of the policy that will collect."""
        settings, longest = self.settings, self.env.max_agent_steps and self.env.max_agent_steps + 1
        if longest:
            self.check_window(longest if settings.buffer.sampling == "episodes" else settings.seed_episodes * longest)
        at_random = settings.seed_policy == "random"
        policy = random_policy(self.env) if at_random else self.algorithm.active(0).collector(self.env)
        self.collect(policy, settings.seed_episodes)
        self.check_window(self.replay.longest_window())

    def check_window(self, longest):
        """Raise ConfigError if the longest window of the seed episodes is too short, and learning does not wait for
        one that fits."""
        settings, by_episodes = self.settings, self.settings.buffer.sampling == "episodes"
        waits = settings.train_ratio and not settings.pretrain and not by_episodes
        if longest >= settings.batch_length or waits:
            return
        stored, advice = f"the seed episodes store {longest}", "raise parameters.dreamer.seed_episodes"
        if by_episodes:
            stored, advice = (
                f"no seed episode stores more than {longest}",
                "set parameters.dreamer.buffer.sampling: windows",
            )
        key = f"parameters.dreamer.batch_length: {settings.batch_length} agent steps"
        raise ConfigError(f"{key}, but {stored}; lower it, or {advice}")

    def collect(self, policy, episodes, learner=None):
        """Play episodes into the replay. learner: an algorithm whose updates keep up with the steps.

        An update comes after a step is stored and before the policy chooses the next action. `ParallelEnvs` are the
        exception: there a whole round is played first.
        """
        self.progress.phase("collecting")
        for episode in on_one_thread(run_episodes(self.env, policy, episodes)):
            self.store(episode, learner)

    def store(self, episode, learner=None):
        """Play an episode, step by step, into the replay; learner: as for `collect`. Logs the means over the ranks,
        each of which plays one."""
        episode_return = length = 0
        for step in on_one_thread(episode):
            self.replay.add(step)
            episode_return += step.reward
            length += step.env_steps
            self.progress.stepped(step.env_steps)
            if learner:
                self.keep_up(learner)
        while learner and self.keep_up(learner, stored=0):
            continue
        self.replay.finish_episode()
        [env_steps] = distributed.total(length)
        self.env_steps += env_steps
        self.progress.stepped(env_steps - length)
        self.progress.finished(episode_return)
        self.log(distributed.average({"train/return": episode_return, "train/length": length}))

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
                film = evaluation.frames, evaluation.env_steps, evaluation.frames_per_second
                self.logger.video("evaluation/episode", *film)

    def show_prediction(self):
        """An open-loop prediction of pixels, as a video; none while no window fits. Its random numbers are its own, as
        an evaluation's are."""
        if self.replay.longest_window() < self.settings.batch_length:
            return
        with own_randomness(self.operation.seed, self.iteration):
            batch = self.sample(np.random.default_rng((self.operation.seed, self.iteration)))
            if image_of(batch.observation, axes=2) is not None:
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
            "updates_made": int(self.updates_made),
            "evaluation_average": self.evaluation_average.state_dict(),
        }

    def load_state_dict(self, state):
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]
        self.interaction_steps, self.updates_left = state["interaction_steps"], state["updates_left"]
        made = state.get("updates_made", self.algorithm.optimizers["model"].updates)  # older runs do not say it
        self.updates_made.fill_(int(made))
        self.evaluation_average.load_state_dict(state["evaluation_average"])
        self.learner = self.run_update = None  # a recording would go on with the optimisers' tensors of before

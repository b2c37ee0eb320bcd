"""What a run that is under way shows: a bar in a terminal, elsewhere plain lines."""

import math
import sys
import time
from collections import deque
from statistics import mean

from tqdm import tqdm

REFRESH = 1  # seconds between two states of the bar
EVERY = 10  # seconds, at least, between two plain lines
REMEMBERED = 10  # iterations, whose mean duration tells the time left
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"


class Progress:
    """The iteration and what is going on in it, env steps, the last return of training and that of an evaluation, and
    the time left.

    The time left follows from the last iterations of this process, whole ones, their updates included. Until one of
    them has ended, none is shown. With `max_env_steps` there will be as many iterations as the env steps of these say.
    """

    def __init__(self, iterations, max_env_steps=None, training="training"):
        """training: what to call the episodes that are collected, as from `name_of_training`."""
        self.training = training
        self.iterations, self.iteration, self.env_steps = iterations, 0, 0
        self.most, self.max_env_steps = iterations, max_env_steps
        self.first = None  # (iteration, env steps) when the first one of this process began
        self.last_return = self.evaluation = None
        self.began, self.durations = None, deque(maxlen=REMEMBERED)
        self.text, self.done, self.due = "starting", False, time.monotonic() + REFRESH
        always = {"mininterval": 0, "miniters": 0, "delay": REFRESH / 2}  # drawn whenever `show` says so
        self.bar = tqdm(
            total=iterations, bar_format=FORMAT, disable=not sys.stderr.isatty(), dynamic_ncols=True, **always
        )

    def begin(self, iteration):
        """An iteration begins; counted from 1."""
        now = time.monotonic()
        if self.began is not None:
            self.durations.append(max(now - self.began, 0.001))
        self.iteration, self.began = iteration, now
        self.first = self.first or (iteration, self.env_steps)
        done, env_steps = iteration - self.first[0], self.env_steps - self.first[1]
        if self.max_env_steps and env_steps:
            left = math.ceil(done * (self.max_env_steps - self.env_steps) / env_steps)
            self.iterations = self.bar.total = min(self.most, iteration - 1 + max(left, 1))

    def phase(self, text):
        """Say what is going on, such as "learning 20/100"."""
        self.text = text
        self.show()

    def stepped(self, env_steps):
        self.env_steps += env_steps
        self.show()

    def finished(self, episode_return):
        """An episode ended."""
        self.last_return = episode_return

    def evaluated(self, mean_return):
        self.evaluation = mean_return

    def end(self, last):
        """The iteration that began last ended; whether it was the last one."""
        self.done = last
        if last:
            self.iterations = self.bar.total = self.iteration
        if self.done or not self.durations:  # the first one, too
            self.due = 0
        if not self.bar.disable:
            self.show()
        elif time.monotonic() >= self.due:
            self.due = time.monotonic() + EVERY
            print(f"iteration {self.iteration} of {self.iterations}, {self.figures()}", file=sys.stderr, flush=True)

    def show(self):
        """Draw the bar, if there is one and it was not drawn just now."""
        if self.bar.disable or time.monotonic() < self.due:
            return
        self.due = time.monotonic() + REFRESH
        self.bar.n = self.position()
        self.bar.set_description_str(f"iteration {self.iteration}/{self.iterations}, {self.text}", refresh=False)
        self.bar.set_postfix_str(self.figures(), refresh=False)
        self.bar.update(0)

    def position(self):
        """Iterations that are done and, by the time that has gone, how much of the one under way."""
        if self.done:
            return self.iterations
        part = min(1, (time.monotonic() - self.began) / mean(self.durations)) if self.durations else 0
        return max(0, self.iteration - 1) + part

    def seconds_left(self):
        """None where nothing is known of it."""
        return (self.iterations - self.position()) * mean(self.durations) if self.durations else None

    def figures(self):
        """Env steps, returns and the time left, as text."""
        left, figures = self.seconds_left(), [f"{self.env_steps} env steps"]
        returns = {self.training: self.last_return, "evaluation": self.evaluation}
        known = [f"{value:.1f} in {name}" for name, value in returns.items() if value is not None]
        figures += [f"return {', '.join(known)}"] if known else []
        figures += [f"{tqdm.format_interval(round(left))} left"] if left else []
        return ", ".join(figures)

    def state_dict(self):
        return {"env_steps": self.env_steps}

    def load_state_dict(self, state):
        self.env_steps = state["env_steps"]

    def close(self):
        self.bar.close()


def name_of_training(config):
    """Return a name for the episodes that a run collects. Their returns differ from those of its evaluations if
    another actor plays them, or the same one with noise."""
    if config.algorithm == "plan2explore" and config.parameters.plan2explore.explore_env_steps is None:
        return "exploration"
    with_noise = config.parameters.dreamer.exploration_noise > 0 or not config.evaluation.sample
    return "training with noise" if with_noise else "training"

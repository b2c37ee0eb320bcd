"""Show the progress of a run: as a bar in a terminal, elsewhere as plain lines."""

import math
import sys
import time
import warnings
from collections import deque
from statistics import mean

from tqdm import TqdmWarning

from dreamer.config.load import Config

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets has the bar of a terminal
    from tqdm.auto import tqdm

REFRESH = 1  # seconds between two states of the bar
EVERY = 10  # seconds, at least, between two plain lines
REMEMBERED = 10  # iterations, whose mean duration tells the time left
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"


class Progress:
    """Shows the iteration and its present activity, env steps, the last returns and the time left.

    The time left is estimated from the last whole iterations of this process, and not shown before the first has ended.
    With `max_env_steps` the number of iterations is estimated from the env steps of an iteration.
    """

    def __init__(self, iterations: int, max_env_steps: int | None = None, training: str = "training"):
        """iterations: at most in the run. training: the name of collected episodes, from `name_of_training`."""
        self.training = training
        self.iterations, self.iteration, self.env_steps = iterations, 0, 0
        self.most, self.max_env_steps = iterations, max_env_steps
        self.first: tuple[int, int] | None = None  # (iteration, env steps) when this process began its first one
        self.last_return: float | None = None
        self.evaluation: float | None = None
        self.began: float | None = None
        self.durations: deque[float] = deque(maxlen=REMEMBERED)
        self.activity = "starting"
        self.done = False
        self.due = time.monotonic() + REFRESH  # when to show the progress again
        always = {"mininterval": 0, "miniters": 0, "delay": REFRESH / 2}  # `show` decides when to draw
        self.bar = tqdm(total=iterations, bar_format=FORMAT, disable=not has_bar(), dynamic_ncols=True, **always)

    def begin(self, iteration: int) -> None:
        """Note that an iteration begins; the first is 1."""
        now = time.monotonic()
        if self.began is not None:
            self.durations.append(max(now - self.began, 0.001))
        self.iteration, self.began = iteration, now
        if self.first is None:
            self.first = iteration, self.env_steps
        first_iteration, first_env_steps = self.first
        iterations = iteration - first_iteration
        env_steps = self.env_steps - first_env_steps
        if self.max_env_steps and env_steps:
            iterations_left = math.ceil(iterations * (self.max_env_steps - self.env_steps) / env_steps)
            self.iterations = min(self.most, iteration - 1 + max(iterations_left, 1))

    def set_activity(self, activity: str) -> None:
        """Show what the run does now, such as "learning 20/100"."""
        self.activity = activity
        self.show()

    def leave_out(self, seconds: float) -> None:
        """Subtract seconds from the iteration's duration, for work that later iterations do not repeat."""
        if self.began is not None:
            self.began += seconds

    def add_env_steps(self, env_steps: int) -> None:
        """Add env steps that were collected."""
        self.env_steps += env_steps
        self.show()

    def end_episode(self, episode_return: float) -> None:
        """Note the return of a collected episode."""
        self.last_return = episode_return

    def end_evaluation(self, mean_return: float) -> None:
        """Note the mean return of an evaluation."""
        self.evaluation = mean_return

    def end(self, last: bool) -> None:
        """Note that the iteration has ended, and show it. last: whether it was the run's last one."""
        self.done = last
        if last:
            self.iterations = self.iteration
        if self.done or not self.durations:  # show the last and the first iteration at once
            self.due = 0
        if not self.bar.disable:
            self.show()
        elif time.monotonic() >= self.due:
            self.due = time.monotonic() + EVERY
            print(f"iteration {self.iteration} of {self.iterations}, {self.figures()}", file=sys.stderr, flush=True)

    def show(self) -> None:
        """Draw the bar, if there is one, at most once in REFRESH seconds."""
        if self.bar.disable or time.monotonic() < self.due:
            return
        self.due = time.monotonic() + REFRESH
        self.bar.n = self.position() * self.bar.total / self.iterations  # a notebook's bar keeps its first total
        self.bar.set_description_str(f"iteration {self.iteration}/{self.iterations}, {self.activity}", refresh=False)
        self.bar.set_postfix_str(self.figures(), refresh=False)
        self.bar.update(0)

    def position(self) -> float:
        """Return the number of iterations done, with the fraction of the current one, estimated from elapsed time."""
        if self.done:
            return self.iterations
        fraction = 0.0
        if self.durations and self.began is not None:
            fraction = min(1, (time.monotonic() - self.began) / mean(self.durations))
        return max(0, self.iteration - 1) + fraction

    def seconds_left(self) -> float | None:
        """Return the time left; None if it is not known yet."""
        return (self.iterations - self.position()) * mean(self.durations) if self.durations else None

    def figures(self) -> str:
        """Return env steps, returns and the time left, as text."""
        figures = [f"{self.env_steps} env steps"]
        returns = {self.training: self.last_return, "evaluation": self.evaluation}
        texts = [f"{value:.1f} in {name}" for name, value in returns.items() if value is not None]
        if texts:
            figures.append(f"return {', '.join(texts)}")
        seconds = self.seconds_left()
        if seconds:
            figures.append(f"{tqdm.format_interval(round(seconds))} left")
        return ", ".join(figures)

    def state_dict(self) -> dict[str, int]:
        """Return the env steps."""
        return {"env_steps": self.env_steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the env steps."""
        self.env_steps = state["env_steps"]

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        self.bar.close()


def has_bar() -> bool:
    """Return whether a bar can be drawn: in a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel.zmqshell" in sys.modules


def name_of_training(config: Config) -> str:
    """Return a name for the episodes that a run collects.

    Their returns differ from those of its evaluations if another actor plays them, or the same one with noise.
    """
    if config.algorithm == "plan2explore" and config.parameters.plan2explore.explore_env_steps is None:
        return "exploration"
    with_noise = config.parameters.dreamer.exploration_noise > 0 or not config.evaluation.sample
    return "training with noise" if with_noise else "training"

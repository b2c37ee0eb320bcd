"""Decide when a run is over, and whether its seed episodes hold a window to learn from."""

from dreamer.config.load import Config
from dreamer.errors import ConfigError


def is_over(iteration: int, env_steps: int, train_iterations: int, max_env_steps: int | None = None) -> bool:
    """Return whether a run ends after `iteration` iterations and `env_steps` env steps.

    max_env_steps (None: no limit) does not end it before the first iteration.
    """
    reached = max_env_steps is not None and env_steps >= max_env_steps
    return iteration >= train_iterations or (reached and iteration > 0)


def longest_seed_window(settings: Config, max_agent_steps: int | None) -> int | None:
    """Return the length of the longest window that the seed episodes can hold; None if that is not known, or if a
    dataset comes before them.

    settings: `parameters.dreamer`. max_agent_steps: of an episode, which stores one more for its first observation.
    """
    if not max_agent_steps or settings.dataset:
        return None
    stored = max_agent_steps + 1
    return stored if settings.buffer.sampling == "episodes" else settings.seed_episodes * stored


def check_window(settings: Config, longest: int) -> None:
    """Raise ConfigError if the longest window of the seed episodes is too short and learning cannot wait for a longer
    one."""
    by_episodes = settings.buffer.sampling == "episodes"
    waits = settings.collect and settings.train_ratio and not settings.pretrain and not by_episodes
    if longest >= settings.batch_length or waits:
        return
    if settings.dataset:
        stored = f"no window of dataset and seed episodes has more than {longest}"
        advice = "import longer episodes"
    elif by_episodes:
        stored = f"no seed episode stores more than {longest}"
        advice = "set parameters.dreamer.buffer.sampling: windows"
    else:
        stored = f"the seed episodes store {longest}"
        advice = "raise parameters.dreamer.seed_episodes"
    key = f"parameters.dreamer.batch_length: {settings.batch_length} agent steps"
    raise ConfigError(f"{key}, but {stored}; lower it, or {advice}")

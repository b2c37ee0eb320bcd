"""When a run is over."""


def is_over(settings, iteration, env_steps):
    """Whether a run ends after so many iterations and env steps. settings: a mapping with its `train_iterations` and,
    if there is one, its `max_env_steps`."""
    limit = settings.get("max_env_steps")
    return iteration >= settings["train_iterations"] or (limit is not None and env_steps >= limit)

"""When a run is over."""


def is_over(iteration, env_steps, train_iterations, max_env_steps=None):
    """Whether a run ends after so many iterations and env steps. max_env_steps (None: no limit) ends it after the
    first iteration at the earliest."""
    reached = max_env_steps is not None and env_steps >= max_env_steps
    return iteration >= train_iterations or (reached and iteration > 0)

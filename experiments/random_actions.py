"""What uniformly random actions get: the mean return and its sample standard deviation over episodes.

    python experiments/random_actions.py --config quick-cartpole-swingup [key=value …] [--episodes 50]

The configuration's environment alone matters. Nothing is drawn where the observations are vectors, so
`environment.from_pixels=False` is fast and gives the same returns.
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreamer.algorithms.policy import random_policy  # noqa: E402
from dreamer.config.load import load_config  # noqa: E402
from dreamer.envs.make import make_eval_env  # noqa: E402
from dreamer.errors import ConfigError, EnvError  # noqa: E402
from dreamer.tools.argument_parser import Parser, positive, separate_overrides  # noqa: E402
from dreamer.training.collect import run_episode  # noqa: E402


def random_returns(config, episodes):
    """Return the returns of episodes with random actions."""
    with closing(make_eval_env(config.environment, config.operation.seed)) as env:
        policy = random_policy(env)
        returns = []
        for _ in range(episodes):
            returns.append(sum(step.reward for step in run_episode(env, policy)))
        return returns


def main(arguments=None):
    """Print the mean return. Return the exit status: 0, or 2 with one line if nothing can be played."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", required=True)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--episodes", type=positive, default=50)
    options = parser.parse_intermixed_args(arguments)
    separate_overrides(options, arguments, "config")
    try:
        returns = random_returns(load_config(options.config, options.overrides), options.episodes)
    except (ConfigError, EnvError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{np.mean(returns):.4g} ± {np.std(returns, ddof=1):.3g} in {len(returns)} episodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

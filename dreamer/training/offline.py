"""Fill a replay with recorded episodes, before the first update."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from dreamer import distributed
from dreamer.config.load import Config
from dreamer.envs.actions import ActionParts, columns_of
from dreamer.envs.spaces import space_from_json
from dreamer.errors import ConfigError, DataError, in_words
from dreamer.replay.buffer import ReplayBuffer
from dreamer.replay.recorded import FILE, Dataset, describe_rows

KEY = "parameters.dreamer.dataset"


def fill(replay: ReplayBuffer, config: Config, env: Any) -> None:
    """Add the episodes of the configured dataset, if there is one, to a replay, and print their number.

    Data-parallel workers divide the episodes among themselves. env: the run's; its observations and actions must match
    the recorded ones. Raises ConfigError if they do not, if episodes are damaged or if the replay cannot hold them.
    """
    folder = config.parameters.dreamer.dataset
    if folder is None:
        return
    try:
        dataset = Dataset(Path(folder))
        check_row_type(dataset, replay, env, config.environment.frame_skip)
        order = action_order(dataset, env)
        for number, rows in enumerate(dataset.stored().episodes()):
            if number % distributed.count() == distributed.rank():
                rows["action"] = rows["action"][:, order]
                check_actions(rows["action"][1:], number, env)
                replay.add_episode(rows)
    except DataError as error:
        raise ConfigError(f"{KEY}: {error}") from None
    if distributed.rank() == 0:
        print(f"dataset     {dataset.count:,} episodes, {dataset.length:,} steps of {dataset.about.source}")


def check_row_type(dataset: Dataset, replay: ReplayBuffer, env: Any, frame_skip: int) -> None:
    """Raise DataError if observations, actions or frame skip differ from the run's, or if its replay is too small."""
    if dataset.row_type != replay.step_type:
        found, expected = describe_rows(dataset.row_type), describe_rows(replay.step_type)
        raise DataError(f"{dataset.folder} holds {found}; the run's environment has {expected}")
    repeats = dataset.about.frame_skip
    if repeats not in (None, frame_skip):
        raise DataError(f"{dataset.folder} has a frame_skip of {repeats}; environment.frame_skip is {frame_skip}")
    share = math.ceil(dataset.length / distributed.count())
    if share > replay.capacity:
        raise DataError(f"{dataset.folder} holds {dataset.length:,} steps; raise parameters.dreamer.buffer.capacity")


def action_order(dataset: Dataset, env: Any) -> list[int]:
    """Return, for each number of an action in the run's environment, its index in the dataset's actions.

    The order differs if a Dict space has its parts in another order, since Minari sorts them. Raises DataError if the
    dataset's action space is known and differs.
    """
    recorded_spaces = dataset.about.spaces
    run_space = env.unwrapped_spaces.action
    if not recorded_spaces:
        return list(range(dataset.row_type["action"].shape[0]))
    try:
        recorded_space = space_from_json(recorded_spaces["action"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{dataset.folder} has a damaged {FILE} ({in_words(error)}); import the episodes again"
        ) from None
    if recorded_space != run_space:
        raise DataError(f"{dataset.folder}: actions were {recorded_space}; the run's environment has {run_space}")
    indices = {name: index for index, name in enumerate(columns_of(recorded_space))}
    return [indices[name] for name in columns_of(run_space)]


def check_actions(actions: np.ndarray, episode: int, env: Any) -> None:
    """Raise DataError if actions (T, A) are not one-hot although the environment's are."""
    if isinstance(env.action_space, ActionParts) and not env.action_space.are_one_hot(actions):
        raise DataError(f"episode {episode} has actions that are not one-hot, which the run's environment takes")

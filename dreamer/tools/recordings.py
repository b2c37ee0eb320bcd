"""Convert episodes of other formats to rows of the replay, and read the stored episodes of a run or a dataset."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamer.config.load import CONFIGURATION, load_config
from dreamer.envs.spaces import Spaces, spaces_from_json
from dreamer.envs.translation import Translation
from dreamer.envs.wrappers import LARGEST
from dreamer.errors import DataError, InputError
from dreamer.replay.buffer import observation_type
from dreamer.replay.recorded import FILE, Dataset, DatasetInfo, StoredSteps
from dreamer.replay.step import assign_fields, fields, step_type
from dreamer.training.agent_parts import read_run
from dreamer.training.checkpoint_file import load_checkpoint
from dreamer.training.run_folder import rank_folder, ranks_of

SIZE = 64  # pixels a side, the default of environment.height and width


class Recordings(NamedTuple):
    """Holds the episodes of one source, and their description."""

    dataset_info: DatasetInfo
    row_type: np.dtype  # as from `step_type`
    episodes: Iterator[np.ndarray]  # each rows (T,)
    translation: Translation | None = None  # between these rows and the environment's own units; None: not known
    left_out: tuple[str, ...] = ()  # keys of the source that were not imported


class Episode(NamedTuple):
    """Holds one episode of T steps in the time index of `Step`; its observations are the environment's own."""

    observation: Any  # nested as the environment's space is, each part (T, …)
    action: np.ndarray  # (T, A), in an agent's units
    reward: np.ndarray  # (T,)
    is_terminal: bool  # whether the task ended with the last step


def translation_of(spaces: Spaces, size: int, name: str) -> Translation:
    """Return the `Translation` from an environment's own observations to those that an agent sees.

    size: of pictures, in pixels a side. name: begins an error. Raises EnvError for spaces that cannot be used.
    """
    environment = {"from_pixels": False, "grayscale": False, "height": size, "width": size, "task_name": name}
    return Translation(spaces, environment)


def row_type_of(translation: Translation) -> np.dtype:
    """Return the type of a row that stores a step as the agent sees it."""
    return step_type(*observation_type(translation.observation_space), translation.action_space.shape[0])


def rows_of(episode: Episode, translation: Translation, name: str) -> np.ndarray:
    """Return the rows (T,) of an episode. name: begins an error. Raises DataError for an episode of another form."""
    check_index(episode, name)
    rows = np.zeros(len(episode.reward), row_type_of(translation))
    try:
        observation, length = translation.agent_observation(episode.observation)
    except InputError as error:
        raise DataError(f"{name}: {error}") from None
    if length != len(rows):
        raise DataError(f"{name}: {length} observations, but {len(rows)} rewards; expected as many")
    assign_fields({"": observation}, {"": fields(rows)["observation"]}, slice(None))
    rows["action"], rows["reward"] = episode.action, episode.reward
    rows["is_first"][0], rows["is_terminal"][-1] = 1, episode.is_terminal
    return rows


def check_index(episode: Episode, name: str) -> None:
    """Raise DataError for an action or a reward at index 0, for numbers that are not finite, and for wrong lengths.

    An action at index 0 shows that the recording has another time index: action t follows observation t.
    """
    if len(episode.reward) < 2:
        raise DataError(f"{name}: the episode has {len(episode.reward)} steps; expected 2 or more")
    if len(episode.action) != len(episode.reward):
        raise DataError(f"{name}: {len(episode.action)} actions, but {len(episode.reward)} rewards; expected as many")
    for part, values in (("action", episode.action), ("reward", episode.reward)):
        if not (np.abs(values) <= LARGEST).all():
            raise DataError(f"{name}: {part} holds NaN, infinity or a number beyond {LARGEST:g}")
        if np.any(values[0]):
            reason = "at t is the action that led to observation t, and its reward"
            raise DataError(f"{name}: {part} at index 0 is {values[0]}; expected 0, since {reason}")


def is_stored(source: Path) -> bool:
    """Return whether a folder holds a run or a dataset."""
    return (source / CONFIGURATION).is_file() or (source / FILE).is_file()


def read_stored(folder: Path) -> Recordings:
    """Return the episodes of a dataset, or of a run up to its newest checkpoint.

    Raises DataError, ConfigError, CheckpointError.
    """
    if (folder / CONFIGURATION).is_file():
        return read_run_episodes(folder)
    dataset = Dataset(folder)
    translation = None
    with suppress(ValueError):
        translation = translation_of(spaces_from_json(dataset.about.spaces), SIZE, str(folder))
    return Recordings(dataset.about, dataset.row_type, dataset.stored().episodes(), translation)


def read_run_episodes(folder: Path) -> Recordings:
    """Return the episodes of a run, of all its workers. Raises DataError, ConfigError, CheckpointError."""
    parts, worker_count = read_run(folder), ranks_of(folder)
    translation = Translation(parts.spaces, parts.config.environment)
    row_type = row_type_of(translation)
    capacity = load_config(folder / CONFIGURATION, warns=False).parameters.dreamer.buffer.capacity // worker_count
    stored = []
    for rank in range(worker_count):
        worker_folder = rank_folder(folder, rank, worker_count)
        _, state = load_checkpoint(worker_folder)
        end, checksums = state["replay"]["end"], state["replay"].get("checksums", {})
        stored.append(StoredSteps(worker_folder, row_type, range(max(0, end - capacity), end), checksums))
    episodes = (rows for steps in stored for rows in steps.episodes())
    dataset_info = DatasetInfo(str(folder), parts.spaces.state_dict(), parts.config.environment.frame_skip)
    return Recordings(dataset_info, row_type, episodes, translation)

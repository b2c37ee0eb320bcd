"""Read and write episodes of Minari datasets."""

import importlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from dreamer.envs.gymnasium_env import without_text
from dreamer.envs.spaces import Spaces
from dreamer.errors import DataError, InputError, in_words, pip_install
from dreamer.replay.recorded import DatasetInfo
from dreamer.tools.npz_episodes import parts_of
from dreamer.tools.recordings import Episode, Recordings, row_type_of, rows_of, translation_of

ID = re.compile(r"([\w/-]+/)?[\w-]+-v\d+")


def import_minari() -> Any:
    """Return the package minari. Raises DataError if it is not installed."""
    try:
        return importlib.import_module("minari")
    except ImportError:
        raise DataError(f"minari is not installed (Python 3.11 or newer): {pip_install('minari[hdf5]')}") from None


def read_minari(name: str, size: int) -> Recordings:
    """Return the episodes of a dataset on this machine. name: its id, or its folder. size: of pictures, in pixels a
    side. Raises DataError, EnvError for spaces that cannot be used."""
    package = import_minari()
    try:
        folder = Path(name) / "data"
        dataset = package.MinariDataset(folder) if folder.is_dir() else package.load_dataset(name)
    except Exception as error:  # minari's storages may raise anything
        known = ", ".join(package.list_local_datasets()) or "none"
        raise DataError(f"{name}: Minari cannot load it ({in_words(error)}); on this machine: {known}") from None
    env_spaces = Spaces(without_text(dataset.observation_space), dataset.action_space)
    translation = translation_of(env_spaces, size, name)

    def episodes() -> Iterator[np.ndarray]:
        dataset_episodes = iter(dataset.iterate_episodes())
        for number in range(dataset.total_episodes):
            where = f"{name}, episode {number}"
            try:
                data = next(dataset_episodes)
                actions = translation.agent_action(data.actions, axes=(1,))
            except InputError as error:
                raise DataError(f"{where}: {error}") from None
            except Exception as error:  # minari's storages may raise anything for damaged files
                raise DataError(f"{where}: Minari cannot read it ({in_words(error)})") from None
            if np.any(data.terminations[:-1]):
                raise DataError(f"{where}: the task ends before the last step; expected one episode")
            first_action = np.zeros((1, *actions.shape[1:]), np.float32)
            reward = np.concatenate([[0.0], np.ravel(data.rewards)])
            is_terminal = bool(np.any(data.terminations[-1:]))
            episode = Episode(data.observations, np.concatenate([first_action, actions]), reward, is_terminal)
            yield rows_of(episode, translation, where)

    dataset_info = DatasetInfo(f"minari {name}", env_spaces.state_dict())
    return Recordings(dataset_info, row_type_of(translation), episodes(), translation)


def write_minari(recordings: Recordings, name: str) -> int:
    """Write episodes to a new dataset on this machine, and return their number. name: its id.

    Actions are in the environment's own units if these are known. Observations are the environment's own if its space
    is one Box of numbers, else as an agent sees them. Raises DataError.
    """
    package = import_minari()
    if not ID.fullmatch(name):
        raise DataError(f"{name}: expected the name of a Minari dataset, such as walker/random-v0")
    if name in package.list_local_datasets():
        raise DataError(f"Minari has {name} already; name another version, or: minari delete {name}")
    observation_space, action_space = spaces_to_write(recordings)
    episode_buffers = (
        buffer_of(rows, number, recordings, observation_space) for number, rows in enumerate(recordings.episodes)
    )
    try:
        dataset = package.create_dataset_from_buffers(
            name,
            episode_buffers,
            description="written by EasyDreamer",
            action_space=action_space,
            observation_space=observation_space,
            jpeg_encoding=False,
        )
    except BaseException as error:
        with suppress(OSError):
            package.delete_dataset(name)
        if isinstance(error, (DataError, OSError)) or not isinstance(error, Exception):
            raise
        raise DataError(f"{name}: Minari cannot write it ({in_words(error)})") from None
    return int(dataset.total_episodes)


def spaces_to_write(recordings: Recordings) -> tuple[Any, Any]:
    """Return the spaces of observations and of actions of a dataset."""
    translation, observation = recordings.translation, recordings.row_type["observation"]
    action_space: Any = spaces.Box(-1, 1, recordings.row_type["action"].shape, np.float32)
    if translation:
        action_space = translation.spaces.action
        if isinstance(translation.spaces.observation, spaces.Box) and observation.base == np.float32:
            return translation.spaces.observation, action_space
    parts: dict[str, spaces.Space] = {}
    for name, values in parts_of(np.zeros(1, recordings.row_type)["observation"]).items():
        low, high = (0, 255) if name == "image" else (-np.inf, np.inf)
        parts[name] = spaces.Box(low, high, values.shape[1:], values.dtype)
    return next(iter(parts.values())) if len(parts) == 1 else spaces.Dict(parts), action_space


def buffer_of(rows: np.ndarray, number: int, recordings: Recordings, observation_space: Any) -> Any:
    """Return an episode as Minari's `EpisodeBuffer`. observation_space: of the dataset."""
    parts: Any = parts_of(rows["observation"])
    if isinstance(observation_space, spaces.Box):
        parts = next(iter(parts.values())).reshape(len(rows), *observation_space.shape).astype(observation_space.dtype)
    actions, ends = rows["action"][1:], rows["is_terminal"][1:] != 0
    translation = recordings.translation
    truncations = np.zeros(len(ends), bool)
    truncations[-1] = not ends[-1]
    return importlib.import_module("minari.data_collector").EpisodeBuffer(
        id=number,
        observations=parts,
        actions=translation.env_action(actions) if translation else actions,
        rewards=rows["reward"][1:].astype(float),
        terminations=ends,
        truncations=truncations,
        infos={},
    )

"""Run the command `data`: import and export recorded episodes."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from dreamer.errors import DataError
from dreamer.replay.recorded import DatasetWriter, describe_rows, new_folder
from dreamer.tools import npz_episodes
from dreamer.tools.argument_parser import RAW, Parser, positive
from dreamer.tools.minari_episodes import read_minari, write_minari
from dreamer.tools.npz_episodes import read_npz, write_npz
from dreamer.tools.recordings import SIZE, Recordings, is_stored, read_stored
from dreamer.training.ending import exit_status
from dreamer.training.run_folder import find_run

ABOUT = """Import recorded episodes for a run to learn from (parameters.dreamer.dataset), or export those of a run."""
NPZ_HELP = f"A folder of .npz files:\n\n{npz_episodes.__doc__}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Import or export episodes, as the command line says, and return the exit status."""
    parser = Parser("dreamer data", description=ABOUT)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    importer = commands.add_parser("import", help="write a dataset", epilog=NPZ_HELP, formatter_class=RAW)
    importer.add_argument("source", help="a folder of .npz files, a Minari dataset (id or folder), or a run's folder")
    importer.add_argument("folder", type=Path, help="the dataset's folder, which is made")
    importer.add_argument(
        "--size", type=positive, default=SIZE, help="pixels a side to which pictures are resized (64)"
    )
    importer.add_argument("--numbers", nargs="+", default=[], metavar="KEY", help="npz: keys to join to a vector")
    importer.set_defaults(action=import_episodes)
    exporter = commands.add_parser(
        "export", help="write a run's episodes for others", epilog=NPZ_HELP, formatter_class=RAW
    )
    exporter.add_argument("run", help="a run's folder, latest, or a dataset's folder")
    exporter.add_argument("format", choices=("npz", "minari"), help="one .npz file an episode, or a Minari dataset")
    exporter.add_argument(
        "name", help="of the folder to make, or the id of the Minari dataset, such as walker/random-v0"
    )
    exporter.set_defaults(action=export_episodes)
    options = parser.parse_args(arguments)
    return exit_status(options.action, options)


def import_episodes(options: Namespace) -> None:
    """Write a dataset. On an error write nothing. Raises DataError, ConfigError, CheckpointError, EnvError, OSError."""
    with new_folder(options.folder) as folder:
        recordings = read(options.source, options.size, options.numbers)
        writer = DatasetWriter(folder, recordings.row_type)
        for rows in recordings.episodes:
            writer.add(rows)
        writer.finish(recordings.dataset_info)
    if recordings.left_out:
        print(f"left out    {', '.join(recordings.left_out)}")
    contents = f"{writer.count:,} episodes, {writer.replay.end:,} steps of {describe_rows(recordings.row_type)}"
    print(f"written     {options.folder}: {contents}")
    print(f"learn       with parameters.dreamer.dataset={options.folder}, and parameters.dreamer.collect=False offline")


def export_episodes(options: Namespace) -> None:
    """Write the episodes of a run or a dataset in another format. Raises DataError, ConfigError, CheckpointError."""
    source = Path(options.run)
    recordings = read_stored(source if is_stored(source) else find_run(options.run))
    if options.format == "minari":
        count = write_minari(recordings, options.name)
    else:
        with new_folder(Path(options.name)) as folder:
            count = write_npz(recordings, folder)
            if not count:
                raise DataError(f"{recordings.dataset_info.source} holds no episode; expected one or more")
    print(f"written     {options.name}: {count:,} episodes of {describe_rows(recordings.row_type)}")


def read(source: str, size: int, numbers: Sequence[str]) -> Recordings:
    """Return the episodes of a run, a dataset, a folder of .npz files or a Minari dataset. Raises DataError."""
    path = Path(source)
    if is_stored(path):
        return read_stored(path)
    if path.is_dir() and not (path / "data").is_dir():
        return read_npz(path, size, numbers)
    if path.is_absolute() or source.startswith("."):
        raise DataError(f"{source}: there is no such folder")
    return read_minari(source, size)

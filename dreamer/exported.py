"""Exported agents: one zip file with weights, configuration, spaces and a card. Nothing in it is executed.

Its parts are stored uncompressed, so that a small file cannot unpack to a large one.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load, save

from dreamer.config.load import CONFIGURATION, Config, dump_config, load_config
from dreamer.config.yaml_files import parse
from dreamer.envs.spaces import spaces_from_json
from dreamer.errors import ConfigError, ExportError, NotFiniteError, one_line
from dreamer.files import naming_errors, write_durably
from dreamer.training.agent_parts import AgentParts, Weights

FORMAT = 1  # raise it when older programs would misunderstand the file
SUFFIX = ".zip"
INFO, WEIGHTS, CARD, FILM = "agent.json", "weights.safetensors", "card.md", "film.gif"
LARGEST = {INFO: 2**24, CONFIGURATION: 10**6, WEIGHTS: 2**36, CARD: 10**6, FILM: 2**26}  # bytes of each part
REQUIRED = {INFO, CONFIGURATION, WEIGHTS, CARD}
NETWORKS = ("model", "actor", "critic", "one_step_model")  # for acting, imagining and evaluation
SHIPPED = Path(__file__).with_name("agents")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every part: the same agent gives the same bytes


class Played(BaseModel):
    """The evaluation in a card. It can be repeated: its seeds follow from the run's seed and iteration."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    seed: int  # of the run; with the iteration it seeds the evaluation's random numbers, and alone its environment
    returns: list[float] = Field(min_length=1)
    device: str  # type of the device that computed the actions


class Info(BaseModel):
    """The content of agent.json."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: int
    spaces: dict[str, Any]  # "observation" and "action": the environment's own, as JSON
    iteration: int = Field(ge=0)
    env_steps: int = Field(ge=0)
    trained_with: dict[str, Any]  # commit and versions
    exported_with: dict[str, Any]
    played: Played


class Exported(NamedTuple):
    """An exported agent."""

    config: Config
    info: Info
    weights: Weights
    card: str  # Markdown
    film: bytes | None  # a GIF of the first episode

    @property
    def parts(self) -> AgentParts:
        """The arguments of an `Agent`."""
        return AgentParts(self.config, spaces_from_json(self.info.spaces), self.weights, self.info.iteration)


def write_exported(path: Path, exported: Exported) -> None:
    """Write an exported agent to a file. The same agent gives the same bytes. Raises OSError."""
    tensors = {
        f"{network}/{name}": tensor.contiguous()
        for network, state in exported.weights.items()
        for name, tensor in state.items()
    }
    parts = {
        INFO: exported.info.model_dump_json(indent=1).encode(),
        CONFIGURATION: dump_config(exported.config).encode(),
        WEIGHTS: save(tensors),
        CARD: exported.card.encode(),
    }
    if exported.film is not None:
        parts[FILM] = exported.film
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), part)
    write_durably(path, content.getbuffer())


def read_exported(where: str | Path) -> Exported:
    """Return an exported agent.

    where: a file, the name of an agent that comes with this program, or hf://user/name. Raises ExportError,
    ConfigError, NotFiniteError or OSError, in one line that names the file.
    """
    path = find_exported(where)
    if path is None:
        names = ", ".join(shipped())
        raise ExportError(f"{where}: no such agent; expected a {SUFFIX} file, hf://user/name, or one of: {names}")
    try:
        with naming_errors(path), zipfile.ZipFile(path) as archive:
            parts = _read_parts(path, archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ExportError(f"{path} is not an exported agent: {one_line(error)}") from None
    info = _parse_info(path, parts[INFO])
    config = _parse_config(path, _text(path, parts, CONFIGURATION))
    return Exported(config, info, _parse_weights(path, parts[WEIGHTS]), _text(path, parts, CARD), parts.get(FILM))


def find_exported(where: str | Path) -> Path | None:
    """Return the path of an exported agent, downloaded if it is on the Hub; None if `where` does not name one.

    A file or folder that exists comes before an agent of this name that comes with the program.
    """
    if str(where).startswith("hf://"):
        from dreamer.tools.hub import download  # late: it needs an optional package

        return download(str(where))
    path = Path(where)
    if path.is_dir():
        return None
    if path.is_file() or path.suffix == SUFFIX:
        return path
    return shipped().get(str(where))


def shipped() -> dict[str, Path]:
    """Return the agents that come with this program, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}


def _read_parts(path: Path, archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Return the parts of a file by name. agent.json comes first: a newer format may have other parts."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if INFO not in names:
        raise ExportError(f"{path} is not an exported agent: it has no {INFO}")
    parts = {INFO: _read_part(path, archive, archive.getinfo(INFO))}
    _check_format(path, parts[INFO])
    unknown_or_double = {name for name in names if name not in LARGEST or names.count(name) > 1}
    missing = REQUIRED - set(names)
    wrong = sorted(unknown_or_double | missing)
    if wrong:
        raise ExportError(f"{path}: {wrong[0]!r} is missing, double or unknown; expected {', '.join(LARGEST)}")
    return parts | {entry.filename: _read_part(path, archive, entry) for entry in entries if entry.filename != INFO}


def _read_part(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ExportError(f"{path}: {entry.filename} is compressed; expected a zip without compression")
    if entry.file_size > LARGEST[entry.filename]:
        limit = LARGEST[entry.filename]
        raise ExportError(f"{path}: {entry.filename} has {entry.file_size:,} bytes, more than {limit:,}")
    return archive.read(entry)


def _check_format(path: Path, content: bytes) -> None:
    """Raise ExportError unless agent.json says that this program can read the file."""
    try:
        file_format = json.loads(content)["format"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ExportError(f"{path}: {INFO} is damaged: it has no format") from None
    if file_format != FORMAT:
        advice = "install the one that wrote it"
        raise ExportError(f"{path} has format {file_format!r}, this program reads {FORMAT}: {advice}")


def _parse_info(path: Path, content: bytes) -> Info:
    """Return the content of agent.json. Raises ExportError."""
    try:
        info = Info.model_validate_json(content)
        spaces_from_json(info.spaces)
        return info
    except ValidationError as error:
        first_error = error.errors()[0]
        key = ".".join(map(str, first_error["loc"]))
        reason = f"{key}: {first_error['msg']}"
    except ValueError as error:
        reason = str(error)
    raise ExportError(f"{path}: {INFO} is damaged: {one_line(reason)}")


def _parse_config(path: Path, text: str) -> Config:
    """Return the configuration in the text of config.yml. Raises ConfigError."""
    source = f"{path}: {CONFIGURATION}"
    tree = parse(source, lambda: text)
    if not isinstance(tree, dict) or "base" in tree:
        raise ConfigError(f"{source}: expected a mapping of keys to values, without a base")
    try:
        return load_config(tree, warns=False)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _parse_weights(path: Path, content: bytes) -> Weights:
    """Return the weights in the bytes of safetensors. Raises ExportError, or NotFiniteError."""
    try:
        tensors = load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ExportError(f"{path}: {WEIGHTS} is damaged: {one_line(error)}") from None
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        network, _, name = key.partition("/")
        if network not in NETWORKS or not tensor.is_floating_point():
            expected = f"numbers with a point, of one of {', '.join(NETWORKS)}"
            raise ExportError(f"{path}: {WEIGHTS} holds {tensor.dtype} for {key!r}; expected {expected}")
        if not tensor.isfinite().all():
            raise NotFiniteError(f"not finite: weights of the {network} of {path}")
        weights.setdefault(network, {})[name] = tensor.float()
    if not {"model", "actor"} <= weights.keys():
        raise ExportError(f"{path}: {WEIGHTS} must hold a model and an actor; it has {', '.join(weights) or 'nothing'}")
    return weights


def _text(path: Path, parts: dict[str, bytes], name: str) -> str:
    try:
        return parts[name].decode()
    except UnicodeDecodeError as error:
        raise ExportError(f"{path}: {name} is damaged: {one_line(error)}") from None

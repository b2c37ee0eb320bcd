"""The file of an exported agent: what it keeps, and what is refused."""

import json
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save

from dreamer import exported as files
from dreamer.config.load import dump_config, flatten, load_config
from dreamer.envs.spaces import Spaces
from dreamer.errors import ConfigError, ExportError, NotFiniteError
from dreamer.exported import CONFIGURATION, WEIGHTS, Exported, Info, read_exported, write_exported
from tests.toys import SMALL, ToyEnv

PLAIN = Spaces(ToyEnv.observation_space, ToyEnv.action_space).state_dict()
INFORMATION = {
    "format": files.FORMAT,
    "spaces": PLAIN,
    "iteration": 7,
    "env_steps": 1400,
    "trained_with": {"commit": None},
    "exported_with": {"torch": "2"},
    "played": {"seed": 3, "returns": [1.5, 1 / 3], "device": "cpu"},
}
TENSORS = {"model/encoder.weight": torch.randn(2, 3), "actor/network.bias": torch.randn(4)}


@pytest.fixture(scope="module")
def config():
    return load_config("dreamer", SMALL)


def pack(path, config, **changed):
    """A file of the parts of a small agent, changed ones by their names in exported.py, None for a missing one."""
    parts = {
        "INFO": json.dumps(INFORMATION),
        "CONFIGURATION": dump_config(config),
        "WEIGHTS": save(TENSORS),
        "CARD": "a card",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | changed).items():
            if content is not None:
                archive.writestr(getattr(files, name, name), content)
    return path


def test_written_agent_is_read_back(config, tmp_path):
    weights = {"model": {"encoder.weight": torch.randn(2, 3).t()}, "actor": {"bias": torch.randn(4)}}
    info = Info(**INFORMATION)
    whole = Exported(config, info, weights, "# Ein Kärtchen", b"GIF89a")
    for name in ("a.zip", "b.zip"):
        write_exported(tmp_path / name, whole)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    read = read_exported(tmp_path / "a.zip")
    assert flatten(read.config) == flatten(config)
    assert (read.info, read.card, read.film) == (info, whole.card, whole.film)
    torch.testing.assert_close(read.weights, weights, rtol=0, atol=0)
    assert read.parts.spaces == Spaces(ToyEnv.observation_space, ToyEnv.action_space) and read.parts.iteration == 7
    write_exported(tmp_path / "c.zip", whole._replace(film=None))
    assert read_exported(tmp_path / "c.zip").film is None


def information(**changed):
    return json.dumps(INFORMATION | changed)


HUGE = PLAIN["observation"] | {"shape": [10**6, 10**6]}
LACKING = {"model/encoder.weight": torch.ones(1)}
REFUSED = {
    "a newer format": ({"INFO": information(format=99), "later.bin": b""}, "format 99, this program reads 1"),
    "no format": ({"INFO": "[]"}, "agent.json is damaged: it has no format"),
    "deep": ({"INFO": "[" * 100_000}, "agent.json is damaged"),
    "no information": ({"INFO": None}, "it has no agent.json"),
    "an unknown key": ({"INFO": information(run="rm")}, "agent.json is damaged: run: "),
    "text for a number": ({"INFO": information(iteration="7")}, "agent.json is damaged: iteration: "),
    "no spaces": ({"INFO": information(spaces={"observation": {"kind": "Eval"}})}, "Eval"),
    "huge spaces": ({"INFO": information(spaces=PLAIN | {"observation": HUGE})}, "more than 67,108,864 numbers"),
    "a return that is none": (
        {"INFO": information(played=INFORMATION["played"] | {"returns": [float("nan")]})},
        "finite",
    ),
    "no weights": ({"WEIGHTS": None}, "'weights.safetensors' is missing, double or unknown"),
    "a pickle": ({"WEIGHTS": pickle.dumps({"model": 1})}, "weights.safetensors is damaged"),
    "half of the weights": ({"WEIGHTS": save(TENSORS)[:-8]}, "weights.safetensors is damaged"),
    "another network": ({"WEIGHTS": save({"virus/x": torch.ones(1)})}, "'virus/x'"),
    "whole numbers": ({"WEIGHTS": save({"model/x": torch.ones(1, dtype=torch.int64)})}, "int64 for 'model/x'"),
    "no actor": ({"WEIGHTS": save(LACKING)}, "must hold a model and an actor; it has model"),
    "a path out of the archive": ({"../../evil.py": b"1"}, "'../../evil.py' is missing, double or unknown"),
    "text in no encoding": ({"CARD": b"\xff\xfe\xfd"}, "card.md is damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_damaged_or_foreign_file_is_refused_in_one_line(case, config, tmp_path):
    changed, words = REFUSED[case]
    path = pack(tmp_path / "agent.zip", config, **changed)
    with pytest.raises(ExportError) as raised:
        read_exported(path)
    message = str(raised.value)
    assert message.startswith(str(path)) and words in message and "\n" not in message


def test_invalid_configuration_or_weights_are_refused(config, tmp_path):
    for text, words in (
        ("operation: {seeed: 1}", "seeed"),
        ("base: dreamer.yml", "without a base"),
        ("- 1", "a mapping"),
    ):
        path = pack(tmp_path / "agent.zip", config, CONFIGURATION=text)
        with pytest.raises(ConfigError, match=f"^{path}: config.yml: .*{words}"):
            read_exported(path)
    path = pack(tmp_path / "agent.zip", config, WEIGHTS=save(TENSORS | {"actor/bias": torch.tensor([torch.nan])}))
    with pytest.raises(NotFiniteError, match=f"actor of {path}"):
        read_exported(path)


def test_compressed_or_too_large_parts_are_refused(config, tmp_path, monkeypatch):
    path = tmp_path / "agent.zip"
    with zipfile.ZipFile(pack(path, config, CARD=None), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(files.CARD, " " * 10**5)
    with pytest.raises(ExportError, match="card.md is compressed"):
        read_exported(path)
    pack(path, config)
    monkeypatch.setitem(files.LARGEST, WEIGHTS, 10)
    with pytest.raises(ExportError, match="weights.safetensors has .* bytes, more than 10"):
        read_exported(path)


def test_double_parts_and_damaged_archives_are_refused(config, tmp_path):
    path = pack(tmp_path / "agent.zip", config)
    whole = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(CONFIGURATION, "operation: {seed: 1}")
    with pytest.raises(ExportError, match="'config.yml' is missing, double or unknown"):
        read_exported(path)
    flipped = bytearray(whole)
    flipped[whole.index(b"a card")] ^= 1
    for content in (b"", b"PK", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(ExportError, match=f"{path} is not an exported agent"):
            read_exported(path)


def test_unknown_name_of_an_agent_is_refused(tmp_path):
    with pytest.raises(ExportError, match="no such agent; expected a .zip file, hf://user/name, or one of: "):
        read_exported("cartpool")
    with pytest.raises(FileNotFoundError, match="gone.zip"):
        read_exported(tmp_path / "gone.zip")
    with pytest.raises(ExportError, match="no such agent"):
        read_exported(tmp_path)

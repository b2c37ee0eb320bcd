"""Download exported agents from the Hugging Face Hub (hf://user/name), and upload them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dreamer.errors import ExportError, in_words
from dreamer.exported import FILM, read_exported

SCHEME = "hf://"
FILE = "agent.zip"  # in a repository of the Hub; its README.md is the card


def download(address: str) -> Path:
    """Download an exported agent from the Hub, unless it is in the local cache, and return its path there.

    address: hf://user/name, or hf://user/name@revision. Raises ExportError.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if not match:
        raise ExportError(f"{address}: expected {SCHEME}user/name, or {SCHEME}user/name@revision")
    repository, revision = match.groups()
    with hub_errors(address) as hub:
        return Path(hub.hf_hub_download(repository, FILE, revision=revision))


def push(path: Path, repository: str, private: bool = False) -> str:
    """Upload an exported agent, its card and its film, and return the address of the repository.

    repository: user/name, made if it does not exist. private: whether a new one is. Raises ExportError.
    """
    exported = read_exported(path)
    contents = {FILE: path.read_bytes(), "README.md": exported.card.encode()}
    if exported.film is not None:
        contents[FILM] = exported.film
    with hub_errors(f"{SCHEME}{repository}") as hub:
        api = hub.HfApi()
        name = api.create_repo(repository, private=private, exist_ok=True).repo_id
        files = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
        api.create_commit(name, files, commit_message=f"Upload {path.name} with dreamer push")
    return f"{SCHEME}{name}"


@contextmanager
def hub_errors(address: str) -> Iterator[Any]:
    """Yield the package huggingface_hub. Turn its errors in the block into an ExportError of one line."""
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        advice = "pip install 'easydreamer[hub]', or huggingface_hub"
        raise ExportError(f"{address} needs huggingface_hub, which is not installed: {advice}") from None
    try:
        yield huggingface_hub
    except Exception as error:  # also errors of its HTTP library
        raise ExportError(f"{address}: {in_words(error)}") from None

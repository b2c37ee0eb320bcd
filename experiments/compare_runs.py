"""Compare the results of two training runs bit for bit; compare_commits.py makes the runs.

Compared are the curves (without the tags of speed/) and films in the event files, the checkpoints leaf by leaf (without
the configuration, and the sizes of event files) and the files of the replay.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

MAX_SHOWN = 5  # printed differences of a run
LATENT_ROWS = 4096  # vectors in a .contexts file of the replay

# Paths in checkpoints that a commit renamed, with all that stands below them: (path in OLD, path in NEW), such as
# ("trainer/updates_left", "trainer/updates_owed"). None is the path in a commit that has nothing of the kind.
RENAMED: list[tuple[str | None, str | None]] = [
    ("trainer/interaction_steps", None),
    (None, "trainer/updates_made"),
    (None, "kept"),
    (None, "spaces"),
]
LEFT_OUT = ("configuration", "curves")  # parts of a checkpoint


class Comparison(NamedTuple):
    """The outcome of comparing two runs."""

    differences: list[str]
    scalars: int = 0
    tensors: int = 0

    def __str__(self) -> str:
        if not self.differences:
            return f"same: {self.scalars} scalars, {self.tensors} tensors"
        lines = self.differences[:MAX_SHOWN]
        if len(self.differences) > MAX_SHOWN:
            lines = [*lines, f"and {len(self.differences) - MAX_SHOWN} more"]
        return "different\n    " + "\n    ".join(lines)


def compare(old: Path, new: Path, resumed: bool = False) -> Comparison:
    """Compare the folders of two runs.

    resumed: the second run was interrupted once. Stored latent states are then compared step by step, because a resumed
    run puts them in other places of the replay's files.
    """
    old_leaves = {path_in_new(path): leaf for path, leaf in contents(old, resumed).items()}
    old_leaves.pop(None, None)  # paths that NEW no longer has
    new_leaves = {}
    for path, leaf in contents(new, resumed).items():
        if path in old_leaves or not is_added(path):
            new_leaves[path] = leaf
    differences = []
    for path in old_leaves | new_leaves:
        if path not in new_leaves:
            differences.append(f"{path}: only OLD has it")
        elif path not in old_leaves:
            differences.append(f"{path}: only NEW has it")
        elif not equal(old_leaves[path], new_leaves[path]):
            values = f"{describe_leaf(old_leaves[path])} in OLD, {describe_leaf(new_leaves[path])} in NEW"
            differences.append(f"{path}: {values}")
    scalars = sum(path.startswith("curve ") for path in old_leaves)
    tensors = sum(isinstance(leaf, torch.Tensor) for leaf in old_leaves.values())
    files = sum(path.startswith("replay/") for path in old_leaves)
    if not (scalars and tensors and files):
        differences.append(f"OLD has {scalars} scalars, {tensors} tensors, {files} files of a replay: too few")
    return Comparison(differences, scalars, tensors)


def contents(run: Path, resumed: bool) -> dict:
    """Return the results of a run, {path: leaf}: points of curves, leaves of checkpoints, digests of replay files."""
    leaves_by_path = curves(run)
    for checkpoint in sorted(run.glob("checkpoint-*[0-9].pt"))[-2:]:  # older commits keep no others
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state"]
        if resumed and "contexts" in state["replay"]:
            state["replay"]["contexts"] = stored_latents(run, state["replay"]["contexts"]["rows"])
        parts = {name: part for name, part in state.items() if name not in LEFT_OUT}
        leaves_by_path |= {f"{checkpoint.name}: {path}": leaf for path, leaf in leaves(parts).items()}
    for file in sorted(run.glob("replay/*")):
        if not (resumed and file.suffix == ".contexts"):
            leaves_by_path[f"replay/{file.name}"] = sha256(file.read_bytes())
    return leaves_by_path


def curves(run: Path) -> dict:
    """Return each point in the event files, {"curve tag [number]": (env step, value)}; of a film, the digest."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0}, purge_orphaned_data=False).Reload()
    tags = events.Tags()
    points = {}
    for tag in tags["scalars"]:
        if not tag.startswith("speed/"):
            for number, event in enumerate(events.Scalars(tag)):
                points[f"curve {tag} [{number}]"] = (event.step, event.value)
    for tag in tags["images"]:
        for number, event in enumerate(events.Images(tag)):
            points[f"film {tag} [{number}]"] = (event.step, sha256(event.encoded_image_string))
    return points


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def stored_latents(run: Path, rows: torch.Tensor) -> torch.Tensor:
    """Return the latent states in the replay's files, one for each step. rows: the row of each step."""
    files = sorted(run.glob("replay/*.contexts"))
    pool = np.concatenate([np.fromfile(file, np.float32).reshape(LATENT_ROWS, -1) for file in files])
    return torch.from_numpy(pool[rows.numpy()])


def leaves(tree, path: str = "", separator: str = "/") -> dict:
    """Return {path: leaf} of nested dicts, lists and tuples; an empty one is a leaf."""
    if isinstance(tree, dict) and tree:
        parts = {f"{path}{separator if path else ''}{key}": part for key, part in tree.items()}
    elif isinstance(tree, (list, tuple)) and tree:
        parts = {f"{path}[{number}]": part for number, part in enumerate(tree)}
    else:
        return {path: tree}
    inner_leaves = {}
    for name, part in parts.items():
        inner_leaves |= leaves(part, name, separator)
    return inner_leaves


def path_in_new(path: str) -> str | None:
    """Return the path in NEW of a leaf with this path in OLD; None if RENAMED says that it is gone."""
    checkpoint, colon, inner_path = path.partition(": ")
    for before, after in RENAMED:
        if before and is_below(inner_path, before):
            return None if after is None else checkpoint + colon + after + inner_path[len(before) :]
    return path


def is_added(path: str) -> bool:
    """Return whether RENAMED says that OLD has nothing at this path of NEW."""
    inner_path = path.partition(": ")[2]
    added_paths = [after for before, after in RENAMED if before is None and after]
    return any(is_below(inner_path, added_path) for added_path in added_paths)


def is_below(path: str, parent: str) -> bool:
    """Return whether a path in a checkpoint is `parent` or a part of it. Names of parameters have dots."""
    following_character = path[len(parent) : len(parent) + 1]
    return path.startswith(parent) and following_character in ("", "/", "[", ".")


def equal(old, new) -> bool:
    """Return whether two leaves are the same bit for bit."""
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        return old.dtype == new.dtype and old.shape == new.shape and torch.equal(raw_bytes(old), raw_bytes(new))
    if isinstance(old, set) and isinstance(new, set):
        return sorted(map(repr, old)) == sorted(map(repr, new))
    return type(old) is type(new) and repr(old) == repr(new)  # tells 0.0 from -0.0, and NaN is NaN


def raw_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def describe_leaf(leaf) -> str:
    """Return a leaf in a few words."""
    if isinstance(leaf, torch.Tensor) and leaf.numel() > 1:
        mean = leaf.double().mean().item()
        return f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)} of mean {mean!r}"
    text = repr(leaf)
    return text if len(text) <= 60 else f"{text[:60]}…"

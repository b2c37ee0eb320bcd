"""Open a run that may be running: its newest checkpoint and its replay, for reading only."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map

from dreamer.build import build_actor, build_replay
from dreamer.config.load import Config
from dreamer.envs.translation import Translation
from dreamer.errors import CheckpointError
from dreamer.modules.actor import Actor
from dreamer.modules.loading import load_weights
from dreamer.replay.buffer import SEGMENT, ReplayBuffer
from dreamer.replay.step import Batch
from dreamer.training.agent_parts import AgentParts, build_networks, read_run
from dreamer.training.run_folder import first_folder, ranks_of

MAX_STEPS = 20_000  # newest steps that are examined, so that a replay of pixels is not read as a whole


class OpenedRun(NamedTuple):
    """Holds the parts of a run from which figures are computed."""

    config: Config
    networks: dict[str, Any]  # "model", "actor", "critic" and perhaps others; "collector": the actor that collects
    replay: ReplayBuffer
    steps: range  # numbers of the newest stored steps, at most MAX_STEPS
    scalars: dict[str, np.ndarray]  # "action" (N, A), "reward", "is_first", "is_terminal" (N,) of these steps
    iteration: int
    updates: int  # made so far
    collected: int  # steps ever stored, by all data-parallel workers
    workers: int  # data-parallel ones; the replay is the first one's

    @property
    def settings(self) -> Config:
        """The section `parameters.dreamer` of the configuration."""
        return self.config.parameters.dreamer

    @property
    def windows_begin_episodes(self) -> bool:
        """Whether windows must begin with an episode, because stored latent states cannot be read."""
        return self.settings.replay_context and self.replay.latents is None

    def episodes(self) -> list[range]:
        """Return the step numbers of each whole episode. A checkpoint ends with a whole episode."""
        firsts = self.steps.start + np.flatnonzero(self.scalars["is_first"])
        boundaries = [*firsts.tolist(), self.steps.stop]
        return [range(start, stop) for start, stop in zip(boundaries, boundaries[1:], strict=False)]

    def windows(self, starts: np.ndarray, length: int) -> Batch:
        """Return the windows of `length` steps that begin with the steps `starts` (B,), as in the run's updates."""
        return self.replay.windows(starts, length)._replace(latent=self.replay.read_latents(starts))

    def episode_batch(self, episode: range, max_steps: int) -> Batch:
        """Return the first `max_steps` steps of an episode as a batch of one window."""
        length = min(len(episode), max_steps)
        return tree_map(torch.from_numpy, self.replay.read(np.array([episode.start]), length))


def open_run(folder: Path) -> OpenedRun:
    """Return the parts of a run, which may be running. Raises ConfigError or CheckpointError."""
    checkpoint: dict[str, Any] = {}
    parts = read_run(folder, also=checkpoint.update)
    translation = Translation(parts.spaces, parts.config.environment)
    networks = build_networks(parts.config, translation, parts.weights, torch.device("cpu"))
    networks["collector"] = collecting_actor(parts, translation, networks["actor"])
    rank_0_folder = first_folder(folder)
    if not (rank_0_folder / "replay").is_dir():
        raise CheckpointError(f"{rank_0_folder}: its replay is gone; explain reads the steps that the run has stored")
    replay = build_replay(parts.config, translation, rank_0_folder, 0, networks["model"].rssm)
    steps = open_replay_read_only(replay, checkpoint["replay"])[-MAX_STEPS:]
    if not steps:
        raise CheckpointError(f"{rank_0_folder / 'replay'}: no stored step can be read; explain reads the replay")
    updates = checkpoint.get("trainer", {}).get("updates_made")
    if updates is None:  # an older version's checkpoint
        updates = parts.iteration * parts.config.parameters.dreamer.collect_interval
    workers = ranks_of(folder)
    return OpenedRun(
        config=parts.config,
        networks=networks,
        replay=replay,
        steps=steps,
        scalars=read_scalars(replay, steps),
        iteration=parts.iteration,
        updates=int(updates),
        collected=checkpoint["replay"]["end"] * workers,
        workers=workers,
    )


def collecting_actor(parts: AgentParts, env: Any, actor: Actor) -> Actor:
    """Return the actor that collects: Plan2Explore's explorer, if the checkpoint has one. env: as for an agent."""
    name = "exploration_actor"
    if name not in parts.weights:
        return actor
    explorer = build_actor(parts.config, env, torch.device("cpu"))
    load_weights({name: explorer}, parts.weights, "this run")
    return explorer


def open_replay_read_only(replay: ReplayBuffer, state: dict[str, Any]) -> range:
    """Open a replay at a saved state for reading only, and return the numbers of its newest steps up to the first gap.

    A run that goes on in the same folder appends steps and deletes the oldest.
    """
    replay.end = state["end"]
    if replay.latents is not None:
        is_opened = "contexts" in state and replay.latents.open_read_only(state["contexts"])
        if not is_opened:
            replay.latents = None
    end_segment = math.ceil(replay.end / SEGMENT)
    replay.segments.open_read_only(range(replay.start // SEGMENT, end_segment))
    first_segment = end_segment
    while first_segment - 1 in replay.segments:
        first_segment -= 1
    return range(max(replay.start, first_segment * SEGMENT), replay.end)


def read_scalars(replay: ReplayBuffer, steps: range) -> dict[str, np.ndarray]:
    """Return the actions, rewards and flags of some steps, {name: (N, ·)}."""
    columns: dict[str, list[np.ndarray]] = {"action": [], "reward": [], "is_first": [], "is_terminal": []}
    for number in range(steps.start // SEGMENT, math.ceil(steps.stop / SEGMENT)):
        first_of_segment = number * SEGMENT
        rows = replay.segments[number][max(0, steps.start - first_of_segment) : steps.stop - first_of_segment]
        for name, parts in columns.items():
            parts.append(np.array(rows[name]))
    return {name: np.concatenate(parts) for name, parts in columns.items()}

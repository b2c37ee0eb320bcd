"""The curves, videos and texts of a run, in TensorBoard's event files."""

import io
import itertools
import os
import socket
import sys
import time
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from dreamer.files import claim, delete, naming, open_own, own_files, write_durably
from dreamer.training.dashboard import PlainValue, introduction
from dreamer.training.event_files import event_files, whole_records
from dreamer.training.video import encode_gif


class Logger:
    """Writes TensorBoard events into a run's folder, with env steps as the horizontal axis.

    It writes at once and in this thread, unlike torch's SummaryWriter, so that a full disk raises OSError here.
    """

    def __init__(
        self, folder: Path, configuration: str, hyperparameters: Mapping[str, PlainValue] | None = None
    ) -> None:
        """configuration: YAML text to show in TensorBoard. hyperparameters: as from `hyperparameters_of`."""
        self.folder, self.configuration = folder, configuration
        self.hyperparameters = dict(hyperparameters or {})
        self.checksums: dict[str, int] = {}  # of the whole content of each file of the run, by name

    @cached_property
    def file(self) -> BinaryIO:
        """The file of this process. It is made for the first event, so that a run that cannot start leaves no trace."""
        stem = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        names = (f"{stem}.{number}" for number in itertools.count())
        name = next(name for name in names if not (self.folder / name).exists())
        claim(self.folder, name)
        return (self.folder / name).open("xb")

    def scalars(self, values: Mapping[str, float], env_steps: int) -> None:
        """Write {tag: value}."""
        self.write(env_steps, *(Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()))

    def video(self, tag: str, frames: np.ndarray, env_steps: int, frames_per_second: float = 15) -> None:
        """Write frames, uint8 (T, height, width, 3), as an animation, which TensorBoard shows under Images."""
        height, width = frames.shape[1:3]
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encode_gif(frames, frames_per_second)
        )
        self.write(env_steps, Summary.Value(tag=tag, image=image))

    def write(self, env_steps: int, *values: Summary.Value) -> None:
        """Append an event for each `Summary.Value`."""
        events = [Event(step=env_steps, summary=Summary(value=[value])) for value in values]
        if "file" not in vars(self):
            first = introduction(self.folder, self.configuration, self.hyperparameters)
            events = [Event(file_version="brain.Event:2"), *first, *events]
        content = io.BytesIO()
        for event in events:
            event.wall_time = time.time()
            RecordWriter(content).write(event.SerializeToString())
        name = os.path.basename(self.file.name)
        with naming(self.file.name):
            self.file.write(content.getvalue())
            self.file.flush()
        self.checksums[name] = zlib.crc32(content.getvalue(), self.checksums.get(name, 0))

    def state_dict(self) -> dict[str, Any]:
        """Return {name of a file: its size in bytes} and, under "checksums", {name: checksum}.

        All events are on the disk when it returns.
        """
        if "file" in vars(self):
            with naming(self.file.name):
                os.fsync(self.file.fileno())
        sizes: dict[str, Any] = {path.name: path.stat().st_size for path in self.own_files()}
        return sizes | {"checksums": {name: self.checksums[name] for name in sizes}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the run's own files back to a state, so that no event appears twice, and cut damaged records out of them.

        Call it before anything is written.
        """
        state = dict(state)
        checksums = state.pop("checksums", {})  # an older state has none
        own = self.own_files()
        delete(self.folder, [path.name for path in own if path.name not in state])
        for name in state.keys() - {path.name for path in own}:
            print(f"warning: {self.folder / name} is gone: the curves have a gap", file=sys.stderr)
        for path in own:
            if path.name not in state:
                continue
            content = self.cut(path, state[path.name])
            if zlib.crc32(content) != checksums.get(path.name):
                content = self.mend(path, content)
            self.checksums[path.name] = zlib.crc32(content)

    def cut(self, path: Path, size: int) -> bytes:
        """Cut a file to a size in bytes and return its content."""
        with naming(path), open_own(path, "r+b") as file:
            if os.fstat(file.fileno()).st_size < size:
                print(f"warning: {path} is shorter than it was: the curves have a gap", file=sys.stderr)
            else:
                file.truncate(size)
            return file.read()

    def mend(self, path: Path, content: bytes) -> bytes:
        """Cut damaged records out of a file with this content and return its new content."""
        whole = whole_records(content)
        lost = len(content) - len(whole)
        if lost:
            temporary = f"{path.name}.tmp"
            claim(self.folder, temporary)
            write_durably(path, whole)
            delete(self.folder, [temporary])
            advice = f"{lost} bytes were damaged and are cut out: the curves have a gap"
            print(f"warning: {path}: {advice}", file=sys.stderr)
        return whole

    def own_files(self) -> list[Path]:
        """Return the event files that the run has written itself."""
        own = own_files(self.folder) or ()
        return [path for path in event_files(self.folder) if path.name in own]

    def close(self) -> None:
        """Close the file, if there is one."""
        if "file" in vars(self):
            with naming(self.file.name):
                self.file.close()

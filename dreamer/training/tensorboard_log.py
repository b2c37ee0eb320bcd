"""Write the curves, videos and texts of a run into TensorBoard's event files."""

import io
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from dreamer.training.dashboard import introduction
from dreamer.training.event_files import event_files, whole_records
from dreamer.training.log_files import LogFiles
from dreamer.training.logger import PlainValue
from dreamer.training.video import encode_gif

SECONDS = re.compile(r"events\.out\.tfevents\.(\d+)\.")  # in an event file's name


class TensorBoardLog(LogFiles):
    """Writes TensorBoard events into a run's folder."""

    def __init__(
        self, folder: Path, configuration: str, hyperparameters: Mapping[str, PlainValue] | None = None
    ) -> None:
        """configuration: YAML text to show in TensorBoard. hyperparameters: as from `hyperparameters_of`."""
        super().__init__(folder)
        self.configuration, self.hyperparameters = configuration, dict(hyperparameters or {})

    def new_name(self) -> str:
        """Return a name that sorts after those of all earlier files, since readers take files in the order of names.

        It holds the time in seconds, or one second more than the newest file's if that is later.
        """
        second = int(time.time())
        for path in self.files():
            match = SECONDS.match(path.name)
            if match:
                second = max(second, int(match[1]) + 1)
        return f"events.out.tfevents.{second}.{socket.gethostname()}.{os.getpid()}.0"

    def files(self) -> list[Path]:
        """Return the event files in the folder."""
        return event_files(self.folder)

    def undamaged(self, content: bytes) -> bytes:
        """Return the records that can be read."""
        return whole_records(content)

    def scalars(self, values: Mapping[str, float], env_steps: int, iteration: int = 0) -> None:
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
            introduction_events = introduction(self.folder, self.configuration, self.hyperparameters)
            events = [Event(file_version="brain.Event:2"), *introduction_events, *events]
        content = io.BytesIO()
        for event in events:
            event.wall_time = time.time()
            RecordWriter(content).write(event.SerializeToString())
        self.append(content.getvalue())

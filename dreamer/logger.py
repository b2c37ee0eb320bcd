"""The curves, videos and texts of a run, in TensorBoard's event files."""

import itertools
import os
import socket
import sys
import time
from functools import cached_property

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import text

from dreamer.files import claim, delete, own_files
from dreamer.video import encode_gif


class Logger:
    """Writes TensorBoard events into a run's folder. The horizontal axis of everything is env steps.

    It does so at once and in this thread, unlike torch's SummaryWriter: what goes wrong is raised here, as OSError.
    """

    def __init__(self, folder, configuration):
        """configuration: YAML text to show in TensorBoard."""
        self.folder, self.configuration = folder, configuration

    @cached_property
    def file(self):
        """Made when there is something to write, so that a run that cannot go on leaves no trace."""
        stem = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        name = next(name for i in itertools.count() if not (self.folder / (name := f"{stem}.{i}")).exists())
        claim(self.folder, name)
        return (self.folder / name).open("xb")

    def scalars(self, values, env_steps):
        self.write(env_steps, *(Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()))

    def video(self, tag, frames, env_steps, frames_per_second=15):
        """frames: uint8 (T, height, width, 3); shown under Images as an animation."""
        height, width = frames.shape[1:3]
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encode_gif(frames, frames_per_second)
        )
        self.write(env_steps, Summary.Value(tag=tag, image=image))

    def write(self, env_steps, *values):
        """Append an event for each `Summary.Value`."""
        events = [Event(step=env_steps, summary=Summary(value=[value])) for value in values]
        if "file" not in vars(self):
            indented = "    " + self.configuration.replace("\n", "\n    ")  # a code block in Markdown
            events = [Event(file_version="brain.Event:2"), Event(summary=text("configuration", indented)), *events]
        file = self.file
        try:
            for event in events:
                event.wall_time = time.time()
                RecordWriter(file).write(event.SerializeToString())
            file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(file.name)) from None

    def state_dict(self):
        """How much has been written, {name of a file: bytes}. It is on the disk when this returns."""
        if "file" in vars(self):
            os.fsync(self.file.fileno())
        return {path.name: path.stat().st_size for path in self.own_files()}

    def load_state_dict(self, state):
        """Cut what the run itself has written back to a state, so that nothing appears twice. To be called first."""
        own = self.own_files()
        delete(self.folder, [path.name for path in own if path.name not in state])
        for path in own:
            known = state.get(path.name)
            if known is not None and path.stat().st_size < known:
                print(f"warning: {path} is shorter than it was: the curves have a gap", file=sys.stderr)
            elif known is not None:
                os.truncate(path, known)

    def own_files(self):
        """The event files that the run has written itself."""
        own = own_files(self.folder) or ()
        return [path for path in event_files(self.folder) if path.name in own]

    def close(self):
        if "file" in vars(self):
            self.file.close()


def event_files(folder):
    """The files with TensorBoard's events."""
    return sorted(folder.glob("events.out.tfevents.*"))

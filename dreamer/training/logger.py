"""The curves, videos and texts of a run, in TensorBoard's event files."""

import io
import itertools
import os
import socket
import sys
import time
import zlib
from functools import cached_property

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from dreamer.files import claim, delete, naming, open_own, own_files, write_durably
from dreamer.training.dashboard import introduction
from dreamer.training.event_files import event_files, whole_records
from dreamer.training.video import encode_gif


class Logger:
    """Writes TensorBoard events into a run's folder. The horizontal axis of everything is env steps.

    It does so at once and in this thread, unlike torch's SummaryWriter: what goes wrong is raised here, as OSError.
    """

    def __init__(self, folder, configuration, hyperparameters=None):
        """configuration: YAML text to show in TensorBoard. hyperparameters: as from `hyperparameters_of`."""
        self.folder, self.configuration, self.hyperparameters = folder, configuration, hyperparameters or {}
        self.checksums = {}  # name of a file of the run → of all that it holds

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

    def state_dict(self):
        """How much has been written, {name of a file: bytes}, and under "checksums" {name: checksum}. It is on the disk
        when this returns."""
        if "file" in vars(self):
            with naming(self.file.name):
                os.fsync(self.file.fileno())
        sizes = {path.name: path.stat().st_size for path in self.own_files()}
        return sizes | {"checksums": {name: self.checksums[name] for name in sizes}}

    def load_state_dict(self, state):
        """Cut what the run itself has written back to a state, so that nothing appears twice, and damaged records out
        of it. To be called first."""
        state = dict(state)
        checksums, own = state.pop("checksums", {}), self.own_files()  # an older state has none
        delete(self.folder, [path.name for path in own if path.name not in state])
        for name in state.keys() - {path.name for path in own}:
            print(f"warning: {self.folder / name} is gone: the curves have a gap", file=sys.stderr)
        for path in (path for path in own if path.name in state):
            content = self.cut(path, state[path.name])
            if zlib.crc32(content) != checksums.get(path.name):
                content = self.mend(path, content)
            self.checksums[path.name] = zlib.crc32(content)

    def cut(self, path, size):
        """Cut a file to a size in bytes. Returns what it holds then."""
        with naming(path), open_own(path, "r+b") as file:
            if os.fstat(file.fileno()).st_size < size:
                print(f"warning: {path} is shorter than it was: the curves have a gap", file=sys.stderr)
            else:
                file.truncate(size)
            return file.read()

    def mend(self, path, content):
        """Cut damaged records out of a file that holds these bytes. Returns what it holds then."""
        whole = whole_records(content)
        if lost := len(content) - len(whole):
            temporary = f"{path.name}.tmp"
            claim(self.folder, temporary)
            write_durably(path, whole)
            delete(self.folder, [temporary])
            advice = f"{lost} bytes were damaged and are cut out: the curves have a gap"
            print(f"warning: {path}: {advice}", file=sys.stderr)
        return whole

    def own_files(self):
        """The event files that the run has written itself."""
        own = own_files(self.folder) or ()
        return [path for path in event_files(self.folder) if path.name in own]

    def close(self):
        if "file" in vars(self):
            with naming(self.file.name):
                self.file.close()

"""The curves, videos and texts of a run, in TensorBoard's event files."""

import os
from functools import cached_property

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from dreamer.video import encode_gif


class Logger:
    """Writes TensorBoard events into a run's folder. The horizontal axis of everything is env steps."""

    def __init__(self, folder, configuration):
        """configuration: YAML text to show in TensorBoard."""
        self.folder, self.configuration = folder, configuration

    @cached_property
    def writer(self):
        """Made when there is something to write, so that a run that cannot go on leaves no trace."""
        writer = SummaryWriter(self.folder, flush_secs=10)
        indented = "    " + self.configuration.replace("\n", "\n    ")  # a code block in Markdown
        writer.add_text("configuration", indented)
        return writer

    def scalars(self, values, env_steps):
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, env_steps)

    def video(self, tag, frames, env_steps, frames_per_second=15):
        """frames: uint8 (T, height, width, 3); shown under Images as an animation."""
        height, width = frames.shape[1:3]
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encode_gif(frames, frames_per_second)
        )
        self.writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), env_steps)

    def state_dict(self):
        """How much has been written: {name of a file: bytes}."""
        self.writer.flush()
        return {path.name: path.stat().st_size for path in event_files(self.folder)}

    def load_state_dict(self, state):
        """Cut what the run has written back to a state, so that nothing appears twice. To be called first."""
        for path in event_files(self.folder):
            if path.name not in state:
                path.unlink()
            elif path.stat().st_size > state[path.name]:
                os.truncate(path, state[path.name])

    def close(self):
        if "writer" in vars(self):
            self.writer.close()


def event_files(folder):
    """The files with TensorBoard's events."""
    return sorted(folder.glob("events.out.tfevents.*"))

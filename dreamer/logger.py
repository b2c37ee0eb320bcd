"""The curves, videos and texts of a run, in TensorBoard's event files."""

import os
import sys
from functools import cached_property

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from dreamer.files import claim, delete, own_files
from dreamer.video import encode_gif


class Logger:
    """Writes TensorBoard events into a run's folder. The horizontal axis of everything is env steps."""

    def __init__(self, folder, configuration):
        """configuration: YAML text to show in TensorBoard."""
        self.folder, self.configuration = folder, configuration

    @cached_property
    def writer(self):
        """Made when there is something to write, so that a run that cannot go on leaves no trace."""
        before = event_files(self.folder)
        writer = SummaryWriter(self.folder, flush_secs=10)
        claim(self.folder, *(path.name for path in event_files(self.folder) if path not in before), new=False)
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
        if "writer" in vars(self):
            self.writer.close()


def event_files(folder):
    """The files with TensorBoard's events."""
    return sorted(folder.glob("events.out.tfevents.*"))

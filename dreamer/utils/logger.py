"""What a run leaves behind: its folder, its TensorBoard events and its configuration."""

import time
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from dreamer.utils.video import encode_gif


def make_run_folder(name, root="runs"):
    """Make and return `root`/<date>_<time>_<name>, with a number behind it if another run took that."""
    Path(root).mkdir(parents=True, exist_ok=True)
    stem = time.strftime(f"%Y-%m-%d_%H-%M-%S_{name}")
    for attempt in range(1, 1000):
        folder = Path(root) / (stem if attempt == 1 else f"{stem}_{attempt}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise FileExistsError(f"{root}/{stem} and a thousand like it exist")


class Logger:
    """Writes TensorBoard events into a run's folder. The horizontal axis of everything is env steps."""

    def __init__(self, folder, configuration):
        """configuration: YAML text, kept as config.yml and shown in TensorBoard."""
        (folder / "config.yml").write_text(configuration)
        self.writer = SummaryWriter(folder, flush_secs=10)
        indented = "    " + configuration.replace("\n", "\n    ")  # a code block in Markdown
        self.writer.add_text("configuration", indented)

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

    def close(self):
        self.writer.close()

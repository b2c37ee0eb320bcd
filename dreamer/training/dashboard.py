"""Fill TensorBoard's pages besides the curves: configuration, hyperparameters, and the charts to look at first."""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from torch.utils.tensorboard.summary import custom_scalars, text

from dreamer.training.logger import PlainValue

LAYOUT = {  # of Custom Scalars: {section: {chart: [kind, tags]}}
    "How good it is": {
        "evaluation": ["Multiline", ["eval/return_ema20", "eval/return"]],
        "training": ["Multiline", ["train/return"]],
    },
    "Whether its world model is good": {
        "reward": ["Multiline", ["loss/reward"]],
        "observations": ["Multiline", ["loss/reconstruction"]],
        "KL": ["Multiline", ["loss/kl"]],
    },
    "Whether what it imagines can be believed": {
        "returns": ["Multiline", ["behavior/imagined_return", "behavior/value"]],
        "entropy of the actor": ["Multiline", ["behavior/entropy"]],
    },
}


def introduction(folder: Path, configuration: str, hyperparameters: dict[str, PlainValue]) -> list[Event]:
    """Return the events that each event file of a run begins with. configuration: YAML text."""
    indented = "    " + configuration.replace("\n", "\n    ")  # a code block in Markdown
    summaries = [
        text("configuration", indented),
        custom_scalars(LAYOUT),
        hparams_pb(hyperparameters, trial_id=folder.name),
    ]
    return [Event(summary=summary) for summary in summaries]

"""What TensorBoard shows of a run beside its curves: configuration, hyperparameters, and what to look at first."""

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from torch.utils.tensorboard.summary import custom_scalars, text

from dreamer.config.load import flatten, load_config

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
NAMED = ["algorithm", "version", "environment.domain_name", "environment.task_name", "operation.seed"]


def introduction(folder, configuration, hyperparameters):
    """Return the events that each event file of a run begins with. configuration: YAML text."""
    indented = "    " + configuration.replace("\n", "\n    ")  # a code block in Markdown
    trial = hparams_pb(hyperparameters, trial_id=folder.name)
    return [Event(summary=each) for each in (text("configuration", indented), custom_scalars(LAYOUT), trial)]


def hyperparameters_of(config):
    """Return what differs from the defaults in a configuration, and what tells runs apart: {key: a plain value}."""
    values, defaults = flatten(config), flatten(load_config("dreamer"))
    chosen = [key for key, value in values.items() if key in NAMED or value != defaults.get(key)]
    return {key: values[key] if isinstance(values[key], (bool, int, float)) else str(values[key]) for key in chosen}

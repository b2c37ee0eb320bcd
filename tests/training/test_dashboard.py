"""TensorBoard's hyperparameters and custom chart layout."""

from contextlib import closing

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

from dreamer.config.load import load_config
from dreamer.training.dashboard import LAYOUT
from dreamer.training.logger import hyperparameters_of
from dreamer.training.tensorboard_log import TensorBoardLog
from tests.test_main import SCALARS


def test_hyperparameters_are_the_settings_that_differ_from_the_defaults(tmp_path):
    settings = ["operation.seed=3", "parameters.dreamer.slow_critic=target", "environment.domain_name=cartpole"]
    chosen = hyperparameters_of(load_config("dreamer", settings))
    always = {"algorithm": "dreamer", "version": 1, "environment.task_name": "walk", "operation.seed": 3}
    assert chosen == always | {"environment.domain_name": "cartpole", "parameters.dreamer.slow_critic": "target"}
    with closing(TensorBoardLog(tmp_path, "", chosen)) as logger:
        logger.scalars({"x": 1.0}, 10)
    events = EventAccumulator(str(tmp_path)).Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    logged = parse_session_start_info_plugin_data(content).hparams
    assert set(logged) == set(chosen) and logged["operation.seed"].number_value == 3


def test_layout_shows_logged_scalars_with_the_return_first(tmp_path):
    with closing(TensorBoardLog(tmp_path, "")) as logger:
        logger.scalars({"x": 1.0}, 10)
    (event,) = EventAccumulator(str(tmp_path)).Reload().Tensors("custom_scalars__config__")
    charts = [chart for part in Layout.FromString(event.tensor_proto.string_val[0]).category for chart in part.chart]
    assert list(charts[0].multiline.tag) == ["eval/return_ema20", "eval/return"]
    assert len(charts) == sum(map(len, LAYOUT.values()))
    assert {tag for chart in charts for tag in chart.multiline.tag} <= SCALARS

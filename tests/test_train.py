"""`dreamer.train`: runs that are started from Python."""

import pickle
import signal
import threading

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import dreamer
import main
from dreamer.config.load import load_config
from dreamer.envs.maker import Maker
from dreamer.errors import ConfigError, EnvError
from dreamer.main import train
from dreamer.training.checkpoint_file import checkpoints, load_checkpoint
from dreamer.training.trainer import Trainer
from tests.test_resume import same, scalars
from tests.toys import SMALL

TINY = {setting.partition("=")[0]: setting.partition("=")[2] for setting in SMALL}
TINY = {key: value == "True" if value in ("True", "False") else int(value) for key, value in TINY.items()}
TINY |= {"parameters.dreamer.train_iterations": 2, "parameters.dreamer.seed_episodes": 2, "operation.device": "cpu"}
TINY |= {"parameters.dreamer.collect_interval": 2, "operation.checkpoint_interval": 1000}


class Line(gymnasium.Env):
    """Walk along a line; the reward is the action. An episode has twelve steps."""

    observation_space = spaces.Box(-20, 20, (2,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.step_number = self.np_random.uniform(-1, 1), 0
        return self.seen(), {}

    def step(self, action):
        self.place, self.step_number = self.place + float(action[0]), self.step_number + 1
        return self.seen(), float(action[0]), False, self.step_number == 12, {}

    def seen(self):
        return np.array([self.place, self.step_number], np.float32)

    def render(self):
        return np.full((16, 16, 3), self.step_number, np.uint8)


run = Trainer.run
gymnasium.register("Line-v0", entry_point=Line)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def state_of(folder):
    _, state = load_checkpoint(folder)
    return {part: value for part, value in state.items() if part not in ("curves", "configuration", "replay")}


def stop_in_the_second_iteration(monkeypatch):
    evaluate = Trainer.evaluate

    def stopped(self, last):
        if self.iteration == 2:
            signal.raise_signal(signal.SIGINT)  # as the stop button of a notebook does
        evaluate(self, last)

    monkeypatch.setattr(Trainer, "evaluate", stopped)


def test_run_from_python_equals_that_of_the_command_line(tmp_path, capsys):
    """Also after a stop: it keeps its last whole iteration, and calling it again gives the same numbers."""
    settings = [f"{key}={value}" for key, value in TINY.items()]
    assert main.main(["--config", "dreamer", "--env", "tests.test_train:Line-v0", "operation.seed=3", *settings]) == 0
    (reference,) = (tmp_path / "runs").iterdir()

    def call():
        return train("dreamer", env="tests.test_train:Line-v0", seed=3, folder="mine", **TINY)

    with pytest.MonkeyPatch.context() as patch:
        stop_in_the_second_iteration(patch)
        with pytest.raises(KeyboardInterrupt):
            call()
    assert [path.name for path in checkpoints(tmp_path / "mine")] == ["checkpoint-000001.pt"]
    assert "stopped; to resume: " in capsys.readouterr().err
    run = call()
    assert same(state_of(run.folder), state_of(reference)) and scalars(run.folder) == scalars(reference)
    assert (run.folder, run.iterations, run.env_steps) == (tmp_path / "mine", 2, 4 * 12)
    assert run.evaluation == pytest.approx(scalars(reference)["eval/return_ema20"][-1][1])


def test_environment_can_be_made_by_a_function(tmp_path, monkeypatch, capsys):
    """The run equals that of an environment made by its id. To resume it, pass the function again."""
    made = []

    def make_line():
        made.append(Line())
        return made[-1]

    reference = train("dreamer", env="Line-v0", **TINY)
    with monkeypatch.context() as patch:
        stop_in_the_second_iteration(patch)
        with pytest.raises(KeyboardInterrupt):
            train("dreamer", env=make_line, folder="mine", **TINY)
    assert "stopped; to resume: dreamer.train(resume=" in capsys.readouterr().err
    assert len(made) == 2, "one to collect in and one to evaluate in"
    environment = load_config("mine/config.yml").environment
    assert (environment.benchmark, environment.task_name) == ("python", "make_line")
    for words in (["--resume", "mine"], ["--evaluate", "mine"]):
        assert main.main(words) == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
        assert "a Python program made this environment" in line and "dreamer.train(…, env=make_line)" in line
    run = train(resume="mine", env=make_line)
    assert run.iterations == 2 and same(state_of(run.folder), state_of(reference.folder))
    assert "--evaluate" not in capsys.readouterr().out.rpartition("finished")[2]
    agent = run.agent()
    assert agent.action_space == Line.action_space and Line.action_space.contains(agent.act(Line().reset(seed=1)[0]))


def test_lambda_that_makes_an_environment_can_be_pickled():
    """So it can be sent to other processes, with the variables that it uses."""
    length = 3
    maker = pickle.loads(pickle.dumps(Maker(lambda render_mode=None: (Line(render_mode), length)[0])))
    assert maker(renders=True).render_mode == "rgb_array" and maker.name == "<lambda>"


def test_training_from_python_restores_threads_and_random_state(monkeypatch):
    """The run is from pixels and uses one thread; afterwards the process has its two threads again."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    before, used = torch.get_rng_state(), []
    monkeypatch.setattr(Trainer, "run", lambda self, keep: used.append(torch.get_num_threads()) or run(self, keep))
    settings = TINY | {"environment.from_pixels": True, "parameters.dreamer.train_iterations": 1}
    depths = {"parameters.dreamer.encoder.depth": 2, "parameters.dreamer.decoder.depth": 2}
    try:
        assert train("dreamer", env=Line, **settings, **depths).iterations == 1
        assert used == [1] and torch.get_num_threads() == 2 and torch.equal(torch.get_rng_state(), before)
    finally:
        torch.set_num_threads(1)


def test_training_works_outside_the_main_thread():
    """Signal handlers cannot be set there."""
    found = []
    settings = TINY | {"parameters.dreamer.train_iterations": 1}
    thread = threading.Thread(target=lambda: found.append(train("dreamer", env=Line, **settings)))
    thread.start()
    thread.join()
    assert found[0].iterations == 1


@pytest.mark.parametrize(
    ("arguments", "error", "line"),
    [
        ({}, ConfigError, "no configuration; name one"),
        ({"config": "quick-v3", "resume": "latest"}, ConfigError, "no configuration; name one"),
        ({"resume": "latest", "folder": "x"}, ConfigError, "leave out folder and the id"),
        ({"resume": "latest"}, ConfigError, "there is no run"),
        ({"config": "quick-v4"}, ConfigError, "no configuration 'quick-v4'"),
        ({"config": "quick-v3", "parameters.dreamer.batch_size": "many"}, ConfigError, "not 'many'"),
        ({"config": {"enviroment": {"benchmark": "gym"}}}, ConfigError, "configuration: unknown key enviroment"),
        ({"config": "quick-v3", "env": Line()}, EnvError, "expected a function that makes an environment"),
        ({"config": "quick-v3", "env": lambda: 5}, EnvError, "returned 5; expected an environment"),
        ({"config": "quick-v3", "environment.benchmark": "python"}, EnvError, "only such a program can"),
        ({"config": "quick-v3", "env": Line, "environment.benchmark": "dmc"}, ConfigError, "leave env out"),
    ],
)
def test_errors_are_exceptions_and_leave_nothing(arguments, error, line, tmp_path):
    with pytest.raises(error, match=line):
        train(**arguments)
    assert not list(tmp_path.rglob("config.yml"))


def test_function_that_returns_the_same_environment_again_is_refused():
    line = Line()
    maker = Maker(lambda: line)
    assert maker(renders=False) is line
    with pytest.raises(EnvError, match="the same environment again"):
        maker(renders=False)


@pytest.mark.parametrize("key", ["environment.num_envs", "operation.background_evaluation"])
def test_function_that_cannot_be_pickled_is_refused_if_other_processes_need_it(key):
    lock = threading.Lock()
    with pytest.raises(EnvError, match=f"env: {key}.* sends <lambda> to other processes: .*top of a module"):
        train("dreamer", env=lambda: (lock, Line())[1], **TINY, **{key: 2 if "num" in key else True})


def test_configuration_may_be_a_mapping():
    """It may have a base and nested or dotted keys, or be loaded already."""
    mapping = {"base": "dreamer-v2", "operation": {"seed": 4}, "parameters.dreamer.batch_size": 7}
    config = load_config(mapping, {"environment.kwargs.size": 3, "environment.benchmark": "gymnasium"})
    assert (config.version, config.operation.seed, config.parameters.dreamer.batch_size) == (2, 4, 7)
    assert config.environment.kwargs == {"size": 3} and load_config(config) == config


def test_train_is_offered_by_the_package():
    assert dreamer.train is train and "train" in dir(dreamer)

"""The program as a user meets it."""

import errno
import os
import re
import shutil
import signal
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from dreamer.config.load import CONFIGS, dump_config, flatten, load_config
from dreamer.envs import warn
from dreamer.envs.dmc import DMCEnv
from dreamer.envs.make import make_eval_env, make_train_env
from dreamer.errors import ConfigError, NotFiniteError
from dreamer.training.checkpoint_file import checkpoints, iteration_of, load_checkpoint
from dreamer.training.learner import Learner
from dreamer.training.program import PROGRAM
from dreamer.training.run_folder import lock_run, save_configuration
from dreamer.training.saved_configuration import SavedConfiguration
from tests.envs.playing import goes_on
from tests.programs import Program, is_running
from tests.toys import SMALL

TINY = [
    "parameters.dreamer.train_iterations=1",
    "parameters.dreamer.collect_interval=2",
    "parameters.dreamer.seed_episodes=1",
    "parameters.dreamer.batch_size=4",
    "parameters.dreamer.batch_length=10",
    "parameters.dreamer.horizon_length=5",
    "operation.video_interval=0",
]
SCALARS = {
    *("train/return", "train/length", "eval/return", "eval/return_ema20", "replay/steps"),
    *(f"loss/{part}" for part in ("model", "reconstruction", "reward", "continue", "kl", "actor", "critic")),
    *(f"grad_norm/{part}" for part in ("model", "actor", "critic")),
    *("latent/prior_entropy", "latent/posterior_entropy", "behavior/entropy", "behavior/imagined_return"),
    *("behavior/reward", "behavior/value", "speed/env_steps_per_second", "speed/updates_per_second"),
}
FILMED = [*TINY, "operation.video_interval=1", "environment.frame_skip=10", "operation.device=cpu"]
FILMED += ["parameters.dreamer.encoder.depth=4", "parameters.dreamer.decoder.depth=4"]


class Corridor(gymnasium.Env):
    """Walk to the end: terminates there. Discrete actions; vectors, or pixels by rendering."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = spaces.Box(0, 1, (2,), np.float64)
    action_space = spaces.Discrete(2, start=1)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.integers(3)
        return np.array([self.place / 9, 1.0]), {}

    def step(self, action):
        assert action in (1, 2)
        self.place = max(0, self.place + (1 if action == 2 else -1))
        over = self.place == 9
        return np.array([self.place / 9, 1.0]), float(over), over, False, {}

    def render(self):
        frame = np.zeros((20, 40, 3), np.uint8)
        frame[:, 4 * self.place : 4 * self.place + 4] = 255
        return frame


gymnasium.register("Corridor-v0", entry_point=Corridor, max_episode_steps=30)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def start(*arguments):
    return main.main(["--config", *arguments])


def only_run(tmp_path):
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def events_of(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator


def test_run_from_pixels_logs_scalars_films_and_progress(tmp_path, capsys, monkeypatch):
    """With short episodes, long steps and small convolutions; .ci/run makes the same run at its full size."""
    monkeypatch.setattr(DMCEnv, "max_episode_steps", 200)
    assert start("dmc-walker-walk", *FILMED) == 0
    folder = only_run(tmp_path)
    assert folder.name.endswith("_dmc-walker-walk")
    events = events_of(folder)
    assert set(events.Tags()["scalars"]) == SCALARS
    assert [event.step for event in events.Scalars("train/return")] == [200, 400], "env steps, with action repeats"
    assert [event.value for event in events.Scalars("train/length")] == [200, 200]
    assert events.Scalars("eval/return")[0].step == 400 and events.Scalars("replay/steps")[0].value == 2 * 21
    assert set(events.Tags()["images"]) == {"evaluation/episode", "prediction/open_loop"}
    assert "configuration/text_summary" in events.Tags()["tensors"]
    assert yaml.safe_load((folder / "config.yml").read_text())["parameters"]["dreamer"]["batch_size"] == 4
    output = capsys.readouterr()
    for expected in (folder.name, "cpu", "rendering", "parameters  model ", "finished "):
        assert expected in output.out
    assert output.err.startswith("iteration 1 of 1, 400 env steps, return ") and output.err.count("\n") == 1
    assert f" in training with noise, {events.Scalars('eval/return')[0].value:.1f} in evaluation" in output.err


def scalars_of(folder):
    events = events_of(folder)
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("speed/")]
    return {tag: sorted((event.step, event.value) for event in events.Scalars(tag)) for tag in tags}


def test_repeated_command_and_its_config_yml_give_identical_runs(tmp_path):
    """Seeded throughout: Python, NumPy, torch, both environments and the replay."""
    command = QUICK
    assert start(*command, "operation.log_dir=a") == 0
    assert start(*command, "operation.log_dir=b") == 0
    a, b = sorted((tmp_path / "runs").iterdir(), key=lambda folder: folder.name[-1])
    assert start(str(a / "config.yml"), "operation.log_dir=c") == 0
    assert start(*command, "operation.seed=1", "operation.log_dir=d") == 0
    a, b, c, d = sorted((tmp_path / "runs").iterdir(), key=lambda folder: folder.name[-1])
    a, b, c, d = map(scalars_of, (a, b, c, d))
    assert len(a["loss/model"]) == 1 and a == b == c
    assert all(a[tag] != d[tag] for tag in ("train/return", "eval/return", "loss/model"))


def test_training_and_evaluation_see_different_episodes():
    config = load_config("quick-cartpole-balance")
    env, eval_env = make_train_env(config.environment, 0), make_eval_env(config.environment, 0)
    assert (env.reset()[0] != eval_env.reset()[0]).any()
    again = make_train_env(config.environment, 0)
    pinned = make_train_env(load_config("quick-cartpole-balance", ["environment.seed=0"]).environment, 7)
    assert (again.reset()[0] == pinned.reset()[0]).all(), "environment.seed replaces operation.seed"


@pytest.mark.parametrize(
    "environment",
    [
        ["environment.benchmark=gym", "environment.task_name=CartPole-v1", "environment.frame_skip=1"],
        ["environment.benchmark=gym", "environment.task_name=Pendulum-v1"],
        ["environment.task_name=tests.test_main:Corridor-v0", "parameters.dreamer.use_continue_flag=True"],
        ["environment.task_name=Corridor-v0", "environment.from_pixels=True", "environment.width=80"],
    ],
    ids=["discrete", "continuous", "module and continue model", "rendered pixels"],
)
def test_registered_environments_can_be_learned(tmp_path, environment):
    depths = ["parameters.dreamer.encoder.depth=2", "parameters.dreamer.decoder.depth=2"]
    settings = [*SMALL, *TINY, *depths, "parameters.dreamer.seed_episodes=4", "environment.benchmark=gymnasium"]
    assert start("dreamer", *settings, *environment) == 0
    events = events_of(only_run(tmp_path))
    assert set(events.Tags()["scalars"]) == SCALARS
    learned = events.Scalars("loss/continue")[0].value > 0
    assert learned == ("parameters.dreamer.use_continue_flag=True" in environment)


@pytest.mark.parametrize("from_pixels", [False, True])
def test_example_in_docs_environments_trains_resumes_and_evaluates(from_pixels, tmp_path, monkeypatch):
    """Its module and its configuration, as they stand there: discrete actions, an image beside a vector, a task that
    ends, a state that goes on."""
    page = (CONFIGS.parent / "docs" / "environments.md").read_text()
    module, configuration = (re.search(rf"```{kind}\n(.*?)```", page, re.S)[1] for kind in ("python", "yaml"))
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text(module)
    (tmp_path / "hallway.yml").write_text(configuration)
    monkeypatch.syspath_prepend(tmp_path)
    depths = ["parameters.dreamer.encoder.depth=2", "parameters.dreamer.decoder.depth=2"]
    small = [setting for setting in SMALL if "pixels" not in setting]
    settings = [*small, *TINY, *depths, "parameters.dreamer.seed_episodes=5", f"environment.from_pixels={from_pixels}"]
    assert start("hallway.yml", *settings) == 0
    lengths = [event.value for event in events_of(only_run(tmp_path)).Scalars("train/length")]
    assert len(set(lengths)) > 1 and max(lengths) <= 50
    environment = load_config("hallway.yml", settings).environment | {"from_pixels": True}  # the exit is in its frames
    assert goes_on(*(make_train_env(environment, seed) for seed in (1, 2)))
    if not from_pixels:
        parts = make_train_env(load_config("hallway.yml").environment, 0).observation_space
        assert (parts["image"].shape, parts["vector"].shape) == ((1, 16, 16), (2,))
    assert main.main(["--resume", "latest", "parameters.dreamer.train_iterations=2"]) == 0
    assert main.main(["--evaluate", "latest", "--episodes", "2"]) == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dmc-walker-wolk"], "no configuration 'dmc-walker-wolk'; the nearest names: dmc-walker-walk"),
        (["dmc-walker-walk", "batch_size=3"], "unknown key batch_size; the nearest is parameters.dreamer.batch_size"),
        (["dmc-walker-walk", "parameters.dreamer.batch_size=many"], "parameters.dreamer.batch_size: expected a whole"),
        (
            ["dmc-walker-walk", "parameters.dreamer.discount=1.5"],
            "parameters.dreamer.discount: expected a number from 0 to 1, not 1.5",
        ),
        (["dmc-walker-walk", "environment.domain_name=wolker"], "no 'wolker' here; did you mean walker"),
        (["dmc-walker-walk", "environment.task_name=wolk"], "no 'wolk' here; did you mean walk"),
        (["dmc-walker-walk", "operation.device=cuda:99"], "no cuda:99 here"),
        (["dmc-walker-walk", "environment.height=84"], "84 pixels; expected 64, 80, 96"),
        (["dmc-walker-walk", "environment.width=20"], "64x20 pixels are too few"),
        (["quick-cartpole-balance", "parameters.dreamer.batch_length=1300"], "the seed episodes store 1255"),
        (["dreamer", "environment.benchmark=gym", "environment.task_name=CartPole-v9"], "CartPole"),
        (["dreamer", "environment.benchmark=gym", "environment.task_name=nowhere:X-v0"], "nowhere"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(arguments, line, tmp_path, capsys):
    assert start(*arguments) == 2
    error = [text for text in capsys.readouterr().err.splitlines() if "env steps" not in text]
    assert len(error) == 1 and error[0].startswith("error: ") and line in error[0]
    assert not list(tmp_path.glob("runs/*"))


# Runs that stop, go on, or cannot


QUICK = ["quick-cartpole-balance", *TINY, "environment.benchmark=gymnasium", "environment.task_name=Pendulum-v1"]
QUICK += ["environment.frame_skip=4", "operation.device=cpu"]  # episodes of 50 steps


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The folder of a complete run."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert start(*QUICK) == 0
    return only_run(folder)


@pytest.fixture
def run(original, tmp_path):
    """A complete run of one iteration, the only one here."""
    return shutil.copytree(original, tmp_path / "runs" / original.name)


def last_line(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if "env steps" not in line][-1]


def test_resuming_with_more_iterations_equals_a_longer_run(tmp_path):
    """Resumed with more of them, a run is what it would have been with as many from the beginning."""
    assert start(*QUICK, "operation.log_dir=a") == 0
    assert main.main(["--resume", "latest", "parameters.dreamer.train_iterations=3"]) == 0
    assert start(*QUICK, "operation.log_dir=b", "parameters.dreamer.train_iterations=3") == 0
    a, b = sorted((tmp_path / "runs").iterdir(), key=lambda folder: folder.name[-1])
    assert len(scalars_of(a)["eval/return"]) == 3 and scalars_of(a) == scalars_of(b)
    assert load_config(a / "config.yml").parameters.dreamer.train_iterations == 3, "the next resume knows, too"


PARALLEL = [
    "environment.benchmark=gymnasium",
    "environment.task_name=tests.envs.toy:Wander-v0",
    "environment.num_envs=2",
]
PARALLEL += ["parameters.dreamer.num_interaction_episodes=3", "parameters.dreamer.seed_episodes=5"]


@pytest.mark.parametrize("killed", ["run", "worker"])
def test_run_with_parallel_environments_resumes_after_a_kill(killed, tmp_path):
    """Their workers, which have no torch, end without a word; if one of them is lost, the run ends with one line.
    Resumed, it is what it would have been."""
    new = ["--config", "dreamer", *SMALL, *TINY, *PARALLEL, "operation.device=cpu"]
    endless = ["parameters.dreamer.train_iterations=100000", "operation.compile=False", "operation.log_dir=a"]
    process = Program(tmp_path, *new, *endless)
    while not list(tmp_path.glob("runs/2*/checkpoint-*.pt")):
        assert process.poll() is None, process.errors
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2 and not any("torch" in Path(f"/proc/{child}/maps").read_text() for child in children)
    os.kill(process.pid if killed == "run" else int(children[-1]), signal.SIGKILL)
    assert process.wait() == (-signal.SIGKILL if killed == "run" else 2)
    while any(map(is_running, children)):  # and may write errors
        time.sleep(0.02)
    errors = process.errors
    assert "Traceback" not in errors, errors
    if killed == "worker":
        assert errors.count("error: ") == 1, errors
        assert "error: environment.num_envs: worker 2 of 2: the process has ended (exit code -9); --resume" in errors
    iterations = iteration_of(checkpoints(only_run(tmp_path))[0]) + 2
    assert main.main(["--resume", "latest", f"parameters.dreamer.train_iterations={iterations}"]) == 0
    assert main.main([*new, f"parameters.dreamer.train_iterations={iterations}", "operation.log_dir=b"]) == 0
    a, b = sorted((tmp_path / "runs").iterdir(), key=lambda folder: folder.name[-1])
    assert len(scalars_of(a)["train/return"]) == 5 + 3 * iterations
    curves, expected = scalars_of(a), scalars_of(b)
    assert {tag: (values, expected[tag]) for tag, values in curves.items() if values != expected[tag]} == {}
    assert load_checkpoint(a)[1]["env"] == load_checkpoint(b)[1]["env"]


def test_resuming_a_complete_run_prints_complete_and_changes_nothing(run, capsys):
    before = scalars_of(run)
    assert main.main(["--resume", "latest"]) == 0
    assert "complete" in capsys.readouterr().out and scalars_of(run) == before


def test_settings_that_the_past_depends_on_cannot_change(run, capsys):
    assert main.main(["--resume", "latest", "parameters.dreamer.stochastic_size=9"]) == 2
    assert last_line(capsys).startswith("error: parameters.dreamer.stochastic_size: 8 cannot become 9")


def test_edited_configuration_of_a_run_is_refused(run, capsys):
    """It is refused, and nothing in the folder is changed."""
    path = run / "config.yml"
    content = path.read_bytes()
    for edit in ("operation.seed=7", "parameters.dreamer.batch_size=5", "algorithm=plan2explore"):
        path.write_bytes(content)
        key, value = edit.split("=")
        before = flatten(load_config(path))[key]
        save_configuration(run, dump_config(load_config(path, [edit])))
        known = contents(run)
        assert main.main(["--resume", "latest", "parameters.dreamer.train_iterations=2"]) == 2
        assert last_line(capsys) == (
            f"error: {key}: {value} in {path}, but the checkpoint was made with {before}; put it back, or start anew: "
            f"{PROGRAM} --config {path}"
        )
        assert contents(run) == known


def test_run_that_read_observations_in_another_way_is_refused(tmp_path, monkeypatch, capsys):
    """One begun when a picture without an axis of channels was a vector."""
    frame = np.zeros((16, 16), np.uint8)
    monkeypatch.setattr(Corridor, "observation_space", spaces.Box(0, 255, (16, 16), np.uint8))
    monkeypatch.setattr(Corridor, "reset", lambda self, **keywords: (frame, {}))
    monkeypatch.setattr(Corridor, "step", lambda self, action: (frame, 0.0, False, False, {}))
    task = ["environment.benchmark=gymnasium", "environment.task_name=Corridor-v0", "environment.frame_skip=1"]
    with monkeypatch.context() as before:
        before.setattr("dreamer.envs.observation.layout", lambda space: None)
        assert start(*QUICK, *task) == 0
    assert "numbers     observation uint8 (16, 16): seen as float32 (256,), by the MLP" in capsys.readouterr().out
    run = only_run(tmp_path)
    known = contents(run)
    for command in (["--resume", "latest", "parameters.dreamer.train_iterations=2"], ["--evaluate", "latest"]):
        assert main.main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.match("error: the model of .* does not fit: it was made for other observations, ", line), line
    assert contents(run) == known


def test_run_from_before_a_key_prints_the_default_it_takes(run, capsys):
    path = run / "config.yml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "adam_epsilon" not in line))
    assert main.main(["--resume", "latest", "parameters.dreamer.train_iterations=2"]) == 0
    line = "new keys    an older version started this run; it takes the defaults: parameters.dreamer.adam_epsilon=1e-07"
    assert line in capsys.readouterr().out.splitlines() and "adam_epsilon: 1.0e-07" in path.read_text()


def test_older_checkpoint_may_lack_keys_of_the_configuration():
    past = SavedConfiguration(load_config("dreamer"), "config.yml")
    past.load_state_dict({"operation.seed": 0, "operation.device": "cuda:9", "a.key.of.later": 3})
    past.load_state_dict({})
    assert past.state_dict()["operation.seed"] == 0


def test_run_without_its_checkpoints_is_refused(run, capsys):
    for path in checkpoints(run):
        path.unlink()
    curves = scalars_of(run)
    assert main.main(["--resume", "latest"]) == 2
    assert last_line(capsys).endswith(f"checkpoints are gone; to start anew: {PROGRAM} --config {run}/config.yml")
    assert scalars_of(run) == curves and list((run / "replay").iterdir())


def test_named_run_is_resumed_by_the_same_command(tmp_path, capsys):
    """What --resume may change, the same call may; anything else is refused by name, and changes nothing."""
    call, run = ["--folder", "runs/walker/seed0"], tmp_path / "runs" / "walker" / "seed0"
    run.mkdir(parents=True)  # an empty one is taken
    assert start(*QUICK, *call) == 0
    assert start(*QUICK, *call, "parameters.dreamer.train_iterations=2") == 0
    assert load_checkpoint(run)[0] == 2 and [*run.parent.iterdir()] == [run]
    assert load_config(run / "config.yml").parameters.dreamer.train_iterations == 2
    known = contents(run)
    for changed, line in (
        ([*QUICK, "operation.seed=7"], "error: operation.seed: 0 cannot become 7 in a resumed run"),
        ([QUICK[0], "dreamer-v2", *QUICK[1:]], "error: version: 1 cannot become 2 in a resumed run"),
    ):
        assert start(*changed, *call) == 2 and last_line(capsys).startswith(line)
    with lock_run(run):
        assert start(*QUICK, *call) == 2 and last_line(capsys) == f"error: {run} is in use by another process"
    assert contents(run) == known
    capsys.readouterr()
    assert main.main(["--list", "runs/walker"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:5] == ["seed0", "dreamer", "1", "0", "complete"]


def test_folder_that_is_not_a_run_is_refused(tmp_path, capsys):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes.txt").touch()
    for name in ("else", "else/notes.txt"):
        assert start(*QUICK, "--folder", name) == 2
        assert (
            last_line(capsys)
            == f"error: {name} is neither the folder of a run, which has a config.yml, nor empty; name another"
        )
    assert start(*QUICK, "parameters.dreamer.batch_length=1300", "--folder", "new/run") == 2
    assert not list((tmp_path / "new").iterdir()) and [*(tmp_path / "else").iterdir()] == [
        tmp_path / "else" / "notes.txt"
    ]


class Eventful(Corridor):
    """Something happens at its 200th step."""

    steps, happens = 0, staticmethod(lambda: None)

    def step(self, action):
        Eventful.steps += 1
        if Eventful.steps == 200:
            Eventful.happens()
        return super().step(action)


class Forgetful(Corridor):
    def state_dict(self):
        return {"last": deque([1.0])}


gymnasium.register("Eventful-v0", entry_point=Eventful, max_episode_steps=30)
gymnasium.register("Forgetful-v0", entry_point=Forgetful, max_episode_steps=30)


@pytest.fixture
def eventful(monkeypatch):
    """Trains in the environment in which at the 200th step this function is called; a checkpoint is due at the end."""

    def train(happens, task="Eventful-v0", iterations=50):
        monkeypatch.setattr(Eventful, "steps", 0)
        monkeypatch.setattr(Eventful, "happens", staticmethod(happens))
        settings = [
            "environment.benchmark=gymnasium",
            f"environment.task_name={task}",
            "operation.checkpoint_interval=1000",
        ]
        return start("dreamer", *SMALL, *TINY, *settings, f"parameters.dreamer.train_iterations={iterations}")

    return train


def fail(error):
    raise error


# The type of an error says nothing about whose it is.
FAULTS = [ZeroDivisionError("broken"), NotFiniteError("NaN"), SystemExit(3), StopIteration()]
FAULTS += [ConfigError("text"), KeyboardInterrupt("text"), OSError(errno.ENOSPC, "No space left on device")]


@pytest.mark.parametrize("error", FAULTS)
def test_last_iteration_is_saved_whatever_error_ends_a_run(error, eventful, tmp_path, capsys):
    assert eventful(partial(fail, error)) == (2 if isinstance(error, SystemExit) else 1)
    told = capsys.readouterr().err
    if not isinstance(error, SystemExit):
        assert f"stopped; to resume: {PROGRAM} --resume {only_run(tmp_path)}\nTraceback " in told
        last = told.splitlines()[-1]
        assert last.startswith("error: the environment's step (episode ") and type(error).__name__ in last
    iteration, state = load_checkpoint(only_run(tmp_path))
    assert iteration >= 3 and len(scalars_of(only_run(tmp_path))["replay/steps"]) == iteration
    if error is not FAULTS[0]:
        return
    more = f"parameters.dreamer.train_iterations={iteration + 1}"
    Eventful.happens = staticmethod(lambda: None)
    assert main.main(["--resume", "latest", more]) == 0
    assert len(scalars_of(only_run(tmp_path))["replay/steps"]) == iteration + 1


def test_second_signal_does_not_interrupt_saving(eventful, tmp_path, monkeypatch):
    def save(*arguments, write=torch.save):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        write(*arguments)

    monkeypatch.setattr(torch, "save", save)
    assert eventful(partial(signal.raise_signal, signal.SIGINT)) == 130
    assert load_checkpoint(only_run(tmp_path))[0] >= 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_environment_state_that_cannot_be_saved_is_refused_at_the_start(eventful, tmp_path, capsys):
    assert eventful(None, "Forgetful-v0") == 2
    assert last_line(capsys).startswith(
        "error: env['environment']['last']: a deque cannot be saved; let its state_dict"
    )
    assert not list(tmp_path.glob("runs/*"))


def test_environment_may_change_the_working_directory(eventful, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    assert eventful(partial(os.chdir, tmp_path / "elsewhere"), iterations=15) == 0
    assert Eventful.steps > 200 and load_checkpoint(only_run(tmp_path))[0] == 15
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("lose", [lambda run: run.rename(run.with_name("other")), shutil.rmtree])
def test_lost_run_folder_ends_the_run_in_one_line(lose, eventful, tmp_path, capsys):
    assert eventful(lambda: lose(only_run(tmp_path)), iterations=15) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors and errors.splitlines()[-1].startswith(
        "error: [Errno 2] No such file or directory"
    )


class Broken(Corridor):
    """The environment with the number `broken`, 0 to train in and 1 to evaluate in, rewards with `fault()` from its
    81st step on."""

    made, broken, fault = 0, None, None

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.number, self.steps = Broken.made, 0
        Broken.made += 1

    def step(self, action):
        self.steps += 1
        observation, reward, *rest = super().step(action)
        if self.number == Broken.broken and self.steps > 80:
            reward = Broken.fault()
        return observation, reward, *rest


gymnasium.register("Broken-v0", entry_point=Broken, max_episode_steps=30)
BROKEN = ["environment.benchmark=gymnasium", "environment.task_name=Broken-v0", "environment.frame_skip=1"]
BROKEN += ["parameters.dreamer.train_iterations=4", "parameters.dreamer.collect_interval=1", "operation.device=cpu"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The curves of a run in which no step is at fault."""
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert start("dreamer", *SMALL, *TINY, *BROKEN) == 0
    return scalars_of(only_run(folder))


@pytest.mark.parametrize(
    ("broken", "fault", "line"),
    [
        (0, lambda: float("nan"), "gave the reward nan; expected a number"),
        (1, lambda: float("nan"), "gave the reward nan; expected a number"),
        (1, lambda: sys.exit(0), "called sys.exit(0); expected it to return"),
    ],
    ids=["collecting, nan", "evaluating, nan", "evaluating, exit"],
)
def test_invalid_environment_step_ends_a_run_that_can_be_resumed(
    broken, fault, line, unbroken, tmp_path, capsys, monkeypatch
):
    """One line, exit status 2, nothing of it kept. Repaired, the run ends as one without the fault."""
    for name, value in (("made", 0), ("broken", broken), ("fault", fault)):
        monkeypatch.setattr(Broken, name, value)
    assert start("dreamer", *SMALL, *TINY, *BROKEN) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith("error: the environment's step (episode ") and line in errors[0]
    monkeypatch.setattr(Broken, "broken", None)
    assert main.main(["--resume", "latest"]) == 0
    curves = scalars_of(only_run(tmp_path))
    assert len(curves["eval/return"]) == 4 and curves == unbroken


def test_non_finite_loss_stops_the_run_and_leaves_its_checkpoint(run, capsys, monkeypatch):
    """Exit status 1, the loss by name, and the checkpoint from before it left as it was."""

    def without_rewards(self, starts, batch):
        return batch._replace(reward=torch.full_like(batch.reward, torch.nan))

    monkeypatch.setattr(Learner, "with_latents", without_rewards)
    assert main.main(["--resume", "latest", "parameters.dreamer.train_iterations=2"]) == 1
    line = last_line(capsys)
    assert line.startswith("error: not finite in iteration 2: ") and "loss/reward" in line
    iteration, state = load_checkpoint(run)
    assert iteration == 1
    assert all(part.isfinite().all() for part in state["algorithm"]["networks"]["model"].values())


def test_run_in_use_by_another_process_is_refused(run, capsys):
    with lock_run(run):
        assert main.main(["--resume", "latest"]) == 2
    assert "is in use by another process" in last_line(capsys)


def test_full_disk_ends_a_run_that_can_be_resumed(run, capsys, full_disk):
    before = scalars_of(run)
    more = ["--resume", "latest", "parameters.dreamer.train_iterations=3"]
    with full_disk():
        assert main.main(more) == 2
    assert last_line(capsys).startswith(f"error: [Errno 28] No space left on device: '{run.parent}/")
    assert main.main(more) == 0
    after = scalars_of(run)
    assert len(after["eval/return"]) == 3 and after["eval/return"][:1] == before["eval/return"]


def test_error_while_making_an_environment_is_printed_with_its_traceback(monkeypatch, capsys, tmp_path):
    """An error of the system is its own, too."""
    monkeypatch.setattr(Corridor, "__init__", lambda self, **keywords: fail(OSError()))
    assert start("dreamer", "environment.benchmark=gymnasium", "environment.task_name=Corridor-v0") == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("Traceback ") and any("in fail" in line for line in told)
    assert told[-1] == "error: environment.task_name: the making of 'Corridor-v0' raised OSError"
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("error", [None, OSError()], ids=["complete", "after another error"])
def test_failing_close_of_an_environment_is_only_a_warning(error, eventful, monkeypatch, capsys):
    """One line; what came before decides about the end."""
    monkeypatch.setattr(warn, "_warned", set())
    monkeypatch.setattr(Corridor, "close", lambda self: fail(ValueError("a\nfault")), raising=False)
    assert eventful(partial(fail, error) if error else lambda: None, iterations=15) == (1 if error else 0)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("warning", "error"))]
    warning = "warning: the environment's close raised ValueError: a fault"
    assert told[0] == warning and len(told) == (2 if error else 1)
    assert not error or told[1].endswith("raised OSError")


def test_exit_while_making_an_environment_is_a_one_line_error(monkeypatch, capsys):
    monkeypatch.setattr(Corridor, "__init__", lambda self, **keywords: sys.exit(0))
    assert start("dreamer", "environment.benchmark=gymnasium", "environment.task_name=Corridor-v0") == 2
    line = "error: environment.task_name: the making of 'Corridor-v0' called sys.exit(0); expected it to return\n"
    assert capsys.readouterr().err == line

"""Sweeps: the plan of runs, errors, and the display."""

import os
import re
import shlex
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

import main
from dreamer.config.load import dump_config, load_config
from dreamer.tools import plot, sweep
from dreamer.tools.command_line import parse_arguments
from dreamer.tools.sweep_display import Display
from dreamer.training.program import PROGRAM
from dreamer.training.run_folder import make_named_folder
from tests.test_main import QUICK

SWEEP = ["--name", "v1", "--config"]
DISCOUNT = ["--vary", "parameters.dreamer.discount=0.9,0.99"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "dreamer.tools.sweep_ray", raising=False)
    monkeypatch.setattr("dreamer.tools.sweep_display.DIRECTORY", str(tmp_path))


def planned_runs(*arguments):
    return sweep.plan(sweep.parse_arguments([*SWEEP, *arguments]))


def test_plan_orders_runs_by_seed_and_names_their_folders(tmp_path):
    """All runs with the first seed come first. A folder's name has the configuration, the varied settings and the
    seed."""
    lambdas = ["--vary", "parameters.dreamer.lambda_=0.5,0.9"]
    runs = planned_runs("dmc-walker-walk", "dmc-cheetah-run", "--seeds", "11", *DISCOUNT, *lambdas)
    assert len(runs) == 2 * 11 * 4 and all(run.folder.parent == tmp_path / "runs" / "v1" for run in runs)
    assert [run.name for run in runs[:5]] == [
        "dmc-walker-walk_discount=0.9_lambda_=0.5_seed0",
        "dmc-walker-walk_discount=0.9_lambda_=0.9_seed0",
        "dmc-walker-walk_discount=0.99_lambda_=0.5_seed0",
        "dmc-walker-walk_discount=0.99_lambda_=0.9_seed0",
        "dmc-cheetah-run_discount=0.9_lambda_=0.5_seed0",
    ]
    assert [run.name[-6:] for run in runs[-9:]] == ["_seed9"] + 8 * ["seed10"]
    assert runs[0].iterations == 1000 and runs[0].log == tmp_path / "runs" / "v1" / f"{runs[0].name}.log"
    assert not list(tmp_path.iterdir())


def test_invalid_folder_names_are_refused(tmp_path):
    (tmp_path / "mine.yml").write_text("base: dreamer.yml\n")
    vary = ["parameters.dreamer.encoder.hidden_size=8,9", "parameters.dreamer.decoder.hidden_size=8"]
    vary += ["operation.initialize_from=runs/a b"]
    (first, _) = planned_runs("./mine.yml", *(word for text in vary for word in ("--vary", text)))
    known = "parameters.dreamer.encoder.hidden_size=8_parameters.dreamer.decoder.hidden_size=8"
    assert first.name == f"mine_{known}_initialize_from=runs-a-b_seed0"


def test_printed_plan_can_be_run_by_main(capsys):
    above = ["--with", "dreamer-v3", "size1m", "operation.log_dir=a"]
    assert sweep.main([*SWEEP, "dmc-walker-walk", "--seeds", "2", "--list", *above, *DISCOUNT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith(f"{PROGRAM} --config ") for line in lines)
    options = parse_arguments(shlex.split(lines[3].removeprefix(PROGRAM)))
    assert options.config == ["dmc-walker-walk", "dreamer-v3", "size1m"]
    assert options.overrides == ["operation.log_dir=a", "parameters.dreamer.discount=0.99", "operation.seed=1"]
    assert options.folder == "runs/v1/dmc-walker-walk_discount=0.99_seed1"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dmc-walker-wolk"], "no configuration 'dmc-walker-wolk'"),
        (["dreamer", "--with", "size1"], "no configuration 'size1'; the nearest names: size1m"),
        (["dreamer", "batch_size=3"], "unknown key batch_size"),
        (["dreamer", "--vary", "batch_size=3"], "unknown key batch_size"),
        (["dreamer", "--vary", "parameters.dreamer.batch_size=3,many"], "parameters.dreamer.batch_size: expected"),
        (["dreamer", "dreamer.yml"], "two runs would have the folder runs/v1/dreamer_seed0"),
        (["dreamer", "--address", "auto"], "Ray is not installed: "),
        (["dreamer", "--cpus-per-run", "1000"], "--jobs: no room for a run at once: this machine has "),
        (["dreamer", "--jobs", "2", "--gpus-per-run", "100"], "--jobs: no room for 2 at once: this machine has "),
    ],
)
def test_invalid_sweep_starts_no_run(arguments, line, tmp_path, capsys):
    assert sweep.main([*SWEEP, "dmc-cheetah-run", *arguments]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and line in error and not list(tmp_path.iterdir())


def test_existing_runs_with_another_configuration_are_refused(tmp_path, capsys):
    folder = tmp_path / "runs" / "v1" / "dreamer_seed1"
    make_named_folder(folder, dump_config(load_config("dreamer", ["operation.seed=1"])))
    assert len(planned_runs("dreamer", "--seeds", "2", "parameters.dreamer.train_iterations=9")) == 2
    for change in (["parameters.dreamer.discount=0.9"], ["--with", "dreamer-v2"]):
        assert sweep.main([*SWEEP, "dreamer", "--seeds", "2", *change]) == 2
        refusal = r"error: runs/v1/dreamer_seed1: \S+: \S+ cannot become \S+ in a resumed run"
        assert re.match(refusal, capsys.readouterr().err)
    (folder / "config.yml").rename(folder / "notes.txt")
    assert sweep.main([*SWEEP, "dreamer", "--seeds", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: runs/v1/dreamer_seed1 is neither the folder of a run")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "dreamer"],
        ["--name", "v1"],
        ["--name", "v1", "--config", "operation.device=cpu"],
        *(["--name", name, "--config", "dreamer"] for name in ("", "..", "a/b", "a b")),
        *([*SWEEP, "dreamer", "--vary", text] for text in ("k", "k=", "=1", "k=1,", "k=1,1", "operation.seed=1,2")),
        *([*SWEEP, "dreamer", "--gpus-per-run", text] for text in ("-1", "1.5", "many", "nan")),
        *([*SWEEP, "dreamer", option, "-1"] for option in ("--seeds", "--retries", "--cpus-per-run", "--jobs")),
        [*SWEEP, "dreamer", "--jobs", "2", "--address", "auto"],
        [*SWEEP, "dreamer", "operation.seed=3"],
        [*SWEEP, "dreamer", "--vary", "k=1,2", "--vary", "k=3"],
    ],
)
def test_invalid_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        sweep.parse_arguments(arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and line.endswith("; --help tells more")


def test_numbers_of_devices_and_retries():
    options = sweep.parse_arguments([*SWEEP, "dreamer", "--gpus-per-run", "0.25", "--retries", "0"])
    assert (options.gpus_per_run, options.cpus_per_run, options.retries) == (0.25, 1, 0)
    assert [sweep.gpus(text) for text in ("0", ".5", "1", "2")] == [0, 0.5, 1, 2]


def test_complete_sweep_starts_nothing_and_is_plotted(capsys):
    """Each value of the varied setting is a curve of two seeds."""
    name, *settings = QUICK
    arguments = [*SWEEP, name, "--seeds", "2", *DISCOUNT, *settings]
    for run in planned_runs(*arguments[len(SWEEP) :]):
        assert main.main(list(run.arguments)) == 0
    capsys.readouterr()
    assert sweep.main(arguments) == 0
    shown, look = capsys.readouterr().err.splitlines()
    assert shown == "runs/v1: 4 done, 0 running, 0 waiting, 0 failed"
    assert look.endswith("-m dreamer plot runs/v1 --table")
    assert plot.main(["runs/v1", "--table"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert {row.split(" | ")[1] for row in rows} == {"dreamer-v1 discount=0.9", "dreamer-v1 discount=0.99"}
    assert all(len(row.split(" | ")[5].split(", ")) == 2 for row in rows)
    assert sweep.main([*arguments, "--address", "auto", "parameters.dreamer.train_iterations=2"]) == 2
    assert "Ray is not installed" in capsys.readouterr().err, "there is more to do"
    more = [f"parameters.dreamer.{setting}" for setting in ("train_iterations=2", "max_env_steps=400")]
    assert sweep.main([*arguments, *more]) == 0, "as many env steps as there are to be"


# What is shown


@pytest.fixture
def runs(monkeypatch):
    """Return three runs of ten iterations. `progress` sets iteration, env steps and evaluation of each."""
    runs = planned_runs("dreamer", "--seeds", "3", "parameters.dreamer.train_iterations=10")
    for run in runs:
        make_named_folder(run.folder, "")
    monkeypatch.setattr(
        "dreamer.tools.sweep_display.read_progress", lambda folder: progress.get(folder.name, (0, 0, ""))
    )
    progress = {}
    return SimpleNamespace(all=runs, progress=progress)


def tasks(runs, *states, retries=(), reasons=()):
    return SimpleNamespace(
        states=dict(zip(runs, states, strict=True)),
        retries=Counter(dict(zip(runs, retries, strict=False))),
        reasons=dict(zip(runs, reasons, strict=False)),
    )


def test_without_a_terminal_each_change_is_a_line(runs, capsys):
    first, second, third = runs.all
    runs.progress[first.name] = (10, 12000, "712.3")
    display = Display(runs.all, [second, third])
    display.show(tasks([second, third], "running", "waiting"))
    display.show(tasks([second, third], "running", "waiting"))
    display.show(tasks([second, third], "waiting", "waiting", retries=[1], reasons=["killed by SIGKILL"]))
    runs.progress[second.name] = (4, 5000, "")
    display.show(tasks([second, third], "running", "failed", retries=[1], reasons=["", "error: not finite"]))
    runs.progress[second.name] = (10, 11000, "99.9")
    display.show(tasks([second, third], "done", "failed", retries=[1], reasons=["finished", "error: not finite"]))
    assert capsys.readouterr().err.splitlines() == [
        "runs/v1: 1 done, 0 running, 2 waiting, 0 failed",
        "dreamer_seed1 running (1 done, 1 running, 1 waiting, 0 failed)",
        "dreamer_seed1 waiting, retry 1: killed by SIGKILL (1 done, 0 running, 2 waiting, 0 failed)",
        "dreamer_seed1 running: iteration 4 of 10, 5,000 env steps (1 done, 1 running, 0 waiting, 1 failed)",
        "dreamer_seed2 failed: error: not finite; runs/v1/dreamer_seed2.log (1 done, 1 running, 0 waiting, 1 failed)",
        "dreamer_seed1 done: iteration 10 of 10, 11,000 env steps, eval/return_ema20 99.9 "
        "(2 done, 0 running, 0 waiting, 1 failed)",
    ]


@pytest.mark.parametrize(
    "height, shown",
    [(24, ["dreamer_seed0", "dreamer_seed1", "dreamer_seed2"]), (4, ["dreamer_seed1"]), (1, ["dreamer_seed1"])],
)
def test_terminal_shows_a_table(height, shown, runs, monkeypatch, capsys):
    """It has as many runs as fit, running ones first. A failed run is printed above the table."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, height)))
    runs.progress[runs.all[1].name] = (4, 5000, "99.9")
    for iteration, time in ((3, 1000), (4, 1020)):
        path = runs.all[1].folder / f"checkpoint-{iteration:06}.pt"
        path.touch()
        os.utime(path, (time, time))
    display = Display(runs.all, runs.all)
    display.show(tasks(runs.all, "waiting", "running", "failed", retries=[0, 1], reasons=["", "", "error: bad"]))
    texts = [line.desc for line in display.lines]
    display.close()
    assert [text.split()[0] for text in texts[1:-1]] == shown
    row = next(text for text in texts if "running" in text)
    assert re.split(r"\s{2,}", row) == ["dreamer_seed1", "running", "4 of 10", "5,000", "99.9", "1"] or len(row) <= 59
    assert display.row(runs.all[1]) == ["dreamer_seed1", "running", "4 of 10", "5,000", "99.9", "1", "02:00"]
    assert texts[-1] == "0 done, 1 running, 1 waiting, 1 failed" and max(map(len, texts)) <= 59
    failed = "dreamer_seed2 failed: error: bad; runs/v1/dreamer_seed2.log (0 done, 1 running, 1 waiting, 1 failed)"
    assert capsys.readouterr().err.count(failed) == 1


def test_no_time_left_with_a_single_checkpoint(runs):
    (runs.all[0].folder / "checkpoint-000003.pt").touch()
    display = Display(runs.all, runs.all)
    display.states[runs.all[0]] = "running"
    assert display.row(runs.all[0])[-1] == "" and Path("runs/v1").is_dir()

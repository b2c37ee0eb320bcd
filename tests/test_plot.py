import numpy as np
import pytest
from PIL import Image

from dreamer.config import ConfigError, dump_config, load_config
from dreamer.curves import find_runs, group_runs, read_reference, read_runs
from dreamer.logger import Logger
from dreamer.plot import draw, main, table
from dreamer.run_folder import save_configuration

INITIALIZED = "operation.initialize_from=runs/"
REFERENCE = """method,task,env_steps,mean,std,seeds
dreamer-v1,walker_walk,200000,300.0,30.0,5
dreamer-v1,walker_walk,50000,25.0,8.0,5
dreamer-v1,walker_walk,100000,137.0,57.0,5
drq-v2,walker_walk,100000,55.0,5.0,9
dreamer-v1,cheetah_run,100000,127.0,51.0,5
"""


@pytest.fixture
def write_run(tmp_path):
    """Writes the folder of a run as a training does: {env steps: return}."""

    def write(curve, name="dreamer", config="dmc-walker-walk", overrides=(), tag="eval/return_ema20"):
        folder = tmp_path / "runs" / f"{len(list(tmp_path.glob('runs/*'))):02}_{name}"
        folder.mkdir(parents=True)
        text = dump_config(load_config(config, [f"operation.log_dir={name}", *overrides]))
        save_configuration(folder, text)
        logger = Logger(folder, text)
        for env_steps, value in curve.items():
            logger.scalars({tag: value, "loss/model": -value}, env_steps)
        logger.close()
        return folder

    return write


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "published.csv"
    path.write_text(REFERENCE)
    return path


def seeds_of(write_run, *curves):
    return [write_run(curve, overrides=[f"operation.seed={seed}"]) for seed, curve in enumerate(curves)]


def curves_of(*folders, by_name=False, metric="eval/return_ema20"):
    return group_runs(read_runs(folders, metric), by_name)


def test_seeds_become_one_curve_of_mean_and_std(write_run, capsys):
    seeds = seeds_of(write_run, *({1000: 1.0, 2000: value} for value in (10.0, 20.0, 60.0)))
    (curve,) = curves_of(*seeds)["walker_walk"]
    assert capsys.readouterr().err == ""
    assert (curve.label, curve.seeds, curve.last) == ("dreamer-v1", 3, (10.0, 20.0, 60.0))
    np.testing.assert_array_equal(curve.env_steps, [1000, 2000])
    np.testing.assert_allclose(curve.mean, [1, 30])
    np.testing.assert_allclose(curve.std, [0, np.std([10, 20, 60])])


def test_runs_meet_where_all_have_values(write_run):
    """The longer one is cut, and between evaluations lies a straight line."""
    folders = write_run({1000: 10.0, 2000: 20.0, 3000: 30.0, 4000: 40.0}), write_run({1500: 0.0, 3500: 20.0})
    (curve,) = curves_of(*folders)["walker_walk"]
    np.testing.assert_array_equal(curve.env_steps, [1500, 2000, 3000, 3500])
    np.testing.assert_allclose(curve.mean, [7.5, 12.5, 22.5, 27.5])
    assert curve.last == (35.0, 20.0)


def test_a_seed_that_was_run_twice_counts_once_and_is_named(write_run, capsys):
    (curve,) = curves_of(write_run({1000: 1.0}), write_run({1000: 3.0}))["walker_walk"]
    assert (curve.seeds, curve.mean[-1]) == (1, 2.0)
    assert capsys.readouterr().err == "warning: walker_walk, dreamer-v1: 2 runs of 1 seeds\n"


def test_runs_are_read_until_some_env_steps(write_run, tmp_path, capsys):
    folder = write_run({1000: 1.0, 2000: 2.0, 3000: 3.0})
    (run,) = read_runs([folder], "eval/return_ema20", until=2000)
    np.testing.assert_array_equal(run.values, [1, 2])
    assert main([str(folder), "--table", "--until", "2e3"]) == 0
    assert "| 2,000 | 2.0 ± 0.0 |" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no run has eval/return_ema20"):
        read_runs([folder], "eval/return_ema20", until=999)


def test_runs_that_never_meet_are_refused(write_run):
    with pytest.raises(ConfigError, match="no env steps that all of its 2 runs have reached"):
        curves_of(write_run({1000: 1.0}), write_run({2000: 1.0}))


def test_tasks_and_algorithms_are_kept_apart(write_run):
    curves = curves_of(
        write_run({1000: 1.0}),
        write_run({1000: 2.0}, config="p2e-dmc-walker-walk"),
        write_run({1000: 3.0}, config="dmc-ball-in-cup-catch"),
        write_run({1000: 4.0}, overrides=["environment.benchmark=gym", "environment.task_name=CartPole-v1"]),
    )
    found = {task: [(curve.label, curve.mean[-1]) for curve in its] for task, its in curves.items()}
    assert found == {
        "walker_walk": [("dreamer-v1", 1.0), ("plan2explore", 2.0)],
        "ball_in_cup_catch": [("dreamer-v1", 3.0)],
        "CartPole-v1": [("dreamer-v1", 4.0)],
    }


@pytest.mark.parametrize(
    "first, second, by_name, expected",
    [
        ({}, {"overrides": ["operation.seed=1", "environment.seed=7", "operation.device=cpu"]}, False, [""]),
        ({}, {"overrides": ["parameters.dreamer.train_iterations=9"]}, False, [""]),
        ({"name": "a"}, {"name": "b"}, False, [""]),
        ({"overrides": [INITIALIZED + "a"]}, {"overrides": [INITIALIZED + "b"]}, False, [""]),
        ({}, {"overrides": [INITIALIZED + "a"]}, False, [" initialize_from=False", " initialize_from=True"]),
        ({}, {"overrides": ["operation.precision=bfloat16"]}, False, [" precision=float32", " precision=bfloat16"]),
        ({"name": "a"}, {"name": "b"}, True, [" a", " b"]),
        ({"name": "a"}, {"name": "b", "overrides": ["parameters.dreamer.discount=0.9"]}, False, [" a", " b"]),
        ({}, {"overrides": ["parameters.dreamer.discount=0.9"]}, False, [" discount=0.99", " discount=0.9"]),
    ],
)
def test_what_splits_a_curve_and_names_its_parts(first, second, by_name, expected, write_run):
    curves = curves_of(write_run({1000: 1.0}, **first), write_run({1000: 2.0}, **second), by_name=by_name)
    assert [curve.label for curve in curves["walker_walk"]] == [f"dreamer-v1{label}" for label in expected]


def test_names_and_settings_together_where_neither_is_enough(write_run):
    other = {"overrides": ["parameters.dreamer.discount=0.9"]}
    folders = [write_run({1000: 1.0}, name=name, **settings) for name in "ab" for settings in ({}, other)]
    labels = [curve.label for curve in curves_of(*folders, by_name=True)["walker_walk"]]
    assert labels == [f"dreamer-v1 {name} discount={discount}" for name in "ab" for discount in (0.99, 0.9)]


def test_folders_of_runs_and_folders_that_hold_them(write_run, tmp_path):
    one, other = write_run({1000: 1.0}), write_run({1000: 1.0})
    assert find_runs([str(tmp_path / "runs")]) == [one, other] == find_runs([one, other, tmp_path / "runs"])
    with pytest.raises(ConfigError, match="is not the folder of a run and holds none"):
        find_runs([tmp_path / "nothing"])


def test_every_point_of_a_long_run_is_read(write_run):
    """TensorBoard's reader thins out what is longer than it thinks fit."""
    (run,) = read_runs([write_run({step: float(step) for step in range(12000)})], "loss/model")
    np.testing.assert_array_equal(run.values, -np.arange(12000.0))


def test_runs_without_the_metric_are_left_out_and_named(write_run, capsys):
    good, bad = write_run({1000: 1.0}), write_run({1000: 1.0}, tag="train/return")
    assert len(read_runs([good, bad], "eval/return_ema20")) == 1
    assert f"left out: {bad}" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no run has eval/nothing; there is: eval/return_ema20, loss/model"):
        read_runs([good], "eval/nothing")


def test_reference(reference):
    curves = read_reference(reference)
    assert sorted(curves) == ["cheetah_run", "walker_walk"]
    dreamer, drq = curves["walker_walk"]
    assert (dreamer.label, dreamer.seeds, drq.label, drq.seeds) == ("dreamer-v1", 5, "drq-v2", 9)
    np.testing.assert_array_equal(dreamer.env_steps, [50000, 100000, 200000])
    np.testing.assert_array_equal(dreamer.mean, [25, 137, 300])
    np.testing.assert_array_equal(dreamer.std, [8, 57, 30])
    assert [curve.label for curve in read_reference(reference, ["drq-v2"])["walker_walk"]] == ["drq-v2"]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "its first line should be method,task,env_steps,mean,std,seeds"),
        ("task,method,env_steps,mean,std,seeds\n", "its first line should be"),
        (REFERENCE + "dreamer-v1,walker_walk,300000,high,1,5\n", "line 7 is not method,task"),
        (REFERENCE + "dreamer-v1,walker_walk\n", "line 7 is not method,task"),
    ],
)
def test_another_kind_of_file_is_refused(text, complaint, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_reference(path)


@pytest.mark.parametrize(
    "end, cell", [(1000, "25.0 ± 8.0 (50,000)"), (199999, "137.0 ± 57.0 (100,000)"), (200000, "300.0 ± 30.0 (200,000)")]
)
def test_table(end, cell, write_run, reference):
    curves = curves_of(*(write_run({1000: 0.0, end: value}) for value in (10.0, 20.0)))
    text = table(curves, read_reference(reference), "eval/return_ema20")
    head, rule, row = text.split("\n")
    assert head == "| task | runs | env steps | eval/return_ema20 | each seed | dreamer-v1 | drq-v2 |"
    assert rule == "| --- | --- | --- | --- | --- | --- | --- |"
    assert row == f"| walker-walk | dreamer-v1 | {end:,} | 15.0 ± 5.0 | 10.0, 20.0 | {cell} | 55.0 ± 5.0 (100,000) |"


def test_a_task_that_was_not_published_has_an_empty_cell(write_run, reference):
    curves = curves_of(write_run({1000: 1.0}), write_run({1000: 2.0}, config="dmc-hopper-hop"))
    hopper, walker = table(curves, read_reference(reference, ["dreamer-v1"]), "eval/return").split("\n")[2:]
    assert hopper.startswith("| hopper-hop |") and hopper.endswith("|  |")
    assert walker.endswith("| 25.0 ± 8.0 (50,000) |")


def test_the_picture_has_a_panel_for_each_task_and_what_was_published_of_it(write_run, reference):
    runs = seeds_of(write_run, *({1000: 5.0, 60000: value} for value in (10.0, 20.0)))
    curves = curves_of(*runs, write_run({1000: 1.0}, config="dmc-hopper-hop"))
    hopper, walker = draw(curves, read_reference(reference), "eval/return").axes
    assert (hopper.get_title(), walker.get_title()) == ("hopper-hop", "walker-walk")
    assert (walker.get_xlabel(), walker.get_ylabel()) == ("env steps", "eval/return")
    assert [line.get_label() for line in hopper.lines] == ["dreamer-v1 (1 seed)"]
    ours, published, _ = walker.lines
    assert [line.get_label() for line in walker.lines] == [
        "dreamer-v1 (2 seeds)",
        "dreamer-v1, published (5 seeds)",
        "drq-v2, published (9 seeds)",
    ]
    np.testing.assert_array_equal(ours.get_xydata(), [[1000, 5], [60000, 15]])
    np.testing.assert_array_equal(published.get_xydata(), [[50000, 25], [100000, 137]])  # and no further: one after
    assert walker.get_xlim() == (0, 100000)
    bands = [band.get_paths()[0].vertices for band in walker.collections]
    assert (bands[0][:, 1].min(), bands[0][:, 1].max()) == (5, 20)
    assert (bands[1][:, 1].min(), bands[1][:, 1].max()) == (17, 194)


def test_panels_fill_rows(write_run):
    tasks = ["dmc-hopper-hop", "dmc-walker-run", "dmc-walker-walk", "dmc-cheetah-run", "dmc-reacher-easy"]
    curves = curves_of(*(write_run({1000: 1.0}, config=task) for task in tasks))
    panels = draw(curves, {}, "eval/return").axes
    assert len(panels) == 5
    assert len({round(panel.get_position().y0, 2) for panel in panels}) == 2


def test_from_runs_to_files(write_run, reference, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run({1000: 10.0, 2000: 20.0})
    assert main(["runs"]) == 0
    with Image.open("curves.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert capsys.readouterr().out == ""

    assert main(["runs", "--table", "--reference", "published.csv", "--method", "dreamer-v1"]) == 0
    assert "| walker-walk | dreamer-v1 | 2,000 | 20.0 ± 0.0 | 20.0 | 25.0 ± 8.0 (50,000) |" in capsys.readouterr().out
    assert not (tmp_path / "other.svg").exists()

    assert main(["runs", "--table", "--out", "other.svg", "--metric", "loss/model"]) == 0
    assert "-20.0 ± 0.0" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "other.svg").read_text()


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["nowhere"], "nowhere is not the folder of a run"),
        (["runs", "--metric", "eval/nothing"], "no run has eval/nothing"),
        (["runs", "--reference", "nowhere.csv"], "nowhere.csv"),
        (["runs", "--reference", "published.csv", "--method", "ppo"], "no method ppo; there is: dreamer-v1, drq-v2"),
        (["runs", "--out", "curves.doc"], "doc"),
        (["runs", "--out", "no/where.png"], "where.png"),
    ],
)
def test_what_cannot_be_drawn_gets_one_line(arguments, line, write_run, reference, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run({1000: 1.0})
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and line in captured.err


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["runs", "--method", "dreamer-v1"], "--method goes with --reference"),
        (["runs", "--reference", "published.csv", "--metric", "loss/model"], "say nothing about loss/model"),
    ],
)
def test_what_does_not_go_together(arguments, line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and line in capsys.readouterr().err


def test_help_gives_the_default_metric(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "(eval/return_ema20)" in capsys.readouterr().out

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamer.config.load import CONFIGS, dump_config, load_config
from dreamer.errors import ConfigError
from dreamer.tools.plot import draw, find_runs, group_runs, main, read_runs, table
from dreamer.tools.published import read_reference, select_comparable
from dreamer.training.run_folder import CONFIGURATION, save_configuration
from dreamer.training.tensorboard_log import TensorBoardLog
from tests.config.test_load import REPEATED

RETURN = "eval/return_ema20"
DOCS = CONFIGS.parent / "docs"
DISCOUNT = " parameters.dreamer.discount=0.9"
FROM = " operation.initialize_from=runs/"
SAME = """ environment.seed=7 parameters.dreamer.train_iterations=9 operation.background_evaluation=True
operation.checkpoint_interval=3 operation.device=cpu operation.fast_paths=False operation.video_interval=3
operation.evaluation_device=cpu"""
REFERENCE = """method,task,observations,action_repeat,env_steps,mean,std,seeds
dreamer-v1,walker_walk,pixels,2,200000,300.0,30.0,5
dreamer-v1,walker_walk,pixels,2,50000,25.0,8.0,5

dreamer-v1,walker_walk,pixels,2,100000,137.0,57.0,5
drq-v2,walker_walk,,,100000,55.0,5.0,9
sac,cheetah_run,state,1,100000,127.0,51.0,5
"""


@pytest.fixture
def write_run(tmp_path, monkeypatch):
    """Return a function that writes the folder of a run with these returns, {env steps: return}."""
    monkeypatch.chdir(tmp_path)

    def write(curve, settings="", name="dreamer", config="dmc-walker-walk", tag=RETURN):
        folder = tmp_path / "runs" / f"{len(list(tmp_path.glob('runs/*'))):02}_{name}"
        folder.mkdir(parents=True)
        text = dump_config(load_config(config, [f"operation.log_dir={name}", *settings.split()]))
        save_configuration(folder, text)
        logger = TensorBoardLog(folder, text)
        for env_steps, value in curve.items():
            logger.scalars({tag: value, "loss/model": -value}, env_steps)
        logger.close()
        return folder

    return write


@pytest.fixture
def reference(tmp_path):
    (tmp_path / "published.csv").write_text(REFERENCE)
    return read_reference(tmp_path / "published.csv")


def curves_of(*folders, by_name=False):
    return group_runs(read_runs(folders, RETURN), by_name)


def test_seeds_are_averaged_where_all_have_values(write_run, capsys):
    """The longer run is cut, and values are interpolated linearly. A seed that was run twice is named."""
    long, short = {1000: 10.0, 2000: 20.0, 3000: 30.0, 4000: 40.0}, {1500: 1.0, 3500: 21.0}
    folders = [write_run(run, f"operation.seed={seed}") for seed, run in enumerate([long, short, short])]
    curve = curves_of(*folders)
    each = [[15, 1, 1], [20, 6, 6], [30, 16, 16], [35, 21, 21]]
    assert (list(curve["env_steps"]), list(curve["each"])) == ([1500, 2000, 3000, 3500], each)
    np.testing.assert_allclose(curve["mean"], np.mean(each, 1))
    np.testing.assert_allclose(curve["std"], np.std(each, 1, ddof=1))
    assert set(curve["seeds"]) == {3} and capsys.readouterr().err == ""
    assert set(curves_of(*folders, write_run(short))["seeds"]) == {3}
    assert capsys.readouterr().err == "warning: walker_walk, dreamer-v1: 4 runs of 3 seeds\n"


def test_runs_without_common_env_steps_are_refused(write_run):
    with pytest.raises(ConfigError, match="discount=0.99: no env steps that all of its 2 runs have reached"):
        curves_of(write_run({1000: 1.0}), write_run({2000: 1.0}), write_run({1500: 1.0}, DISCOUNT))


def test_tasks_and_algorithms_are_kept_apart(write_run):
    curves = curves_of(
        write_run({1000: 1.0}),
        write_run({2000: 2.0}, config="p2e-dmc-walker-walk"),
        write_run({1000: 3.0}, config="dmc-ball-in-cup-catch"),
        write_run({1000: 4.0}, "environment.benchmark=gym environment.task_name=CartPole-v1"),
    )
    assert curves[["task", "method", "mean"]].values.tolist() == [
        ["CartPole-v1", "dreamer-v1", 4.0],
        ["ball_in_cup_catch", "dreamer-v1", 3.0],
        ["walker_walk", "dreamer-v1", 1.0],
        ["walker_walk", "plan2explore", 2.0],
    ]


@pytest.mark.parametrize(
    "runs, by_name, expected",
    [
        (["a", "a operation.seed=1", "a" + SAME, "b"], False, [""]),
        (["a" + FROM + "b", "a" + FROM + "c"], False, [""]),
        (["a", "a" + FROM + "b"], False, [" initialize_from=False", " initialize_from=True"]),
        (["a", "a operation.precision=bfloat16"], False, [" precision=float32", " precision=bfloat16"]),
        (["a", "a" + DISCOUNT], False, [" discount=0.99", " discount=0.9"]),
        (["a", "b" + DISCOUNT], False, [" a", " b"]),
        (["a", "b" + DISCOUNT, "b", "a" + DISCOUNT], False, [" discount=0.99", " discount=0.9"]),
        (["a", "b"], True, [" a", " b"]),
        (["a", "b" + DISCOUNT], True, [" a", " b"]),
        (["a", "b", "b" + DISCOUNT], True, [" a discount=0.99", " b discount=0.99", " b discount=0.9"]),
    ],
)
def test_differing_settings_split_curves_and_label_them(runs, by_name, expected, write_run):
    folders = [write_run({1000: 1.0}, run[1:], name=run[0]) for run in runs]
    assert list(curves_of(*folders, by_name=by_name)["method"]) == [f"dreamer-v1{label}" for label in expected]


def test_runs_of_other_versions_are_read(write_run, capsys):
    """Their configuration may have unknown keys, lack new keys, or have values that are now invalid."""
    known, other = write_run({1000: 1.0}, DISCOUNT), write_run({1000: 1.0})
    text = (other / CONFIGURATION).read_text().replace("precision: float32", "precision: float8")
    (other / CONFIGURATION).write_text(text.replace("\n    discount: 0.99", "") + "memory:\n  slots: [1, 2]\n")
    labels = "slots=absent precision=float32 discount=0.9", "slots=[1, 2] precision=float8 discount=0.99"
    assert list(curves_of(known, other)["method"]) == [f"dreamer-v1 {label}" for label in labels]
    (other / CONFIGURATION).write_text("no mapping")
    assert main(["runs"]) == 2 and "expected a mapping" in capsys.readouterr().err
    (other / CONFIGURATION).write_text("a0: &a0 {x: 1}\n" + REPEATED)
    assert main(["runs"]) == 2 and "more than 10000 values" in capsys.readouterr().err


def test_find_runs_accepts_run_folders_and_their_parents(write_run, tmp_path, capsys):
    folders = [write_run({1000: 1.0}), write_run({1000: 1.0})]
    (stopped := tmp_path / "runs" / "stopped").mkdir()
    assert find_runs([str(tmp_path / "runs")]) == folders
    assert [folder.resolve() for folder in find_runs([*folders, "runs"])] == folders
    assert capsys.readouterr().err == ""
    assert find_runs([stopped, *folders]) == folders
    assert capsys.readouterr().err == f"left out: {stopped} is not the folder of a run and holds none\n"


def test_all_points_of_a_long_run_are_read(write_run):
    """TensorBoard's reader would subsample long curves."""
    folder = write_run({step: float(step) for step in range(12000)})
    np.testing.assert_array_equal(read_runs([folder], "loss/model")[folder], -np.arange(12000.0))


def test_runs_without_the_metric_are_skipped_with_a_message(write_run, capsys):
    good, bad = write_run({1000: 1.0}), write_run({1000: 1.0}, tag="train/return")
    assert list(read_runs([good, bad], RETURN)) == [good]
    assert capsys.readouterr().err == f"left out: {bad} has no {RETURN}\n"
    late = write_run({2000: 1.0})
    assert list(read_runs([good, late], RETURN, until=1999)) == [good]
    assert capsys.readouterr().err == f"left out: {late} has no {RETURN} up to 1,999 env steps\n"


@pytest.mark.parametrize(
    "end, cell", [(1000, "25.0 ± 8.0 (50,000)"), (199999, "137.0 ± 57.0 (100,000)"), (200000, "300.0 ± 30.0 (200,000)")]
)
def test_table_has_statistics_and_published_results(end, cell, write_run, reference):
    runs = [write_run({1000: 0.0, end: value}) for value in (10.0, 20.0)]
    curves = curves_of(*runs, write_run({1000: 1.0}, config="dmc-hopper-hop"))
    head, rule, hopper, walker = table(curves, reference, RETURN).split("\n")
    assert (
        head
        == f"| task | runs | env steps | {RETURN}, IQM (95 % interval) | mean ± std | each seed | dreamer-v1 | drq-v2 |"
    )
    assert rule == "| --- | --- | --- | --- | --- | --- | --- | --- |"
    assert hopper == "| hopper-hop | dreamer-v1 | 1,000 | 1.0 | 1.0 | 1.0 |  |  |"
    ours = "15.0 (10.0 to 20.0) | 15.0 ± 7.1 | 10.0, 20.0"
    assert walker == f"| walker-walk | dreamer-v1 | {end:,} | {ours} | {cell} | 55.0 ± 5.0 (100,000) |"


def test_figure_has_a_panel_per_task_with_published_results(write_run, reference):
    runs = [write_run({1000: 5.0, 60000: 10.0 + 10 * seed}, f"operation.seed={seed}") for seed in (0, 1)]
    hopper, walker = draw(curves_of(*runs, write_run({1000: 1.0}, config="dmc-hopper-hop")), reference, RETURN).axes
    assert (hopper.get_title(), walker.get_title()) == ("hopper-hop", "walker-walk")
    assert (walker.get_xlabel(), walker.get_ylabel()) == ("env steps", RETURN)
    labels = [[text.get_text() for text in panel.get_legend().texts] for panel in (hopper, walker)]
    beside = ["dreamer-v1 (2 seeds)", "dreamer-v1, published (5 seeds)", "drq-v2, published (9 seeds)"]
    assert labels == [["dreamer-v1 (1 seed)"], beside]
    ours, *each, published, _ = (line.get_xydata().tolist() for line in walker.lines)
    assert ours == [[1000, 5], [60000, 15]]
    assert each == [[[1000, 5], [60000, 10]], [[1000, 5], [60000, 20]]], "two runs are drawn, too"
    assert published == [[50000, 25], [100000, 137]]  # and no further: one after
    left, right = walker.get_xlim()
    assert -5000 < left < -1000 and 101000 < right < 105000  # room for the marks of points at both ends
    bands = [band.get_paths()[0].vertices[:, 1] for band in walker.collections]
    assert [(band.min(), band.max()) for band in bands[:2]] == [(5, 20), (17, 194)]


def test_curve_of_one_point_is_visible(write_run):
    (panel,) = draw(curves_of(write_run({1000: 5.0})), read_reference(None), RETURN).axes
    assert panel.lines[0].get_marker() == "o"


def test_random_actions_are_a_horizontal_line(write_run, tmp_path):
    """It is drawn for any choice of methods and does not stretch the axis."""
    (tmp_path / "r.csv").write_text(REFERENCE + "random actions,walker_walk,,2,0,44,7,50\n")
    reference = read_reference(tmp_path / "r.csv", ["dreamer-v1"])
    curves = curves_of(write_run({1000: 5.0, 60000: 10.0}))
    (panel,) = draw(curves, reference, RETURN).axes
    level = panel.lines[-1]
    assert list(level.get_ydata()) == [44, 44] and list(level.get_xdata()) == [0, 1], "from edge to edge"
    assert [text.get_text() for text in panel.get_legend().texts][-1] == "random actions (50 episodes)"
    assert len(panel.lines) == 3 and table(curves, reference, RETURN).endswith("25.0 ± 8.0 (50,000) | 44.0 ± 7.0 |")


def test_reference_has_the_twenty_tasks_and_the_quoted_results():
    methods = ["dreamer-v1", "dreamer-v2"]
    reference = read_reference(DOCS / "reference.csv")
    lines = reference[reference["method"].isin(methods)].set_index(["method", "env_steps", "task"])
    published = lines.loc[("dreamer-v1", 1000000)]
    assert len(published) == 20 and set(published["seeds"]) == {5}
    rows = re.findall(
        r"^\| (Dreamer(?:V2)?) \|.* (\d+) ± (\d+) \| (\d+) ± (\d+) \|$", (DOCS / "results.md").read_text(), re.M
    )
    assert [version for version, *_ in rows] == ["Dreamer", "DreamerV2"]
    for method, (_, *quoted) in zip(methods, rows, strict=True):
        points = [lines.loc[(method, env_steps, "walker_walk")] for env_steps in (50000, 100000)]
        assert [f"{point[name]:.0f}" for point in points for name in ("mean", "std")] == quoted


def test_run_without_events_is_skipped(write_run, capsys):
    """Ctrl-C during the seed episodes leaves such a run."""
    write_run({1000: 1.0})
    for path in write_run({}, name="stopped").glob("events*"):
        path.unlink()
    assert main(["runs"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == f"left out: runs/01_stopped has no {RETURN}"


def test_panels_fill_rows_with_legends_below_the_curves(write_run):
    tasks = "hopper-hop", "walker-run", "cheetah-run", "reacher-easy", *4 * ["walker-walk"]
    keys = "discount", "lambda_", "free_nats", "clip_grad", "exploration_noise", "continue_scale"
    settings = [" ".join(f"parameters.dreamer.{key}=0.{run + 1}" for key in keys) for run in range(len(tasks))]
    runs = [write_run({1000: 1.0}, its, config=f"dmc-{task}") for its, task in zip(settings, tasks, strict=True)]
    figure = draw(curves_of(*runs), read_reference(None), RETURN)
    figure.draw_without_rendering()
    assert len(figure.axes) == 5 and len({round(panel.get_position().y0, 2) for panel in figure.axes}) == 2
    for panel in figure.axes:
        legend, below = panel.get_legend().get_window_extent(), panel.xaxis.label.get_window_extent()
        assert 0 <= legend.y0 < legend.y1 <= below.y0
        assert panel.bbox.x0 <= legend.x0 < legend.x1 <= panel.bbox.x1
        assert panel.bbox.height > 2 * figure.dpi


STATE = "environment.from_pixels=False environment.frame_skip=8"


@pytest.mark.parametrize("settings", [STATE, "environment.from_pixels=False", "environment.frame_skip=8"])
def test_published_results_from_other_observations_are_left_out(settings, write_run, reference, capsys):
    """One line says so. Results that do not name their observations are kept."""
    curves = curves_of(write_run({1000: 5.0, 60000: 10.0}, settings))
    published = select_comparable(reference, curves, None)
    assert list(published["method"]) == ["drq-v2"]
    made = "dreamer-v1 of walker_walk (pixels, action repeat 2)"
    text = "made from other observations or at another action repeat than the runs; --method draws it"
    assert capsys.readouterr().err == f"left out: {made}: {text}\n"
    assert select_comparable(reference, curves_of(write_run({1000: 5.0}, "environment.seed=1")), None).equals(
        reference[:-1]
    )
    assert capsys.readouterr().err == ""


def test_published_results_from_other_observations_are_drawn_on_request(write_run, reference, capsys):
    state, pixels = write_run({1000: 5.0, 60000: 10.0}, STATE), write_run({1000: 5.0, 60000: 20.0})
    asked = select_comparable(reference, curves := curves_of(state), ["dreamer-v1"])
    (panel,) = draw(curves, asked[asked["method"] == "dreamer-v1"], RETURN).axes
    texts = [text.get_text() for text in panel.get_legend().texts]
    assert texts == ["dreamer-v1 (1 seed)", "dreamer-v1, published, pixels, action repeat 2 (5\nseeds)"]
    assert "| 25.0 ± 8.0 (50,000; pixels, action repeat 2) |" in table(curves, asked, RETURN)
    both = curves_of(state, pixels)
    one, other = table(both, select_comparable(reference, both, None), RETURN).split("\n")[2:]
    assert ("action repeat 2" in one) != ("action repeat 2" in other), "beside one of them it needs no word"
    assert capsys.readouterr().err == ""


def test_plot_command_writes_its_files(write_run, reference, tmp_path, capsys):
    write_run({1000: 10.0, 2000: 20.0, 3000: 30.0})
    assert main(["runs", "--table", "--reference", "published.csv", "--method", "dreamer-v1", "--until", "2e3"]) == 0
    row = "| walker-walk | dreamer-v1 | 2,000 | 20.0 | 20.0 | 20.0 | 25.0 ± 8.0 (50,000) |\n"
    assert capsys.readouterr().out.endswith(row) and not (tmp_path / "curves.png").exists()
    assert main(["runs"]) == 0
    assert capsys.readouterr() == ("", "written: curves.png\n")
    with Image.open("curves.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert main(["runs", "--table", "--out", "other.svg", "--metric", "loss/model"]) == 0
    assert "| -30.0 | -30.0 |" in capsys.readouterr().out and "<svg" in (tmp_path / "other.svg").read_text()


def test_scores_compare_methods_over_common_tasks(write_run, reference, tmp_path, capsys):
    """Random actions have return 5 and the published method 25, so returns 15 and 25 have scores 0.5 and 1."""
    path = tmp_path / "published.csv"
    path.write_text(path.read_text() + "random actions,walker_walk,,,0,5,7,50\n")
    for seed in (0, 1):
        write_run({1000: 15.0}, f"operation.seed={seed}")
        write_run({1000: 25.0}, f"operation.seed={seed} version=2")
    write_run({1000: 1.0}, config="dmc-hopper-hop")
    assert main(["runs", "--scores", "--reference", "published.csv", "--method", "dreamer-v1"]) == 0
    one, other = capsys.readouterr().out.splitlines()[2:]
    assert one == "| dreamer-v1 | 1 | 2 | 0.500 (0.500 to 0.500) |  | 0.00 (0.00 to 0.00) |"
    assert other == "| dreamer-v2 | 1 | 2 | 1.000 (1.000 to 1.000) | 1.00 (1.00 to 1.00) |  |"
    assert main(["runs", "--scores", "--out", "profiles.svg"]) == 0
    assert "| 15.000 (" in capsys.readouterr().out and "share of runs" in (tmp_path / "profiles.svg").read_text()


OTHER = ["runs", "--reference", "other.csv"]


@pytest.mark.parametrize(
    "arguments, other, line",
    [
        (["nowhere", "too"], "", "nowhere is not the folder of a run and holds none"),
        (["runs", "--metric", "eval/nothing"], "", f"no run has eval/nothing; there is: {RETURN}, loss/model"),
        (["runs", "--until", "999"], "", f"no run has {RETURN} up to 999 env steps; the first has it after 1,000\n"),
        (["runs", "--reference", "nowhere.csv"], "", "nowhere.csv"),
        (
            ["runs", "--reference", "published.csv", "--method", "ppo"],
            "",
            "no method ppo; there is: dreamer-v1, drq-v2, sac",
        ),
        (["runs", "--out", "curves.doc"], "", "doc"),
        (["runs", "--out", "no/where.png"], "", "where.png"),
        (["runs", "--reference", "curves.png"], "", "curves.png: not readable as CSV: "),
        (
            OTHER,
            "",
            "other.csv: expected the first line method,task,observations,action_repeat,env_steps,mean,std,seeds",
        ),
        (OTHER, REFERENCE.replace("method,task", "task,method"), "expected the first line"),
        (OTHER, REFERENCE + "dreamer-v1,walker_walk,pixels,2,300000,high,1,5\n", "line 8: expected method,task"),
        (OTHER, REFERENCE + "dreamer-v1,walker_walk,images,2,300000,5,1,5\n", "line 8: expected method,task"),
        (OTHER, REFERENCE + "dreamer-v1,walker_walk,pixels,twice,300000,5,1,5\n", "line 8: expected method,task"),
        (OTHER, REFERENCE + "dreamer-v1,walker_walk\n", "line 8: expected method,task"),
        (OTHER, REFERENCE + "dreamer-v1,walker_walk,pixels,2,1,2,3,4,5\n", "line 8"),
    ],
)
def test_plot_errors_are_one_line(arguments, other, line, write_run, reference, capsys):
    write_run({1000: 1.0})
    Path("other.csv").write_text(other)
    Path("curves.png").write_bytes(b"\x89PNG\r\n")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and line in captured.err


@pytest.mark.parametrize(
    "arguments, status, line",
    [
        (["runs", "--method", "dreamer-v1"], 2, "--method goes with --reference"),
        (["runs", "--scores", "--reference", "published.csv"], 2, "--reference with one --method"),
        (["runs", "--reference", "published.csv", "--metric", "loss/model"], 2, "say nothing about loss/model"),
        (["--help"], 0, "(eval/return_ema20)"),
    ],
)
def test_conflicting_arguments_and_help(arguments, status, line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    output, error = capsys.readouterr()
    assert stop.value.code == status and line in output + error
    assert error.count("\n") == bool(status) and error.startswith("error: " if status else "")

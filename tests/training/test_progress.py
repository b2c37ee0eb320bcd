"""The progress display, with a simulated clock."""

import io
import math
import re
from contextlib import closing, redirect_stderr

import pytest

from dreamer.config.load import load_config
from dreamer.training.progress import Progress, name_of_training

Clock = type("Clock", (), {"now": 1000.0})


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def terminal():
    return Terminal()


def bar_after_half_a_second(iterations, terminal):
    """Return a progress bar past its first half second, in which tqdm draws nothing."""
    with redirect_stderr(terminal):
        progress = Progress(iterations)
    progress.bar.start_t -= 10
    return progress


def iterate(progress, clock, number, seconds=100, env_steps=500, episode_return=1.0, evaluation=None):
    """Simulate one iteration whose updates take nine tenths of `seconds`."""
    progress.begin(number)
    for update in (1, 2):
        clock.now += 0.45 * seconds
        progress.set_activity(f"learning {update}/2")
    progress.set_activity("collecting")
    clock.now += 0.1 * seconds
    progress.add_env_steps(env_steps)
    progress.end_episode(episode_return)
    if evaluation is not None:
        progress.end_evaluation(evaluation)
    progress.end(last=number == progress.most)


def test_without_a_terminal_progress_is_printed_as_lines(clock, capsys):
    """The first and the last iteration print a line; between them there is a line every ten seconds."""
    with closing(Progress(iterations=9)) as progress:
        for number in range(1, 10):
            iterate(progress, clock, number, seconds=4, evaluation=None if number < 2 else 7.25)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"iteration {n} of 9" for n in (1, 4, 7, 9)]
    assert lines[0] == "iteration 1 of 9, 500 env steps, return 1.0 in training"
    assert lines[1] == "iteration 4 of 9, 2000 env steps, return 1.0 in training, 7.2 in evaluation, 00:20 left"
    assert lines[3] == "iteration 9 of 9, 4500 env steps, return 1.0 in training, 7.2 in evaluation"


def test_time_left_is_estimated_from_finished_iterations(clock):
    """There is no estimate before the first iteration after --resume has ended."""
    with closing(Progress(iterations=14)) as progress:
        progress.load_state_dict({"env_steps": 5000, "episodes_done": 15})  # older checkpoints have "episodes_done"
        progress.set_activity("learning 1/2")
        assert "left" not in progress.figures() and progress.figures().startswith("5000 env steps")
        iterate(progress, clock, 11, seconds=100)
        progress.begin(12)
        assert progress.seconds_left() == pytest.approx(300)
        clock.now += 50
        assert progress.seconds_left() == pytest.approx(250) and progress.position() == pytest.approx(11.5)
        progress.leave_out(20)
        assert progress.seconds_left() == pytest.approx(270)
        progress.leave_out(-20)
        clock.now += 500  # longer than earlier iterations
        assert progress.seconds_left() == pytest.approx(200) and progress.position() == pytest.approx(12)


def test_bar_shows_activity_returns_and_time_left(clock, terminal):
    progress = bar_after_half_a_second(4, terminal)
    with closing(progress):
        iterate(progress, clock, 1)
        iterate(progress, clock, 2, episode_return=12.34, evaluation=56.78)
        progress.begin(3)
        clock.now += 50
        progress.set_activity("learning 1/2")
    shown = re.split(r"[\r\n]+", terminal.getvalue())
    assert any(line.startswith("iteration 1/4, learning 1/2:   0%") for line in shown)
    last = [line for line in shown if line.strip()][-1]
    assert last.startswith("iteration 3/4, learning 1/2:  6") and "02:30 left" in last
    assert "1000 env steps, return 12.3 in training, 56.8 in evaluation" in last
    assert terminal.getvalue().endswith("\n")


def test_bar_is_full_at_the_end_and_not_drawn_too_often(clock, terminal):
    progress = bar_after_half_a_second(1, terminal)
    with closing(progress):
        for update in range(1000):
            progress.set_activity(f"learning {update}/1000")
        assert terminal.getvalue() == ""
        iterate(progress, clock, 1)
    assert "100%" in terminal.getvalue().splitlines()[-1] and "left" not in terminal.getvalue()


def test_run_that_ends_at_once_shows_no_bar(clock, terminal):
    """So messages after it start on a new line."""
    with redirect_stderr(terminal):
        Progress(iterations=3).close()
    assert not terminal.getvalue().strip()


def test_number_of_iterations_is_estimated_from_max_env_steps(clock, capsys):
    """The estimate uses the env steps of finished iterations without the seed episodes."""
    with closing(Progress(iterations=1000, max_env_steps=4000)) as progress:
        progress.add_env_steps(500)
        for number in (1, 2):
            iterate(progress, clock, number)
        progress.begin(3)
        assert progress.iterations == 2 + math.ceil(2 * 2500 / 1000) and progress.seconds_left() == pytest.approx(500)
        progress.end(last=True)
    assert capsys.readouterr().err.splitlines()[-1].startswith("iteration 3 of 3, 1500 env steps")
    with closing(Progress(iterations=5, max_env_steps=10**6)) as progress:
        iterate(progress, clock, 1)
        progress.begin(2)
        assert progress.iterations == 5


@pytest.mark.parametrize(
    "names, overrides, expected",
    [
        ("dreamer", "", "training with noise"),
        ("dreamer-v2", "parameters.dreamer.exploration_noise=0", "training with noise"),  # the policy samples actions
        ("quick-v3", "", "training"),
        ("plan2explore", "", "exploration"),
        ("plan2explore", "parameters.plan2explore.explore_env_steps=9", "training with noise"),
    ],
)
def test_return_is_labelled_by_how_it_was_collected(names, overrides, expected):
    progress = Progress(iterations=1, training=name_of_training(load_config(names, overrides.split())))
    progress.end_episode(534.0)
    assert progress.figures() == f"0 env steps, return 534.0 in {expected}"


def test_state_holds_the_env_steps(clock):
    with closing(Progress(iterations=3)) as progress, closing(Progress(iterations=3)) as other:
        iterate(progress, clock, 1)
        other.load_state_dict(progress.state_dict())
        assert other.env_steps == 500

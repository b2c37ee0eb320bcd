from contextlib import closing

import pytest

from dreamer.progress import Progress


@pytest.fixture
def progress():
    with closing(Progress(episodes=3)) as progress:
        yield progress


def run_episode(progress, steps, episode_return=0.0):
    for env_steps in steps:
        progress.stepped(env_steps)
    progress.finished(episode_return)


def test_the_total_follows_from_the_last_episode(progress):
    assert progress.bar.total is None
    run_episode(progress, [2, 2, 2, 2, 1])
    assert (progress.bar.n, progress.bar.total) == (9, 9 + 2 * 9)
    run_episode(progress, [2, 2])
    assert (progress.bar.n, progress.bar.total) == (13, 13 + 4)
    run_episode(progress, [2, 2, 2])
    assert (progress.bar.n, progress.bar.total) == (19, 19)


def test_an_unfinished_episode_does_not_change_the_total(progress):
    run_episode(progress, [10])
    progress.stepped(4)
    assert (progress.bar.n, progress.bar.total) == (14, 30)


def test_it_shows_what_is_left_and_the_last_return(capsys):
    with closing(Progress(episodes=3)) as progress:
        run_episode(progress, [500, 500], episode_return=123.45)
    text = capsys.readouterr().err
    assert "1000/3000" in text and "2000 left" in text and "last return 123.5" in text
    assert "env steps/s" in text


def test_the_phase_is_shown_when_the_last_refresh_is_long_ago(capsys):
    with closing(Progress(episodes=3)) as progress:
        progress.bar.start_t -= 10  # seconds
        progress.bar.last_print_t -= 5
        progress.stepped(500)
        capsys.readouterr()
        progress.bar.last_print_t -= 5
        progress.phase("learning 20/100")
        assert "learning 20/100" in capsys.readouterr().err


def test_the_phase_is_not_shown_too_often(capsys):
    with closing(Progress(episodes=3)) as progress:
        capsys.readouterr()
        for update in range(100):
            progress.phase(f"learning {update}/100")
        assert capsys.readouterr().err == ""


def test_goes_on_from_a_state(progress, capsys):
    """The bar from what was done, the speed from what is done now."""
    run_episode(progress, [2, 2, 2])
    state = progress.state_dict()
    assert all(type(value) is int for value in state.values())
    with closing(Progress(episodes=3)) as other:
        other.load_state_dict(state)
        assert other.bar.n == 6
        run_episode(other, [5, 5])
        assert (other.bar.n, other.bar.total) == (16, 16 + 10)
        assert other.bar.format_dict["initial"] == 6
        run_episode(other, [3])
        assert (other.bar.n, other.bar.total) == (19, 19)


def test_what_is_printed_after_a_short_run_has_a_line_of_its_own(capsys):
    with closing(Progress(episodes=3)) as progress:
        run_episode(progress, [500])
    text = capsys.readouterr().err
    assert not text.strip() or text.endswith("\n")

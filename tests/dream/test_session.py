"""What a session does at each step, and on each message of its page."""

import io
import json

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from dreamer.algorithms.dream import Dream
from dreamer.tools.dream import page_messages
from dreamer.tools.dream.controls import action_of, controls_of, neutral_values, values_of
from dreamer.tools.dream.messages import read, unpack
from dreamer.tools.dream.saving import as_file
from dreamer.tools.dream.session import Session
from tests.dream.untrained_agents import DICT, PIXELS, VECTOR, agent, session


def tell(session, kind, **parts):
    """Let a session handle a message, as text, and return the view after it."""
    return session.view(session.handle(read(json.dumps({"kind": kind, **parts}))))


def steps(session, count):
    """Return the views of so many steps."""
    views = []
    for _ in range(count):
        session.advance()
        views.append(session.view())
    return views


LONG = "environment.kwargs={length: 1000}"  # an episode that does not end within a test


@pytest.mark.parametrize("task", [VECTOR, DICT, PIXELS], ids=["vector", "dict", "pixels"])
@pytest.mark.parametrize("names", ["dreamer", "dreamer-v3"])
def test_dream_starts_in_the_real_state_and_departs(names, task):
    played = session(names, task, LONG)
    awake = steps(played, 2)[-1]
    assert not awake.dreaming and np.array_equal(awake.dream.states[0], awake.moment.state)
    asleep = tell(played, "dream", count=1)
    assert asleep.dreaming and asleep.number == awake.number
    for name in ("states", "rewards", "values", "frames", "vectors"):
        np.testing.assert_array_equal(getattr(asleep.dream, name), getattr(awake.dream, name))
    later = steps(played, 2)[-1]
    assert later.number == awake.number + 2 and later.dreaming and later.moment.number == later.number
    assert (later.dream.states[0] != later.moment.state).any()
    np.testing.assert_array_equal(later.action, later.moment.action), "both take the same actions"
    woken = tell(played, "wake")
    assert not woken.dreaming and np.array_equal(woken.dream.states[0], woken.moment.state)


def test_session_does_not_change_how_the_agent_plays():
    """The page changes nothing of how the agent plays."""
    played, alone = session("dreamer-v2", VECTOR, LONG), agent("dreamer-v2", VECTOR, LONG)
    views = [played.view(), *steps(played, 2)]
    tell(played, "dream", count=9)
    moments = [view.moment for view in [*views, *steps(played, 4)]]
    for moment, following in zip(moments, moments[1:], strict=False):
        np.testing.assert_array_equal(alone.act(moment.arrival.observation), following.action)
        np.testing.assert_array_equal(alone.state, moment.state)


def test_nine_dreams_start_in_one_state_and_differ():
    played = session("dreamer", DICT, LONG)
    first = tell(played, "dream", count=9)
    assert first.dream.frames.shape == (9, 64, 64, 3) and (first.dream.states == first.moment.state).all()
    second = steps(played, 1)[0]
    assert len(np.unique(second.dream.states, axis=0)) == 9 and second.entropies.shape == (9,)


def test_going_back_repeats_the_actions_with_other_noise():
    played = session("dreamer", VECTOR, LONG)
    views = steps(played, 6)
    first = tell(played, "back", number=2)
    assert (
        first.number == 2 and not played.shows_present and np.array_equal(first.dream.states[0], views[1].moment.state)
    )
    once = steps(played, 4)
    assert [view.number for view in once] == [3, 4, 5, 6]
    for view, real in zip(once, views[2:], strict=True):
        assert view.moment is real.moment
        np.testing.assert_allclose(view.action, real.moment.action, rtol=1e-5)
    assert [view.number for view in steps(played, 1)] == [6] and not played.playing, "nothing is known beyond"
    tell(played, "back", number=2)
    assert not np.array_equal(steps(played, 1)[0].dream.states, once[0].dream.states)
    now = tell(played, "now")
    assert played.shows_present and now.number == 6 and not now.dreaming and played.who == "agent"
    assert steps(played, 1)[0].number == 7


def test_person_acts_in_reality_and_in_a_dream_beyond_the_past():
    played = session("dreamer", VECTOR, LONG)
    tell(played, "act", values=[-99.0])
    tell(played, "who", who="you")
    view = steps(played, 1)[0]
    np.testing.assert_array_equal(view.action, [-2.0])
    assert view.moment.arrival.reward == -2.0
    tell(played, "back", number=0)
    tell(played, "who", who="you")
    views = steps(played, 3)
    assert [view.number for view in views] == [1, 2, 3] and views[0].moment and not views[2].moment
    np.testing.assert_allclose(views[2].action, [-2.0])
    tell(played, "who", who="agent")
    assert steps(played, 1)[0].action != [-2.0]


def test_next_episode_starts_awake():
    played = session()
    tell(played, "dream", count=9)
    views = steps(played, 6)
    assert [view.moment.episode for view in views] == [0, 0, 0, 0, 1, 1]
    assert [view.dreaming for view in views] == [True, True, True, False, False, False]
    assert views[4].moment.action is None and tell(played, "reset").moment.episode == 2


def test_session_without_an_environment_only_dreams():
    played = Session(agent("dreamer-v3", DICT), None)
    views = [played.view(), *steps(played, 3)]
    assert [view.number for view in views] == [0, 1, 2, 3] and not any(view.moment for view in views)
    assert len(tell(played, "dream", count=9).dream.rewards) == 9
    for kind in ("wake", "now", "reset", "step"):
        assert tell(played, kind).dreaming
    header, _ = unpack(page_messages.encode_view(played, played.view()))
    assert "real" not in header and header["pictures"] == [["dream", 9, 64, 64]]


def test_disagreement_shows_for_plan2explore():
    played = session("plan2explore", VECTOR, LONG)
    tell(played, "dream", count=1)
    view = steps(played, 1)[0]
    assert view.moment.disagreement > 0 and view.dream.disagreement.shape == (1,)
    header, _ = unpack(page_messages.encode_view(played, view))
    assert header["real"]["disagreement"] == pytest.approx(view.moment.disagreement, rel=1e-5)
    assert page_messages.describe_session(played)["disagreement"]


@pytest.mark.parametrize("task", [VECTOR, DICT, PIXELS], ids=["vector", "dict", "pixels"])
def test_messages_hold_the_shown_pictures_and_numbers(task):
    played = session("dreamer", task)
    view = tell(played, "dream", count=9)
    header, content = unpack(page_messages.encode_view(played, view))
    pictures = {name: (count, height, width) for name, count, height, width in header["pictures"]}
    assert ("dream" in pictures) == (task is not VECTOR) and "real" in pictures
    assert len(content) == sum(count * height * width * 3 for count, height, width in pictures.values())
    first = np.frombuffer(content, np.uint8)[: view.moment.arrival.picture.size]
    np.testing.assert_array_equal(first.reshape(view.moment.arrival.picture.shape), view.moment.arrival.picture)
    assert header["real"]["surprise"] == pytest.approx(view.moment.surprise, rel=1e-5)
    assert len(header["dream"]["predicted"]) == 9 and header["real"]["begins"] and header["real"]["reward"] is None
    if task is VECTOR:
        assert header["real"]["vector"] == pytest.approx(view.moment.arrival.vector, rel=1e-5)
        assert np.shape(header["dream"]["vector"]) == (9, 1)
    told = page_messages.describe_session(played)
    assert told["names"] == {0: ["observation"], 1: played.reality.names, 2: []}[[VECTOR, DICT, PIXELS].index(task)]
    assert len(played.reality.names) == (0 if task is PIXELS else view.dream.vectors.shape[-1])


@pytest.mark.parametrize("task", [VECTOR, PIXELS], ids=["vector", "pixels"])
def test_shown_steps_are_saved(task):
    played = session("dreamer", task, LONG)
    steps(played, 3)
    tell(played, "dream", count=9)
    steps(played, 2)
    name, content = as_file(played, "npz")
    arrays = np.load(io.BytesIO(content))
    assert name == "dream.npz" and {len(part) for part in arrays.values()} == {6}
    assert arrays["dreaming"].tolist() == [False] * 3 + [True] * 3
    np.testing.assert_array_equal(arrays["real_state"][0], arrays["dream_state"][0])
    film = Image.open(io.BytesIO(as_file(played, "gif")[1]))
    colours = set()
    for number in range(film.n_frames):
        film.seek(number)
        right = film.convert("RGB").crop((film.width // 2 + 4, 30, film.width - 8, 280))
        colours.add(len(right.getcolors(2**20)))
    assert film.n_frames == 6 and min(film.size) >= 256 and min(colours) > 1, "a dream on the right of each"


def test_a_film_of_dreams_alone():
    played = Session(agent("dreamer", VECTOR), None)
    steps(played, 2)
    assert as_file(played, "mp4")[1][4:8] == b"ftyp"
    assert np.isnan(np.load(io.BytesIO(as_file(played, "npz")[1]))["real_reward"]).all()


def test_only_the_newest_steps_are_kept(monkeypatch):
    monkeypatch.setattr("dreamer.tools.dream.session.KEPT_STEPS", 10)
    played = session()
    steps(played, 20)
    assert len(played.history) == len(played.views) == 10
    assert [moment.number for moment in played.history] == list(range(11, 21))
    before = tell(played, "back", number=3)
    assert played.shows_present and before.number == played.history[-1].number, "it is no longer kept"


def test_every_kind_of_action_has_controls():
    space = spaces.Dict(
        push=spaces.Box(np.float32([-2, 0]), np.float32([4, 1])),
        pick=spaces.Discrete(3, start=1),
        more=spaces.Tuple([spaces.MultiDiscrete([2, 5]), spaces.MultiBinary(2)]),
    )
    space.seed(0)
    controls = controls_of(space)
    assert [control.name for control in controls if control.name.startswith("p")] == ["push 0", "push 1", "pick"]
    for _ in range(5):
        action = space.sample()
        again = action_of(space, values_of(space, action))
        assert again in space and values_of(space, again) == values_of(space, action)
    assert len(neutral_values(controls)) == len(controls) == 7
    assert values_of(space, action_of(space, [99.0] * 7)) == [control.high for control in controls]
    assert controls_of(spaces.Box(-1, 1, (100,))) == []


def test_dream_has_the_parts_that_messages_know():
    """Those that are repeated and told; another one would have to be, too."""
    known = {"frames", "vectors", "rewards", "values", "continues", "states", "actions", "disagreement"}
    assert set(Dream.__dataclass_fields__) == known

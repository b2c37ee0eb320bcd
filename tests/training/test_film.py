"""Films of evaluations: content, speed, and that they do not change the run."""

import io

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from dreamer.config.load import load_config
from dreamer.envs.make import make_eval_env
from dreamer.envs.wrappers import ActionRepeat
from dreamer.errors import EnvError
from dreamer.training import film
from dreamer.training.evaluation import EvaluationRequest
from dreamer.training.film import frames_per_second, resized_for_film
from tests.test_resume import scalars
from tests.toys import SMALL, ToyEnv, make_dreamer, make_evaluator

pytestmark = pytest.mark.usefixtures("short_control_suite")
SETTINGS = ["train_iterations=1", "collect_interval=2", "seed_episodes=1"]
TINY = [*SMALL, "environment.frame_skip=10", *(f"parameters.dreamer.{setting}" for setting in SETTINGS)]
FILMED = "operation.video_interval=1"
CARTPOLE = ["quick-cartpole-swingup", *TINY]
TOY = [
    "dreamer",
    *TINY,
    "environment.benchmark=gymnasium",
    "environment.task_name=tests.envs.toy:Toy-v0",
    "environment.frame_skip=1",
    "parameters.dreamer.batch_length=5",
]


def run(folder, *arguments):
    assert main.main(["--config", *arguments, "--folder", str(folder)]) == 0
    return folder


def films_of(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {tag: events.Images(tag) for tag in events.Tags()["images"]}


def test_run_from_vectors_is_filmed_and_learns_the_same(tmp_path, capsys):
    """A frame lasts 0.1 s: 0.01 s per simulator step and action repeat 10."""
    with_films, other = run(tmp_path / "a", *CARTPOLE, FILMED), run(tmp_path / "b", *CARTPOLE)
    assert scalars(with_films) == scalars(other) and films_of(other) == {}
    ((tag, [event]),) = films_of(with_films).items()
    assert (tag, event.step, event.width, event.height) == ("evaluation/episode", 400, 256, 256)
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        assert image.n_frames == 21 and image.info["duration"] == 100
        assert np.asarray(image.convert("L")).std() > 5
    assert "no films" not in "".join(capsys.readouterr())


class Rendered(ToyEnv):
    """Renders into the same array each time, and raises after `last` frames."""

    frame = np.zeros((300, 400, 3), np.uint8)

    def __init__(self, last=100, rate=None, **keywords):
        super().__init__(**keywords)
        self.last, self.rendered_frames, self.frames_per_second = last, 0, rate

    def render(self):
        self.rendered_frames += 1
        if self.rendered_frames > self.last:
            raise RuntimeError("the display\nis gone")
        self.frame[:] = self.count
        return self.frame


def evaluate_with_film(env, renders=True, film=True):
    evaluator = make_evaluator(make_dreamer(env), env)
    evaluator.renders = renders
    weights = {"model": evaluator.model.state_dict(), "actor": evaluator.actor.state_dict()}
    evaluation, _ = evaluator.play(env.state_dict(), EvaluationRequest(weights, 1, 0, 2, film))
    assert len(evaluation.returns) == 2
    return evaluation, evaluator


@pytest.mark.parametrize("rate, every", [(None, 1), (15.0, 1), (15.5, 2), (100.0, 7)])
def test_first_episode_is_filmed_in_real_time(rate, every):
    env = Rendered(rate=rate)
    evaluation, _ = evaluate_with_film(env)
    assert evaluation.frames[:, 0, 0, 0].tolist() == list(range(0, 21, every)) and env.rendered_frames == len(
        evaluation.frames
    )
    assert evaluation.frames_per_second == pytest.approx((rate or 15) / every)


@pytest.mark.parametrize("renders, film", [(False, True), (True, False)])
def test_nothing_is_rendered_if_nothing_is_filmed(renders, film, capsys):
    env = Rendered()
    evaluation, _ = evaluate_with_film(env, renders, film)
    assert evaluation.frames is None and env.rendered_frames == 0 and capsys.readouterr().err == ""


def test_failing_renderer_gives_one_warning_and_no_films(capsys):
    evaluation, evaluator = evaluate_with_film(Rendered(last=5))
    assert evaluation.frames is None and not evaluator.renders
    assert capsys.readouterr().err == "no films    the display is gone\n"


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((256, 256), (256, 256)),
        ((64, 64), (256, 256)),
        ((210, 160), (420, 320)),
        ((400, 600), (341, 512)),
        ((8, 2000), (8 * 32, 2000 * 32)),
    ],
)
def test_frames_are_scaled_to_a_good_size(shape, expected):
    frame = np.full((*shape, 3), 7, np.uint8)
    resized = resized_for_film(frame)
    assert (
        resized.shape == (*expected, 3) and resized.dtype == np.uint8 and resized is not frame and (resized == 7).all()
    )


@pytest.mark.parametrize(
    "settings, rate",
    [
        ("domain_name=walker frame_skip=2", 20),
        ("domain_name=cartpole task_name=swingup frame_skip=8", 12.5),
        ("benchmark=gym task_name=CartPole-v1 frame_skip=1", 50),
        ("benchmark=gymnasium task_name=tests.envs.toy:Toy-v0 frame_skip=2", 5),
    ],
)
def test_frame_rate_follows_the_environments_time_step(settings, rate):
    overrides = [f"environment.{setting}" for setting in ("from_pixels=False", *settings.split())]
    env = make_eval_env(load_config("dreamer", overrides).environment, 0)
    assert frames_per_second(env) == pytest.approx(rate)


@pytest.mark.parametrize("metadata", [{}, {"render_fps": None}, {"render_fps": "fast"}, {"render_fps": -1}, None])
def test_environment_without_a_frame_rate_gets_the_usual_one(metadata):
    env = ToyEnv()
    env.spec, env.metadata, env.max_episode_steps = None, metadata, 20
    assert frames_per_second(ActionRepeat(env, 2)) == film.USUAL_RATE


def test_run_without_a_display_prints_one_line_and_no_films(tmp_path, monkeypatch, capsys):
    def select():
        raise EnvError("nothing renders MuJoCo here")

    monkeypatch.setattr(film, "select_backend", select)
    assert films_of(run(tmp_path / "a", *CARTPOLE, FILMED)) == {}
    output = capsys.readouterr()
    assert (output.out + output.err).count("no films    nothing renders MuJoCo here\n") == 1


def test_environment_that_cannot_render_is_not_filmed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tests.envs.toy.Toy.render", lambda env: None, raising=False)
    assert films_of(run(tmp_path / "a", *TOY, FILMED)) == {}
    error = capsys.readouterr().err
    assert error.count("no films    ") == 1 and "Traceback" not in error

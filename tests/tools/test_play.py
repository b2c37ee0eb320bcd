"""Playing the checkpoint of a run, and starting another run from it."""

import copy
import functools
import io
import json

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from dreamer import Agent
from dreamer.algorithms.policy import Policy
from dreamer.build import build_algorithm
from dreamer.config.load import load_config
from dreamer.envs.dmc import DMCEnv
from dreamer.envs.make import make_eval_env
from dreamer.errors import CheckpointError, ConfigError
from dreamer.replay.step import Step
from dreamer.tools import play
from dreamer.tools.play import evaluate, film, report
from dreamer.training import evaluation
from dreamer.training.checkpoint import load_networks
from dreamer.training.checkpoint_file import FORMAT, checkpoints
from dreamer.training.collect import run_episode
from dreamer.training.run_folder import find_run
from dreamer.training.trainer import Trainer
from dreamer.training.video import GAP, STRIP_STEPS, TOP
from tests.toys import SMALL

pytestmark = pytest.mark.usefixtures("short_control_suite")
STEPS = 20  # agent steps of an episode
TINY = [
    *SMALL,
    "operation.device=cpu",
    f"environment.frame_skip={200 // STEPS}",
    "parameters.dreamer.train_iterations=1",
    "parameters.dreamer.collect_interval=1",
    "parameters.dreamer.seed_episodes=1",
    "parameters.dreamer.encoder.depth=2",
    "parameters.dreamer.decoder.depth=2",
]

PENDULUM = ["environment.domain_name=pendulum", "environment.task_name=swingup"]


def train(folder, config, *overrides):
    """Train a run in folder/runs. Return its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main(["--config", config, *TINY, *overrides]) == 0
        return folder / find_run("latest")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return train(tmp_path_factory.mktemp("vectors"), "quick-cartpole-balance")


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    return train(tmp_path_factory.mktemp("pixels"), "dmc-cartpole-balance", "environment.from_pixels=True")


@pytest.fixture(scope="module")
def plan2explore(tmp_path_factory):
    small = ["num_ensemble=3", "one_step_model.hidden_size=32"]
    overrides = ["algorithm=plan2explore", *PENDULUM, *(f"parameters.plan2explore.{override}" for override in small)]
    return train(tmp_path_factory.mktemp("plan2explore"), "quick-cartpole-balance", *overrides)


def networks_of(run):
    """Build the networks of a run's configuration with the weights of its checkpoint."""
    config = load_config(run / "config.yml")
    env = make_eval_env(config.environment, 0)
    networks = build_algorithm(config, env, torch.device("cpu")).networks
    return networks, load_networks(networks, run)


# Evaluation


def test_report_has_the_returns_and_their_run(vectors):
    result = evaluate(vectors, 3, "cpu")
    assert (result["run"], result["iteration"], result["env_steps"]) == (str(vectors), 1, 400)
    assert len(result["returns"]) == 3 and len(set(result["returns"])) == 3
    assert all(0 < episode_return < 200 for episode_return in result["returns"])
    assert result["mean"] == pytest.approx(np.mean(result["returns"]))
    assert result["std"] == pytest.approx(np.std(result["returns"])) and result["std"] > 0
    assert evaluate(vectors, 3, "cpu") == result
    assert evaluate(vectors, 1, "cpu")["returns"] == result["returns"][:1]


def test_evaluation_repeats_the_first_evaluation_of_the_run(vectors):
    """Random numbers are the same, so the run's first evaluation is repeated."""
    events = EventAccumulator(str(vectors)).Reload()
    assert [event.value for event in events.Scalars("eval/return")] == pytest.approx(
        evaluate(vectors, 1, "cpu")["returns"]
    )


def test_an_agent_loaded_from_the_run_has_the_same_return(vectors):
    """The agent takes the environment's own observations and returns its own actions."""
    agent, env = Agent.load(vectors), make_eval_env(load_config(vectors / "config.yml").environment, 0)
    expected = evaluate(vectors, 1, "cpu")["returns"]
    observation, _ = env.unwrapped.reset()
    total, ended = 0.0, False
    while not ended:
        action = agent.act(observation)
        for _ in range(agent.frame_skip):
            observation, reward, *ends, _ = env.unwrapped.step(action)
            total, ended = total + reward, any(ends)
    assert [total] == pytest.approx(expected, abs=1e-9)


def test_trained_actors_mode_plays_in_the_evaluation_environment(vectors, monkeypatch):
    acted, first, policies = [], [], []

    class Watched(Policy):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)
            policies.append(self)

        def __call__(self, step):
            if step.is_first:
                first.append(step.observation)
            return super().__call__(step)

        def act(self, distribution):
            action = super().act(distribution)
            acted.append((action == distribution.mode).all())
            return action

    monkeypatch.setattr(evaluation, "Policy", Watched)
    evaluate(vectors, 2, "cpu")
    assert len(acted) == 2 * STEPS and all(acted)
    env = make_eval_env(load_config(vectors / "config.yml").environment, 0)
    np.testing.assert_array_equal(first, [env.reset()[0] for _ in range(2)])
    networks, _ = networks_of(vectors)
    (policy,) = policies
    for name, network in (("model", policy.model), ("actor", policy.actor)):
        torch.testing.assert_close(network.state_dict(), networks[name].state_dict(), rtol=0, atol=0)


def test_plan2explore_is_evaluated_with_the_task_actor(plan2explore, monkeypatch):
    """The explorer does not play."""
    actors = []
    monkeypatch.setattr(evaluation, "Policy", lambda *parts: actors.append(parts[1]) or Policy(*parts))
    assert len(evaluate(plan2explore, 1, "cpu")["returns"]) == 1
    networks, _ = networks_of(plan2explore)
    torch.testing.assert_close(actors[0].state_dict(), networks["actor"].state_dict(), rtol=0, atol=0)


def test_evaluation_does_not_change_the_run(vectors):
    def contents():
        return {path: path.read_bytes() for path in vectors.rglob("*") if path.is_file()}

    before = contents()
    evaluate(vectors, 1, "cpu")
    assert contents() == before


def test_json_option_prints_only_json(vectors, capsys):
    assert main.main(["--evaluate", str(vectors), "--episodes", "2", "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == evaluate(vectors, 2, "cpu")


def test_latest_run_is_evaluated(vectors, monkeypatch, capsys):
    monkeypatch.chdir(vectors.parents[1])
    assert main.main(["--evaluate", "latest", "--episodes", "2"]) == 0
    text = capsys.readouterr().out
    result = evaluate(vectors, 2, "cpu")
    assert f"{vectors.name}, iteration 1, 400 env steps" in text
    numbers = [f"{number:.1f}" for number in (result["mean"], result["std"], *result["returns"])]
    assert "return {}, standard deviation {} over 2 episodes: {}, {}".format(*numbers) in text
    assert report(result, as_json=False) in text.replace("runs/", f"{vectors.parent}/")


# The film


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Return a function that evaluates a run with a film and returns the result and the frames."""

    @functools.cache
    def film_it(run):
        path = tmp_path_factory.mktemp("film") / "film.mp4"
        result = evaluate(run, 2, "cpu", str(path))
        return result, np.stack(imageio.mimread(path, memtest=False))

    return film_it


def test_film_from_pixels_shows_the_models_predictions(pixels, films):
    _, frames = films(pixels)
    assert frames.shape == (STEPS + 1, TOP + 256 + TOP, 3 * 256 + 2 * GAP, 3)
    seen, *others = (frames[:, TOP:-TOP, column * (256 + GAP) :][:, :, :256] for column in range(3))
    assert seen.std() > 5 and all(panel.max() < 250 for panel in others)


def test_film_from_vectors_shows_the_episode(vectors, films):
    _, frames = films(vectors)
    assert frames.shape == (STEPS + 1, TOP + 256 + TOP, 256, 3)
    assert frames[:, TOP:-TOP].std() > 5 and (frames[0] != frames[-1]).any()


def test_film_shows_steps_and_rewards_and_its_path_is_printed(vectors, monkeypatch, tmp_path, capsys):
    texts = []
    monkeypatch.setattr(play, "write_film", lambda path, panels, captions, rate: texts.extend(captions))
    result = evaluate(vectors, 2, "cpu", str(tmp_path / "film.MP4"))
    assert len(texts) == STEPS + 1 and texts[0] == "t = 0   reward 0.00   return 0.0"
    assert texts[-1].startswith(f"t = {STEPS} ") and texts[-1].endswith(f"return {result['returns'][0]:.1f}")
    assert capsys.readouterr().err == f"written: {tmp_path}/film.MP4\n"


def test_evaluation_shows_progress_in_a_terminal(vectors, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("dreamer.tools.play.tqdm", functools.partial(play.tqdm, mininterval=0, file=terminal))
    with play.progress_bar(3) as bar:
        bar.start_t -= 1
        recorder = play.Recorder(None, False, bar)
        for episode in range(2):
            for step in range(3):
                recorder(episode, Step(np.zeros(2), None, 1.0, step == 0, False, 1))
        assert "playing:  33%" in terminal.getvalue() and "1/3" in terminal.getvalue()
        assert "step 2" in terminal.getvalue() and not recorder.steps


def test_film_strip_shows_seen_reconstructed_and_imagined_frames(pixels, tmp_path):
    """The strip has at most 50 steps in three rows: seen, reconstructed, imagined."""
    evaluate(pixels, 1, "cpu", str(tmp_path / "strip.png"))
    strip = imageio.imread(tmp_path / "strip.png")
    columns = sum(step <= STEPS for step in STRIP_STEPS)
    assert strip.shape[0] == 2 * TOP + 3 * (128 + GAP)
    seen = strip[2 * TOP :, -columns * (128 + GAP) :][:128, :128]
    env = make_eval_env(load_config(pixels / "config.yml").environment, 0)
    np.testing.assert_array_equal(seen[::2, ::2], env.reset()[0].transpose(1, 2, 0))


@pytest.mark.parametrize("run", ["vectors", "pixels"])
def test_filming_does_not_change_returns(run, films, request):
    run = request.getfixturevalue(run)
    assert films(run)[0] == evaluate(run, 2, "cpu")


def test_first_episode_is_filmed(vectors, monkeypatch):
    films, renders = [], []
    make = evaluation.make_eval_env
    monkeypatch.setattr(evaluation, "make_eval_env", lambda *args: renders.append(args[2]) or make(*args))
    monkeypatch.setattr(play, "film", lambda model, steps, *_: films.append(sum(step.reward for step in steps)))
    monkeypatch.setattr(play, "write_film", lambda *args: None)
    result = evaluate(vectors, 2, "cpu", "film.mp4")
    assert films == result["returns"][:1]
    evaluate(vectors, 1, "cpu")
    assert len(films) == 1 and renders == [True, False]


@pytest.mark.parametrize("renders, mode", [(True, "rgb_array"), (False, None)])
def test_gym_environments_render_when_filmed(renders, mode):
    overrides = ["benchmark=gymnasium", "task_name=tests.envs.toy:Toy-v0", "from_pixels=False"]
    environment = load_config("dreamer", [f"environment.{override}" for override in overrides]).environment
    assert make_eval_env(environment, 0, renders=renders).render_mode == mode


def test_film_panels_show_truth_reconstruction_and_imagination(pixels, monkeypatch):
    """During the context the imagined panel equals the reconstruction."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    networks, _ = networks_of(pixels)
    config = load_config(pixels / "config.yml")
    env = make_eval_env(config.environment, 0)
    policy = Policy(networks["model"], networks["actor"])
    steps = list(run_episode(env, policy))
    rendered = np.zeros((STEPS + 1, 64, 64, 3), np.uint8)
    truth, reconstructed, imagined = film(networks["model"], steps, rendered).values()
    np.testing.assert_array_equal(truth, [step.observation.transpose(1, 2, 0) for step in steps])
    np.testing.assert_array_equal(imagined[:5], reconstructed[:5])
    assert all((imagined[t] != reconstructed[t]).any() for t in range(5, STEPS + 1))
    assert (reconstructed[0] != reconstructed[-1]).any()

    vector_steps = [step._replace(observation=np.zeros(5, np.float32)) for step in steps]
    (episode,) = film(networks["model"], vector_steps, rendered).values()
    assert episode is rendered


def test_renderer_may_reuse_its_frame(vectors, monkeypatch):
    frames = []
    monkeypatch.setattr(DMCEnv, "render", lambda env: env.camera.render())  # an array of its own
    monkeypatch.setattr(play, "write_film", lambda path, panels, captions, rate: frames.extend(panels["episode"]))
    evaluate(vectors, 1, "cpu", "film.mp4")
    assert len(frames) == STEPS + 1 and all((frame != frames[-1]).any() for frame in frames[:-1])


@pytest.mark.parametrize(
    "name", ["film.mov", "film", "mp4", "film.mp4.txt", "nowhere/film.mp4", "/proc/film.mp4", "\0.mp4"]
)
def test_unwritable_film_path_is_refused_before_playing(name, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "make_eval_env", lambda *args, **kwargs: pytest.fail("began"))
    with pytest.raises(ConfigError, match=f"--video .*{name}: ") as caught:
        evaluate(vectors, 1, "cpu", str(tmp_path / name))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["--device", "cuda:9"], "no cuda:9 here"),
        (["--video", "film.mov"], "film.mov"),
    ],
)
def test_evaluation_errors_are_one_line(arguments, line, vectors, capsys):
    assert main.main(["--evaluate", str(vectors), "--episodes", "1", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and line in captured.err


def test_run_without_a_checkpoint_cannot_be_evaluated(vectors, tmp_path):
    (tmp_path / "config.yml").write_text((vectors / "config.yml").read_text())
    with pytest.raises(CheckpointError, match="there is no checkpoint yet"):
        evaluate(tmp_path, 1, "cpu")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_weights_are_refused(value, vectors, tmp_path, capsys):
    (tmp_path / "config.yml").write_text((vectors / "config.yml").read_text())
    content = torch.load(vectors / "checkpoint-000001.pt", weights_only=True)
    next(iter(content["state"]["algorithm"]["networks"]["actor"].values()))[0] = value
    torch.save(content, tmp_path / "checkpoint-000001.pt")
    assert main.main(["--evaluate", str(tmp_path), "--json"]) == 1
    output = capsys.readouterr()
    assert output.out == "" and output.err == f"error: not finite: weights of the actor of {tmp_path}\n"


# Starting from another run


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Return a function that calls main and returns copies of the initial weights."""
    monkeypatch.chdir(tmp_path)
    trainer, built = Trainer, []

    def build(config, algorithm, *parts):
        built.append(copy.deepcopy({name: network.state_dict() for name, network in algorithm.networks.items()}))
        return trainer(config, algorithm, *parts)

    def start(*arguments):
        assert main.main(["--config", *arguments]) == 0
        return built[-1]

    monkeypatch.setattr("dreamer.main.Trainer", build)
    return start


def test_dreamer_can_start_from_a_plan2explore_run(plan2explore, started):
    """Model and task behaviour are taken over; replay and counters start from the beginning."""
    weights = started("dreamer", *TINY, *PENDULUM, f"operation.initialize_from={plan2explore}")
    networks, _ = networks_of(plan2explore)
    assert set(weights) == {"model", "actor", "critic"} < set(networks)
    for name, its_weights in weights.items():
        torch.testing.assert_close(its_weights, networks[name].state_dict(), rtol=0, atol=0)
    run = find_run("latest")
    _, (iteration, env_steps) = networks_of(run)
    assert (iteration, env_steps) == (1, 400)
    assert load_config(run / "config.yml").operation.initialize_from == str(plan2explore)


def test_plan2explore_can_start_from_a_dreamer_run(vectors, started):
    """Networks that Dreamer does not have are initialized as usual."""
    cartpole = ["environment.domain_name=cartpole", "environment.task_name=balance", "operation.seed=5"]
    settings = [*TINY, *cartpole, "parameters.plan2explore.num_ensemble=3"]
    fresh, weights = (
        started("plan2explore", *settings, *more) for more in ([], [f"operation.initialize_from={vectors}"])
    )
    networks, _ = networks_of(vectors)
    for name in weights:
        expected = networks[name].state_dict() if name in networks else fresh[name]
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "override, name",
    [
        ("agent.actor.hidden_size=16", "actor"),
        ("agent.critic.num_layers=1", "critic"),
        ("reward.hidden_size=16", "model"),
        ("use_continue_flag=True", "model"),
    ],
)
def test_networks_of_other_sizes_are_named(override, name, plan2explore, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = [*TINY, *PENDULUM, f"parameters.dreamer.{override}", f"operation.initialize_from={plan2explore}"]
    assert main.main(["--config", "dreamer", *settings]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: the {name} of {plan2explore} does not fit: ")
    assert not (tmp_path / "runs").exists()


def test_starting_from_a_folder_without_a_run_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["--config", "dreamer", *TINY, *PENDULUM, "operation.initialize_from=nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: nowhere is not the folder of a run") and not (tmp_path / "runs").exists()


def test_damaged_checkpoint_of_the_other_run_falls_back_to_the_previous_one(vectors, tmp_path, capsys):
    """Resuming that run itself would do the same."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("checkpoint-000001.pt", "config.yml"):
        (folder / name).write_bytes((vectors / name).read_bytes())
    (folder / "checkpoint-000002.pt").write_bytes(b"damaged")
    torch.save({"format": FORMAT, "iteration": 3, "state": {}}, folder / "checkpoint-000003.pt")
    assert len(checkpoints(folder)) == 3 and evaluate(folder, 1, "cpu")["iteration"] == 1
    assert "checkpoint-000002.pt cannot be used" in capsys.readouterr().err


def test_requested_checkpoint_is_used_or_refused(vectors, tmp_path):
    """Another checkpoint is never used in its place."""
    networks, _ = networks_of(vectors)
    content = torch.load(vectors / "checkpoint-000001.pt", weights_only=True)
    for iteration, name in ((1, "best"), (1, "000001"), (2, "000002")):
        torch.save(content | {"iteration": iteration}, tmp_path / f"checkpoint-{name}.pt")
    for which, iteration in (("best", 1), ("newest", 2), ("1", 1), ("2", 2)):
        assert load_networks(networks, tmp_path, which)[0] == iteration
    with pytest.raises(CheckpointError, match=f"{tmp_path} has no checkpoint 3; there is: 2, 1, best"):
        load_networks(networks, tmp_path, "3")
    (tmp_path / "checkpoint-best.pt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="checkpoint-best.pt cannot be used"):
        load_networks(networks, tmp_path, "best")

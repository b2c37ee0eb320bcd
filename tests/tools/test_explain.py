"""`dreamer explain`: figures of a run and the verdicts on them."""

import functools
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import kl_divergence

from dreamer.config.load import load_config
from dreamer.modules.latents import Categorical, Gaussian
from dreamer.modules.rssm import State
from dreamer.replay.buffer import ReplayBuffer
from dreamer.replay.step import Step
from dreamer.tools.commands import main
from dreamer.tools.explain.curves import measure_curves
from dreamer.tools.explain.model import component_kl, explained_variance, moving_components
from dreamer.tools.explain.opened_run import OpenedRun, open_replay_read_only
from dreamer.tools.explain.report import most_likely_cause
from dreamer.tools.explain.steps import measure_actions, wrong_first_steps
from dreamer.tools.explain.verdict import ALARM, FINE, NOTE
from dreamer.tools.explain.verdicts import check_run
from dreamer.training.run_folder import lock_run

DATA = Path(__file__).parents[1] / "data"
RUNS = json.loads((DATA / "explain.json").read_text())  # by experiments/explain_breaks.py record
BROKEN = sorted(name for name, run in RUNS.items() if run["verdict"])
NAMED = sorted(name for name in BROKEN if RUNS[name]["verdict"] != "unnamed")


@functools.cache
def config_of(words):
    """Return the configuration of command-line words: overrides, --config and a name."""
    return load_config(words[-1], [word for word in words if word.startswith("parameters.")])


def verdicts_of(run):
    """Return the verdicts on a recorded run."""
    figures = {name: value for name, value in run.items() if name not in ("words", "verdict")}
    return check_run(figures, config_of(tuple(run["words"])))


@pytest.mark.parametrize("name", sorted(set(RUNS) - set(BROKEN)))
def test_healthy_run_gives_no_alarm(name):
    assert not [verdict for verdict in verdicts_of(RUNS[name]) if verdict.level == ALARM]


@pytest.mark.parametrize("name", NAMED)
def test_broken_run_gets_its_cause_and_advice(name):
    cause = most_likely_cause(verdicts_of(RUNS[name]))
    assert cause and cause.name == RUNS[name]["verdict"] and cause.advice


def test_recorded_runs_cover_all_versions_and_ten_breaks():
    """There are at least ten broken runs and three healthy runs of each version."""
    assert len(BROKEN) == 14 and len(NAMED) >= 13
    assert set(RUNS) - set(BROKEN) == {f"{name}-{seed}" for name in ("v1", "v2", "v3", "p2e") for seed in range(3)}


def test_documentation_lists_the_recorded_runs():
    """docs/notes/explain.md has a row for each run with its iterations, likeliest cause and further alarms."""
    page = (DATA.parents[1] / "docs" / "notes" / "explain.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    for name, run in RUNS.items():
        alarms = [verdict.name for verdict in verdicts_of(run) if verdict.level == ALARM]
        assert [name, f"{run['iteration']:.0f}", alarms[0] if alarms else "none", ", ".join(alarms[1:])] in rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a locked run of an old version with TensorBoard curves only."""
    root = tmp_path_factory.mktemp("explained")
    with tarfile.open(DATA / "run-format-1.tar.xz") as archive:
        archive.extractall(root, filter="data")
    with lock_run(root / "format-1"):
        yield root / "format-1"


def state_of(folder):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def test_running_run_is_explained_and_unchanged(folder, tmp_path, capsys):
    before = state_of(folder)
    assert main(["explain", str(folder), "--picture", str(tmp_path / "why.png")]) == 0
    assert state_of(folder) == before
    told, errors = capsys.readouterr()
    assert told.startswith("format-1: iteration 2, 4 updates, 63 steps stored\n\nnothing keeps this run from learning")
    assert "ok first-frame" in told and errors == f"written: {tmp_path / 'why.png'}\n"
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")


def test_json_output(folder, capsys):
    assert main(["explain", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cause"] is None and told["iteration"] == 2
    assert {"name", "level", "text", "advice"} == set(told["verdicts"][0])
    assert told["figures"]["episodes"] == 3 and len(told["figures"]["open_loop"]) > 1


def test_folder_without_a_run_is_a_one_line_error(tmp_path, capsys):
    assert main(["explain", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} is not the folder of a run")


def test_replay_is_read_as_of_the_checkpoint(tmp_path):
    """It is read only, without later steps and without steps that the run has deleted."""

    def replay():
        return ReplayBuffer(tmp_path, 100, (1,), np.float32, 1, seed=0, latent_size=3)

    running, state = replay(), {}
    for number in range(12):
        value = np.full(1, number, np.float32)
        running.add(Step(value, value, 0.0, number == 0, False, 1, np.full(3, number, np.float32)))
        if number == 9:
            state = running.state_dict()
    seen = replay()
    assert open_replay_read_only(seen, state) == range(10) and not seen.segments[0].flags.writeable
    assert (seen.read(np.array([2]), 8).reward == 0).all() and not seen.latents.files[0].flags.writeable
    assert (seen.read_latents(np.arange(10))[:, 0] == torch.arange(10)).all()
    (tmp_path / "replay" / "00000000.contexts").unlink()
    assert open_replay_read_only(seen, state) == range(10) and seen.latents is None
    (tmp_path / "replay" / "00000000.steps").unlink()
    assert not open_replay_read_only(replay(), state)


# Figures


def test_explained_shares():
    truth = torch.randn(50, 3, 2)
    mask = torch.tensor([True, True])
    torch.testing.assert_close(explained_variance(truth, truth, mask), torch.ones(3))
    mean = truth.flatten(end_dim=1).mean(0).expand_as(truth)
    torch.testing.assert_close(explained_variance(mean, truth, mask).mean(), torch.zeros(()), atol=1e-5, rtol=0)
    pixels = torch.zeros(4, 5, 1, 8, 8)
    pixels[..., 0, 0] = torch.rand(4, 5, 1)
    assert moving_components(pixels).sum() == 1


def test_kl_parts_sum_to_the_whole():
    def state(parameters):
        return State(torch.zeros(2, 3, 1), torch.zeros(2, 3, 4), parameters)

    pairs = [[Gaussian(torch.randn(2, 3, 4), torch.rand(2, 3, 4) + 0.1) for _ in range(2)]]
    pairs += [[Categorical(torch.randn(2, 3, 4, 5).log_softmax(-1)) for _ in range(2)]]
    for prior, posterior in pairs:
        kl = component_kl(state(prior), state(posterior))
        assert kl.shape == (2, 3, 4)
        torch.testing.assert_close(kl.sum(-1), kl_divergence(posterior.distribution, prior.distribution))


def test_first_steps_with_an_action_or_a_reward_are_reported():
    scalars = {"is_first": np.array([1, 0, 1]), "action": np.array([[0], [1], [0.5]]), "reward": np.zeros(3)}
    assert wrong_first_steps(scalars) == 0.5


def test_the_part_of_the_kl_in_the_loss():
    settings = load_config("dreamer", ["parameters.dreamer.kl_divergence_scale=0.1"]).parameters.dreamer
    reports = {"loss/model": 8.0, "loss/reconstruction": 5.0, "loss/reward": 1.0, "loss/continue": 0.1}
    figures = measure_curves({tag: {10: value} for tag, value in reports.items()}, settings)
    assert figures["kl_part"] == pytest.approx((8 - 5 - 1 - 10 * 0.1) / 0.1)


def test_actions_of_seed_episodes_do_not_count():
    """Two workers share the one episode of each of four iterations: two of the four stored here were seed episodes."""
    episodes, length = 4, 3
    is_first = np.tile([1, 0, 0], episodes)
    action = np.repeat([[1.0], [1.0], [0.5], [0.5]], length, axis=0)
    run = OpenedRun(
        config=load_config("dreamer", ["parameters.dreamer.num_interaction_episodes=1"]),
        networks={"actor": SimpleNamespace(continuous=True)},
        replay=None,
        steps=range(episodes * length),
        scalars={"action": action, "is_first": is_first},
        iteration=4,
        updates=0,
        collected=2 * episodes * length,
        workers=2,
    )
    assert measure_actions(run) == {"actions": 4, "actions_at_edge": 0.0}
    assert measure_actions(run._replace(workers=1)) == {"actions": 8, "actions_at_edge": 0.5}


def test_the_peak_of_the_returns_is_no_single_evaluation():
    returns = {10 * count: value for count, value in enumerate([100.0, 900.0, 120.0, 700.0, 720.0, 680.0, 200.0])}
    figures = measure_curves({"eval/return": returns}, load_config("dreamer").parameters.dreamer)
    assert figures["eval/best"] == 900 and figures["eval/peak"] == 700
    two_evaluations = {"eval/return": {0: 1.0, 1: 2.0}}
    assert "eval/peak" not in measure_curves(two_evaluations, load_config("dreamer").parameters.dreamer)


# Verdicts, each by the figures that it needs alone

ENDS = {"terminations": 1.0}
RETURNS = {"random_return": 300.0, "eval/best": 980.0, "evaluations": 11}
NO_REWARD = {"reward_max": 0.0, "reward_zeros": 1.0}
CASES = [
    ("dreamer", ENDS, "ends", ALARM),
    ("dreamer-v3", ENDS | {"end_expected_inside": 0.0, "end_expected_at_end": 0.1}, "ends", NOTE),
    ("dreamer", NO_REWARD, "reward-seen", ALARM),
    ("plan2explore", NO_REWARD, "reward-seen", NOTE),
    ("dreamer", {"reward_max": 1e-4, "reward_zeros": 0.0}, "reward-scale", ALARM),
    ("dreamer", {"updates": 1000, "collected": 1e7}, "data", ALARM),
    ("dreamer", {"updates": 100_000, "collected": 10_000}, "data", ALARM),
    ("dreamer", {"imagined_reward": 3.0, "actual_reward": 0.0, "reward_std": 1.0}, "imagination", ALARM),
    ("dreamer", {"behavior/value": 1.0, "behavior/imagined_return": 5.0}, "critic", ALARM),
    ("dreamer", {"value": 100.0, "return": 5.0, "return_std": 1.0}, "values", NOTE),
    ("dreamer", {"grad_norm/critic": 1e5}, "gradients", ALARM),
    ("dreamer", {"reconstruction": 0.01, "moving": 1.0}, "reconstruction", ALARM),
    ("dreamer", {"reward": 0.1}, "reward", ALARM),
    ("dreamer", {"reward": 0.1, "reward_zeros": 0.99}, "reward", NOTE),
    ("dreamer", RETURNS | {"eval/return": 700.0, "eval/peak": 950.0}, "return", NOTE),
    ("dreamer", RETURNS | {"eval/return": 800.0, "eval/peak": 950.0}, "return", FINE),
    ("dreamer", RETURNS | {"eval/return": 300.0, "eval/peak": 310.0}, "return", NOTE),
    ("dreamer", RETURNS | {"eval/return": 300.0, "eval/peak": 950.0, "evaluations": 4}, "return", FINE),
]


@pytest.mark.parametrize("name, figures, expected, level", CASES)
def test_verdicts(name, figures, expected, level):
    found = {verdict.name: verdict for verdict in check_run(figures, load_config(name))}
    assert found[expected].level == level and (found[expected].advice or level != ALARM)


@pytest.mark.parametrize("name, expected", [("quick-v3", True), ("dreamer-v3", False)])
def test_fallen_return_blames_imagine_last_where_it_is_set(name, expected):
    figures = RETURNS | {"eval/return": 700.0, "eval/peak": 950.0}
    verdicts = {verdict.name: verdict for verdict in check_run(figures, load_config(name))}
    assert "has fallen" in verdicts["return"].advice
    assert ("imagine_last=null" in verdicts["return"].advice) == expected

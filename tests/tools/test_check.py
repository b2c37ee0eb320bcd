"""`dreamer check`: the mistakes it finds, the settings it suggests, and that these settings train."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import main
from dreamer.config.load import load_config, settings_of_environment
from dreamer.envs import lookup
from dreamer.envs.make import make_train_env
from dreamer.errors import EnvError, EnvFault
from dreamer.tools.check import command, examine, play, prediction, suggestion
from dreamer.tools.check.examine import CheckRequest
from dreamer.tools.check.findings import NOTE, PROBLEM, REFUSED
from dreamer.tools.check.report import seed_phrases
from dreamer.training import logger
from dreamer.training.collect import run_episode
from tests.tools import strangers
from tests.toys import SMALL

TRAINED = ["train_iterations=2", "seed_episodes=1", "train_ratio=16", "num_interaction_episodes=1", "warm_up=1"]
TRAINED = [*SMALL[:-1], *[f"parameters.dreamer.{setting}" for setting in TRAINED]]


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Use an empty working directory, little play and two updates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(play, "EPISODES", 3)
    monkeypatch.setattr(play, "ENV_STEPS", 120)
    monkeypatch.setattr(play, "MAX_FACTOR", 18)  # more than LONG_EPISODE
    monkeypatch.setattr(examine, "COMPARED", 45)
    monkeypatch.setattr(prediction, "MAX_CALLS", 1)


def examine_stranger(name, *, overrides=(), config="quick-v3", config_is_named=False, measured=False):
    """Return the result for an environment of `strangers`. measured: with the prediction of time and disk space."""
    settings = settings_of_environment("gymnasium", f"tests.tools.strangers:{name}")
    made = load_config(config, settings | dict(overrides))
    with pytest.MonkeyPatch.context() as patch:
        if not measured:
            patch.setattr(examine, "predict_run", lambda *arguments: {})
        return examine.examine(CheckRequest(made, name, config_is_named))


def findings_of_level(result, level):
    return [finding.what for finding in result.findings if finding.level == level]


def suggested_settings(result):
    return {setting.key.rpartition(".")[2]: setting.value for setting in result.suggestion}


@pytest.mark.parametrize("name", ["Unbounded", "Broken", "NoSuchEnvironment"])
def test_check_refuses_with_the_message_of_training(name):
    config = load_config("quick-v3", settings_of_environment("gymnasium", f"tests.tools.strangers:{name}"))
    with pytest.raises((EnvError, EnvFault)) as caught:
        env = make_train_env(config.environment, 0)
        list(run_episode(env, lambda step: np.zeros(1, np.float32)))
    result = examine_stranger(name)
    assert findings_of_level(result, REFUSED) == [str(caught.value).replace("episode 0", "episode 1")]
    assert all("\n" not in finding.what + finding.advice for finding in result.findings)
    assert name != "Broken" or "strangers.py, line" in result.findings[0].advice


def test_check_finds_each_mistake_and_nothing_else():
    for healthy in ("Reach", "Large", "several"):  # DreamerV3 learns rewards of any size
        assert examine_stranger(healthy).findings == []
    reused = examine_stranger("Reused")
    [line], notes = findings_of_level(reused, REFUSED), findings_of_level(reused, NOTE)
    assert "gave the observation" in line and "nan" in line
    assert "its space ends at -0.01 and 0.01" in notes[0] and "one array" in notes[1] and len(notes) == 2
    unseeded, silent, endless, remembers = (
        examine_stranger(name).findings for name in ("Unseeded", "Silent", "Endless", "Remembers")
    )
    assert ["differ from step 0" in each.what for each in unseeded] == [True]
    assert ["no reward in 120" in each.what for each in silent] == [True]
    assert ["no episode ended" in each.what for each in endless] == [True]
    assert [(each.level, "reset(seed" in each.what) for each in remembers] == [(NOTE, True)]


def test_output_of_the_environment_is_not_in_the_json(capsys):
    assert main.main(["check", "tests.tools.strangers:Column", "--json"]) == 1
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert "float32 (2, 1)" in finding["what"] and "let observation_space say what is returned" in finding["advice"]


def test_second_play_needs_a_single_reset(monkeypatch):
    """Resets may be slow, so the second play, which measures steps, resets only once."""
    resets, reset = [], strangers.Reach.reset
    monkeypatch.setattr(strangers.Reach, "reset", lambda *words, **keys: resets.append(keys) or reset(*words, **keys))
    environment = load_config(
        "quick-v3", settings_of_environment("gymnasium", "tests.tools.strangers:Reach")
    ).environment
    assert (
        play.play_randomly(environment, 0, max_agent_steps=30).resets_agree is None and len(resets) == 2
    )  # one in making it


def test_reward_is_not_judged_after_few_steps(monkeypatch):
    def play_one_step(*arguments, **options):
        return play.play_randomly(*arguments, **options | {"max_agent_steps": 1})

    monkeypatch.setattr(examine, "play_randomly", play_one_step)
    result = examine_stranger("Silent")
    assert not [each.what for each in result.findings if "reward" in each.what]
    assert "algorithm" not in suggested_settings(result)
    words = seed_phrases(result.facts["seeds"])
    assert words[0].endswith("agree for 2 steps") and not any("first observation" in each for each in words[1:])


def test_settings_that_slow_down_learning_are_reported():
    lines = [f"{finding.what}; {finding.advice}" for finding in examine_stranger("Faint").findings]
    words = [
        "every reward is 1e-05, and no random episode",
        "returns of random episodes reach 0.0004; multiply them by about",
    ]
    words += ["one never changed", "actions reach 1e+06: 0.01 in the actor's output, from -1 to 1, is 10000"]
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * 4


def test_float_images_and_terminating_time_limits_are_reported():
    result = examine_stranger("Stack")
    clock, picture = result.findings
    assert "after 40 env steps" in clock.what and "truncated=True" in clock.advice
    assert "(4, 24, 24)" in picture.what and "(255 * picture).astype(np.uint8)" in picture.advice
    assert suggested_settings(result)["use_continue_flag"] is False


def test_configuration_that_does_not_suit_the_environment_is_reported():
    """Rewards and observations that Dreamer cannot learn; ends that it is not told of; a discount of another scale."""
    dreamer = load_config("dreamer").parameters.dreamer
    assert not dreamer.use_continue_flag and not dreamer.symlog_inputs
    rewards = findings_of_level(examine_stranger("Large", config="dreamer", config_is_named=True), PROBLEM)
    assert len(rewards) == 1 and "version 1's reward model" in rewards[0]
    ends = findings_of_level(examine_stranger("Ends", config="dreamer", config_is_named=True), PROBLEM)
    assert len(ends) == 1 and "use_continue_flag is False" in ends[0]
    far = {"parameters.dreamer.discount": 0.999}
    [line] = findings_of_level(examine_stranger("Reach", overrides=far, config_is_named=True), NOTE)
    assert "looks 1,000 steps ahead, but an episode has 40" in line


def test_configuration_errors_are_reported(monkeypatch):
    """Beside its environment, in the words of training; and networks too large to be measured."""
    monkeypatch.setattr(logger, "find_spec", lambda name: None)
    environment, played = settings_of_environment("gymnasium", "CartPole-v1"), SimpleNamespace(time_limit=30)
    for overrides, line in (
        ({"operation.loggers": ["wandb"]}, "operation.loggers: wandb is not installed"),
        ({"parameters.dreamer.seed_episodes": 1}, "batch_length: 50 agent steps, but the seed episodes store 31"),
    ):
        lines = []
        assert examine.predict_run("dreamer", load_config("dreamer", environment | overrides), played, lines) == {}
        assert [(each.level, line in each.what) for each in lines] == [(REFUSED, True)]
    monkeypatch.setattr(prediction, "MEMORY", 1000)
    lines = []
    assert examine.predict_run("", load_config("quick-v3", environment), played, lines) == {}
    assert "could not be measured" in lines[0].what and "parameters need" in lines[0].what


def test_pixels_are_suggested_if_only_rendering_works():
    result = examine_stranger("Drawn")
    assert "Sequence" in findings_of_level(result, REFUSED)[0] and "renders" in result.findings[0].advice
    settings = suggested_settings(result)
    assert settings["from_pixels"] is True and settings["base"] == "quick-v3-pixels.yml"


@pytest.mark.parametrize(
    "name, expected",
    [
        # 40 steps: six episodes in an iteration of 240 steps, and 20,000 in all; a fifth of them ahead, at least ten
        ("Reach", {"frame_skip": 1, "num_interaction_episodes": 6, "train_iterations": 83, "discount": 0.9}),
        ("Ends", {"discount": 0.975, "horizon_length": 15, "actor_learning_rate": 2e-4, "use_continue_flag": True}),
        ("Stack", {"frame_skip": 1, "discount": 0.9}),
        ("Silent", {"algorithm": "plan2explore", "explore_env_steps": 10_000, "discount": 0.975}),
    ],
)
def test_suggestion_follows_from_the_played_episodes(name, expected):
    settings = suggested_settings(examine_stranger(name))
    assert {key: settings[key] for key in expected} == expected


def test_suggested_run_length_allows_for_longer_episodes():
    """Random episodes of 10 of 10,000 steps: as many steps as if all were alike, and no more if they get longer."""
    settings = {each.key.rpartition(".")[2]: each.value for each in suggestion.schedule_settings(10_000, 10, 2, False)}
    assert settings == {
        "train_iterations": 400,
        "num_interaction_episodes": 5,
        "num_evaluate": 5,
        "max_env_steps": 40_000,
    }


def test_slow_updates_are_extrapolated_from_smaller_batches(monkeypatch):
    """A second for each 8 steps, and two for none: 16 windows of 64 steps are 130 seconds, of which 9 pass."""
    measured = []

    def timed(size):
        measured.append(size[0] * size[1] / 8 + 2)
        return measured[-1]

    monkeypatch.setattr(prediction, "fastest_call", timed)
    monkeypatch.setattr(prediction, "make_update", lambda config, algorithm, replay, *size: size)
    config = load_config("quick-v3", ["parameters.dreamer.batch_size=16", "parameters.dreamer.batch_length=64"])
    learner = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    assert prediction.measure_update(config, learner, None) == pytest.approx(130) and measured == [3, 6]


def test_suggestion_for_the_control_suite():
    asked = load_config("dmc-cartpole-swingup", ["environment.from_pixels=False"])
    played = play.play_randomly({**asked.environment, "num_envs": 1}, 0, seconds=0.1, max_agent_steps=20)
    settings = {each.key.rpartition(".")[2]: each.value for each in suggestion.suggest(asked, played)}
    wanted = {"from_pixels": False, "frame_skip": 4, "discount": 0.98, "train_iterations": 80}  # 1,000 steps: 250
    assert {key: settings[key] for key in wanted} == wanted and not settings["use_continue_flag"]


def test_predicted_time_and_disk_space():
    """Measured for an update; the rest by hand."""
    own = ["train_iterations=80", "num_evaluate=1", "evaluate_interval=1"]
    config = load_config("quick-v3", [*SMALL, *(f"parameters.dreamer.{word}" for word in own)])
    steps, episodes = 20 * 80, 80 + 3
    assert prediction.run_length(config, 20) == (episodes, episodes * 20)
    assert prediction.run_updates(config.parameters.dreamer, steps, episodes) == pytest.approx(steps * 128 / 80)
    speed, skip = prediction.Speed(update=2.0, action=0.5, env_step=0.25), config.environment.frame_skip
    playing = (episodes + episodes) * 20 * (0.5 + 0.25 * skip)  # an evaluation of one episode with each
    learning = episodes * 20 * 128 / 80 * 2
    assert prediction.run_hours(config, speed, 20) == pytest.approx((playing + learning) / 3600)
    limited = load_config("quick-v3", [*SMALL, "parameters.dreamer.max_env_steps=800"])
    assert prediction.run_length(limited, 20) == (3 + 10, 13 * 20)  # 80 env steps in an episode


def test_check_command_writes_a_configuration_that_trains(capsys, monkeypatch):
    """The table, the picture and JSON; the file that it writes trains as it is, and is replaced, but no other is."""
    words = ["check", "tests.tools.strangers:Reach"]
    assert main.main([*words, "--picture", "seen.png"]) == 0
    text = capsys.readouterr().out
    for row in ("numbers", "action", "reward", "episodes", "random", "seeds", "speed", "update", "run", "disk"):
        assert any(line.startswith(row) for line in text.splitlines()), row
    assert Image.open("seen.png").size[0] > 12 * 128
    assert main.main(["train", "suggested.yml", *TRAINED]) == 0
    monkeypatch.setattr(examine, "predict_run", lambda *arguments: {})
    assert main.main([*words, "--json"]) == 0
    warning = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert warning["findings"] == [] and warning["episodes"]["longest"] == 40
    assert warning["suggested"]["settings"]["parameters.dreamer.discount"] == 0.9
    Path("suggested.yml").write_text("base: quick-v3.yml\n")
    assert main.main(words) == 0
    assert "is not replaced" in capsys.readouterr().out and Path("suggested.yml").read_text() == "base: quick-v3.yml\n"


def test_invalid_arguments_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(lookup, "find_package", lambda name: (None, None))  # imports what is installed
    assert main.main(["check", "quick-v3", "a", "b"]) == 2
    assert "expected one environment" in capsys.readouterr().err
    assert main.main(["check", "quick-v3-cartpol"]) == 1
    assert "is a configuration meant: quick-v3-cartpole" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.parse(["a", "--picture", "seen.gif"])
    assert ".png" in capsys.readouterr().err

"""The train-ratio schedule of DreamerV2 and V3: updates between the steps of an episode. Also stored latent states."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import main
from dreamer.build import build_replay
from dreamer.config.load import load_config
from dreamer.envs.make import make_train_env
from dreamer.errors import ConfigError
from dreamer.training.checkpoint_file import copy_to_cpu, load_checkpoint
from tests.config.test_load import complaint
from tests.test_resume import only_run, same, scalars
from tests.toys import SMALL, ToyEnv, make_dreamer, train
from tests.training.test_collect import Rows

STEPS_PER_BATCH = 8 * 10  # steps of a batch
SETTINGS = ["train_iterations=3", "seed_episodes=1", "collect_interval=1000"]
HALF_AN_UPDATE_PER_STEP = [*SETTINGS, f"train_ratio={STEPS_PER_BATCH / 2}"]  # half an update per stored step


def count_updates(dreamer):
    """Replace `update` by a counter. Return a list that fills with the number of stored steps before each update."""
    stored = []

    def update(batch, updates):
        stored.append(dreamer.trainer.replay.end)
        return {"x": torch.tensor(float(len(stored)))}, None

    dreamer.update = update
    return stored


def test_updates_follow_stored_steps_first_steps_included():
    """Seed steps owe no updates."""
    dreamer = make_dreamer(ToyEnv(length=12), *HALF_AN_UPDATE_PER_STEP)
    stored = count_updates(dreamer)
    train(dreamer, ToyEnv(length=12))
    assert stored == list(range(13 + 2, 13 + 3 * 13 + 1, 2))


def test_update_runs_before_the_next_action():
    env, events = ToyEnv(length=12), []
    dreamer = make_dreamer(env, *HALF_AN_UPDATE_PER_STEP, "train_iterations=1")
    step, add = env.step, dreamer.trainer.replay.add
    env.step = lambda action: events.append("act") or step(action)
    dreamer.trainer.replay.add = lambda step: events.append("store") or add(step)
    dreamer.update = lambda batch, updates: events.append("learn") or ({}, None)
    dreamer.trainer.play_seed_episodes()
    events.clear()
    dreamer.trainer.collect(dreamer.collection_policy(env), 1, dreamer)
    assert events == ["store", *(6 * ["act", "store", "learn", "act", "store"])]


def test_train_ratio_gives_several_or_no_updates_per_step():
    for ratio, expected in [(2.5 * STEPS_PER_BATCH, [2, 3] * 6 + [2]), (STEPS_PER_BATCH / 4, [0, 0, 0, 1] * 3 + [0])]:
        dreamer = make_dreamer(ToyEnv(length=12), *SETTINGS, f"train_ratio={ratio}", "train_iterations=1")
        stored = count_updates(dreamer)
        train(dreamer, ToyEnv(length=12))
        assert [stored.count(13 + number) for number in range(1, 14)] == expected


def test_metrics_are_means_over_an_iteration_and_owed_updates_are_saved():
    dreamer = make_dreamer(ToyEnv(length=12), *HALF_AN_UPDATE_PER_STEP)
    count_updates(dreamer)
    train(dreamer, ToyEnv(length=12))
    rows = [(value, step) for tag, value, step in dreamer.trainer.logger.rows if tag == "x"]
    assert rows == [(3.5, 24), (10.0, 36), (16.5, 48)], "updates 1 to 6, 7 to 13, 14 to 19"
    assert len(dreamer.trainer.logger.of("speed/updates_per_second")) == 3
    state = copy_to_cpu(dreamer.trainer.state_dict())
    assert state["updates_left"] == 0.5
    other = make_dreamer(ToyEnv(length=12), *HALF_AN_UPDATE_PER_STEP, "train_iterations=4")
    other.trainer.collect(lambda step: np.zeros(1, np.float32), 1)
    other.trainer.load_state_dict(state)
    stored = count_updates(other)
    train(other, ToyEnv(length=12))
    assert stored == list(range(13 + 1, 13 + 14, 2))


def test_no_update_is_owed_before_a_window_fits():
    """This is no error, since later steps make a window possible."""
    dreamer = make_dreamer(ToyEnv(length=3), *HALF_AN_UPDATE_PER_STEP)
    stored = count_updates(dreamer)
    train(dreamer, ToyEnv(length=3))
    assert stored == [11, 13, 15], "4 steps by the seed episode; the tenth makes the first half due"


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_updates_use_all_threads_and_actions_one(two_threads):
    dreamer, threads = (
        make_dreamer(ToyEnv(length=12), *HALF_AN_UPDATE_PER_STEP, "train_iterations=1"),
        {"act": set(), "learn": set()},
    )

    def act(step):
        threads["act"].add(torch.get_num_threads())
        return np.zeros(1, np.float32)

    def update(batch, updates):
        threads["learn"].add(torch.get_num_threads())
        return {}, None

    dreamer.update, dreamer.collection_policy = update, lambda env: act
    train(dreamer, ToyEnv(length=12))
    assert threads == {"act": {1}, "learn": {2}} and torch.get_num_threads() == 2


def test_parallel_environments_step_together_before_updates():
    dreamer = make_dreamer(ToyEnv(length=12), *HALF_AN_UPDATE_PER_STEP)
    env = Rows(True)
    dreamer.trainer.env = env
    stored, steps = count_updates(dreamer), []
    dreamer.trainer.collect(lambda step: np.zeros((2, 1), np.float32), 2)  # three steps each and the first step
    dreamer.trainer.collect(lambda step: np.zeros((2, 1), np.float32), 2)
    dreamer.trainer.collect(lambda step: steps.append(len(stored)) or np.zeros((2, 1), np.float32), 2, dreamer)
    assert steps == [0, 0, 0] and stored == [18, 20, 22, 24]


@pytest.fixture(autouse=True)
def rows_in_arrays(monkeypatch):
    """Make `Rows` return arrays, as `ParallelEnvs` does."""

    def step(self, action):
        self.count += 1
        over = np.full(2, self.count == 3)
        return np.full((2, 1), self.count, np.float32), np.zeros(2), over, over, {"env_steps": np.full(2, 2)}

    monkeypatch.setattr(Rows, "step", step)
    monkeypatch.setattr(
        Rows, "reset", lambda self, episodes: vars(self).update(count=0) or np.zeros((2, 1), np.float32)
    )


# Before the first iteration


def test_pretrain_updates_run_before_the_first_iteration():
    for schedule in (["collect_interval=2"], HALF_AN_UPDATE_PER_STEP):
        dreamer = make_dreamer(ToyEnv(length=12), *SETTINGS, "pretrain=7", *schedule)
        stored = count_updates(dreamer)
        train(dreamer, ToyEnv(length=12))
        assert stored[:7] == 7 * [13] and dreamer.trainer.logger.of("x")[0] == 4
        expected = [15, 17, 19] if schedule is HALF_AN_UPDATE_PER_STEP else [13, 13, 26]
        assert stored[7:10] == expected


@pytest.mark.parametrize("seed_policy, calls", [("random", 0), ("actor", 12)])
def test_seed_policy_setting_selects_random_actions_or_the_actor(seed_policy, calls):
    dreamer = make_dreamer(ToyEnv(length=12), *SETTINGS, f"seed_policy={seed_policy}")
    policy_calls, collection_policy = [], dreamer.collection_policy

    def counting(env):
        policy = collection_policy(env)
        return lambda step: policy_calls.append(step) or policy(step)

    dreamer.collection_policy = counting
    dreamer.trainer.play_seed_episodes()
    assert len(policy_calls) == calls and dreamer.trainer.replay.end == 13


@pytest.mark.parametrize("known", [8, None])
@pytest.mark.parametrize("schedule", [[], HALF_AN_UPDATE_PER_STEP])
def test_seed_episodes_shorter_than_a_window_are_refused(known, schedule):
    """Two episodes of nine steps hold no window of ten steps."""
    env = ToyEnv(8)
    env.max_agent_steps = known
    dreamer = make_dreamer(env, *schedule, "seed_episodes=2", "buffer.sampling=episodes")
    message = (
        "batch_length: 10 agent steps, but no seed episode stores more than 9; lower it, or set .*sampling: windows"
    )
    with pytest.raises(ConfigError, match=message):
        train(dreamer)
    assert len(dreamer.trainer.replay) == (0 if known else 18)


def test_newest_episode_can_be_sampled():
    dreamer = make_dreamer(ToyEnv(length=12), *SETTINGS, "collect_interval=1", "buffer.sampling=episodes")
    train(dreamer, ToyEnv(length=12))
    assert dreamer.trainer.replay.sampler.borders.tolist() == [0, 13, 26, 39, 52]


def test_conflicting_settings_are_refused():
    assert complaint("dreamer", "parameters.dreamer.buffer.prioritize_ends=True").endswith("set sampling: episodes")
    assert "a finite number above 0, or null" in complaint("dreamer", "parameters.dreamer.train_ratio=0")
    assert load_config("dreamer", ["parameters.dreamer.train_ratio=32"]).parameters.dreamer.train_ratio == 32


# Stored latent states


def test_update_starts_from_the_latents_that_the_previous_one_stored():
    """The windows were drawn earlier, but their latents are read just before the update."""
    dreamer, starts_used = make_dreamer(ToyEnv(length=12), "replay_context=True", "batch_size=2"), []
    trainer = dreamer.trainer
    trainer.collect(dreamer.collection_policy(trainer.env), 1)
    stored_latents = trainer.replay.read_latents(np.arange(13)).numpy()
    assert (
        (stored_latents[0] == 0).all()
        and (np.abs(stored_latents[1:]).sum(1) > 0).all()
        and stored_latents.shape[1] == 20
    )
    expected, drawn_starts, draw = stored_latents.copy(), [], trainer.replay.draw
    trainer.replay.draw = lambda *arguments: drawn_starts.append(draw(*arguments)) or drawn_starts[-1]

    def update(batch, updates):
        starts = drawn_starts[len(starts_used)]
        assert (batch.latent.numpy() == expected[starts]).all()
        starts_used.append(starts)
        feature = torch.full((2, 10, 20), float(len(starts_used))) + torch.arange(2)[:, None, None] / 2
        for start, row in zip(starts, feature.numpy(), strict=True):
            expected[start + 1 : start + 11] = row[: 13 - start - 1]
        return {}, feature

    dreamer.update = update
    trainer.learner.make(dreamer, 20)
    assert len(starts_used) == 20 and (trainer.replay.read_latents(np.arange(13)).numpy() == expected).all()


def test_stored_latents_are_the_posteriors_of_the_newest_update():
    """This runs real updates."""
    dreamer, written = make_dreamer(ToyEnv(length=12), "replay_context=True", "batch_size=1"), []
    trainer, write = dreamer.trainer, dreamer.trainer.replay.write_latents
    trainer.collect(dreamer.collection_policy(trainer.env), 1)
    trainer.replay.write_latents = lambda starts, feature: (
        written.append((starts[0], feature)) or write(starts, feature)
    )
    trainer.learner.make(dreamer, 3)
    start, feature = written[-1]
    assert feature.shape == (1, 10, 20) and not feature.requires_grad
    stored = trainer.replay.read_latents(np.arange(start + 1, min(start + 11, 13)))
    assert (stored == feature[0, : len(stored)]).all()


RUN = [
    *SMALL,
    "operation.device=cpu",
    "environment.benchmark=gymnasium",
    "environment.task_name=Pendulum-v1",
    "environment.frame_skip=10",
    "parameters.plan2explore.num_ensemble=3",
    "parameters.plan2explore.one_step_model.hidden_size=16",
    *(
        f"parameters.dreamer.{setting}"
        for setting in ["train_iterations=4", "seed_episodes=2", "train_ratio=3", "replay_context=True", "pretrain=2"]
        + ["batch_size=4", "buffer.online=True", "buffer.capacity=60", "seed_policy=actor"]
    ),
]


@pytest.mark.parametrize("sampling", ["windows", "episodes"])
def test_resumed_run_equals_an_uninterrupted_one(sampling, tmp_path, monkeypatch):
    """Weights, scalars and stored latent states are equal."""
    arguments = ["--config", "quick-p2e-pendulum-swingup", *RUN, f"parameters.dreamer.buffer.sampling={sampling}"]
    runs = []
    for name, stops in (("whole", []), ("stopped", [2, 3])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for iterations in stops[:1] or [4]:
            assert main.main([*arguments, f"parameters.dreamer.train_iterations={iterations}"]) == 0
        for iterations in [*stops[1:], 4] if stops else []:
            assert main.main(["--resume", "latest", f"parameters.dreamer.train_iterations={iterations}"]) == 0
        runs.append(only_run(tmp_path / name))
    whole, stopped = runs
    (_, expected), (_, state) = map(load_checkpoint, runs)
    assert same(state["algorithm"], expected["algorithm"]) and same(state["trainer"], expected["trainer"])
    tags = scalars(whole).keys() - {"eval/return", "eval/return_ema20"}  # the last iteration is evaluated, too
    assert all(scalars(stopped)[tag] == scalars(whole)[tag] for tag in tags) and "loss/one_step_model" in tags
    contents = [latents_of(run, each, arguments) for run, each in zip(runs, (expected, state), strict=True)]
    assert torch.equal(*contents) and contents[0].shape == (60, 20) and contents[0].abs().sum() > 0
    for part in ("sampler", "online", "random", "checksums"):
        assert same(state["replay"][part], expected["replay"][part]), part


def latents_of(run, state, arguments):
    config = load_config(arguments[1], arguments[2:])
    replay = build_replay(
        config, make_train_env(config.environment, 0), run, seed=5, rssm=SimpleNamespace(stored_size=20)
    )
    replay.load_state_dict(state["replay"])
    return replay.read_latents(np.array(replay.steps))

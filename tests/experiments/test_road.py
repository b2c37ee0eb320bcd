"""experiments/road.py: each change is one that DreamerV3 makes, and together they are DreamerV3 but for its sizes."""

import time

import pytest
from torch.utils.tensorboard import SummaryWriter

from dreamer.config.load import flatten, load_config
from experiments import road

SIZES = {
    *("hidden_size", "num_layers", "depth", "classes", "kernel_size", "stride", "batch_length", "capacity"),
    *("model_learning_rate", "actor_learning_rate", "critic_learning_rate", "warm_up", "train_ratio"),
    *("discount", "seed_episodes"),
}
ELSEWHERE = {  # pixels, tasks that end, discrete actions, other optimisers
    *("encoder.architecture", "decoder.architecture", "agent.actor.unimix", "adam_epsilon", "weight_decay"),
    *("use_continue_flag", "discount_in_continue", "continue_scale"),
}


def differences(one, other):
    one, other = flatten(one), flatten(other)
    return {key: other[key] for key in one if one[key] != other[key]}


@pytest.mark.parametrize("task", road.TASKS)
@pytest.mark.parametrize("change", road.CHANGES)
def test_change_can_be_loaded_and_has_an_effect(task, change, capsys):
    config = load_config(road.BASE, road.overrides(task, change))
    assert "ignored" not in capsys.readouterr().err
    assert f"{config.environment.domain_name}-{config.environment.task_name}".replace("_", "-") == task


def test_all_changes_together_are_dreamer_v3():
    """Whatever it changes of Dreamer, but for sizes and rates, and what these tasks have no use for."""
    together = flatten(load_config(road.BASE, road.overrides("cartpole-swingup", road.ALL)))
    changed = differences(load_config("dreamer"), load_config(["dreamer", "dreamer-v3"]))
    for key, value in changed.items():
        name = key.removeprefix("parameters.dreamer.")
        other = name.split(".")[-1] in SIZES or name.endswith("_size") or name in ELSEWHERE
        if not (other or name.startswith(("operation", "parameters.plan2explore"))):
            assert together[key] == value, key


@pytest.mark.parametrize("change", [change for change in road.CHANGES if change not in ("Dreamer", road.ALL)])
def test_single_change_leaves_other_settings(change):
    changed = differences(
        load_config(road.BASE, road.overrides("cartpole-swingup", "Dreamer")),
        load_config(road.BASE, road.overrides("cartpole-swingup", change)),
    )
    assert len(changed) == len(road.overrides("cartpole-swingup", change)) - 1


@pytest.mark.parametrize("task", road.TASKS)
def test_train_ratio_gives_the_usual_number_of_updates(task):
    config = load_config(road.BASE, road.overrides(task, "updates between the steps"))
    settings, steps = config.parameters.dreamer, 1000 / config.environment.frame_skip
    updates = settings.train_ratio * steps / settings.batch_size / settings.batch_length
    assert updates == pytest.approx(settings.collect_interval)


def write_run(runs, change, seed, returns, minutes):
    """One that is complete: an evaluation every so many minutes."""
    folder = road.folder_of(runs, "cartpole-swingup", change, seed)
    with SummaryWriter(folder) as writer:
        writer.add_scalar("train/return", 0, 0, walltime=1000.0)
        for number, value in enumerate(returns, 1):
            writer.add_scalar(road.RETURN, value, number, walltime=1000.0 + 60 * minutes * number)
    (folder / road.CONFIGURATION).write_text("")


def test_returns_after_the_same_updates_and_the_same_minutes(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(road.TASKS, "cartpole-swingup", {"parameters.dreamer": {"train_iterations": 4}})
    write_run(tmp_path, "Dreamer", 0, [1, 2, 3, 4], 1)
    write_run(tmp_path, "Dreamer", 1, [1, 2, 3, 5], 2)  # a slower machine
    write_run(tmp_path, "LaProp", 0, [10, 20, 30, 40], 2)
    write_run(tmp_path, "LaProp", 1, [10, 20, 30, 50], 4)
    write_run(tmp_path, "slow critic", 0, [7, 8, 9], 1)  # not complete
    write_run(tmp_path, "block GRU", 0, [70, 80, 90, 99], 9)  # evaluated only later
    assert road.main([str(tmp_path), "--jobs", "0", "--figure", str(tmp_path / "road.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| Dreamer | 4 | 4, 5 | 6.0 | 4 | 4, 5 |",
        "| block GRU | 99 | 99 | 36.0 | 70 | 70 |",
        "| LaProp | 45 | 40, 50 | 12.0 | 20 | 20, 20 |",
    ]
    assert (tmp_path / "road.png").stat().st_size > 1000


def test_ctrl_c_starts_no_further_run(tmp_path, monkeypatch, capsys):
    begun = []

    def run(folder, *one):
        begun.append(folder)
        if len(begun) == 1:
            raise KeyboardInterrupt
        time.sleep(0.2)  # others may have begun before the first one is known to have ended

    monkeypatch.setattr(road, "train", run)
    assert road.main([str(tmp_path)]) == 130
    assert len(begun) < 10 and "goes on" in capsys.readouterr().err

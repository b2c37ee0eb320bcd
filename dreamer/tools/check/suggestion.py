"""Suggest a configuration for an environment, each setting with its rule as a comment."""

import json
import math
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from dreamer.config.load import Config
from dreamer.config.schema import DEFAULTS
from dreamer.config.yaml_files import flatten, read_mapping
from dreamer.tools.check.findings import has_uninformative_rewards, suspected_time_limit, terminates
from dreamer.tools.check.play import Play

BASE = "quick-v3"  # the configuration for an environment without one, and the base of suggestions
PIXELS_BASE = "quick-v3-pixels"  # the base of suggestions for agents that see pixels
EPISODE_STEPS = 250  # agent steps in an episode, as in the quick starts
BUDGET = {"vector": 20_000, "pixels": 8_000}  # agent steps of a run, as in the quick starts of DreamerV3
MIN_ITERATIONS = 20
MAX_EPISODES = 5  # episodes in an iteration, if a better policy's episodes may be much longer
MIN_EPISODE_STEPS = 10  # agent steps in a random episode: limits the action repeat if episodes end soon
MAX_REPEATS = 8
MIN_LOOKAHEAD, MAX_LOOKAHEAD = 10, 333  # agent steps that a discount looks ahead; 333 are DreamerV3's
SPARSE = 0.95  # share of zeros among the rewards, from which on they are sparse
HANDLED_KEYS = ("benchmark", "domain_name", "task_name", "from_pixels", "frame_skip", "seed", "num_envs")


class Setting(NamedTuple):
    """Holds a key, its value, and the rule that gives the value, as text ("": none needed)."""

    key: str
    value: Any
    rule: str = ""


def suggest(config: Config, play: Play) -> list[Setting]:
    """Return the suggested settings, first the base that they change. config, play: as for `findings`."""
    pixels = sees_pixels(config, play)
    environment = suggested_environment(config, play)
    action_repeat = next(setting.value for setting in environment if setting.key == "environment.frame_skip")
    max_length = max(1, math.ceil(play.longest_episode / action_repeat))
    settings = [
        Setting("base", f"{PIXELS_BASE if pixels else BASE}.yml"),
        Setting("operation.log_dir", f"suggested-{config.operation.log_dir}"),
        *environment,
        *schedule_settings(max_length, mean_episode_length(play) / action_repeat, action_repeat, pixels),
        discount_setting(play, max_length),
        continue_flag_setting(config, play),
        *learning_rate_settings(play),
        *exploration_settings(play, action_repeat, pixels),
    ]
    return settings


def suggested_environment(config: Config, play: Play) -> list[Setting]:
    """Return the settings of the environment: the given ones, except for observations and action repeat."""
    environment, defaults = config.environment, flatten(read_mapping(DEFAULTS))
    names = ["benchmark", "task_name"]
    if environment.benchmark == "dmc":
        names.insert(1, "domain_name")
    settings = [Setting(f"environment.{name}", environment[name]) for name in names]
    from_pixels = environment.from_pixels and environment.benchmark != "dmc"
    rule = "rendered pixels" if from_pixels else "the environment's observations: faster to learn from"
    settings.append(Setting("environment.from_pixels", from_pixels, rule))
    settings.append(action_repeat_setting(config, play))
    for key, value in flatten({"environment": environment}).items():
        if value != defaults.get(key) and key.removeprefix("environment.") not in HANDLED_KEYS and value != {}:
            settings.append(Setting(key, value))
    return settings


def sees_pixels(config: Config, play: Play) -> bool:
    """Return whether the suggested agent sees pixels. In the Control Suite it sees vectors."""
    parts: list[Any] = [play.observation_space]
    if isinstance(play.observation_space, spaces.Dict):
        parts = list(play.observation_space.spaces.values())
    return config.environment.benchmark != "dmc" and any(len(part.shape) == 3 for part in parts)


def action_repeat_setting(config: Config, play: Play) -> Setting:
    """Return the setting of the action repeat: it gives about DECISIONS agent steps in an episode."""
    longest_episode, key = play.longest_episode, "environment.frame_skip"
    if config.environment.benchmark == "atari":
        return Setting(key, 4, "Atari's custom")
    if not isinstance(play.env_spaces.action, spaces.Box):
        return Setting(key, 1, "discrete actions: with repeats, an action could not be taken once")
    repeats = min(round(longest_episode / EPISODE_STEPS), mean_episode_length(play) / MIN_EPISODE_STEPS)
    repeats = int(min(max(1, repeats), MAX_REPEATS))
    rule = f"near {EPISODE_STEPS} decisions in up to {longest_episode:,} env steps; "
    rule += f"at least {MIN_EPISODE_STEPS} in a random episode"
    return Setting(key, repeats, rule)


def mean_episode_length(play: Play) -> float:
    """Return the mean env steps of a random episode; if none has ended, those of the longest possible one."""
    if not play.episodes:
        return float(play.longest_episode)
    return float(np.mean([episode.env_steps for episode in play.episodes]))


def schedule_settings(max_length: int, random_length: float, action_repeat: int, pixels: bool) -> list[Setting]:
    """Return the settings of the run's length.

    max_length, random_length: agent steps in an episode at most, and in a random one. action_repeat: env steps in an
    agent step.
    """
    budget, prefix = BUDGET["pixels" if pixels else "vector"], "parameters.dreamer."
    episodes = max(1, round(EPISODE_STEPS / max_length), min(MAX_EPISODES, round(EPISODE_STEPS / random_length)))
    iterations = max(MIN_ITERATIONS, round(budget / (episodes * random_length)))
    settings = [Setting(f"{prefix}train_iterations", iterations, "as many agent steps as in the quick starts, or more")]
    if random_length < max_length / 2:
        rule = f"the same limit for episodes that get longer: up to {max_length:,} agent steps"
        settings.append(Setting(f"{prefix}max_env_steps", budget * action_repeat, rule))
    if episodes > 1:
        rule = f"short episodes: an iteration has about {EPISODE_STEPS} agent steps, or {MAX_EPISODES} episodes"
        settings.append(Setting(f"{prefix}num_interaction_episodes", episodes, rule))
        settings.append(Setting(f"{prefix}num_evaluate", min(10, episodes), "short episodes: more for a mean"))
    return settings


def discount_setting(play: Play, max_length: int) -> Setting:
    """Return the setting of the discount, which looks as far ahead as the rewards require."""
    rewards = np.array(play.recorder.rewards)
    is_sparse = len(rewards) > 0 and float((rewards == 0).mean()) >= SPARSE
    if is_sparse:
        lookahead, reason = max_length, "rare rewards: the whole"
    elif terminates(play):
        lookahead, reason = max_length, "episodes terminate: the whole"
    else:
        lookahead, reason = round(max_length / 5), "frequent rewards: a fifth"
    lookahead = min(MAX_LOOKAHEAD, max(MIN_LOOKAHEAD, lookahead))
    rule = f"1 - 1/{lookahead}; {reason} of {max_length:,} decisions, at least {MIN_LOOKAHEAD}, at most {MAX_LOOKAHEAD}"
    return Setting("parameters.dreamer.discount", round(1 - 1 / lookahead, 5), rule)


def continue_flag_setting(config: Config, play: Play) -> Setting:
    """Return the setting of use_continue_flag: whether the model predicts the end of the task."""
    key = "parameters.dreamer.use_continue_flag"
    if suspected_time_limit(play):
        return Setting(key, False, "terminated looks like a time limit, after which rewards could go on")
    if terminates(play):
        return Setting(key, True, "episodes terminate")
    if config.environment.benchmark == "dmc":
        return Setting(key, False, "the Control Suite's tasks never terminate")
    return Setting(key, True, "no random episode terminated, but those of a better policy might")


def learning_rate_settings(play: Play) -> list[Setting]:
    """Return the settings of learning rates and imagined steps, for tasks whose episodes terminate."""
    if not terminates(play):
        return []
    prefix, rule = "parameters.dreamer.", "as in quick-v3-cartpole: at higher rates a learned return falls again"
    return [
        Setting(f"{prefix}horizon_length", 15, "imagination must reach the end of the task"),
        Setting(f"{prefix}model_learning_rate", 6e-4, rule),
        Setting(f"{prefix}actor_learning_rate", 2e-4),
        Setting(f"{prefix}critic_learning_rate", 4e-4),
    ]


def exploration_settings(play: Play, action_repeat: int, pixels: bool) -> list[Setting]:
    """Return the settings of Plan2Explore, if random actions find no reward."""
    if not has_uninformative_rewards(play):
        return []
    explore_env_steps = BUDGET["pixels" if pixels else "vector"] * action_repeat // 2
    prefix = "parameters.plan2explore."
    return [
        Setting("algorithm", "plan2explore", "random play finds no reward: explore where the model is uncertain"),
        Setting(f"{prefix}explore_env_steps", explore_env_steps, "then the task's own actor collects"),
        Setting(f"{prefix}num_ensemble", 5, "small, as in quick-p2e-pendulum-swingup"),
        Setting(f"{prefix}one_step_model.num_layers", 2),
        Setting(f"{prefix}one_step_model.hidden_size", 64),
    ]


def yaml_text(settings: list[Setting], header: str) -> str:
    """Return settings as the text of a YAML file. header: the file's first lines."""
    sections: dict[str, Any] = {}
    for setting in settings:
        *parents, name = setting.key.split(".")
        section = sections
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = setting
    return "\n".join([header, *yaml_lines(sections, "")]) + "\n"


def yaml_lines(tree: dict[str, Any], indent: str) -> list[str]:
    """Return the YAML lines of a section."""
    lines = []
    for name, value in tree.items():
        if isinstance(value, Setting):
            line = f"{indent}{name}: {yaml_value(value.value)}"
            lines.append(f"{line:40}  # {value.rule}" if value.rule else line)
        else:
            lines += [f"{indent}{name}:", *yaml_lines(value, f"{indent}  ")]
    return lines


def yaml_value(value: Any) -> str:
    """Return a value as YAML on one line."""
    return str(value) if isinstance(value, bool) else json.dumps(value)

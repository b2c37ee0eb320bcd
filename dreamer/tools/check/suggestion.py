"""Suggest a configuration for an environment, each setting with its rule as a comment."""

import json
import math
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from dreamer.config.load import Config
from dreamer.config.schema import DEFAULTS
from dreamer.config.yaml_files import flatten, read_mapping
from dreamer.tools.check.findings import hidden_limit, is_silent, terminates
from dreamer.tools.check.play import Play

DECISIONS = 250  # agent steps in an episode, as in the quick starts
BUDGET = {"vector": 20_000, "pixels": 8_000}  # agent steps of a run, as in the quick starts of DreamerV3
FEWEST = 20  # iterations
MOST_GROWING = 5  # episodes in an iteration, if a better policy's episodes may be much longer
FEWEST_DECISIONS = 10  # agent steps in a random episode: limits the action repeat if episodes end soon
MOST_REPEATS = 8
NEAR, FARTHEST = 10, 333  # agent steps that a discount looks ahead; 333 are DreamerV3's
SPARSE = 0.95  # share of zeros among the rewards, from which on they are sparse
OTHERS = ("benchmark", "domain_name", "task_name", "from_pixels", "frame_skip", "seed", "num_envs")


class Setting(NamedTuple):
    """Holds a key, its value, and the rule that gives the value, as text ("": none needed)."""

    key: str
    value: Any
    rule: str = ""


def suggest(config: Config, play: Play) -> list[Setting]:
    """Return the settings to put on top of quick-v3.yml. config, play: as for `findings`."""
    pixels = sees_pixels(config, play)
    environment = suggested_environment(config, play)
    skip = next(each.value for each in environment if each.key == "environment.frame_skip")
    decisions = max(1, math.ceil(play.longest / skip))
    settings = [Setting("operation.log_dir", f"suggested-{config.operation.log_dir}"), *environment]
    settings += [
        *schedule(decisions, usual_length(play) / skip, skip, pixels),
        discount(play, decisions),
        continue_flag(config, play),
        *rates(play),
        *(sizes() if pixels else []),
        *exploration(play, skip, pixels),
    ]
    return settings


def suggested_environment(config: Config, play: Play) -> list[Setting]:
    """Return the settings of the environment: the given ones, except for observations and action repeat."""
    given, defaults = config.environment, flatten(read_mapping(DEFAULTS))
    names = ["benchmark", *(["domain_name"] if given.benchmark == "dmc" else []), "task_name"]
    settings = [Setting(f"environment.{name}", given[name]) for name in names]
    from_pixels = given.from_pixels and given.benchmark != "dmc"
    rule = "rendered pixels" if from_pixels else "the environment's observations: faster to learn from"
    settings.append(Setting("environment.from_pixels", from_pixels, rule))
    settings.append(repeats(config, play))
    for key, value in flatten({"environment": given}).items():
        if value != defaults.get(key) and key.removeprefix("environment.") not in OTHERS and value != {}:
            settings.append(Setting(key, value))
    return settings


def sees_pixels(config: Config, play: Play) -> bool:
    """Return whether the suggested agent sees pixels. In the Control Suite it sees vectors."""
    is_dict = isinstance(play.seen, spaces.Dict)
    parts: list[Any] = list(play.seen.spaces.values()) if is_dict else [play.seen]
    return config.environment.benchmark != "dmc" and any(len(part.shape) == 3 for part in parts)


def repeats(config: Config, play: Play) -> Setting:
    """Return the setting of the action repeat: it gives about DECISIONS agent steps in an episode."""
    longest, key = play.longest, "environment.frame_skip"
    if config.environment.benchmark == "atari":
        return Setting(key, 4, "Atari's custom")
    if not isinstance(play.own.action, spaces.Box):
        return Setting(key, 1, "discrete actions: with repeats, an action could not be taken once")
    amount = int(max(1, min(MOST_REPEATS, round(longest / DECISIONS), usual_length(play) / FEWEST_DECISIONS)))
    rule = f"near {DECISIONS} decisions in up to {longest:,} env steps; at least {FEWEST_DECISIONS} in a random episode"
    return Setting(key, amount, rule)


def usual_length(play: Play) -> float:
    """Return the mean env steps of a random episode; if none has ended, those of the longest possible one."""
    return float(np.mean([episode.env_steps for episode in play.episodes] or [play.longest]))


def schedule(decisions: int, usual: float, skip: int, pixels: bool) -> list[Setting]:
    """Return the settings of the run's length.

    decisions, usual: agent steps in an episode at most, and in a random one. skip: env steps in an agent step.
    """
    budget, where = BUDGET["pixels" if pixels else "vector"], "parameters.dreamer."
    episodes = max(1, round(DECISIONS / decisions), min(MOST_GROWING, round(DECISIONS / usual)))
    iterations = max(FEWEST, round(budget / (episodes * usual)))
    settings = [Setting(f"{where}train_iterations", iterations, "as many agent steps as in the quick starts, or more")]
    if usual < decisions / 2:
        rule = f"the same limit for episodes that get longer: up to {decisions:,} agent steps"
        settings.append(Setting(f"{where}max_env_steps", budget * skip, rule))
    if episodes > 1:
        rule = f"short episodes: an iteration has about {DECISIONS} agent steps, or {MOST_GROWING} episodes"
        settings.append(Setting(f"{where}num_interaction_episodes", episodes, rule))
        settings.append(Setting(f"{where}num_evaluate", min(10, episodes), "short episodes: more for a mean"))
    return settings


def discount(play: Play, decisions: int) -> Setting:
    """Return the setting of the discount: it looks as far ahead as the rewards require."""
    given = np.array(play.watched.rewards)
    sparse = len(given) > 0 and float((given == 0).mean()) >= SPARSE
    whole = sparse or terminates(play)
    ahead = min(FARTHEST, max(NEAR, decisions if whole else round(decisions / 5)))
    reason = "frequent rewards: a fifth"
    if whole:
        reason = f"{'rare rewards' if sparse else 'episodes terminate'}: the whole"
    rule = f"1 - 1/{ahead}; {reason} of {decisions:,} decisions, at least {NEAR}, at most {FARTHEST}"
    return Setting("parameters.dreamer.discount", round(1 - 1 / ahead, 5), rule)


def continue_flag(config: Config, play: Play) -> Setting:
    """Return the setting of use_continue_flag: whether the model predicts the end of the task."""
    key = "parameters.dreamer.use_continue_flag"
    if hidden_limit(play):
        return Setting(key, False, "terminated looks like a time limit, after which rewards could go on")
    if terminates(play):
        return Setting(key, True, "episodes terminate")
    if config.environment.benchmark == "dmc":
        return Setting(key, False, "the Control Suite's tasks never terminate")
    return Setting(key, True, "no random episode terminated, but those of a better policy might")


def rates(play: Play) -> list[Setting]:
    """Return the settings of learning rates and imagined steps, for tasks whose episodes terminate."""
    if not terminates(play):
        return []
    where, rule = "parameters.dreamer.", "as in quick-v3-cartpole: at higher rates a learned return falls again"
    return [
        Setting(f"{where}horizon_length", 15, "imagination must reach the end of the task"),
        Setting(f"{where}model_learning_rate", 6e-4, rule),
        Setting(f"{where}actor_learning_rate", 2e-4),
        Setting(f"{where}critic_learning_rate", 4e-4),
    ]


def sizes() -> list[Setting]:
    """Return the settings of sizes, for networks that see pixels."""
    where = "parameters.dreamer."
    return [
        Setting(f"{where}train_ratio", 51, "pixels: an update costs more, so fewer of them"),
        Setting(f"{where}deterministic_size", 256, "pixels: the sizes of quick-v3-pixels-cheetah-run"),
        Setting(f"{where}stochastic_size", 16),
        Setting(f"{where}encoder.architecture", "strided"),
        Setting(f"{where}encoder.depth", 8),
        Setting(f"{where}decoder.depth", 8),
    ]


def exploration(play: Play, skip: int, pixels: bool) -> list[Setting]:
    """Return the settings of Plan2Explore, if random actions find no reward."""
    if not is_silent(play):
        return []
    half = BUDGET["pixels" if pixels else "vector"] * skip // 2
    where = "parameters.plan2explore."
    return [
        Setting("algorithm", "plan2explore", "random play finds no reward: explore where the model is uncertain"),
        Setting(f"{where}explore_env_steps", half, "then the task's own actor collects"),
        Setting(f"{where}num_ensemble", 5, "small, as in quick-p2e-pendulum-swingup"),
        Setting(f"{where}one_step_model.num_layers", 2),
        Setting(f"{where}one_step_model.hidden_size", 64),
    ]


def yaml_text(settings: list[Setting], about: str) -> str:
    """Return settings as the text of a YAML file. about: the file's first lines."""
    lines = [about, "base: quick-v3.yml"]
    tree: dict[str, Any] = {}
    for setting in settings:
        *above, name = setting.key.split(".")
        section = tree
        for part in above:
            section = section.setdefault(part, {})
        section[name] = setting
    return "\n".join([*lines, *written(tree, "")]) + "\n"


def written(tree: dict[str, Any], indent: str) -> list[str]:
    """Return the YAML lines of a section."""
    lines = []
    for name, value in tree.items():
        if isinstance(value, Setting):
            line = f"{indent}{name}: {plain(value.value)}"
            lines.append(f"{line:40}  # {value.rule}" if value.rule else line)
        else:
            lines += [f"{indent}{name}:", *written(value, f"{indent}  ")]
    return lines


def plain(value: Any) -> str:
    """Return a value as YAML on one line."""
    return str(value) if isinstance(value, bool) else json.dumps(value)

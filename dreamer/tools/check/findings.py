"""Find problems of an environment or of a configuration for it, each with advice."""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from dreamer.config.load import Config
from dreamer.envs.observation import hints, split
from dreamer.errors import EnvFault
from dreamer.tools.check.env_recorder import PartStatistics
from dreamer.tools.check.play import Play, first_difference

REFUSED, PROBLEM, NOTE = "refused", "problem", "note"
HINT_PREFIX = "a picture?"  # begins the line that training prints about a possible picture
LARGE_REWARD = 100.0  # of a step: the reward model of versions 1 and 2 predicts it with a std of 1
SMALL_RETURN = 0.01  # version 3 divides returns by their range, but never by less than 1
LARGE_NUMBER = 100.0  # in a vector without symlog: so large an input dominates the others
WIDE_ACTION = 1000.0  # a bound, with which small changes of the actor's output are large actions
ENOUGH_EPISODES = 3  # from which on a property of all episodes is a finding
ENOUGH_STEPS = 100  # env steps from which on equal rewards are a finding, if no episode ended
LONG_EPISODE = 2000  # env steps without an end, from which on this is a problem
SHORT_EPISODE = 10  # env steps: if all episodes end sooner, that is not taken for a time limit
MAX_LOOKAHEAD = 2.0  # largest multiple of an episode's length that the discount may look ahead
LONG_RUN = 24.0  # hours of a run, from which on its time is a finding


class Finding(NamedTuple):
    """Tells the user something to know before training."""

    level: str  # REFUSED: training ends with this line; PROBLEM: learning suffers; NOTE: good to know
    what: str
    advice: str = ""

    def rank(self) -> int:
        """Return a sort key that puts the worst level first."""
        return (REFUSED, PROBLEM, NOTE).index(self.level)


def error_finding(error: Exception) -> Finding:
    """Return the finding about an error with which training would end, with the line that training prints.

    Frequent errors get advice; the others already name what is expected.
    """
    message, advice = str(error), ""
    problem = message.partition("; expected")[0]
    if re.search(": actions.* must be", message):
        advice = (
            "give a Box finite bounds, such as Box(-1, 1, shape), and scale in step to what the simulator takes; "
            "integers are Discrete or MultiDiscrete"
        )
    elif isinstance(error, EnvFault):
        advice = f"repair it{describe_code_location(error)}"
    elif re.search(r" gave the .*(nan|inf|e\+)", problem):
        advice = "find it: play to that step under numpy.seterr(all='raise'); or end the episode there (terminated)"
    elif " gave the observation " in problem:
        advice = "return it in this form, or let observation_space say what is returned"
    return Finding(REFUSED, message, advice)


def describe_code_location(fault: EnvFault) -> str:
    """Return text on where an environment's own code has failed: the innermost line outside of installed packages."""
    locations = re.findall(r'File "(.+)", line (\d+), in (.+)', fault.trace)
    own_locations = [location for location in locations if "site-packages" not in location[0]] or locations
    return ": {}, line {}, in {}".format(*own_locations[-1]) if own_locations else ""


def find_problems(play: Play, second_play: Play | None, config: Config, config_is_named: bool) -> list[Finding]:
    """Return the findings from random play.

    second_play: with the same seed. config_is_named: whether the user has named the configuration; only then its
    settings are checked.
    """
    findings = [error_finding(play.error)] if play.error else []
    findings += episode_findings(play)
    findings += reward_findings(play)
    findings += observation_findings(play)
    findings += seed_findings(play, second_play)
    findings += action_findings(play.env_spaces.action)
    if config_is_named:
        findings += setting_findings(play, config)
    return findings


def episode_findings(play: Play) -> Iterator[Finding]:
    """Yield findings about the ends of episodes."""
    if not play.episodes and not play.error and not play.time_limit:
        message = f"no episode ended within {play.env_steps:,} env steps"
        advice = "an iteration ends with an episode: set max_episode_steps in gymnasium.register, or truncated=True"
        yield Finding(PROBLEM if play.env_steps >= LONG_EPISODE else NOTE, message, advice)
    time_limit = suspected_time_limit(play)
    if time_limit:
        message = f"every episode ends with terminated after {time_limit:,} env steps, as by a clock"
        yield Finding(
            PROBLEM,
            message,
            "if it is a time limit, return truncated=True instead (or max_episode_steps of gymnasium.register): "
            "terminated tells the agent that nothing comes after",
        )


def suspected_time_limit(play: Play) -> int | None:
    """Return the env steps after which every episode terminates; None if they differ or episodes are few or short."""
    lengths = {episode.env_steps for episode in play.episodes}
    if len(play.episodes) < ENOUGH_EPISODES or play.terminated < len(play.episodes) or len(lengths) > 1:
        return None
    length = lengths.pop()
    return length if length >= SHORT_EPISODE else None


def terminates(play: Play) -> bool:
    """Return whether episodes terminate, and not always after the same number of steps."""
    return play.terminated > 0 and not suspected_time_limit(play)


def reward_findings(play: Play) -> Iterator[Finding]:
    """Yield findings about the rewards."""
    rewards = np.array(play.recorder.rewards)
    if not len(rewards):
        return
    explore = "algorithm: plan2explore explores without it (as suggested)"
    if has_uninformative_rewards(play) and not rewards[0]:
        message = f"no reward in {len(rewards):,} random env steps: each was 0"
        yield Finding(PROBLEM, message, f"check that step returns it; if it is rare, {explore}")
    elif has_uninformative_rewards(play):
        message = f"every reward is {rewards[0]:g}, and no random episode terminates: "
        message += "no action seems better than another"
        yield Finding(PROBLEM, message, f"check what the reward depends on; if it is the end, {explore}")
    largest = max((abs(episode.total) for episode in play.episodes), default=0.0)
    if rewards.any() and 0 < largest < SMALL_RETURN:
        message = f"rewards are tiny: the returns of random episodes reach {largest:.2g}"
        yield Finding(PROBLEM, message, f"multiply them by about {10 ** -math.floor(math.log10(largest)):g}")


def has_uninformative_rewards(play: Play) -> bool:
    """Return whether enough random play gave only equal rewards, and these are 0 or no episode terminated."""
    distinct_rewards = set(play.recorder.rewards)
    has_enough_steps = len(play.episodes) > 0 or play.env_steps >= ENOUGH_STEPS
    return has_enough_steps and len(distinct_rewards) == 1 and (distinct_rewards == {0} or not play.terminated)


def observation_findings(play: Play) -> Iterator[Finding]:
    """Yield findings about the parts of the observation."""
    if play.recorder.parts:
        for line in hints(split(play.env_spaces.observation)[1]):
            message, _, advice = line.removeprefix(HINT_PREFIX).strip().partition("; ")
            advice += conversion_advice(play, message)
            yield Finding(PROBLEM, f"a picture is treated as numbers: {message}", advice)
    for statistics in play.recorder.parts:
        yield from part_findings(statistics)
    distinct_frames = {observation for observation, _, _ in play.trace}
    if not play.recorder.parts and len(play.trace) > 1 and len(distinct_frames) == 1:
        yield Finding(PROBLEM, f"all {len(play.trace)} frames are the same", "check what render returns")


def conversion_advice(play: Play, message: str) -> str:
    """Return advice to convert a picture to uint8, "" if its range is not [0, 1]. message: begins with the part's
    name."""
    for statistics in play.recorder.parts:
        if message.startswith(f"{statistics.part.name} ") and statistics.low >= 0 and statistics.high <= 1:
            return ": space Box(0, 255, shape, np.uint8), values (255 * picture).astype(np.uint8)"
    return ""


def part_findings(statistics: PartStatistics) -> Iterator[Finding]:
    """Yield findings about one part of the observation."""
    name = statistics.part.name
    if statistics.out_of_bounds:
        message = f"{name} {statistics.out_of_bounds}"
        yield Finding(NOTE, message, "harmless here: the bounds are not used; widen the space")
    if statistics.array_is_reused:
        message = f"{name} is one array that each step overwrites: the second step changed the first observation"
        yield Finding(NOTE, message, "harmless here, since training copies it; other programs need a copy returned")
    if not statistics.has_changed and statistics.first_value:
        yield Finding(NOTE, f"{name} never changed", "leave it out, unless other actions than random ones change it")


def seed_findings(play: Play, second_play: Play | None) -> Iterator[Finding]:
    """Yield findings about random numbers that make two runs with one seed differ."""
    step = first_difference(play, second_play) if second_play else None
    if step is not None:
        yield Finding(
            PROBLEM,
            f"two environments with one seed differ from step {step} on: runs cannot be repeated",
            "draw all random numbers from self.np_random, which reset(seed=seed) seeds",
        )
    elif play.resets_agree is False and not play.has_state_dict:
        yield Finding(
            NOTE,
            "reset(seed=…) twice gives two first observations: some state lasts from one episode to the next",
            "reset that state, too, or define state_dict and load_state_dict, so that a resumed run is exact",
        )


def action_findings(space: Any) -> Iterator[Finding]:
    """Yield findings about the action space."""
    if not isinstance(space, spaces.Box):
        return
    widest = float(np.abs([space.low, space.high]).max())
    if widest > WIDE_ACTION:
        message = f"actions reach {widest:g}: 0.01 in the actor's output, from -1 to 1, is {widest / 100:g}"
        yield Finding(NOTE, message, "narrow the bounds to the useful range")


def setting_findings(play: Play, config: Config) -> Iterator[Finding]:
    """Yield findings about settings that do not suit the environment."""
    settings = config.parameters.dreamer
    if terminates(play) and not settings.use_continue_flag:
        message = f"{play.terminated} of {len(play.episodes)} random episodes terminated, "
        message += "and use_continue_flag is False"
        yield Finding(PROBLEM, message, "parameters.dreamer.use_continue_flag=True")
    largest = max(map(abs, play.recorder.rewards), default=0.0)
    if largest > LARGE_REWARD and settings.reward.distribution == "normal" and settings.reward_transform == "none":
        message = f"a reward of {largest:g} is more than version {config.version}'s reward model can learn"
        advice = f"divide rewards by {largest:.1g} in the environment, or take DreamerV3 (quick-v3)"
        yield Finding(PROBLEM, message, advice)
    yield from large_vector_findings(play, settings)
    episode_length = play.longest_episode / config.environment.frame_skip
    lookahead = 1 / max(1e-9, 1 - settings.discount)
    if play.episodes and lookahead > MAX_LOOKAHEAD * episode_length and not play.terminated:
        message = f"discount {settings.discount:g} looks {lookahead:,.0f} steps ahead, "
        message += f"but an episode has {episode_length:,.0f}"
        yield Finding(NOTE, message, "a lower one learns faster: see the suggested configuration")


def large_vector_findings(play: Play, settings: Config) -> Iterator[Finding]:
    """Yield findings about parts whose numbers are too large for a network without symlog."""
    if settings.symlog_inputs:
        return
    for statistics in play.recorder.parts:
        if isinstance(statistics.part.space, spaces.Box) and statistics.summary()["as"] == "numbers":
            largest = max(abs(statistics.low), abs(statistics.high))
            if LARGE_NUMBER < largest < math.inf:
                message = f"{statistics.part.name} reaches {largest:g}, and symlog_inputs is False"
                yield Finding(PROBLEM, message, "parameters.dreamer.symlog_inputs=True, or scale it in the environment")


def duration_findings(hours: float, config_is_named: bool) -> list[Finding]:
    """Return the finding about a run that takes very long on this machine. hours: of the whole run."""
    if not config_is_named or hours < LONG_RUN:
        return []
    message = f"the run takes about {hours / 24:,.1f} days on this machine"
    return [Finding(PROBLEM, message, "take a GPU, a smaller size (size1m), or the suggested configuration")]

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
from dreamer.tools.check.play import Play, differs_at
from dreamer.tools.check.watch import SeenPart

REFUSED, PROBLEM, NOTE = "refused", "problem", "note"
HINT = "a picture?"  # begins the line that training prints about a possible picture
LARGE_REWARD = 100.0  # of a step: the reward model of versions 1 and 2 predicts it with a std of 1
SMALL_RETURN = 0.01  # version 3 divides returns by their range, but never by less than 1
LARGE_NUMBER = 100.0  # in a vector without symlog: so large an input dominates the others
WIDE_ACTION = 1000.0  # a bound, with which small changes of the actor's output are large actions
ENOUGH_EPISODES = 3  # from which on a property of all episodes is a finding
ENOUGH_STEPS = 100  # env steps from which on equal rewards are a finding, if no episode ended
LONG_EPISODE = 2000  # env steps without an end, from which on this is a problem
SHORT = 10  # env steps: if all episodes end sooner, that is not taken for a time limit
FAR = 2.0  # largest multiple of an episode's length that the discount may look ahead
LONG = 24.0  # hours of a run, from which on its time is a finding


class Finding(NamedTuple):
    """Tells the user something to know before training."""

    level: str  # REFUSED: training ends with this line; PROBLEM: learning suffers; NOTE: good to know
    what: str
    advice: str = ""

    def rank(self) -> int:
        """Return a sort key that puts the worst level first."""
        return (REFUSED, PROBLEM, NOTE).index(self.level)


def refused(error: Exception) -> Finding:
    """Return the finding about an error with which training would end, with the line that training prints.

    Frequent errors get advice; the others already name what is expected.
    """
    line, advice = str(error), ""
    given = line.partition("; expected")[0]
    if re.search(": actions.* must be", line):
        advice = (
            "give a Box finite bounds, such as Box(-1, 1, shape), and scale in step to what the simulator takes; "
            "integers are Discrete or MultiDiscrete"
        )
    elif isinstance(error, EnvFault):
        advice = f"repair it{place_of(error)}"
    elif re.search(r" gave the .*(nan|inf|e\+)", given):
        advice = "find it: play to that step under numpy.seterr(all='raise'); or end the episode there (terminated)"
    elif " gave the observation " in given:
        advice = "return it in this form, or let observation_space say what is returned"
    return Finding(REFUSED, line, advice)


def place_of(fault: EnvFault) -> str:
    """Return, as text, where an environment's own code has failed: the innermost line outside of installed packages."""
    places = re.findall(r'File "(.+)", line (\d+), in (.+)', fault.trace)
    own = [place for place in places if "site-packages" not in place[0]] or places
    return ": {}, line {}, in {}".format(*own[-1]) if own else ""


def findings(play: Play, again: Play | None, config: Config, is_given: bool) -> list[Finding]:
    """Return the findings from random play.

    again: a second play with the same seed. is_given: whether the user has named the configuration; only then it is
    judged, too.
    """
    found = [refused(play.trouble)] if play.trouble else []
    found += [*episodes(play), *rewards(play), *observations(play), *randomness(play, again), *actions(play.own.action)]
    if is_given:
        found += settings(play, config)
    return found


def episodes(play: Play) -> Iterator[Finding]:
    """Yield findings about the ends of episodes."""
    if not play.episodes and not play.trouble and not play.limit:
        what = f"no episode ended within {play.env_steps:,} env steps"
        advice = "an iteration ends with an episode: set max_episode_steps in gymnasium.register, or truncated=True"
        yield Finding(PROBLEM if play.env_steps >= LONG_EPISODE else NOTE, what, advice)
    if clock := hidden_limit(play):
        what = f"every episode ends with terminated after {clock:,} env steps, as by a clock"
        yield Finding(
            PROBLEM,
            what,
            "if it is a time limit, return truncated=True instead (or max_episode_steps of gymnasium.register): "
            "terminated tells the agent that nothing comes after",
        )


def hidden_limit(play: Play) -> int | None:
    """Return the env steps after which every episode terminates; None if they differ or episodes are few or short."""
    lengths = {episode.env_steps for episode in play.episodes}
    always = play.terminated == len(play.episodes) >= ENOUGH_EPISODES
    return lengths.pop() if always and len(lengths) == 1 and min(lengths) >= SHORT else None


def terminates(play: Play) -> bool:
    """Return whether episodes terminate, and not always after the same number of steps."""
    return play.terminated > 0 and not hidden_limit(play)


def rewards(play: Play) -> Iterator[Finding]:
    """Yield findings about the rewards."""
    given = np.array(play.watched.rewards)
    if not len(given):
        return
    explore = "algorithm: plan2explore explores without it (as suggested)"
    if is_silent(play) and not given[0]:
        what = f"no reward in {len(given):,} random env steps: each was 0"
        yield Finding(PROBLEM, what, f"check that step returns it; if it is rare, {explore}")
    elif is_silent(play):
        what = f"every reward is {given[0]:g}, and no random episode terminates: no action seems better than another"
        yield Finding(PROBLEM, what, f"check what the reward depends on; if it is the end, {explore}")
    largest = max((abs(episode.total) for episode in play.episodes), default=0.0)
    if given.any() and 0 < largest < SMALL_RETURN:
        what = f"rewards are tiny: the returns of random episodes reach {largest:.2g}"
        yield Finding(PROBLEM, what, f"multiply them by about {10 ** -math.floor(math.log10(largest)):g}")


def is_silent(play: Play) -> bool:
    """Return whether enough random play gave only equal rewards, and these are 0 or no episode terminated."""
    kinds = set(play.watched.rewards)
    enough = len(play.episodes) > 0 or play.env_steps >= ENOUGH_STEPS
    return enough and len(kinds) == 1 and (kinds == {0} or not play.terminated)


def observations(play: Play) -> Iterator[Finding]:
    """Yield findings about the parts of the observation."""
    if play.watched.parts:
        for line in hints(split(play.own.observation)[1]):
            what, _, advice = line.removeprefix(HINT).strip().partition("; ")
            yield Finding(PROBLEM, f"a picture is treated as numbers: {what}", f"{advice}{scaled(play, what)}")
    for seen in play.watched.parts:
        yield from part(seen)
    if not play.watched.parts and len(play.trace) > 1 and len({seen for seen, *_ in play.trace}) == 1:
        yield Finding(PROBLEM, f"all {len(play.trace)} frames are the same", "check what render returns")


def scaled(play: Play, what: str) -> str:
    """Return advice to convert a picture to uint8, "" if its range is not [0, 1]. what: begins with its name."""
    ranges = [(seen.low, seen.high) for seen in play.watched.parts if what.startswith(f"{seen.part.name} ")]
    low, high = ranges[0] if ranges else (0.0, 255.0)
    if low < 0 or high > 1:
        return ""
    return ": space Box(0, 255, shape, np.uint8), values (255 * picture).astype(np.uint8)"


def part(seen: SeenPart) -> Iterator[Finding]:
    """Yield findings about one part of the observation."""
    name = seen.part.name
    if seen.outside:
        yield Finding(NOTE, f"{name} {seen.outside}", "harmless here: the bounds are not used; widen the space")
    if seen.reused:
        what = f"{name} is one array that each step overwrites: the second step changed the first observation"
        yield Finding(NOTE, what, "harmless here, since training copies it; other programs need a copy returned")
    if not seen.changes and seen.first:
        yield Finding(NOTE, f"{name} never changed", "leave it out, unless other actions than random ones change it")


def randomness(play: Play, again: Play | None) -> Iterator[Finding]:
    """Yield findings about random numbers that make two runs with one seed differ."""
    place = differs_at(play, again) if again else None
    if place is not None:
        yield Finding(
            PROBLEM,
            f"two environments with one seed differ from step {place} on: runs cannot be repeated",
            "draw all random numbers from self.np_random, which reset(seed=seed) seeds",
        )
    elif play.resets_agree is False and not play.keeps_state:
        yield Finding(
            NOTE,
            "reset(seed=…) twice gives two first observations: some state lasts from one episode to the next",
            "reset that state, too, or define state_dict and load_state_dict, so that a resumed run is exact",
        )


def actions(space: Any) -> Iterator[Finding]:
    """Yield findings about the action space."""
    if not isinstance(space, spaces.Box):
        return
    widest = float(np.abs([space.low, space.high]).max())
    if widest > WIDE_ACTION:
        what = f"actions reach {widest:g}: 0.01 in the actor's output, from -1 to 1, is {widest / 100:g}"
        yield Finding(NOTE, what, "narrow the bounds to the useful range")


def settings(play: Play, config: Config) -> Iterator[Finding]:
    """Yield findings about settings that do not suit the environment."""
    chosen = config.parameters.dreamer
    if terminates(play) and not chosen.use_continue_flag:
        what = f"{play.terminated} of {len(play.episodes)} random episodes terminated, and use_continue_flag is False"
        yield Finding(PROBLEM, what, "parameters.dreamer.use_continue_flag=True")
    largest = max(map(abs, play.watched.rewards), default=0.0)
    if largest > LARGE_REWARD and chosen.reward.distribution == "normal" and chosen.reward_transform == "none":
        what = f"a reward of {largest:g} is more than version {config.version}'s reward model can learn"
        yield Finding(
            PROBLEM, what, f"divide rewards by {largest:.1g} in the environment, or take DreamerV3 (quick-v3)"
        )
    yield from vectors(play, chosen)
    decisions, ahead = play.longest / config.environment.frame_skip, 1 / max(1e-9, 1 - chosen.discount)
    if play.episodes and ahead > FAR * decisions and not play.terminated:
        what = f"discount {chosen.discount:g} looks {ahead:,.0f} steps ahead, but an episode has {decisions:,.0f}"
        yield Finding(NOTE, what, "a lower one learns faster: see the suggested configuration")


def vectors(play: Play, chosen: Config) -> Iterator[Finding]:
    """Yield findings about parts whose numbers are too large for a network without symlog."""
    for seen in play.watched.parts:
        if isinstance(seen.part.space, spaces.Box) and seen.summary()["as"] == "numbers" and not chosen.symlog_inputs:
            largest = max(abs(seen.low), abs(seen.high))
            if LARGE_NUMBER < largest < math.inf:
                what = f"{seen.part.name} reaches {largest:g}, and symlog_inputs is False"
                yield Finding(PROBLEM, what, "parameters.dreamer.symlog_inputs=True, or scale it in the environment")


def costs(hours: float, is_given: bool) -> list[Finding]:
    """Return the finding about a run that takes very long on this machine. hours: of the whole run."""
    if not is_given or hours < LONG:
        return []
    what = f"the run takes about {hours / 24:,.1f} days on this machine"
    return [Finding(PROBLEM, what, "take a GPU, a smaller size (size1m), or the suggested configuration")]

"""Run a session: an environment, the agent that observes it, and dreams beside it. No threads or web here.

Shapes: F feature size, M memory, B dreams side by side.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils._pytree import tree_map

from dreamer.agent import Agent
from dreamer.algorithms.dream import Dream
from dreamer.tools.dream import messages
from dreamer.tools.dream.controls import action_of, controls_of, neutral_values
from dreamer.tools.dream.dream_arrays import last_step, map_arrays, repeat_action, repeat_state
from dreamer.tools.dream.reality import Arrival, Reality

KEPT_STEPS = 200  # steps that the user can go back to
VIEW_MESSAGES = messages.Step, messages.Reset, messages.Dream, messages.Wake, messages.Back, messages.Now


@dataclass(frozen=True)
class Moment:
    """Holds a step of reality, and the agent's latent state and predictions after it."""

    number: int  # of the session, from 0
    episode: int
    action: Any  # that led here, in the environment's own units; None if an episode begins here
    arrival: Arrival
    state: np.ndarray  # (F + M,), the agent's latent state
    decoded: Dream  # of this one state
    surprise: float  # KL(posterior || prior) in nats
    entropy: float  # of the actor's distribution, in nats
    disagreement: float | None  # of Plan2Explore's ensemble about where the action would lead


@dataclass(frozen=True)
class View:
    """Holds what the page shows of a step: reality on the left, dreams on the right."""

    number: int
    moment: Moment | None  # None if a dream goes on without a reality
    dream: Dream  # (B, ...), of one state each
    entropies: np.ndarray  # (B,), of the actor's distribution in the dreams, in nats
    action: Any  # that led here; None at the beginning
    dreaming: bool  # whether the right side is imagined; else it is decoded from the agent's real latent state


class Session:
    """Steps through reality and dreams, controlled by the messages of a page."""

    def __init__(self, agent: Agent, reality: Reality | None) -> None:
        """reality: None if the environment cannot be made. Then the agent dreams from the beginning of an episode."""
        self.agent, self.reality = agent, reality
        self.controls = controls_of(agent.action_space)
        self.manual_action: Any = None  # the person's
        if self.controls:
            self.manual_action = action_of(agent.action_space, neutral_values(self.controls))
        self.agent_action: Any = None  # the agent's next action
        self.who, self.playing, self.speed = "agent", True, 1.0
        self.count = 1  # dreams side by side
        self.dream: Dream | None = None  # None: awake
        self.shown_number: int | None = None  # of the step that is shown; None: reality's newest
        self.history: deque[Moment] = deque(maxlen=KEPT_STEPS)
        self.views: deque[View] = deque(maxlen=KEPT_STEPS)
        self.action: Any = None  # that led to the step that is shown
        self.begin()

    @property
    def shows_present(self) -> bool:
        """Whether there is a reality and its newest step is shown."""
        return self.reality is not None and self.shown_number is None

    @property
    def moment(self) -> Moment | None:
        """The step of reality that is shown; None if a dream has gone beyond the newest one."""
        return self.history[-1] if self.shows_present else self._moment_of(self.shown_number)

    def handle(self, message: messages.Message) -> bool:
        """Execute a message of the page. Return whether it changes the view."""
        match message:
            case messages.Play(on=on):
                self.playing = on
            case messages.Step():
                self.playing = False
                self.advance()
            case messages.Reset():
                self.begin()
            case messages.Dream(count=count):
                self.start_dreams(count)
            case messages.Wake():
                self.wake()
            case messages.Back(number=number):
                self.go_back(number)
            case messages.Now():
                self.return_to_present()
            case messages.Who(who=who):
                self.who = who
            case messages.Act(values=values) if len(values) == len(self.controls):
                self.manual_action = action_of(self.agent.action_space, values)
            case messages.Speed(factor=factor):
                self.speed = factor
        return isinstance(message, VIEW_MESSAGES)

    def advance(self) -> None:
        """Make one step: of reality and the dreams or, after going back, of the dreams alone."""
        if not self.shows_present:
            self._step_dreams()
        elif self.history[-1].arrival.ended:
            self.begin()
        else:
            self._step_reality()

    def begin(self) -> None:
        """Begin an episode without a dream. Without a reality, dream the beginning of an episode."""
        self.shown_number, self.dream, self.action = None, None, None
        self._let_agent_act()
        self.agent.reset()
        if self.reality is None:
            states = np.zeros((self.count, self.agent.model.rssm.stored_size))
            self.shown_number, self.dream = 0, last_step(self.agent.imagine(steps=1, state=states))
        else:
            episode = self.history[-1].episode + 1 if self.history else 0
            self._observe(self.reality.reset(), None, episode, None)

    def start_dreams(self, count: int) -> None:
        """Begin `count` dreams from the latent state that is shown."""
        moment = self.moment
        start = moment.decoded if moment else map_arrays(self._dreams(), lambda part: part[0])
        self.count, self.dream = count, repeat_state(start, count)

    def wake(self) -> None:
        """End the dreams. After going back, set them to the real latent state instead."""
        moment = self.moment
        if self.shows_present:
            self.dream, self.count = None, 1
        elif moment:
            self.dream = repeat_state(moment.decoded, self.count)

    def go_back(self, number: int) -> None:
        """Go back to a step that is kept, and dream from there with the past actions."""
        moment = self._moment_of(number)
        if moment:
            self.shown_number, self.who, self.playing = number, "again", True
            self.dream, self.action = repeat_state(moment.decoded, self.count), moment.action

    def return_to_present(self) -> None:
        """Return to the present, and end the dreams."""
        if self.reality is not None:
            self.shown_number, self.dream, self.action = None, None, self.history[-1].action
        self._let_agent_act()

    def view(self, keep: bool = True) -> View:
        """Return the view to show now. keep: whether a saved file includes it."""
        moment = self.moment
        dream = self._dreams() if self.dream else repeat_state(self.history[-1].decoded, 1)
        number = self.history[-1].number if self.shows_present else self.shown_number
        assert number is not None, "without reality's newest step, the shown step has a number"
        entropies = self.agent.entropy(dream.states)
        view = View(number, moment, dream, entropies, self.action, dreaming=self.dream is not None)
        if keep:
            self.views.append(view)
        return view

    def close(self) -> None:
        """Close the environment."""
        if self.reality:
            self.reality.close()

    def _let_agent_act(self) -> None:
        """Let the agent act from now on if past actions were repeated until now."""
        if self.who == "again":
            self.who = "agent"

    def _step_reality(self) -> None:
        """Make one step of reality, and of the dreams beside it."""
        assert self.reality, "there is a reality where it goes on"
        action = self.manual_action if self.who == "you" and self.controls else self.agent_action
        previous = self.history[-1]
        arrival = self.reality.step(action)
        disagreement = None
        if self.agent.one_step_model is not None:
            imagined: Any = self.agent.imagine(repeat_action(action), state=previous.state)
            disagreement = float(imagined.disagreement[0])
        if self.dream:
            self.dream = last_step(self.agent.imagine(repeat_action(action, self.count), state=self.dream.states))
        self._observe(arrival, action, previous.episode, disagreement)
        if arrival.ended:
            self.dream = None  # the next episode's beginning follows from no action

    def _step_dreams(self) -> None:
        """Make one step of the dreams from `place`, without a step of reality."""
        assert self.shown_number is not None, "dreams go on alone where one has gone back, or where there is no reality"
        next_moment = self._moment_of(self.shown_number + 1)
        if self.who == "again":
            if next_moment is None or next_moment.action is None:
                self.playing = False  # no past action is known for this step
                return
            actions = repeat_action(next_moment.action, self.count)
        elif self.who == "you" and self.controls:
            actions = repeat_action(self.manual_action, self.count)
        else:
            actions = None
        self.dream = last_step(self.agent.imagine(actions, steps=1, state=self._dreams().states))
        self.action = tree_map(lambda part: part[0], self.dream.actions)
        self.shown_number += 1

    def _observe(self, arrival: Arrival, action: Any, episode: int, disagreement: float | None) -> None:
        """Let the agent observe an arrival and choose its next action, and keep the moment."""
        # None: the agent knows its own action to the last digit.
        given_action = None if action is self.agent_action else action
        surprise = float(self.agent.surprise(arrival.observation, given_action))
        self.agent_action = self.agent.act(arrival.observation, action=given_action)
        number = self.history[-1].number + 1 if self.history else 0
        moment = Moment(
            number=number,
            episode=episode,
            action=action,
            arrival=arrival,
            state=self.agent.state,
            decoded=self.agent.reconstruct(),
            surprise=surprise,
            entropy=float(self.agent.entropy()),
            disagreement=disagreement,
        )
        self.history.append(moment)
        self.action = action

    def _moment_of(self, number: int | None) -> Moment | None:
        """Return the moment of a step's number; None if it is not kept."""
        if number is None or not self.history:
            return None
        index = number - self.history[0].number
        return self.history[index] if 0 <= index < len(self.history) else None

    def _dreams(self) -> Dream:
        assert self.dream, "asleep"
        return self.dream

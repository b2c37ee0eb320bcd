"""Make the messages to a page: one about the session when it begins, and one for each view."""

from typing import Any

import numpy as np

from dreamer.algorithms.dream import Dream
from dreamer.tools.dream.controls import neutral_values, values_of
from dreamer.tools.dream.messages import pack
from dreamer.tools.dream.reality import rgb
from dreamer.tools.dream.session import KEPT_STEPS, Session, View

MAX_NUMBERS = 64  # components of an observation's vector that are sent; further ones are not drawn


def describe_session(session: Session) -> dict[str, Any]:
    """Return the first message of a session: task, controls, names of the vector's components, and available curves."""
    agent, reality = session.agent, session.reality
    dream = session.view(keep=False).dream
    numbers = 0 if dream.vectors is None else dream.vectors.shape[-1]
    names = reality.names if reality else []
    config = agent.config
    return {
        "kind": "beginning",
        "task": task_name(config.environment),
        "iteration": agent.iteration,
        "kept": KEPT_STEPS,
        "controls": [control._asdict() for control in session.controls],
        "resting": neutral_values(session.controls),
        "rate": reality.frames_per_second if reality else None,
        "reality": reality is not None,
        "without_pictures": reality.without_pictures if reality else "",
        "names": (names or [f"number {index}" for index in range(numbers)])[:MAX_NUMBERS],
        "frames": dream.frames is not None,
        "continues": config.parameters.dreamer.use_continue_flag,
        "values": dream.values is not None,
        "disagreement": agent.one_step_model is not None,
    }


def task_name(environment: Any) -> str:
    """Return the name of an environment's task."""
    names = [environment.domain_name] if environment.benchmark == "dmc" else []
    return " ".join([*names, environment.task_name]).replace("_", " ")


def encode_view(session: Session, view: View) -> bytes:
    """Return a view as a message: a header, then the RGB pictures that the header lists under "pictures"."""
    moment, dream = view.moment, view.dream
    pictures = {}
    if moment and moment.arrival.picture is not None:
        pictures["real"] = moment.arrival.picture[None]
    if dream.frames is not None:
        pictures["dream"] = rgb(dream.frames)
    header = {
        "kind": "view",
        "number": view.number,
        "oldest": session.history[0].number if session.history else view.number,
        "newest": session.history[-1].number if session.history else view.number,
        "live": session.shows_present,
        "playing": session.playing,
        "dreaming": view.dreaming,
        "who": session.who,
        "speed": session.speed,
        "action": None if view.action is None or not session.controls else _action(session, view.action),
        "dream": _predictions(dream) | {"entropy": view.entropies},
        "pictures": [[name, *picture.shape[:3]] for name, picture in pictures.items()],
    }
    if moment:
        header["real"] = _predictions(moment.decoded, first=True) | {
            "episode": moment.episode,
            "begins": moment.action is None,
            "reward": None if moment.action is None else moment.arrival.reward,
            "vector": None if moment.arrival.vector is None else moment.arrival.vector[:MAX_NUMBERS],
            "surprise": moment.surprise,
            "entropy": moment.entropy,
            "disagreement": moment.disagreement,
        }
    return pack(header, [np.ascontiguousarray(picture) for picture in pictures.values()])


def _action(session: Session, action: Any) -> list[float]:
    return values_of(session.agent.action_space, action)


def _predictions(dream: Dream, first: bool = False) -> dict[str, Any]:
    """Return the numbers that a model predicts for latent states (B, ...), or for one latent state."""
    predictions = {
        "predicted": dream.rewards,
        "value": dream.values,
        "continue": dream.continues,
        "disagreement": dream.disagreement,
        "vector": None if dream.vectors is None else dream.vectors[..., :MAX_NUMBERS],
    }
    return {name: part for name, part in predictions.items() if part is not None}

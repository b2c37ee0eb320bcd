"""Where the time of an update goes."""

import torch

from dreamer.benchmark.timing import Stopwatch
from dreamer.optim import ClippedAdam

REST = {  # what a part does beside the pieces that are watched
    "world model": "other",
    "behavior": "rewards, values, returns",
    "ensemble": "prediction and loss",
    "explorer": "values, returns",
}


def part_seconds(algorithm, updates):
    """{part: {piece: seconds in an update}}, the mean over so many; "total" is the whole part."""
    stopwatch = Stopwatch(algorithm.device)
    with stopwatch.watching(_places(algorithm)):
        for _ in range(updates):
            algorithm.update(algorithm.sample())
    return _arrange({path: seconds / updates for path, seconds in stopwatch.seconds.items()})


def _places(algorithm):
    """What is watched: (object, attribute, name)."""

    def behavior(learner, *_):
        return "behavior" if learner is algorithm.behavior else "explorer"

    places = [
        (algorithm, "dynamics_learning", "world model"),
        (algorithm.model.encoder, "forward", "encoder"),
        (algorithm.model.rssm, "observe", "observe"),
        (algorithm, "model_losses", "heads and losses"),
        (algorithm, "behavior_learning", behavior),
        (algorithm, "imagine", "imagination"),
        (ClippedAdam, "step", "optimizer"),
        (torch.autograd, "backward", "backward"),
    ]
    if hasattr(algorithm, "explorer"):
        places += [(algorithm, "one_step_learning", "ensemble"), (algorithm, "intrinsic_reward", "intrinsic reward")]
    return places


def _arrange(seconds):
    """{(part, …, piece): seconds} → {part: {piece: seconds}}."""
    parts = {}
    for (part, *pieces), spent in seconds.items():
        parts.setdefault(part, {})[pieces[-1] if pieces else REST[part]] = spent
    return {part: {"total": sum(pieces.values()), **pieces} for part, pieces in parts.items()}

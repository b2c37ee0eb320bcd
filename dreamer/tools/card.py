"""Write the card of an exported agent: its task, its returns, and how to use it."""

import numpy as np

from dreamer.config.load import Config
from dreamer.exported import FILM, Info

NAMES = {1: "Dreamer", 2: "DreamerV2", 3: "DreamerV3"}
CARD = """---
library_name: easydreamer
pipeline_tag: reinforcement-learning
tags: [reinforcement-learning, world-model, dreamer]
---
# {algorithm} on {task}

{film}Return **{mean:.1f}** ± {std:.1f} over {episodes} episodes: {returns}.

| | |
|---|---|
| environment | {benchmark}, {task}; the agent sees {seen}; each action is repeated {frame_skip} times |
| trained for | {env_steps:,} env steps, {iteration} iterations, seed {seed} |
| trained with | {trained_with} |
| evaluated | {actions}, on the {device}, with the seeds that follow from seed {seed} and iteration {iteration} |

```python
from dreamer import Agent

agent = Agent.load("agent.zip")  # this file, or hf://user/name
action = agent.act(observation)  # in the environment's own units
agent.reset()  # before the first observation of the next episode
```

`dreamer verify agent.zip` plays these episodes again and compares the returns; `dreamer play agent.zip` films one.
"""


def card(config: Config, info: Info, has_film: bool) -> str:
    """Return the card of an agent in Markdown, with the front matter that the Hugging Face Hub reads."""
    returns, environment = info.played.returns, config.environment
    return CARD.format(
        algorithm=algorithm_name(config),
        task=task_name(config),
        film=f"![The first of these episodes]({FILM})\n\n" if has_film else "",
        mean=np.mean(returns),
        std=np.std(returns),
        episodes=len(returns),
        returns=", ".join(f"{episode_return:.1f}" for episode_return in returns),
        benchmark=environment.benchmark,
        seen=f"{environment.height}x{environment.width} pixels" if environment.from_pixels else "its observations",
        frame_skip=environment.frame_skip,
        env_steps=info.env_steps,
        iteration=info.iteration,
        seed=info.played.seed,
        trained_with=format_versions(info.trained_with),
        actions="samples of the actor" if config.evaluation.sample else "the actor's mode",
        device="CPU" if info.played.device == "cpu" else info.played.device,
    )


def algorithm_name(config: Config) -> str:
    """Return the name of an algorithm, such as "Plan2Explore with DreamerV3"."""
    name = NAMES[config.version]
    return f"Plan2Explore with {name}" if config.algorithm == "plan2explore" else name


def task_name(config: Config) -> str:
    """Return the name of a task, such as "cartpole-swingup" or "CartPole-v1"."""
    environment = config.environment
    if environment.benchmark == "dmc":
        return f"{environment.domain_name}-{environment.task_name}".replace("_", "-")
    return environment.task_name


def format_versions(versions: dict[str, str | None]) -> str:
    """Return the commit and the versions of the most important packages, as text."""
    names = "commit", "python", "torch", "numpy", "mujoco", "gymnasium"
    return ", ".join(f"{name} {versions[name]}" for name in names if versions.get(name)) or "not known"

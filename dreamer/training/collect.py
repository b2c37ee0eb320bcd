"""Play episodes, as sequences of steps."""

import numpy as np
from torch.utils._pytree import tree_map

from dreamer.errors import NotFiniteError
from dreamer.replay.step import NOTHING, Step


def run_episode(env, policy):
    """Play one episode and yield its steps; `policy(step)` gives the action that leaves the step, and `policy.latent`,
    if there is one, what it was chosen from.

    Episode length in agent steps: the number of yielded steps less one.
    """
    observation, _ = env.reset()
    step = Step(observation, np.zeros(env.action_space.shape, np.float32), 0.0, True, False, 0)
    yield step
    ended = False
    while not ended:
        action = chosen(policy, step)
        observation, reward, terminated, truncated, info = env.step(action)
        latent = getattr(policy, "latent", NOTHING)
        step = Step(observation, action, float(reward), False, terminated, info["env_steps"], latent)
        yield step
        ended = terminated or truncated


def run_episodes(env, policy, episodes):
    """Play episodes and yield each as a sequence of steps; `env` and `policy` as for `run_episode`.

    `ParallelEnvs` play them in rounds of as many as they are. Their policy gets a `Step` whose parts
    hold those of all environments, (E, ...), and gives all actions, (E, A).
    """
    if not hasattr(env, "num_envs"):
        for _ in range(episodes):
            yield run_episode(env, policy)
        return
    for done in range(0, episodes, env.num_envs):
        yield from run_round(env, policy, min(env.num_envs, episodes - done))


def run_round(env, policy, episodes):
    """One episode in each of the first environments, as a list of lists of steps."""
    count, playing, played = env.num_envs, range(episodes), [[] for _ in range(episodes)]
    never, action = np.zeros(count, bool), np.zeros((count, *env.action_space.shape), np.float32)
    step = Step(env.reset(episodes), action, np.zeros(count), ~never, never, np.zeros(count, int))
    ended = never
    while True:
        for place in playing:
            played[place].append(only(step, place))
        playing = [place for place in playing if not ended[place]]
        if not playing:
            return played
        action = chosen(policy, step)
        observation, reward, terminated, truncated, info = env.step(action)
        latent = getattr(policy, "latent", NOTHING)
        step = Step(observation, action, reward, never, terminated, info["env_steps"], latent)
        ended = terminated | truncated


def only(step, place):
    """The `Step` of one environment, of one that holds those of all."""
    observation = tree_map(lambda part: part[place], step.observation)
    scalars = (part[place].item() for part in step[2:6])
    return Step(observation, step.action[place], *scalars, step.latent[place] if step.latent.size else NOTHING)


def chosen(policy, step):
    """The policy's action. Raises NotFiniteError."""
    action = policy(step)
    if not np.isfinite(action).all():
        raise NotFiniteError("not finite: an action; the weights of the world model or of the actor are not, either")
    return action

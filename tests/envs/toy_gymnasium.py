"""Small environments of gymnasium, registered under several ids."""

import gymnasium
import numpy as np
from gymnasium import spaces

PARTS = {
    "image": spaces.Box(0, 255, (16, 20, 3), np.uint8),
    "symbols": spaces.Box(0, 255, (2, 2, 1), np.uint8),
    "mode": spaces.Discrete(3, start=1),
    "inner": spaces.Dict(lamps=spaces.MultiBinary((2, 1)), words=spaces.Text(5)),
    "dials": spaces.MultiDiscrete([2, 3], start=[0, 5]),
    "pair": spaces.Tuple([spaces.Discrete(2), spaces.Box(-1.0, 1.0, (1,))]),
    "mission": spaces.Text(20),
}


REALS = spaces.Box(-np.inf, np.inf, (1,))


class Noisy(gymnasium.Env):
    """Observes noise, rewards the action; terminated after `length` steps. Keeps the actions."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, observation_space=None, action_space=None, length=4, renders=True, render_mode=None):
        self.observation_space = observation_space or spaces.Dict(PARTS)
        self.action_space = action_space or spaces.Discrete(3, start=1)
        self.length, self.renders, self.render_mode, self.closed = length, renders, render_mode, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.actions = []
        return self.observe(), {}

    def step(self, action):
        self.actions.append(action)
        return self.observe(), float(np.sum(action)), len(self.actions) == self.length, False, {}

    def observe(self):
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.seen = self.observation_space.sample()
        return self.seen

    def render(self):
        if not self.renders:
            raise gymnasium.error.DependencyNotInstalled("a_renderer\nis not installed")
        return np.full((16, 20, 3), len(self.actions), np.uint8)

    def close(self):
        self.closed = True


class Counting(Noisy):
    """Observes the number of episodes, a state that lasts over episodes besides `np_random`."""

    episodes = 0

    def observe(self):
        self.episodes += not self.actions
        return {"noise": np.float32([self.np_random.random()]), "episodes": np.float32([self.episodes])}

    def state_dict(self):
        return {"episodes": self.episodes}

    def load_state_dict(self, state):
        self.episodes = state["episodes"]


class Goal(Noisy):
    """Episodes 1, 3, … report a success in their first step; `said` converts the reported value."""

    episodes = 0

    def __init__(self, key="success", said=float, **keywords):
        super().__init__(observation_space=REALS, action_space=spaces.Box(-1.0, 1.0, (1,)), **keywords)
        self.key, self.said = key, said

    def reset(self, *, seed=None, options=None):
        self.episodes += seed is None
        return super().reset(seed=seed)

    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {self.key: self.said(len(self.actions) == 1 and self.episodes % 2 == 1)}


def _register(name, entry_point=Noisy, max_episode_steps=None, **keywords):
    gymnasium.register(name, entry_point, max_episode_steps=max_episode_steps, kwargs=keywords)


_register("Noisy-v0")
_register("NoisyNoRenderer-v0", renders=False)
_register("NoisyCut-v0", max_episode_steps=3)
_register("Vector-v0", observation_space=REALS, action_space=spaces.Box(-2.0, 4.0, (1,)))
_register("Counting-v0", Counting, observation_space=spaces.Dict(noise=REALS, episodes=REALS))
_register("Goal-v0", Goal)
_register("NoisyUnbounded-v0", action_space=REALS)
_register("NoisyWords-v0", action_space=spaces.Text(5))
_register("NoisyVector-v0", lambda **keywords: gymnasium.vector.VectorEnv())
_register("NoisyObject-v0", lambda **keywords: object())

"""Atari games on gymnasium's API, emulated by the Arcade Learning Environment. Its package, ale-py, has the games."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.errors import EnvError, nearest, not_installed

NOOP = 0  # the action of doing nothing


class AtariEnv(gymnasium.Env):
    """A game, of which a step is one frame. It observes the 128 bytes of the console's memory. `render` returns the
    pixelwise maximum of the last two frames, since many games draw some of their objects in every other frame only.

    A game begins with 1 to `noops` frames of no action. In each frame, with a probability of `sticky_actions`, the
    previous action is repeated. The end of a game is terminal, that of a life only with `terminal_on_life_loss`; a new
    game begins after either. After `time_limit` frames an episode is truncated.

    Only `np_random` carries over from game to game: each begins as if the console had just been switched on.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60}
    render_mode = "rgb_array"
    observation_space = spaces.Box(0, 255, (128,), np.uint8)

    def __init__(
        self,
        ale: Any,
        renders: bool,
        noops: int,
        sticky_actions: float,
        full_action_set: bool,
        terminal_on_life_loss: bool,
        time_limit: int,
    ) -> None:
        """ale: an emulator with a game that has not been played. renders: whether `render` must work."""
        self.ale, self.renders, self.noops, self.sticky_actions = ale, renders, noops, sticky_actions
        self.terminal_on_life_loss, self.max_episode_steps = terminal_on_life_loss, time_limit
        self.actions = ale.getLegalActionSet() if full_action_set else ale.getMinimalActionSet()
        self.action_space = spaces.Discrete(len(self.actions))
        self.switched_on = ale.cloneState(include_rng=True)
        self.screens = [np.zeros((*ale.getScreenDims(), 3), np.uint8) for _ in range(2)]  # the newest comes first

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.ale.restoreState(self.switched_on)  # some games remember the one before beyond a reset
        self.ale.reset_game()
        self.action, self.steps = self.actions[NOOP], 0
        noops = self.np_random.integers(1, self.noops, endpoint=True) if self.noops else 0
        for _ in range(noops):
            self.act()
        for _ in self.screens:  # both frames are what is on the screen
            self.look()
        self.lives = self.ale.lives()
        return self.ale.getRAM(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.np_random.random() >= self.sticky_actions:
            self.action = self.actions[action]
        reward = self.act()
        self.steps += 1
        previous_lives, self.lives = self.lives, self.ale.lives()
        terminated = self.ale.game_over() or (self.terminal_on_life_loss and self.lives < previous_lives)
        truncated = not terminated and self.steps == self.max_episode_steps
        return self.ale.getRAM(), float(reward), terminated, truncated, {}

    def act(self) -> float:
        """Play one frame with the current action. Return the points that it brings."""
        reward = self.ale.act(self.action)
        self.look()
        return reward

    def look(self) -> None:
        """Save the frame that is on the screen, and keep the previous one."""
        if self.renders:
            self.screens.reverse()
            self.ale.getScreenRGB(self.screens[0])

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Return the picture, RGB uint8 (210, 160, 3); a few games have other heights."""
        return np.maximum(*self.screens)


def make_atari(game: str, **settings: Any) -> AtariEnv:
    """Return the AtariEnv of a game, by its name in ale-py. Raises EnvError, in one line, if it cannot be made."""
    try:
        from ale_py import ALEInterface, LoggerMode, roms  # late: it is optional
    except ModuleNotFoundError:
        raise not_installed("atari", "ale-py") from None
    if game not in roms.get_all_rom_ids():
        hint = nearest(game, roms.get_all_rom_ids())
        raise EnvError(f"environment.task_name: there is no Atari game {game!r} in ale-py{hint}")
    try:
        path: Any = roms.get_rom_path(game)
    except OSError as error:
        raise EnvError(f"environment.task_name: the file of the Atari game {game!r} cannot be read: {error}") from None
    if not ALEInterface.isSupportedROM(path):  # to load it would end the process
        raise EnvError(f"environment.task_name: the Atari game {game!r} is for two players")
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setFloat("repeat_action_probability", 0.0)  # AtariEnv repeats actions itself, by its np_random
    ale.loadROM(path)
    return AtariEnv(ale, **settings)

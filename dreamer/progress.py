"""The progress bar."""

from tqdm import tqdm


class Progress:
    """Env steps done and left, the last return, env steps per second over the whole run, and the time left.

    How many steps are left follows from the length of the last episode.
    """

    def __init__(self, episodes):
        self.episodes, self.episodes_done = episodes, 0
        self.episode_steps = 0
        self.bar = tqdm(unit=" env steps", smoothing=0, mininterval=1.0, miniters=0, delay=0.5, dynamic_ncols=True)

    def phase(self, text):
        """Say what is going on, such as "learning 20/100"."""
        self.bar.set_description(text, refresh=False)
        self.bar.update(0)  # shown if the last refresh was long enough ago

    def stepped(self, env_steps):
        self.episode_steps += env_steps
        self.bar.update(env_steps)

    def finished(self, episode_return):
        """An episode ended."""
        self.episodes_done += 1
        left = (self.episodes - self.episodes_done) * self.episode_steps
        self.bar.total = self.bar.n + left
        self.bar.delay = 0  # it is shown from now on, so `close` has a line to end
        self.bar.set_postfix_str(f"{left} left, last return {episode_return:.1f}")
        self.episode_steps = 0

    def state_dict(self):
        return {"env_steps": self.bar.n, "episodes_done": self.episodes_done}

    def load_state_dict(self, state):
        self.bar.n = self.bar.initial = state["env_steps"]
        self.episodes_done = state["episodes_done"]

    def close(self):
        self.bar.close()

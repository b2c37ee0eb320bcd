"""How a world model and an actor play an episode."""

import torch

from dreamer.utils.pixels import normalize_pixels


class Policy:
    """Filters what it sees into a latent state and acts on it; called with one `Step` at a time.

    It goes through the same `observe_step` as training. With exploration_noise None (evaluation) it
    takes the mode of the actor's distribution. Otherwise it samples, and adds noise: to continuous
    actions, Gaussian of that std, clipped to [-1, 1]; a discrete action is replaced with that
    probability by a uniformly random one.
    """

    def __init__(self, model, actor, pixel_norm, exploration_noise, device):
        self.model, self.actor = model, actor
        self.pixel_norm = pixel_norm
        self.exploration_noise = exploration_noise
        self.device = device
        self.state = model.rssm.initial_state(1)

    @torch.no_grad()
    def __call__(self, step):
        """The action (A,) that leaves `step`, as a numpy array."""
        action = torch.as_tensor(step.action, device=self.device)[None]
        is_first = torch.full((1,), float(step.is_first), device=self.device)
        observation = normalize_pixels(torch.as_tensor(step.observation, device=self.device), self.pixel_norm)
        embedding = self.model.encoder(observation[None])
        self.state = self.model.rssm.observe_step(self.state, action, embedding, is_first)
        return self.act(self.actor(self.state.feature))[0].cpu().numpy()

    def act(self, distribution):
        """An action (1, A) from the actor's distribution."""
        if self.exploration_noise is None:
            return distribution.mode
        action = distribution.sample()
        if not self.actor.discrete:
            return (action + self.exploration_noise * torch.randn_like(action)).clamp(-1, 1)
        uniform = torch.eye(action.shape[-1], device=action.device)[torch.randint(action.shape[-1], (1,))]
        return uniform if torch.rand(()) < self.exploration_noise else action


def random_policy(env):
    """Actions drawn uniformly from the environment's action space."""
    return lambda step: env.action_space.sample()

"""The world model: all that its loss trains, and the scale in which it sees pixels and vectors."""

from torch import nn

from dreamer.modules.distributions import symlog


class WorldModel(nn.Module):
    """encoder, rssm, decoder, reward_model, continue_model: its parts. continue_model None: no imagined task ends.

    pixel_norm: whether it sees pixels in [-0.5, 0.5]; else in [0, 255]. symlog_inputs: whether it sees the symlog of
    vectors (DreamerV3).
    """

    def __init__(self, encoder, rssm, decoder, reward_model, continue_model=None, pixel_norm=True, symlog_inputs=False):
        super().__init__()
        self.encoder = encoder
        self.rssm = rssm
        self.decoder = decoder
        self.reward_model = reward_model
        self.continue_model = continue_model
        self.pixel_norm, self.symlog_inputs = pixel_norm, symlog_inputs

    def normalize(self, observation):
        """uint8 pixels and float32 vectors, as the replay holds them → float32, as encoder and decoder know them."""
        if isinstance(observation, dict):
            return {name: self.normalize(part) for name, part in observation.items()}
        if observation.is_floating_point():
            return symlog(observation) if self.symlog_inputs else observation
        return (observation / 255).sub_(0.5) if self.pixel_norm else observation.float()

    def restore(self, image):
        """The inverse, of decoded images: clipped → uint8."""
        pixels = (image + 0.5) * 255 if self.pixel_norm else image
        return pixels.round().clamp(0, 255).byte()

    def observe(self, batch):
        """Filter a `replay.Batch`: prior and posterior, (B, T, ·)."""
        embedding = self.encoder(self.normalize(batch.observation))
        return self.rssm.observe(embedding, batch.action, batch.is_first, batch.latent)

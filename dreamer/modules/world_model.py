"""The world model: all that its loss trains, and the scale in which it sees pixels."""

from torch import nn


class WorldModel(nn.Module):
    """encoder, rssm, decoder, reward_model, continue_model: its parts. continue_model None: no imagined task ends.

    pixel_norm: whether it sees pixels in [-0.5, 0.5]; else in [0, 255].
    """

    def __init__(self, encoder, rssm, decoder, reward_model, continue_model=None, pixel_norm=True):
        super().__init__()
        self.encoder = encoder
        self.rssm = rssm
        self.decoder = decoder
        self.reward_model = reward_model
        self.continue_model = continue_model
        self.pixel_norm = pixel_norm

    def normalize(self, observation):
        """uint8 pixels, as the replay holds them → float32, as encoder and decoder know them. Floats are unchanged."""
        if observation.is_floating_point():
            return observation
        return (observation / 255).sub_(0.5) if self.pixel_norm else observation.float()

    def restore(self, image):
        """The inverse, of decoded images: clipped → uint8."""
        pixels = (image + 0.5) * 255 if self.pixel_norm else image
        return pixels.round().clamp(0, 255).byte()

    def observe(self, batch):
        """Filter a `replay.Batch`: prior and posterior, (B, T, ·)."""
        embedding = self.encoder(self.normalize(batch.observation))
        return self.rssm.observe(embedding, batch.action, batch.is_first)

"""The world model: all networks that its loss trains, and the scale of the pixels and vectors that it reads."""

from typing import Any

import torch
from torch import nn

from dreamer.modules.categorical import symlog
from dreamer.modules.encoder import Encoder
from dreamer.modules.rssm import RSSM


class WorldModel(nn.Module):
    """The encoder, the RSSM and the heads: decoder, reward model and, where tasks end, continue model."""

    def __init__(
        self,
        encoder: Encoder,
        rssm: RSSM,
        decoder: nn.Module,
        reward_model: nn.Module,
        continue_model: nn.Module | None = None,
        pixel_norm: bool = True,
        symlog_inputs: bool = False,
    ):
        """continue_model: None if imagined tasks never end. pixel_norm: whether pixels are scaled to [-0.5, 0.5]; else
        they stay in [0, 255]. symlog_inputs: whether vectors become their symlog (DreamerV3).
        """
        super().__init__()
        self.encoder = encoder
        self.rssm = rssm
        self.decoder = decoder
        self.reward_model = reward_model
        self.continue_model = continue_model
        self.pixel_norm, self.symlog_inputs = pixel_norm, symlog_inputs

    def normalize(self, observation: Any) -> Any:
        """Return observations as encoder and decoder see them, float32, in the same shapes.

        observation: as in the replay, uint8 pixels, float32 vectors or a dict of both.
        """
        if isinstance(observation, dict):
            return {name: self.normalize(part) for name, part in observation.items()}
        if observation.is_floating_point():
            return symlog(observation) if self.symlog_inputs else observation
        return (observation / 255).sub_(0.5) if self.pixel_norm else observation.float()

    def to_pixels(self, image: torch.Tensor) -> torch.Tensor:
        """Return decoded images, in the scale of `normalize`, as uint8 pixels; values out of range are clipped."""
        pixels = (image + 0.5) * 255 if self.pixel_norm else image
        return pixels.round().clamp(0, 255).byte()

    def encode(self, observation: Any) -> tuple[Any, torch.Tensor]:
        """Return observations (B, T, ·) as encoder and decoder see them, and their embeddings (B, T, E)."""
        observation = self.normalize(observation)
        return observation, self.encoder(observation)

"""Observations that contain pictures."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from dreamer.envs.base import ObservationWrapper
from dreamer.envs.observation import MOST_BYTES, layout, size, split, vector
from dreamer.errors import EnvError


def fits(image: Any, space: spaces.Box) -> bool:
    """Return whether something is an image of a space, or its numbers are those of one in another type."""
    if isinstance(image, np.ma.MaskedArray):
        return False
    image = np.asarray(image)
    if image.shape != space.shape or image.dtype.kind == "c":
        return False
    return image.dtype == np.uint8 or bool((image.astype(np.uint8) == image).all())


class ImageObservation(ObservationWrapper):
    """Shows the environment's pictures, of which there must be some, and all numbers beside them.

    An observation is {"image": uint8 (channels, height, width), "vector": float32 (size,)}, or the image alone if
    there are no numbers. The pictures are resized, and their channels put one after the other; the numbers are
    flattened as gymnasium does it.
    """

    def __init__(self, env: gymnasium.Env, height: int, width: int) -> None:
        super().__init__(env)
        self.size = (width, height)
        pictures, self.numbers = split(env.observation_space)
        self.pictures = [(part, layout(part.space) or "") for part in pictures]
        channels = sum(part.space.shape[axes.index("C")] if "C" in axes else 1 for part, axes in self.pictures)
        if channels * height * width > MOST_BYTES:
            found, limit = f"{channels} channels of {height}x{width} pixels", MOST_BYTES // (height * width)
            raise EnvError(f"the observation space has pictures of {found} in all; at most {limit} of that size fit")
        image = spaces.Box(0, 255, (channels, height, width), np.uint8)
        numbers = spaces.Box(-np.inf, np.inf, (size(self.numbers),), np.float32)
        self.observation_space = spaces.Dict(image=image, vector=numbers) if self.numbers else image

    def observation(self, observation: Any) -> Any:
        image = np.concatenate([self.planes(part.of(observation), axes) for part, axes in self.pictures])
        if not self.numbers:
            return image
        return {"image": image, "vector": vector(self.numbers, observation)}

    def planes(self, image: Any, axes: str) -> np.ndarray:
        """Return a picture that has these axes as uint8 (channels, height, width), resized."""
        image = np.asarray(image).astype(np.uint8)
        planes = image.transpose(2, 0, 1) if axes == "HWC" else image.reshape(-1, *image.shape[-2:])
        if planes.shape[:0:-1] == self.size:
            return planes
        resized = (Image.fromarray(plane).resize(self.size, Image.Resampling.BILINEAR) for plane in planes)
        return np.stack([np.asarray(plane) for plane in resized])

"""Images among what an environment observes."""

import gym
import numpy as np
from gym import spaces
from PIL import Image

SMALLEST = 16  # pixels a side of an image


def split(space):
    """The images of an observation space, {key: space}, and a space of the rest, both in alphabetical order.

    An image is a Box uint8 (height, width, channels), by itself (its key is None) or an entry of a Dict. One of fewer
    than SMALLEST pixels a side is a map of symbols, whose numbers make a vector. Without images the rest is the space
    as it is; without anything else it is None.
    """
    if _is_image(space):
        return {None: space}, None
    parts = sorted(space.spaces.items(), key=lambda item: str(item[0])) if isinstance(space, spaces.Dict) else []
    images = {key: part for key, part in parts if _is_image(part)}
    others = [(key, part) for key, part in parts if key not in images]
    if not images:
        return {}, space
    return images, spaces.Dict(others) if others else None


def entry(observation, key):
    """What an observation holds for a key of `split`."""
    return observation if key is None else observation[key]


def fits(image, space):
    """Whether something is an image of a space, or would be with another type of numbers."""
    image = np.asarray(image)
    return image.shape == space.shape and (image.dtype == np.uint8 or bool((image.astype(np.uint8) == image).all()))


def _is_image(space):
    if not (isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3):
        return False
    return min(space.shape[:2]) >= SMALLEST and space.shape[2] > 0


class ImageObservation(gym.ObservationWrapper):
    """What the environment observes, of which there must be images: {"image": uint8 (channels, height, width),
    "vector": float32 (size,)}, or the image alone if there is nothing else.

    The images are resized and their channels put one after the other, the rest is flattened as gym does it.
    """

    def __init__(self, env, height, width):
        super().__init__(env)
        self.size = (width, height)
        self.images, self.rest = split(env.observation_space)
        channels = sum(space.shape[2] for space in self.images.values())
        image = self.observation_space = spaces.Box(0, 255, (channels, height, width), np.uint8)
        if self.rest is not None:
            vector = spaces.Box(-np.inf, np.inf, (spaces.flatdim(self.rest),), np.float32)
            self.observation_space = spaces.Dict(image=image, vector=vector)

    def observation(self, observation):
        image = np.concatenate([self.planes(entry(observation, key)) for key in self.images])
        if self.rest is None:
            return image
        return {"image": image, "vector": spaces.flatten(self.rest, observation).astype(np.float32)}

    def planes(self, image):
        """(height, width, channels) → uint8 (channels, height, width), resized."""
        image = np.asarray(image).astype(np.uint8)
        if image.shape[1::-1] == self.size:
            return image.transpose(2, 0, 1)
        planes = (Image.fromarray(image[..., channel]) for channel in range(image.shape[2]))  # Pillow knows 4 as RGBA
        return np.stack([np.asarray(plane.resize(self.size, Image.Resampling.BILINEAR)) for plane in planes])

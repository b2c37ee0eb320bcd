"""Pixels between the replay, where they are uint8, and the networks."""


def normalize_pixels(observation, pixel_norm):
    """uint8 pixels → float32: [-0.5, 0.5], or [0, 255] without pixel_norm. Vectors pass unchanged."""
    if observation.is_floating_point():
        return observation
    return (observation / 255).sub_(0.5) if pixel_norm else observation.float()


def restore_pixels(observation, pixel_norm):
    """The inverse: float images, clipped → uint8."""
    pixels = (observation + 0.5) * 255 if pixel_norm else observation
    return pixels.round().clamp(0, 255).byte()

import pytest
import torch

from dreamer.modules.world_model import WorldModel

PIXELS = torch.arange(256, dtype=torch.uint8).reshape(1, 4, 8, 8)


def model(pixel_norm):
    return WorldModel(None, None, None, None, pixel_norm=pixel_norm)


@pytest.mark.parametrize("pixel_norm, low, high", [(True, -0.5, 0.5), (False, 0.0, 255.0)])
def test_pixels_are_scaled_to_their_range_and_restored(pixel_norm, low, high):
    normalized = model(pixel_norm).normalize(PIXELS)
    assert normalized.dtype == torch.float32 and normalized.shape == PIXELS.shape
    assert (normalized.min().item(), normalized.max().item()) == (low, high)
    steps = normalized.flatten().diff()
    torch.testing.assert_close(steps, torch.full_like(steps, (high - low) / 255), atol=1e-6, rtol=0)
    restored = model(pixel_norm).to_pixels(normalized)
    assert restored.dtype == torch.uint8 and restored.equal(PIXELS)


@pytest.mark.parametrize("pixel_norm, values", [(True, [-0.7, 0.9, 0.0021]), (False, [-3.0, 300.0, 127.6])])
def test_restored_images_are_rounded_and_clipped(pixel_norm, values):
    assert model(pixel_norm).to_pixels(torch.tensor(values)).tolist() == [0, 255, 128]


@pytest.mark.parametrize("pixel_norm", [True, False])
def test_vectors_pass_unchanged(pixel_norm):
    vector = torch.tensor([-3.0, 0.0, 400.0])
    assert model(pixel_norm).normalize(vector).equal(vector)


def test_symlog_of_vectors_but_not_of_pixels():
    """DreamerV3, Equation 9. Each part of a dict observation is normalized by its kind."""
    world_model = WorldModel(None, None, None, None, symlog_inputs=True)
    observation = {"vector": torch.tensor([-3.0, 0.0, 0.5, 400.0]), "image": PIXELS}
    expected = torch.tensor([-1.386294, 0.0, 0.405465, 5.993961])
    normalized = world_model.normalize(observation)
    torch.testing.assert_close(normalized["vector"], expected)
    assert normalized["image"].equal(model(True).normalize(PIXELS))

"""Tests of encoders: every space, any leading axes, and symbolic codes as categories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents.agent.encoders import Encoder, Picture
from rmc_agents.spaces.annotated import minigrid_image
from tests.support.spaces import OBSERVATION_SPACES, sample_tensors


@pytest.mark.parametrize("space", OBSERVATION_SPACES.values(), ids=OBSERVATION_SPACES)
def test_encoder_accepts_any_leading_axes(space: spaces.Space) -> None:
    encoder = Encoder(space, 16)
    obs = sample_tensors(space, 3, 2)
    features = encoder(obs)
    assert features.shape == (3, 2, 16)
    flat = {k: v.flatten(0, 1) for k, v in obs.items()} if isinstance(obs, dict) else obs.flatten(0, 1)
    torch.testing.assert_close(encoder(flat), features.flatten(0, 1))
    assert features.std() > 0, "different observations have different features"


def test_minigrid_codes_are_encoded_as_categories() -> None:
    """An encoder that divided by 255 would encode code 6 halfway between codes 5 and 7."""
    encoder = Encoder(minigrid_image(7), 16)
    image = torch.zeros(3, 7, 7, 3, dtype=torch.uint8)
    image[:, 2, 3] = torch.tensor([[5, 1, 0], [6, 1, 0], [7, 1, 0]], dtype=torch.uint8)
    grid = encoder.parts[0](image)
    between = (grid[0] + grid[2]) / 2
    assert (grid[1] - between).abs().max() > 0.1


def test_encoder_names_unsupported_spaces_and_an_alternative() -> None:
    with pytest.raises(ValueError, match="FlattenObservation"):
        Encoder(spaces.Text(5), 8)


@pytest.mark.parametrize("shape", [(4, 40, 36), (4, 40, 36, 2), (2, 3, 40, 36)], ids=str)
def test_memory_layout_of_large_pictures_changes_no_feature(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder = Encoder(spaces.Box(0, 255, shape, np.uint8), 8)
    (picture,) = encoder.parts
    assert isinstance(picture, Picture)
    obs = torch.randint(0, 256, (3, 2, *shape), dtype=torch.uint8)
    pixels = picture.pixels(obs)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    vectors = picture.convolutions(pixels.contiguous()).reshape(3, 2, -1)
    torch.testing.assert_close(encoder(obs), torch.relu(encoder.linear(vectors)))

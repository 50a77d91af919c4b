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


def test_cells_are_embedded_in_front_of_the_features() -> None:
    space = spaces.Dict(
        [("image", minigrid_image(3)), ("more", minigrid_image(5)), ("number", spaces.Box(-1, 1, (2,)))]
    )
    encoder = Encoder(space, 16, cell_size=6)
    obs = sample_tensors(space, 4, 2)
    features = encoder(obs)
    assert (encoder.num_cells, encoder.output_size) == (9 + 25, 34 * 6 + 16)
    assert features.shape == (4, 2, encoder.output_size)
    cells = features[..., : 34 * 6].unflatten(-1, (34, 6))
    shifted = {**obs, "image": obs["image"].roll(1, 2)}  # each row of cells moves down
    moved = encoder(shifted)[..., : 34 * 6].unflatten(-1, (34, 6))
    torch.testing.assert_close(
        moved[..., :9, :].unflatten(-2, (3, 3)), cells[..., :9, :].unflatten(-2, (3, 3)).roll(1, 2)
    )
    torch.testing.assert_close(moved[..., 9:, :], cells[..., 9:, :])
    plain = Encoder(space, 16)
    plain.load_state_dict({name: x for name, x in encoder.state_dict().items() if "cells" not in name})
    torch.testing.assert_close(plain(obs), features[..., 34 * 6 :])


def test_observations_without_a_grid_have_no_cells() -> None:
    encoder = Encoder(spaces.Box(-1, 1, (3,)), 16, cell_size=6)
    assert (encoder.num_cells, encoder.output_size) == (0, 16)

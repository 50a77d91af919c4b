"""Encoders: every space, any leading axes, codes as names and not as numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents.encoders import Encoder, is_symbolic_grid
from rmc_agents.spaces_json import space_from_json, space_to_json

SPACES = {
    "grid": spaces.Box(0, 255, (7, 7, 3), np.uint8),
    "pixels": spaces.Box(0, 255, (84, 84, 3), np.uint8),
    "pixels channels first": spaces.Box(0, 255, (4, 40, 40), np.uint8),
    "small picture": spaces.Box(0, 255, (20, 20, 3), np.uint8),
    "vector": spaces.Box(-np.inf, np.inf, (5,)),
    "matrix": spaces.Box(-1, np.array([[1, 2], [3, 4]], dtype=np.float32), (2, 2)),
    "scalar": spaces.Box(0, 1, ()),
    "discrete": spaces.Discrete(4, start=-1),
    "multidiscrete": spaces.MultiDiscrete([2, 3, 4]),
    "multidiscrete matrix": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "multibinary": spaces.MultiBinary(6),
    "dict": spaces.Dict(image=spaces.Box(0, 255, (3, 3, 3), np.uint8), direction=spaces.Discrete(4)),
}


def draw(space: spaces.Space, *lead: int) -> torch.Tensor | dict[str, torch.Tensor]:
    """Samples [*lead, ...] of a space as tensors."""
    space.seed(0)
    samples = [space.sample() for _ in range(int(np.prod(lead)))]
    if isinstance(space, spaces.Dict):
        return {
            key: torch.as_tensor(np.stack([s[key] for s in samples])).unflatten(0, lead)
            for key in space.spaces
        }
    return torch.as_tensor(np.stack(samples)).unflatten(0, lead)


@pytest.mark.parametrize("name", SPACES)
def test_leading_axes_do_not_matter(name: str) -> None:
    encoder = Encoder(SPACES[name], 16)
    obs = draw(SPACES[name], 3, 2)
    features = encoder(obs)
    assert features.shape == (3, 2, 16)
    flat = {k: v.flatten(0, 1) for k, v in obs.items()} if isinstance(obs, dict) else obs.flatten(0, 1)
    torch.testing.assert_close(encoder(flat), features.flatten(0, 1))
    assert features.std() > 0, "different observations have different features"


@pytest.mark.parametrize("name", SPACES)
def test_spaces_survive_json(name: str) -> None:
    assert space_from_json(space_to_json(SPACES[name])) == SPACES[name]


def test_minigrid_codes_are_names() -> None:
    """An encoder that divides by 255 could not tell codes 5 and 6 apart by more than their order."""
    space = SPACES["grid"]
    assert is_symbolic_grid(space)
    assert not is_symbolic_grid(SPACES["small picture"])
    encoder = Encoder(space, 16)
    image = torch.zeros(3, 7, 7, 3, dtype=torch.uint8)
    image[:, 2, 3] = torch.tensor([[5, 1, 0], [6, 1, 0], [7, 1, 0]], dtype=torch.uint8)
    grid = encoder.parts[0](image)
    between = (grid[0] + grid[2]) / 2
    assert (grid[1] - between).abs().max() > 0.1


def test_an_unknown_space_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="FlattenObservation"):
        Encoder(spaces.Text(5), 8)

"""Observation and action spaces of every supported kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.spaces.annotated import minigrid_image

OBSERVATION_SPACES: dict[str, spaces.Space[Any]] = {
    "grid": spaces.Box(0, 255, (7, 7, 3), np.uint8),
    "image": spaces.Box(0, 255, (84, 84, 3), np.uint8),
    "image, channels first": spaces.Box(0, 255, (4, 40, 40), np.uint8),
    "small image": spaces.Box(0, 255, (20, 20, 3), np.uint8),
    "vector": spaces.Box(-np.inf, np.inf, (5,)),
    "matrix": spaces.Box(-1, np.array([[1, 2], [3, 4]], dtype=np.float32), (2, 2)),
    "scalar": spaces.Box(0, 1, ()),
    "discrete": spaces.Discrete(4, start=-1),
    "multidiscrete": spaces.MultiDiscrete([2, 3, 4]),
    "multidiscrete matrix": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "multibinary": spaces.MultiBinary(6),
    "dict": spaces.Dict(image=spaces.Box(0, 255, (3, 3, 3), np.uint8), direction=spaces.Discrete(4)),
}
ACTION_SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multibinary": spaces.MultiBinary(4),
    "box": spaces.Box(-0.1, 0.1, (2,)),
}
MAZE_SPACE = spaces.Dict(image=minigrid_image(7), direction=spaces.Discrete(4))
"""Space of a Memory maze's observations."""


def sample_tensors(space: spaces.Space[Any], *leading: int) -> Tensor | dict[str, Tensor]:
    """Return samples [*leading, ...] of a space; the same samples every time."""
    space.seed(0)
    samples = [space.sample() for _ in range(int(np.prod(leading)))]
    if isinstance(space, spaces.Dict):
        return {
            key: torch.as_tensor(np.stack([sample[key] for sample in samples])).unflatten(0, leading)
            for key in space.spaces
        }
    return torch.as_tensor(np.stack(samples)).unflatten(0, leading)

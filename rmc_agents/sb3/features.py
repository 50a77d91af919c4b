"""Features extractor for SB3 that encodes observations as `rmc_agents` agents do.

SB3 transposes images to channels first, divides pixels by 255 and makes integers one-hot. The extractor
undoes the division and, for small grids, the transposition.

Axes: B batch, V side of MiniGrid's view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from rmc_agents.agent.encoders import Encoder
from rmc_agents.spaces.annotated import MINIGRID_CODES, AnnotatedBox, AnnotatedDict, codes_reading
from rmc_agents.spaces.reading import WHOLE, category_sizes, named_parts, read, with_readings

SMALL_GRID = 15
"""Side of the largest grid whose transposition is undone."""


class EncoderExtractor(BaseFeaturesExtractor):
    """Encoder of any observation, for any SB3 algorithm.

    `PPO("MultiInputPolicy", env, policy_kwargs=dict(features_extractor_class=EncoderExtractor))`.
    `rmc_agents.describe(space)` says how each part is read; numbers and pictures are scaled by their bounds.
    MiniGrid's symbolic image, in a dictionary with its `direction`, is read by embeddings: its codes are
    categories (key 5 is not more than door 4), and 7 x 7 is too small for SB3's convolutions. The parameters
    are those of `rmc_agents.agent.encoders.Encoder`.

    Args:
        observation_space: space of one observation as SB3 wrapped the environment, images channels first.
        features_dim: number of features.
        normalize_images: the policy's argument of that name: whether SB3 divides pixels by 255.
        read_as: readings by key that override the decision, as in `rmc_agents.AgentConfig`.

    Raises:
        ValueError: the space has no encoding.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 128,
        normalize_images: bool = True,
        read_as: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(observation_space, features_dim)
        for part in named_parts(observation_space).values():
            _require_countable(part)
        self.own_space = restore(observation_space, read_as or {})
        restored = named_parts(self.own_space)
        self.prepare = {
            key: _preparation(part, restored[key], normalize_images)
            for key, part in named_parts(observation_space).items()
        }
        self.encoder = Encoder(self.own_space, features_dim)

    def forward(self, observations: Any) -> Tensor:
        """Encode the output of SB3's `preprocess_obs` [B, ...] as features [B, features_dim]."""
        if isinstance(observations, dict):
            return self.encoder({key: prepare(observations[key]) for key, prepare in self.prepare.items()})
        return self.encoder(self.prepare[WHOLE](observations))


def restore(space: spaces.Space[Any], read_as: Mapping[str, Any]) -> spaces.Space[Any]:
    """Return the environment's own space, with small grids channels last again, and how it is read."""
    parts = named_parts(space)
    restored = {}
    readings = {**(space.read_as if isinstance(space, AnnotatedDict) else {}), **read_as}
    for key, part in parts.items():
        reading = readings.get(key, part.read_as if isinstance(part, AnnotatedBox) else None)
        if reading is None and _is_minigrid(parts, key):
            reading = codes_reading(MINIGRID_CODES)
        is_codes = isinstance(reading, str) and reading.startswith("codes")
        restored[key] = (
            _to_channels_last(part) if is_transposed(part, is_codes) else _without_annotation(part)
        )
        if isinstance(reading, str):
            readings[key] = flip(reading) if _is_flipped(reading, restored[key]) else reading
    whole = spaces.Dict(list(restored.items())) if isinstance(space, spaces.Dict) else restored[WHOLE]
    return with_readings(whole, readings)


def is_transposed(space: spaces.Space[Any], is_codes: bool = False) -> bool:
    """Return whether SB3 has transposed a small grid from [V, V, 3] to [3, V, V].

    SB3 does not transpose a 3 x 3 image, so the answer for it is False. A grid of codes may have any size and
    number of channels.
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) != 3:
        return False
    if is_codes:
        return is_image_space(space) and _looks_transposed(space)
    channels, height, width = space.shape
    return channels == 3 and width != 3 and max(height, width) <= SMALL_GRID


def _looks_transposed(space: spaces.Box) -> bool:
    """Return whether a picture is channels first for SB3, and would not be if it had not been transposed.

    SB3 leaves alone what it takes for channels first already: (3, 3, 3) or (7, 7, 20), say.
    """
    return is_image_space_channels_first(space) and not is_image_space_channels_first(
        _to_channels_last(space)
    )


def map_parts(function: Callable[[spaces.Space[Any]], spaces.Space[Any]], space: spaces.Dict) -> spaces.Dict:
    """Apply `function` to each part of a `Dict` and keep the order of its keys."""
    # Gymnasium sorts the keys of a dictionary, but not those of a list of pairs.
    return spaces.Dict([(key, function(part)) for key, part in space.spaces.items()])


def flip(reading: str) -> str:
    """Return the reading of a picture whose channels were moved to the other end."""
    if reading.endswith("hwc"):
        return reading[:-3] + "chw"
    return reading[:-3] + "hwc" if reading.endswith("chw") else reading


def _is_flipped(reading: str, space: spaces.Space[Any]) -> bool:
    """Return whether a reading of [H, W, C] is given for a picture that is channels first, or the reverse."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 3 or not is_image_space(space):
        return False
    if not is_image_space_channels_first(space):
        return reading.endswith("chw")
    return reading.endswith("hwc") and _looks_transposed(space)


def _is_minigrid(parts: Mapping[str, spaces.Space[Any]], key: str) -> bool:
    """Return whether a part is MiniGrid's symbolic image: small, and beside the agent's `direction`."""
    part = parts[key]
    if key != "image" or parts.get("direction") != spaces.Discrete(4) or not isinstance(part, spaces.Box):
        return False
    return (
        part.dtype == np.uint8 and len(part.shape) == 3 and 3 in part.shape and max(part.shape) <= SMALL_GRID
    )


def _without_annotation(space: spaces.Space[Any]) -> spaces.Space[Any]:
    if not isinstance(space, AnnotatedBox):
        return space
    return spaces.Box(space.low, space.high, dtype=np.dtype(space.dtype).type)  # type: ignore[arg-type]


def _to_channels_last(space: spaces.Space[Any]) -> spaces.Box:
    assert isinstance(space, spaces.Box)
    low, high = (np.moveaxis(bound, 0, -1) for bound in (space.low, space.high))
    return spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr]


def _require_countable(space: spaces.Space[Any]) -> None:
    """Raise ValueError for integers that SB3 cannot make one-hot."""
    start = getattr(space, "start", 0)
    many = isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1
    if np.any(start) or many:
        raise ValueError(
            f"SB3 cannot preprocess observations of {space}: it expects integers that count from 0, in one "
            "dimension; wrap the environment, or use rmc_agents.sb3.BatchedVecEnv(rmc_envs.make(...))"
        )


def _preparation(
    space: spaces.Space[Any], restored: spaces.Space[Any], normalize_images: bool
) -> Callable[[Tensor], Tensor]:
    """Return the function that turns the output of SB3's `preprocess_obs` into the encoder's input."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return partial(_integers, category_sizes(space), isinstance(space, spaces.Discrete))
    if not isinstance(space, spaces.Box):
        return _identity
    moved = space.shape != restored.shape
    reading = read(restored)
    if reading.kind == "codes" and max(reading.sizes) < 256:
        return _transposed_codes if moved else _codes
    if is_image_space(space) and normalize_images:
        return _transposed_pixels if moved else _pixels
    return _transposed if moved else _identity


def _integers(sizes: list[int], single: bool, x: Tensor) -> Tensor:
    """Return the integers [B] or [B, n] of concatenated one-hot vectors [B, sum(sizes)]."""
    integers = [one_hot.argmax(-1) for one_hot in x.flatten(1).split(sizes, dim=-1)]
    return integers[0] if single else torch.stack(integers, dim=-1)


def _codes(x: Tensor) -> Tensor:
    # Codes are whole numbers below 255, so one between 0 and 1 has been divided by 255.
    return torch.where(x < 1, x * 255, x).round()


def _transposed_codes(x: Tensor) -> Tensor:
    return _codes(_transposed(x))


def _transposed(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)  # [B, 3, V, V] -> [B, V, V, 3]


def _pixels(x: Tensor) -> Tensor:
    return (x * 255).round()  # the encoder scales them again


def _transposed_pixels(x: Tensor) -> Tensor:
    return _pixels(_transposed(x))


def _identity(x: Tensor) -> Tensor:
    return x

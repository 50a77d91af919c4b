"""Our encoder as a features extractor of SB3: the way to read MiniGrid's symbolic image there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from rmc_agents.encoders import Encoder, is_symbolic_grid


class EncoderExtractor(BaseFeaturesExtractor):
    """Observations of any kind -> features, for any algorithm of SB3.

    `PPO("MultiInputPolicy", env, policy_kwargs=dict(features_extractor_class=EncoderExtractor))`.
    Numbers are read as they are, pictures by convolutions, dictionaries key by key, and MiniGrid's symbolic
    image as names, by embeddings: the code 5 of a key is no larger than the 4 of a door, and a 7 x 7 image
    is too small for SB3's convolutions. It has the parameters of `rmc_agents.encoders.Encoder`.

    Args:
        observation_space: of the environment as SB3 wrapped it, images channels first.
        features_dim: number of features.
        normalize_images: the policy's argument of that name: whether SB3 has divided pixels by 255.

    Raises:
        ValueError: a space that has no encoding.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int = 128, normalize_images: bool = True
    ) -> None:
        super().__init__(observation_space, features_dim)
        self.prepare = {
            key: _preparation(part, normalize_images) for key, part in parts(observation_space).items()
        }
        self.encoder = Encoder(_prepared_space(observation_space), features_dim)

    def forward(self, observations: Any) -> Tensor:
        """What SB3's `preprocess_obs` made of observations [B, ...] -> [B, features_dim]."""
        if isinstance(observations, dict):
            return self.encoder({key: prepare(observations[key]) for key, prepare in self.prepare.items()})
        return self.encoder(self.prepare[""](observations))


def is_grid(space: spaces.Space[Any]) -> bool:
    """MiniGrid's symbolic image, as it is or channels first."""
    return is_symbolic_grid(space) or (channels_first(space) and is_symbolic_grid(_channels_last(space)))


def channels_first(space: spaces.Space[Any]) -> bool:
    """An image that SB3 has turned from [height, width, 3] to [3, height, width].

    SB3 leaves a 3 x 3 image as it is, and so takes no turn here.
    """
    shape = space.shape or ()
    return isinstance(space, spaces.Box) and len(shape) == 3 and shape[0] == 3 and shape[2] != 3


def unturned(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space of the environment itself, its symbolic images channels last again."""
    if isinstance(space, spaces.Dict):
        return map_parts(unturned, space)
    return _channels_last(space) if is_grid(space) and channels_first(space) else space


def map_parts(function: Callable[[spaces.Space[Any]], spaces.Space[Any]], space: spaces.Dict) -> spaces.Dict:
    """`function` of each part; in the order of the keys, which gymnasium sorts unless it gets a list."""
    return spaces.Dict([(key, function(part)) for key, part in space.spaces.items()])


def _channels_last(space: spaces.Space[Any]) -> spaces.Space[Any]:
    assert isinstance(space, spaces.Box)
    low, high = (np.moveaxis(bound, 0, -1) for bound in (space.low, space.high))
    return spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr]


def parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of a `Dict`, or the space itself under no name."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def _preparation(space: spaces.Space[Any], normalize_images: bool) -> Callable[[Tensor], Tensor]:
    """What makes an encoder's input of what SB3's `preprocess_obs` gives."""
    if is_grid(space):
        return _turned_codes if channels_first(space) else _codes
    if is_image_space(space) and normalize_images:
        return _pixels
    return _same if isinstance(space, spaces.Box) else _flat


def _codes(x: Tensor) -> Tensor:
    # Codes are whole numbers, so one between 0 and 1 has been divided by 255.
    return torch.where(x < 1, x * 255, x).round()


def _turned_codes(x: Tensor) -> Tensor:
    return _codes(x.permute(0, 2, 3, 1))


def _pixels(x: Tensor) -> Tensor:
    return (x * 255).round()  # the encoder divides by itself


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def _same(x: Tensor) -> Tensor:
    return x


def _prepared_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space of what `_preparation` gives: SB3 has made vectors of whole numbers already."""
    if isinstance(space, spaces.Dict):
        return map_parts(_prepared_space, space)
    if isinstance(space, spaces.Box):
        return unturned(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return spaces.Box(0.0, 1.0, (int(get_flattened_obs_dim(space)),), np.float32)
    return space  # which the encoder refuses, and says why

"""Features extractor for SB3 that encodes observations as `rmc_agents` agents do.

SB3 transposes images to channels first, divides pixels by 255 and makes integers one-hot. The extractor
undoes the division and, for MiniGrid's symbolic images, the transposition.

Axes: B batch, V side of MiniGrid's view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from rmc_agents.agent.encoders import Encoder, is_symbolic_grid


class EncoderExtractor(BaseFeaturesExtractor):
    """Encoder of any observation, for any SB3 algorithm.

    `PPO("MultiInputPolicy", env, policy_kwargs=dict(features_extractor_class=EncoderExtractor))`.
    Vectors are read without scaling, images by convolutions, dictionaries key by key, and MiniGrid's symbolic
    image by embeddings: its codes are categories (key 5 is not more than door 4), and 7 x 7 is too small for
    SB3's convolutions. The parameters are those of `rmc_agents.agent.encoders.Encoder`.

    Args:
        observation_space: space of one observation as SB3 wrapped the environment, images channels first.
        features_dim: number of features.
        normalize_images: the policy's argument of that name: whether SB3 divides pixels by 255.

    Raises:
        ValueError: the space has no encoding.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int = 128, normalize_images: bool = True
    ) -> None:
        super().__init__(observation_space, features_dim)
        self.prepare = {
            key: _preparation(part, normalize_images) for key, part in named_parts(observation_space).items()
        }
        self.encoder = Encoder(_prepared_space(observation_space), features_dim)

    def forward(self, observations: Any) -> Tensor:
        """Encode the output of SB3's `preprocess_obs` [B, ...] as features [B, features_dim]."""
        if isinstance(observations, dict):
            return self.encoder({key: prepare(observations[key]) for key, prepare in self.prepare.items()})
        return self.encoder(self.prepare[""](observations))


def is_grid(space: spaces.Space[Any]) -> bool:
    """Return whether a space is MiniGrid's symbolic image, channels last or first."""
    return is_symbolic_grid(space) or (is_transposed(space) and is_symbolic_grid(_to_channels_last(space)))


def is_transposed(space: spaces.Space[Any]) -> bool:
    """Return whether SB3 has transposed an image from [height, width, 3] to [3, height, width].

    SB3 does not transpose a 3 x 3 image, so the answer for it is False.
    """
    shape = space.shape or ()
    return isinstance(space, spaces.Box) and len(shape) == 3 and shape[0] == 3 and shape[2] != 3


def restore_grids(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the environment's own space: SB3's with its symbolic images channels last again."""
    if isinstance(space, spaces.Dict):
        return map_parts(restore_grids, space)
    return _to_channels_last(space) if is_grid(space) and is_transposed(space) else space


def named_parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """Return the parts of a `Dict` by key, or any other space under the key ""."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def map_parts(function: Callable[[spaces.Space[Any]], spaces.Space[Any]], space: spaces.Dict) -> spaces.Dict:
    """Apply `function` to each part of a `Dict` and keep the order of its keys."""
    # Gymnasium sorts the keys of a dictionary, but not those of a list of pairs.
    return spaces.Dict([(key, function(part)) for key, part in space.spaces.items()])


def _to_channels_last(space: spaces.Space[Any]) -> spaces.Space[Any]:
    assert isinstance(space, spaces.Box)
    low, high = (np.moveaxis(bound, 0, -1) for bound in (space.low, space.high))
    return spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr]


def _preparation(space: spaces.Space[Any], normalize_images: bool) -> Callable[[Tensor], Tensor]:
    """Return the function that turns the output of SB3's `preprocess_obs` into the encoder's input."""
    if is_grid(space):
        return _transposed_codes if is_transposed(space) else _codes
    if is_image_space(space) and normalize_images:
        return _pixels
    return _identity if isinstance(space, spaces.Box) else _flatten


def _codes(x: Tensor) -> Tensor:
    # Codes are whole numbers, so one between 0 and 1 has been divided by 255.
    return torch.where(x < 1, x * 255, x).round()


def _transposed_codes(x: Tensor) -> Tensor:
    return _codes(x.permute(0, 2, 3, 1))  # [B, 3, V, V] -> [B, V, V, 3]


def _pixels(x: Tensor) -> Tensor:
    return (x * 255).round()  # the encoder divides by 255 too


def _flatten(x: Tensor) -> Tensor:
    return x.flatten(1)


def _identity(x: Tensor) -> Tensor:
    return x


def _prepared_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space of prepared observations, in which SB3 has already made integers one-hot."""
    if isinstance(space, spaces.Dict):
        return map_parts(_prepared_space, space)
    if isinstance(space, spaces.Box):
        return restore_grids(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return spaces.Box(0.0, 1.0, (int(get_flattened_obs_dim(space)),), np.float32)
    return space  # the encoder raises the error

"""The features extractor reads what SB3 has made of an observation as the encoder reads the observation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import VecTransposeImage

from rmc_agents.encoders import Encoder
from rmc_agents.sb3 import EncoderExtractor
from rmc_agents.sb3.features import is_grid, unturned
from tests.sb3.sb3_support import maze, stack


def grid(side: int, top: int = 255) -> spaces.Box:
    return spaces.Box(0, top, (side, side, 3), np.uint8)


SPACES = {
    "vector": spaces.Box(-3, 3, (5,)),
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multibinary": spaces.MultiBinary(3),
    "grid": grid(7),
    "grid of three": grid(3),
    "grid of codes": grid(7, top=10),
    "picture": spaces.Box(0, 255, (40, 36, 3), np.uint8),
    "channels first": spaces.Box(0, 255, (1, 40, 36), np.uint8),
    "dictionary": spaces.Dict(
        image=grid(7), picture=spaces.Box(0, 255, (40, 36, 3), np.uint8), direction=spaces.Discrete(4)
    ),
}


def as_sb3(space: spaces.Space, turn: bool) -> spaces.Space:
    """The space once SB3 has wrapped the environment."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, as_sb3(part, turn)) for key, part in space.items()])
    turned = (
        turn and isinstance(space, spaces.Box) and len(space.shape) == 3 and space.shape[2] < space.shape[0]
    )
    if not turned or space.high.max() < 255:
        return space
    return VecTransposeImage.transpose_space(space)


def turned(obs: np.ndarray | dict, before: spaces.Space, after: spaces.Space) -> np.ndarray | dict:
    if isinstance(obs, dict):
        return {key: turned(value, before[key], after[key]) for key, value in obs.items()}
    return VecTransposeImage.transpose_image(obs) if before.shape != after.shape else obs


@pytest.mark.parametrize("normalize_images", [True, False])
@pytest.mark.parametrize("turn", [True, False], ids=["turned by SB3", "as it is"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_features_are_the_encoders(space: spaces.Space, turn: bool, normalize_images: bool) -> None:
    space.seed(0)
    obs = stack([space.sample() for _ in range(6)])
    if isinstance(obs, dict):
        obs["image"] %= 11
    elif is_grid(space):
        obs %= 11
    wrapped = as_sb3(space, turn)
    extractor = EncoderExtractor(wrapped, 8, normalize_images)
    encoder = Encoder(space, 8)
    encoder.load_state_dict(extractor.encoder.state_dict())

    def tensors(x: np.ndarray | dict) -> torch.Tensor | dict[str, torch.Tensor]:
        return {k: torch.as_tensor(v) for k, v in x.items()} if isinstance(x, dict) else torch.as_tensor(x)

    prepared = preprocess_obs(tensors(turned(obs, space, wrapped)), wrapped, normalize_images)
    torch.testing.assert_close(extractor(prepared), encoder(tensors(obs)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("space", [grid(7), spaces.Dict(image=grid(9), n=spaces.Discrete(2))])
def test_a_turned_space_turns_back(space: spaces.Space) -> None:
    assert unturned(as_sb3(space, turn=True)) == space


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_any_algorithm_reads_the_maze_with_it(algorithm: type[PPO] | type[DQN]) -> None:
    kwargs = (
        {"n_steps": 8, "batch_size": 8} if algorithm is PPO else {"learning_starts": 8, "buffer_size": 64}
    )
    model = algorithm(
        "MultiInputPolicy",
        maze(1),
        policy_kwargs={"features_extractor_class": EncoderExtractor},
        device="cpu",
        **kwargs,
    )
    model.learn(24)
    assert model.predict(model.observation_space.sample())[0] in range(7)

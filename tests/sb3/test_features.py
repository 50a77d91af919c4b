"""Tests of the features extractor: it undoes SB3's preprocessing, so its features equal the encoder's."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minigrid.wrappers import FlatObsWrapper, OneHotPartialObsWrapper, RGBImgPartialObsWrapper
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

from rmc_agents.agent.encoders import Encoder
from rmc_agents.sb3 import EncoderExtractor, RMCPolicy
from rmc_agents.sb3.features import restore
from rmc_agents.spaces.annotated import minigrid_image
from tests.support.sb3 import maze, small_model, stack


def grid(side: int, top: int = 255) -> spaces.Box:
    return spaces.Box(0, top, (side, side, 3), np.uint8)


SPACES = {
    "vector": spaces.Box(-3, 3, (5,)),
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multibinary": spaces.MultiBinary(3),
    "grid": grid(7),
    "3 x 3 grid": grid(3),
    "grid, bounded by its codes": grid(7, top=10),
    "image": spaces.Box(0, 255, (40, 36, 3), np.uint8),
    "image, channels first": spaces.Box(0, 255, (1, 40, 36), np.uint8),
    "dict": spaces.Dict(
        image=grid(7), pixels=spaces.Box(0, 255, (40, 36, 3), np.uint8), direction=spaces.Discrete(4)
    ),
}


def wrap_space(space: spaces.Space, transpose: bool) -> spaces.Space:
    """Return the space after SB3 has wrapped the environment."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, wrap_space(part, transpose)) for key, part in space.items()])
    channels_last = (
        isinstance(space, spaces.Box) and len(space.shape) == 3 and space.shape[2] < space.shape[0]
    )
    if not (transpose and channels_last) or space.high.max() < 255:
        return space
    return VecTransposeImage.transpose_space(space)


def wrap_observation(obs: np.ndarray | dict, before: spaces.Space, after: spaces.Space) -> np.ndarray | dict:
    """Return the observation after SB3 has wrapped the environment."""
    if isinstance(obs, dict):
        return {key: wrap_observation(value, before[key], after[key]) for key, value in obs.items()}
    return VecTransposeImage.transpose_image(obs) if before.shape != after.shape else obs


@pytest.mark.parametrize("normalize_images", [True, False])
@pytest.mark.parametrize("transpose", [True, False], ids=["transposed", "not transposed"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_features_equal_the_encoders(space: spaces.Space, transpose: bool, normalize_images: bool) -> None:
    space.seed(0)
    obs = stack([space.sample() for _ in range(6)])
    if isinstance(obs, dict):
        obs["image"] %= 11
    elif space.shape in ((7, 7, 3), (3, 3, 3)):
        obs %= 11
    wrapped = wrap_space(space, transpose)
    extractor = EncoderExtractor(wrapped, 8, normalize_images)
    # Beside a direction, the extractor recognises MiniGrid's codes.
    own = space
    if isinstance(space, spaces.Dict):  # from a list, which keeps the order of the keys
        own = spaces.Dict(list({**space.spaces, "image": minigrid_image(7)}.items()))
    encoder = Encoder(own, 8)
    encoder.load_state_dict(extractor.encoder.state_dict())

    def tensors(x: np.ndarray | dict) -> torch.Tensor | dict[str, torch.Tensor]:
        return {k: torch.as_tensor(v) for k, v in x.items()} if isinstance(x, dict) else torch.as_tensor(x)

    prepared = preprocess_obs(tensors(wrap_observation(obs, space, wrapped)), wrapped, normalize_images)
    torch.testing.assert_close(extractor(prepared), encoder(tensors(obs)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("space", [grid(7), spaces.Dict(image=grid(9), n=spaces.Discrete(2))])
def test_restore_undoes_the_transposition(space: spaces.Space) -> None:
    assert restore(wrap_space(space, transpose=True), {}) == space


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_algorithms_without_memory_read_the_maze_with_it(algorithm: type[PPO] | type[DQN]) -> None:
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


@pytest.mark.parametrize(
    ("wrap", "reading"),
    [
        (lambda env: env, "codes:11,6,4"),
        (lambda env: RGBImgPartialObsWrapper(env, tile_size=1), "picture:hwc"),
        (lambda env: RGBImgPartialObsWrapper(env, tile_size=2), "picture:hwc"),
        (lambda env: RGBImgPartialObsWrapper(env, tile_size=8), "picture:chw"),
        (OneHotPartialObsWrapper, "raw"),
        (FlatObsWrapper, "raw"),
    ],
    ids=["symbolic", "1 pixel", "2 pixels", "8 pixels", "one-hot", "flat"],
)
def test_sb3_reads_minigrids_wrappers_as_the_agent_does(wrap: Any, reading: str) -> None:
    """Pixels of a 7 x 7 picture are not taken for codes, of which the agent would see nothing."""
    env = DummyVecEnv([lambda: wrap(gymnasium.make("MiniGrid-MemoryS7-v0"))])
    env.seed(0)
    model = small_model(env, "gru")
    own = model.policy.features_extractor.own_space
    image = own["image"] if isinstance(own, spaces.Dict) else own
    assert image.read_as == reading
    first = model.env.reset()
    second = model.env.step(np.array([0]))[0]
    features = [model.policy.extract_features(model.policy.obs_to_tensor(x)[0]) for x in (first, second)]
    assert (features[0] - features[1]).abs().max() > 1e-2


def test_an_image_beside_a_direction_that_is_not_minigrids_is_no_grid_of_codes() -> None:
    space = spaces.Dict(image=grid(7), direction=spaces.Discrete(4))
    env = gymnasium.wrappers.TransformObservation(
        gymnasium.make("CartPole-v1"), lambda obs: space.sample(), space
    )
    own = small_model(DummyVecEnv([lambda: env]), "gru").policy.features_extractor.own_space
    assert own["image"].read_as.startswith("cells")


@pytest.mark.parametrize("side", [(8, 8, 1), (9, 8, 2), (7, 7, 3), (20, 20, 3)], ids=str)
def test_codes_of_any_number_of_channels_are_channels_last_again(side: tuple[int, ...]) -> None:
    space = spaces.Box(0, 255, side, np.uint8)
    wrapped = VecTransposeImage.transpose_space(space)
    own = restore(wrapped, {"observation": "codes:" + ",".join(["256"] * side[2])})
    assert own == space
    extractor = EncoderExtractor(wrapped, 8, read_as={"observation": own.read_as})  # type: ignore[attr-defined]
    x = torch.full((2, *wrapped.shape), 254, dtype=torch.uint8)  # type: ignore[misc]
    x[1] = 255
    features = extractor(preprocess_obs(x, wrapped))
    expected = extractor.encoder(x.movedim(1, -1))
    torch.testing.assert_close(features, expected)
    assert not torch.equal(features[0], features[1])


def test_models_saved_before_numbers_were_scaled_read_them_as_they_did() -> None:
    space = spaces.Box(0, 1000, (3,))
    policy = RMCPolicy(space, spaces.Discrete(2), lambda _: 1e-3, core="gru", hidden_size=4)
    old = {
        k: v for k, v in policy.state_dict().items() if k.split(".")[-1] not in ("shift", "factor", "large")
    }
    assert len(old) < len(policy.state_dict())
    policy.load_state_dict(old)
    x = torch.tensor([[1.0, 20.0, 300.0]])
    assert torch.equal(policy.features_extractor.encoder.parts[0](x), x)


def test_weights_of_another_reading_are_refused_even_where_sb3_would_load_a_part() -> None:
    small = spaces.Box(0, 255, (3, 20, 20), np.uint8)

    def policy(**kwargs: Any) -> RMCPolicy:
        return RMCPolicy(
            small,
            spaces.Discrete(2),
            lambda _: 1e-3,
            core="gru",
            hidden_size=4,
            features_extractor_kwargs={"features_dim": 8, **kwargs},
        )

    old = policy(read_as={"observation": "picture"}).state_dict()
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"belong to another policy .*read_as"):
            policy().load_state_dict(old, strict=strict)
    policy(read_as={"observation": "picture"}).load_state_dict(old)

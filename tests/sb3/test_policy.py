"""Tests of `RMCPolicy` in SB3: spaces, saving, loading, callbacks, environments, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rmc_agents.sb3 import RMCCnnPolicy, RMCMultiInputPolicy, RMCPolicy
from tests.support.sb3 import (
    CRITIC_MEMORIES,
    MAZE,
    SMALL,
    RandomObservations,
    maze,
    predict_actions,
    recall,
    sample_observations,
    small_model,
)
from tests.support.spaces import ACTION_SPACES

OBSERVATIONS = {
    "vector": spaces.Box(-1, 1, (5,)),
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multibinary": spaces.MultiBinary(3),
    "grid": spaces.Box(0, 255, (7, 7, 3), np.uint8),
    "image": spaces.Box(0, 255, (40, 36, 3), np.uint8),
    "dict": spaces.Dict(
        image=spaces.Box(0, 255, (7, 7, 3), np.uint8),
        direction=spaces.Discrete(4),
        speed=spaces.Box(-1, 1, (2,)),
    ),
}
STARTS = [[True, True], [False, False], [False, True], [False, False]]


def trained(observation_space: spaces.Space, action_space: spaces.Space, **kwargs: Any) -> RecurrentPPO:
    """Return a model after one rollout and its updates."""
    env = DummyVecEnv([lambda: RandomObservations(observation_space, action_space) for _ in range(2)])
    model = small_model(env, algorithm={"n_steps": 8, "batch_size": 8}, **kwargs)
    return model.learn(16)


@pytest.mark.parametrize("observation_space", OBSERVATIONS.values(), ids=OBSERVATIONS)
def test_policy_learns_from_any_observation_space(observation_space: spaces.Space) -> None:
    model = trained(observation_space, spaces.Discrete(3))
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())
    actions, _ = model.predict(observation_space.sample())
    assert actions in (0, 1, 2)


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_policy_acts_in_any_action_space_and_as_before_after_loading(
    action_space: spaces.Space, tmp_path: Path
) -> None:
    model = trained(OBSERVATIONS["vector"], action_space)
    observations = sample_observations(model, 4)
    before = predict_actions(model, observations, STARTS)
    assert action_space.contains(before[0][0])
    model.save(tmp_path / "model.zip")
    loaded = RecurrentPPO.load(tmp_path / "model.zip", device="cpu")
    np.testing.assert_array_equal(predict_actions(loaded, observations, STARTS), before)


@pytest.mark.parametrize("critic", CRITIC_MEMORIES)
def test_saved_models_load_with_their_options_and_continue_training(
    any_core: str, critic: str, tmp_path: Path
) -> None:
    model = small_model(maze(2), any_core, {"n_steps": 8, "batch_size": 8}, **CRITIC_MEMORIES[critic]).learn(
        16
    )
    model.save(tmp_path / "model.zip")
    loaded = RecurrentPPO.load(tmp_path / "model.zip", env=maze(3), device="cpu")
    observations = sample_observations(model, 4)
    np.testing.assert_array_equal(
        predict_actions(loaded, observations, STARTS), predict_actions(model, observations, STARTS)
    )
    loaded.learn(24, reset_num_timesteps=False)
    assert loaded.num_timesteps == 16 + 24
    assert len(loaded.policy.optimizer.state) == len(list(loaded.policy.parameters()))

    model.policy.save(str(tmp_path / "policy.pt"))
    policy = RMCPolicy.load(str(tmp_path / "policy.pt"), device="cpu")
    for obs in observations:
        np.testing.assert_array_equal(
            policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0]
        )


@pytest.mark.parametrize(
    "kwargs",
    [
        {"use_sde": True},
        {"share_features_extractor": False},
        {"net_arch": []},
        {"net_arch": [12, 10], "activation_fn": torch.nn.ReLU, "ortho_init": False},
        {"features_extractor_class": FlattenExtractor, "features_extractor_kwargs": {}},
        {"optimizer_class": torch.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.9}},
    ],
    ids=lambda kwargs: next(iter(kwargs)),
)
@pytest.mark.parametrize("critic", ["separate", "none"])
def test_options_of_sb3_work_and_are_saved(kwargs: dict[str, Any], critic: str, tmp_path: Path) -> None:
    sde = kwargs == {"use_sde": True}  # an argument of the algorithm in SB3
    env = DummyVecEnv(
        [lambda: RandomObservations(OBSERVATIONS["vector"], ACTION_SPACES["box"]) for _ in range(2)]
    )
    options = {**({} if sde else kwargs), **CRITIC_MEMORIES[critic]}
    model = small_model(env, algorithm={"n_steps": 8, "batch_size": 8, "use_sde": sde}, **options).learn(16)
    observations = sample_observations(model, 4)
    model.policy.save(str(tmp_path / "policy.pt"))
    policy = RMCPolicy.load(str(tmp_path / "policy.pt"), device="cpu")
    for obs in observations:
        np.testing.assert_array_equal(
            policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0]
        )


def test_features_extractors_of_sb3_work() -> None:
    model = trained(
        OBSERVATIONS["image"],
        spaces.Discrete(2),
        features_extractor_class=NatureCNN,
        features_extractor_kwargs={"features_dim": 8},
    )
    assert model.policy.lstm_actor.input_size == 8
    inputs = spaces.Dict(a=OBSERVATIONS["vector"], b=spaces.Discrete(3))
    model = trained(
        inputs, spaces.Discrete(2), features_extractor_class=CombinedExtractor, features_extractor_kwargs={}
    )
    assert model.policy.lstm_actor.input_size == 8


def test_cnn_and_multi_input_policies_are_aliases() -> None:
    assert RMCCnnPolicy is RMCMultiInputPolicy is RMCPolicy


def test_same_seed_gives_the_same_model() -> None:
    def parameters() -> torch.Tensor:
        model = small_model(recall()).learn(128)
        return torch.nn.utils.parameters_to_vector(model.policy.parameters())

    assert torch.equal(parameters(), parameters())


def test_policy_is_initialised_as_an_agent() -> None:
    """SB3's orthogonal initialisation applies to the heads only, not to the memory or the encoder."""
    torch.manual_seed(0)
    model = RecurrentPPO(RMCPolicy, maze(1), device="cpu")
    embedding = model.policy.features_extractor.encoder.parts[1].embedding.weight
    assert embedding.std().item() == pytest.approx(3**-0.5, rel=0.2)
    assert torch.linalg.matrix_norm(model.policy.action_net.weight, 2).item() == pytest.approx(0.01, rel=1e-3)


def test_evaluation_and_checkpoint_callbacks_work(tmp_path: Path) -> None:
    evaluation = EvalCallback(
        recall(2),
        n_eval_episodes=4,
        eval_freq=8,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        verbose=0,
    )
    checkpoints = CheckpointCallback(8, str(tmp_path))
    small_model(recall()).learn(64, callback=[evaluation, checkpoints])
    assert {path.name for path in tmp_path.iterdir()} == {
        "best_model.zip",
        "evaluations.npz",
        "rl_model_32_steps.zip",
        "rl_model_64_steps.zip",
    }
    model = RecurrentPPO.load(tmp_path / "rl_model_64_steps.zip", env=recall(4), device="cpu")
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps == 128


def test_training_and_evaluation_continue_in_minigrids_own_mazes() -> None:
    model = small_model(maze(2), algorithm={"n_steps": 8, "batch_size": 8}).learn(16)
    model.set_env(maze(2, seeding="farama"))
    model.learn(16, reset_num_timesteps=False)
    minigrid = make_vec_env(MAZE, 2, seed=0, env_kwargs={"max_steps": 10})
    model.set_env(minigrid)
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 48
    evaluate_policy(model, minigrid, 2)
    evaluate_policy(model, maze(2), 2)


def test_vec_normalize_works() -> None:
    model = small_model(VecNormalize(recall())).learn(64)
    assert model.num_timesteps == 64


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"core": "rcm"}, "unknown core 'rcm'.*Did you mean 'rmc'"),
        ({"num_slot": 4}, "no option 'num_slot'.*Did you mean 'num_slots'"),
        ({"core": "gru", "num_slots": 4}, "core 'gru' has no option 'num_slots'; it has: hidden_size"),
        (
            {"lstm_hidden_size": 64},
            "lstm_hidden_size is an option of MlpLstmPolicy; core 'rmc' has instead: num_slots",
        ),
        ({"num_slots": 0}, "num_slots must be a whole number"),
        ({"shared_lstm": True}, "set one of the two to False"),
        (
            {"shared_lstm": True, "enable_critic_lstm": False, "share_features_extractor": False},
            "share_features_extractor=True",
        ),
    ],
)
def test_invalid_options_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentPPO(RMCPolicy, recall(), policy_kwargs=kwargs, device="cpu")


def test_unsupported_observation_spaces_are_named() -> None:
    policy_kwargs = dict(SMALL)
    space = spaces.Dict(ok=spaces.Discrete(2), bad=spaces.Sequence(spaces.Discrete(2)))
    with pytest.raises(ValueError, match="no encoder for an observation of Sequence"):
        RMCPolicy(space, spaces.Discrete(2), lambda _: 1e-3, **policy_kwargs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_policy_trains_on_a_gpu() -> None:
    model = small_model(maze(device="cuda"), algorithm={"device": "cuda"}).learn(64)
    action, _ = model.predict(model.observation_space.sample())
    assert model.action_space.contains(int(action))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool], ids=lambda x: np.dtype(x).name)
def test_boxes_of_integers_are_refused_as_actions(dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"a Box of floats.*BatchedVecEnv"):
        RMCPolicy(spaces.Box(-1, 1, (3,)), spaces.Box(0, 1, (2,), dtype), lambda _: 1e-3)

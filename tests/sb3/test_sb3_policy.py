"""The policy where SB3's users meet it: spaces, saving, loading, callbacks, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
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
from tests.sb3.sb3_support import (
    MAZE,
    MEMORIES,
    SMALL,
    Spaces,
    maze,
    play,
    recall,
    small_model,
    some_observations,
)

OBSERVATIONS = {
    "vector": spaces.Box(-1, 1, (5,)),
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multibinary": spaces.MultiBinary(3),
    "grid": spaces.Box(0, 255, (7, 7, 3), np.uint8),
    "picture": spaces.Box(0, 255, (40, 36, 3), np.uint8),
    "dictionary": spaces.Dict(
        image=spaces.Box(0, 255, (7, 7, 3), np.uint8),
        direction=spaces.Discrete(4),
        speed=spaces.Box(-1, 1, (2,)),
    ),
}
ACTIONS = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiBinary(4),
    spaces.Box(-0.1, 0.1, (2,)),
]
STARTS = [[True, True], [False, False], [False, True], [False, False]]


def trained(observation_space: spaces.Space, action_space: spaces.Space, **kwargs: Any) -> RecurrentPPO:
    env = DummyVecEnv([lambda: Spaces(observation_space, action_space) for _ in range(2)])
    model = small_model(env, algorithm={"n_steps": 8, "batch_size": 8}, **kwargs)
    return model.learn(16)


@pytest.mark.parametrize("observation_space", OBSERVATIONS.values(), ids=OBSERVATIONS)
def test_it_learns_from_observations_of_any_kind(observation_space: spaces.Space) -> None:
    model = trained(observation_space, spaces.Discrete(3))
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())
    actions, _ = model.predict(observation_space.sample())
    assert actions in (0, 1, 2)


@pytest.mark.parametrize("action_space", ACTIONS, ids=lambda s: type(s).__name__)
def test_it_acts_in_every_space_and_saves_what_it_does(action_space: spaces.Space, tmp_path: Path) -> None:
    model = trained(OBSERVATIONS["vector"], action_space)
    observations = some_observations(model, 4)
    before = play(model, observations, STARTS)
    assert action_space.contains(before[0][0])
    model.save(tmp_path / "model.zip")
    loaded = RecurrentPPO.load(tmp_path / "model.zip", device="cpu")
    np.testing.assert_array_equal(play(loaded, observations, STARTS), before)


@pytest.mark.parametrize("critic", MEMORIES)
def test_saved_with_sizes_of_its_own_it_loads_and_goes_on(any_core: str, critic: str, tmp_path: Path) -> None:
    model = small_model(maze(2), any_core, {"n_steps": 8, "batch_size": 8}, **MEMORIES[critic]).learn(16)
    model.save(tmp_path / "model.zip")
    loaded = RecurrentPPO.load(tmp_path / "model.zip", env=maze(3), device="cpu")
    observations = some_observations(model, 4)
    np.testing.assert_array_equal(play(loaded, observations, STARTS), play(model, observations, STARTS))
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
def test_the_options_of_sb3_stay(kwargs: dict[str, Any], critic: str, tmp_path: Path) -> None:
    sde = kwargs == {"use_sde": True}  # which SB3 wants to be told of as the algorithm's
    env = DummyVecEnv([lambda: Spaces(OBSERVATIONS["vector"], ACTIONS[3]) for _ in range(2)])
    options = {**({} if sde else kwargs), **MEMORIES[critic]}
    model = small_model(env, algorithm={"n_steps": 8, "batch_size": 8, "use_sde": sde}, **options).learn(16)
    observations = some_observations(model, 4)
    model.policy.save(str(tmp_path / "policy.pt"))
    policy = RMCPolicy.load(str(tmp_path / "policy.pt"), device="cpu")
    for obs in observations:
        np.testing.assert_array_equal(
            policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0]
        )


def test_the_convolutions_of_sb3_work_too() -> None:
    model = trained(
        OBSERVATIONS["picture"],
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


def test_one_policy_has_the_three_names_that_people_look_for() -> None:
    assert RMCCnnPolicy is RMCMultiInputPolicy is RMCPolicy


def test_the_same_seed_gives_the_same_model() -> None:
    def parameters() -> torch.Tensor:
        model = small_model(recall()).learn(128)
        return torch.nn.utils.parameters_to_vector(model.policy.parameters())

    assert torch.equal(parameters(), parameters())


def test_it_starts_as_our_own_agent_does() -> None:
    """SB3's orthogonal initialisation reaches the heads, and neither the memory nor the encoder."""
    torch.manual_seed(0)
    model = RecurrentPPO(RMCPolicy, maze(1), device="cpu")
    embedding = model.policy.features_extractor.encoder.parts[1].embedding.weight
    assert embedding.std().item() == pytest.approx(3**-0.5, rel=0.2)
    assert torch.linalg.matrix_norm(model.policy.action_net.weight, 2).item() == pytest.approx(0.01, rel=1e-3)


def test_callbacks(tmp_path: Path) -> None:
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


def test_set_env_and_environments_of_other_makes() -> None:
    """What was learned on the batched mazes goes on, and is judged, on Farama's."""
    model = small_model(maze(2), algorithm={"n_steps": 8, "batch_size": 8}).learn(16)
    model.set_env(maze(2, seeding="farama"))
    model.learn(16, reset_num_timesteps=False)
    farama = make_vec_env(MAZE, 2, seed=0, env_kwargs={"max_steps": 10})
    model.set_env(farama)
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 48
    evaluate_policy(model, farama, 2)
    evaluate_policy(model, maze(2), 2)


def test_minigrid_by_its_plain_id() -> None:
    model = RecurrentPPO(
        RMCPolicy,
        MAZE,
        n_steps=16,
        batch_size=16,
        n_epochs=1,
        policy_kwargs={"num_slots": 4, "head_size": 16, "num_heads": 4},
        device="cpu",
    )
    assert set(model.observation_space.spaces) == {"image", "direction"}
    model.learn(32)
    env = gymnasium.make(MAZE)
    obs, _ = env.reset(seed=0)
    assert "mission" in obs, "Gymnasium's own environment is as ever"
    action, state = model.predict(obs, episode_start=np.array([True]))
    assert env.action_space.contains(int(action))
    model.predict(obs, state)
    evaluate_policy(model, gymnasium.make(MAZE, max_steps=5), 2, warn=False)


def test_texts_are_left_out_in_sb3_alone() -> None:
    class Words(Spaces):
        def __init__(self) -> None:
            words = spaces.Dict(words=spaces.Text(5), number=spaces.Box(0, 1, (2,)))
            super().__init__(words, spaces.Discrete(2))

    assert set(DummyVecEnv([Words]).observation_space.spaces) == {"number"}
    plain = Spaces(spaces.Dict(a=spaces.Discrete(2)), spaces.Discrete(2))
    assert DummyVecEnv([lambda: plain]).envs[0] is plain


def test_vec_normalize() -> None:
    model = small_model(VecNormalize(recall())).learn(64)
    assert model.num_timesteps == 64


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"core": "rcm"}, "unknown core 'rcm'.*Did you mean 'rmc'"),
        ({"num_slot": 4}, "no option 'num_slot'.*Did you mean 'num_slots'"),
        ({"core": "gru", "num_slots": 4}, "core 'gru' has no option 'num_slots'; it has: hidden_size"),
        ({"lstm_hidden_size": 64}, "lstm_hidden_size is MlpLstmPolicy's; core 'rmc' has instead: num_slots"),
        ({"num_slots": 0}, "num_slots must be a whole number"),
        ({"shared_lstm": True}, "set one of them to False"),
        (
            {"shared_lstm": True, "enable_critic_lstm": False, "share_features_extractor": False},
            "share_features_extractor=True",
        ),
    ],
)
def test_a_wrong_option_is_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentPPO(RMCPolicy, recall(), policy_kwargs=kwargs, device="cpu")


def test_an_observation_without_encoding_is_named() -> None:
    policy_kwargs = dict(SMALL)
    space = spaces.Dict(ok=spaces.Discrete(2), bad=spaces.Sequence(spaces.Discrete(2)))
    with pytest.raises(ValueError, match="no encoder for an observation of Sequence"):
        RMCPolicy(space, spaces.Discrete(2), lambda _: 1e-3, **policy_kwargs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    model = small_model(maze(device="cuda"), algorithm={"device": "cuda"}).learn(64)
    action, _ = model.predict(model.observation_space.sample())
    assert model.action_space.contains(int(action))

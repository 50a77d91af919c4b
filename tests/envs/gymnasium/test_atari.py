"""Atari games: one preprocessing in two implementations, its options, and messages for what is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv

import rmc_envs
from rmc_agents.agent.encoders import Encoder
from rmc_envs.gymnasium import atari

GAME = "ALE/Breakout-v5"
FIXED = {"preprocessing": "atari", "repeat_action_probability": 0.0}
"""Options of a game without sticky actions."""


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[gymnasium.Env, VectorEnv]]]:
    """Return a function that builds a game both ways, without random waits."""
    monkeypatch.setattr(atari, "MAX_WAITS", 0)
    made: list[Any] = []

    def build(**options: Any) -> tuple[gymnasium.Env, VectorEnv]:
        rmc_envs.resolve(GAME)
        spec = gymnasium.spec(GAME)
        batch = atari.preprocessed_batch(spec, 1, {**FIXED, **options})
        assert batch is not None
        made.extend((atari.preprocessed(spec, {**FIXED, **options}), batch))
        return made[-2], made[-1]

    yield build
    for each in made:
        each.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"frame_stack": 1, "clip_rewards": True}, {"terminal_on_life_loss": True}],
    ids=str,
)
def test_both_implementations_are_equal(
    options: dict[str, Any], pair: Callable[..., tuple[gymnasium.Env, VectorEnv]]
) -> None:
    single, batch = pair(**options)
    assert single.observation_space == batch.single_observation_space
    assert single.action_space == batch.single_action_space
    one, many = single.reset(seed=0)[0], batch.reset(seed=0)[0]
    rng, rewards = np.random.default_rng(0), 0.0
    for _ in range(1000):
        np.testing.assert_array_equal(one, many[0])
        # Shots, so that the ball is in play, and some rewards and lives are had.
        action = int(rng.choice([1, 2, 3]))
        one, reward, terminated, truncated, info = single.step(action)
        many, *outcome, infos = batch.step(np.array([action]))
        assert [x[0] for x in outcome] == [reward, terminated, truncated]
        rewards += float(reward)
        if terminated or truncated:
            np.testing.assert_array_equal(one, infos["final_obs"][0])
            break
    else:
        pytest.fail("the episode did not end")
    assert (info["lives"] > 0) == ("terminal_on_life_loss" in options)
    assert rewards > 0 or info["lives"] > 0


def test_plain_id_trains_in_the_fast_batch_and_is_evaluated_in_the_single_game() -> None:
    batch = rmc_envs.make(GAME, 2, preprocessing="atari")
    assert isinstance(batch, rmc_envs.GymnasiumEnvs)
    assert type(batch.env).__name__ == "AtariVectorEnv"
    assert batch.observation_space.shape == (4, 84, 84)
    obs = batch.reset(0)
    assert isinstance(obs, torch.Tensor)
    assert obs.dtype == torch.uint8
    step = batch.step(torch.zeros(2, dtype=torch.int64))
    assert step.reward.dtype == torch.float32
    assert batch.notes == ()
    batch.close()
    sync = rmc_envs.make(GAME, 1, vectorization="sync", preprocessing="atari")
    assert sync.observation_space == batch.observation_space
    sync.close()


def test_options_that_the_fast_batch_lacks_use_single_games() -> None:
    batch = rmc_envs.make(GAME, 1, preprocessing="atari", difficulty=0)
    assert isinstance(batch, rmc_envs.GymnasiumEnvs)
    assert type(batch.env).__name__ == "SyncVectorEnv"
    batch.close()


def test_pictures_without_preprocessing_are_read_as_colors() -> None:
    with pytest.warns(UserWarning, match="preprocessing=atari"):
        batch = rmc_envs.make(GAME, 1)
    features = Encoder(batch.observation_space, 8)(batch.reset(0))
    assert features.shape == (1, 8)
    batch.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_stack": 0}, "frame_stack=0: expected 1 to 64"),
        ({"frameskip": 3}, "Disable frame-skipping in the original env"),
        ({"preprocessing": "nature"}, "preprocessing='nature': expected 'atari'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rmc_envs.make(GAME, 1, **{"preprocessing": "atari", **options})


@pytest.mark.parametrize("module", ["ale_py", "cv2"])
def test_missing_package_is_one_sentence(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == module else find(name, *a)
    )
    if module == "ale_py":
        for name in [each for each in gymnasium.registry if each.startswith("ALE/")]:
            monkeypatch.delitem(gymnasium.registry, name)
    with pytest.raises(ValueError, match=r"needs \w+(?:py|CV): pip install 'rmc-agents\[atari\]'$") as caught:
        rmc_envs.make("ALE/Pong-v5", 1, preprocessing="atari")
    assert "\n" not in str(caught.value)

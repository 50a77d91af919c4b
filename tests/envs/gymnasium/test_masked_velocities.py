"""Masked control tasks: what is hidden is what the simulator calls a velocity, and nothing else changes."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

import rmc_envs
from rmc_envs.gymnasium.masked_velocities import OWN_OPTIONS, SOURCES, indices_of

CLIPPED = ("HopperEnv", "Walker2dEnv")
"""Environments that clip velocities in observations."""


def _state_of(env: Any) -> tuple[NDArray, NDArray]:
    """Return positions and velocities as the simulator has them, in the order of an observation."""
    inner = env.unwrapped
    if hasattr(inner, "data"):
        skipped = inner.observation_structure["skipped_qpos"]
        clipped = inner.data.qvel.clip(-10, 10) if type(inner).__name__ in CLIPPED else inner.data.qvel
        return inner.data.qpos[skipped:], clipped
    if env.spec.id == "Pendulum-v1":
        angle, velocity = inner.state
        return np.array([np.cos(angle), np.sin(angle)]), np.array([velocity])
    return np.array(inner.state)[[0, 2]], np.array(inner.state)[[1, 3]]


@pytest.mark.parametrize("task", SOURCES)
def test_indices_match_the_simulator(task: str) -> None:
    source = SOURCES[task]
    env = gymnasium.make(source, **OWN_OPTIONS.get(source, {}))
    obs, _ = env.reset(seed=0)
    for _ in range(5):
        obs, *_ = env.step(env.action_space.sample())
        indices, (positions, velocities) = indices_of(env), _state_of(env)
        np.testing.assert_allclose(obs[list(indices.positions)], positions, atol=1e-6)
        np.testing.assert_allclose(obs[list(indices.velocities)], velocities, atol=1e-6)
        assert sorted(indices.positions + indices.velocities) == list(range(len(obs)))


@pytest.mark.parametrize("task", SOURCES)
def test_episode_differs_from_gymnasiums_in_the_observation_only(task: str) -> None:
    source = SOURCES[task]
    full = gymnasium.make(source, **OWN_OPTIONS.get(source, {}))
    parts = [gymnasium.make(task), gymnasium.make(task, hide="positions")]
    indices = indices_of(full)
    shown = [list(indices.positions), list(indices.velocities)]
    obs, _ = full.reset(seed=3)
    seen = [env.reset(seed=3)[0] for env in parts]
    full.action_space.seed(0)
    for _ in range(10):
        for part, index in zip(seen, shown, strict=True):
            np.testing.assert_array_equal(part, obs[index])
        action = full.action_space.sample()
        obs, *outcome, _ = full.step(action)
        steps = [env.step(action) for env in parts]
        seen = [step[0] for step in steps]
        assert all(list(step[1:4]) == outcome for step in steps)
        if any(outcome[1:]):
            break


@pytest.mark.parametrize("task", SOURCES)
def test_task_passes_gymnasiums_passive_checker_and_keeps_the_time_limit(task: str) -> None:
    env = gymnasium.make(task)  # with the checker, whose warnings are errors here
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    assert env.step(env.action_space.sample())[0] in env.observation_space
    assert env.spec is not None
    assert env.spec.max_episode_steps == gymnasium.spec(SOURCES[task]).max_episode_steps


def test_hidden_part_is_an_option_of_the_batch() -> None:
    assert rmc_envs.make("rmc/MaskedPendulum-v0", 2).observation_space.shape == (2,)
    assert rmc_envs.make("rmc/MaskedPendulum-v0", 2, hide="positions").observation_space.shape == (1,)
    with pytest.raises(ValueError, match="hide='speed': expected 'velocities' or 'positions'"):
        rmc_envs.make("rmc/MaskedPendulum-v0", hide="speed")


def test_options_of_gymnasiums_task_are_passed_on() -> None:
    env = rmc_envs.make("rmc/MaskedHopper-v0", 1, exclude_current_positions_from_observation=False)
    assert env.observation_space.shape == (6,)  # with the position along the way
    assert rmc_envs.make("rmc/MaskedAnt-v0", 1).observation_space.shape == (13,)


def test_missing_mujoco_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "mujoco" else find(name, *a)
    )
    expected = r"^rmc/MaskedHopper-v0 needs MuJoCo: pip install 'rmc-agents\[mujoco\]'$"
    with pytest.raises(ValueError, match=expected):
        rmc_envs.make("rmc/MaskedHopper-v0")

"""Normalised rewards: `VecNormalize`'s numbers, saved in checkpoints, equal in all processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import rmc_envs
from rmc_agents import ActorCritic, Trainer
from rmc_agents.rl.normalization import RewardNormalizer
from rmc_agents.rl.rollout import Rollout, initial_carry
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.training.processes import ALONE, Processes
from tests.conftest import small_options
from tests.support.agents import fresh_agent, small_env
from tests.support.groups import in_processes
from tests.support.trainers import QUICK, assert_identical, ppo_trainer, save_interrupted

NORMALIZED = dataclasses.replace(QUICK, normalize_rewards=True)


def rollout_of(rewards: np.ndarray, starts: np.ndarray, valid: np.ndarray | None = None) -> Rollout:
    """Return a rollout with these numbers [T, B]."""
    env = small_env(rewards.shape[1])
    agent = fresh_agent("gru", env)
    rollout = Rollout.allocate(agent, initial_carry(agent, env, 0), len(rewards))
    rollout.rewards.copy_(torch.tensor(rewards))
    rollout.starts.copy_(torch.tensor(starts))
    if valid is not None:
        rollout.valid.copy_(torch.tensor(valid))
    return rollout


def test_statistics_and_normalised_rewards_equal_those_of_vecnormalize() -> None:
    """With one update per rollout; SB3's is per step, so that its returns are gathered first."""
    rng = np.random.default_rng(0)
    oracle = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")] * 4), gamma=0.9)
    oracle.returns = np.zeros(4)
    normalizer = RewardNormalizer(0.9, 4)
    starts = np.ones(4, dtype=bool)
    for _ in range(3):
        rewards = (rng.normal(size=(16, 4)) * 5 - 8).astype(np.float32)
        dones = rng.random((16, 4)) < 0.2
        all_starts = np.concatenate([starts[None], dones[:-1]])
        starts = dones[-1]
        returns = []
        for reward, done in zip(rewards, dones, strict=True):
            oracle.returns = oracle.returns * oracle.gamma + reward
            returns.append(oracle.returns.copy())
            oracle.returns[done] = 0
        oracle.ret_rms.update(np.concatenate(returns))
        normalized = normalizer.normalize(rollout_of(rewards, all_starts))
        np.testing.assert_allclose(normalizer.moments.mean.item(), oracle.ret_rms.mean, rtol=1e-12)
        np.testing.assert_allclose(normalizer.moments.var.item(), oracle.ret_rms.var, rtol=1e-12)
        np.testing.assert_allclose(normalized.numpy(), oracle.normalize_reward(rewards), rtol=1e-6)
    huge = normalizer.normalize(rollout_of(np.array([[1e9, 0, 0, 0]], np.float32), np.ones((1, 4), bool)))
    assert huge.abs().max() <= 10


def test_filler_steps_do_not_count() -> None:
    rewards, starts = np.array([[1.0], [5.0], [2.0]], np.float32), np.array([[True], [True], [True]])
    with_filler, without = RewardNormalizer(0.9, 1), RewardNormalizer(0.9, 1)
    with_filler.normalize(rollout_of(rewards, starts, np.array([[True], [False], [True]])))
    without.normalize(rollout_of(rewards[::2], starts[::2]))
    torch.testing.assert_close(with_filler.moments.state_dict(), without.moments.state_dict())


def test_logged_returns_and_rewards_that_agents_read_keep_their_units(tmp_path: Path) -> None:
    """The first rollout is the same with and without; only what is learned from it differs."""
    plain, normalized = ppo_trainer(tmp_path / "a"), ppo_trainer(tmp_path / "b", config=NORMALIZED)
    figures = plain.iterate(), normalized.iterate()
    assert figures[0]["rollout/ep_rew_mean"] == figures[1]["rollout/ep_rew_mean"]
    assert torch.equal(plain.rollout.rewards, normalized.rollout.rewards)
    assert torch.equal(plain.carry.state.reward, normalized.carry.state.reward)
    assert figures[0]["train/value_loss"] != figures[1]["train/value_loss"]


class Numbers(rmc_envs.Recall):
    """Recall whose observations and rewards are far from 0 and 1."""

    def reset(self, seed: int | None = None) -> Any:
        return super().reset(seed) * 50.0 + 20.0

    def observation_table(self) -> None:
        return None

    def step(self, actions: torch.Tensor) -> rmc_envs.Transition:
        step = super().step(actions)
        return step._replace(
            obs=step.obs * 50.0 + 20.0,  # type: ignore[operator]
            final_obs=step.final_obs * 50.0 + 20.0,  # type: ignore[operator]
            reward=step.reward * 300.0 - 5.0,
        )

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        return super().load_state_dict(state) * 50.0 + 20.0


def trainer(run_dir: Path, processes: Processes | None = None) -> Trainer:
    """Build the trainer of a run, or of one of several processes, with both kinds of normalisation."""
    size = 1 if processes is None else processes.size
    torch.manual_seed(5)
    env = Numbers(8 // size, num_symbols=3, delay=2)
    sizes = {"features": 16, "hidden_size": 16}
    agent = ActorCritic(
        env.observation_space,
        env.action_space,
        "gru",
        small_options("gru"),
        normalize_observations=True,
        previous_reward=True,
        **sizes,
    )
    options: dict[str, Any] = {} if processes is None else {"processes": processes}
    return Trainer(agent, env, NORMALIZED, run_dir, seed=5, **options)


def statistics(run: Trainer) -> list[torch.Tensor]:
    assert run.rewards is not None
    return [*run.agent.buffers(), *run.rewards.moments.buffers(), run.rewards.returns]


def resume_in_the_middle(run_dir: Path, processes: Processes | None = None) -> list[torch.Tensor]:
    """Assert that a run resumed after two of four iterations equals one in one go; return its numbers."""
    whole, first = trainer(run_dir / "whole", processes), trainer(run_dir / "parts", processes)
    for _ in range(4):
        whole.iterate()
    for _ in range(2):
        first.iterate()
    first.save() if first.processes.rank else save_interrupted(first)
    second = trainer(run_dir / "parts", processes)
    second.restore()
    for x, y in zip(statistics(first), statistics(second), strict=True):
        assert torch.equal(x, y)
    for _ in range(2):
        second.iterate()
    assert_identical(whole, second)
    for x, y in zip(statistics(whole), statistics(second), strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(statistics(whole)[0], torch.zeros_like(statistics(whole)[0]))
    return [*whole.agent.parameters(), *statistics(whole)[:-1]]


def test_resumed_run_continues_its_statistics_bit_for_bit(tmp_path: Path) -> None:
    resume_in_the_middle(tmp_path)


def test_processes_agree_on_statistics_and_resume_bit_for_bit(tmp_path: Path) -> None:
    first, second = in_processes(lambda group: [x.detach() for x in resume_in_the_middle(tmp_path, group)])
    assert not isinstance(first, str), first
    assert not isinstance(second, str), second
    for x, y in zip(first, second, strict=True):
        assert torch.equal(x, y)
    alone = trainer(tmp_path / "parts")
    notes = alone.restore()
    assert any("saved by 2 processes" in note for note in notes)
    assert torch.equal(statistics(alone)[-1], torch.zeros(8, dtype=torch.float64))


def test_checkpoint_with_half_or_forged_statistics_is_refused(tmp_path: Path) -> None:
    normalized = ppo_trainer(tmp_path / "normalized", config=NORMALIZED)
    normalized.iterate()
    state = normalized.state_dict()
    for name in ("return_moments", "discounted_returns"):
        with pytest.raises(KeyError, match=name):
            normalized.load_state_dict({key: part for key, part in state.items() if key != name})
    good = state["return_moments"]
    for name, number in (("var", -1.0), ("count", -1), ("mean", float("nan"))):
        state["return_moments"] = {**good, name: torch.full_like(good[name], number)}
        with pytest.raises(ValueError, match=r"negative|not finite"):
            normalized.load_state_dict(state)
    state["return_moments"] = {**good, "var": torch.ones(2)}
    with pytest.raises(ValueError, match="another form"):
        normalized.load_state_dict(state)
    state["return_moments"] = good
    assert normalized.load_state_dict(state) == []


def test_checkpoint_without_normalisation_holds_no_statistics(tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path / "run")
    run.iterate()
    save_interrupted(run)
    payload = read_newest(tmp_path / "run")[1]
    assert not [name for name in (*payload, *payload["agent"]) if "moments" in name or "discounted" in name]


def switched(folder: Path, processes: Processes) -> list[tuple[bool, int, list[float]]]:
    """Resume a run with normalisation switched on, off, and on again; return notes and statistics of each."""
    found = []
    for config in (QUICK, NORMALIZED, QUICK, NORMALIZED):
        env = small_env(8 // processes.size)
        run = ppo_trainer(folder, env=env, config=config, processes=processes)
        notes = run.restore() if found else []
        counts = [0, 0.0, 0.0]
        run.iterate()
        if run.rewards is not None:
            counts = [x.item() for x in run.rewards.moments.buffers()]
        found.append((any("not normalised before" in note for note in notes), *counts))
        save_interrupted(run) if not processes.rank else run.save()
        processes.together(lambda: None)
    return found


def test_resumed_run_that_switches_normalisation_on_starts_with_new_statistics(tmp_path: Path) -> None:
    samples = QUICK.num_steps * 8
    alone = switched(tmp_path / "alone", ALONE)
    assert [(note, count) for note, count, *_ in alone] == [(False, 0), (True, samples)] * 2
    first, second = in_processes(lambda group: switched(tmp_path / "shared", group))
    assert not isinstance(first, str), first
    assert first == second
    assert [(note, count) for note, count, *_ in first] == [(False, 0), (True, samples)] * 2


def test_state_without_statistics_replaces_those_of_a_trainer(tmp_path: Path) -> None:
    plain, used, fresh = (
        ppo_trainer(tmp_path / name, config=config)
        for name, config in (("plain", QUICK), ("used", NORMALIZED), ("fresh", NORMALIZED))
    )
    plain.iterate()
    used.iterate()
    for run in (used, fresh):
        assert len(run.load_state_dict(plain.state_dict())) == 1
        run.iterate()
    assert_identical(used, fresh)
    assert used.rewards is not None
    assert fresh.rewards is not None
    assert torch.equal(used.rewards.moments.var, fresh.rewards.moments.var)

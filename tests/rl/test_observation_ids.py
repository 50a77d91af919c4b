"""Training on ids of observations: the same training, and the same checkpoints, as on observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rmc_envs
from rmc_agents import Trainer
from rmc_agents.agent.observation_table import EncodedObservations
from rmc_agents.environment import ObservationIds
from rmc_agents.rl.rollout import collect
from rmc_agents.tree import leaves, map_tree
from tests.support.trainers import QUICK, assert_identical, ppo_trainer, save_interrupted

MAZES = "MiniGrid-MemoryS5-v0,MiniGrid-MemoryS7-v0"
CONFIG = replace(QUICK, total_steps=8 * 32 * 4, num_steps=32)
"""Rollouts of 256 observations, more than the table has."""


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Builds a trainer in two mazes, with or without their table of observations."""

    def build(core: str = "gru", name: str = "run", table: bool = True) -> Trainer:
        env = rmc_envs.make(MAZES, 8, actions=3)
        if not table:
            env.observation_table = lambda: None  # type: ignore[method-assign]
        return ppo_trainer(tmp_path / name, core, env, config=CONFIG)

    return build


@pytest.mark.parametrize("core", ["rmc", "lstm"])
def test_training_on_ids_equals_training_on_observations(core: str, trainer: Callable[..., Trainer]) -> None:
    ids, full = trainer(core, "ids"), trainer(core, "full", table=False)
    table = ids.env.observation_table()
    for _ in range(3):
        ids.iterate()
        full.iterate()
        assert isinstance(ids.rollout.obs, ObservationIds)
        assert torch.equal(ids.rollout.actions, full.rollout.actions)
        for seen, shown in (
            (ids.rollout.obs, full.rollout.obs),
            (ids.rollout.final_obs, full.rollout.final_obs),
        ):
            rows = map_tree(lambda part: part[seen.ids], table)  # noqa: B023 - called at once
            assert all(torch.equal(a, b) for a, b in zip(leaves(rows), leaves(shown), strict=True))
    for a, b in zip(ids.agent.parameters(), full.agent.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_collect_encodes_the_table_once(trainer: Callable[..., Trainer]) -> None:
    run = trainer()
    run.iterate()
    calls: list[str] = []
    for name in ("encode_table", "forward"):
        method = getattr(run.agent.encoder, name)

        def counted(*args: Any, name: str = name, method: Callable[..., Any] = method) -> Any:
            # Acting passes features, which the encoder returns as they are.
            calls.extend([name] * (not args or not isinstance(args[0], EncodedObservations)))
            return method(*args)

        setattr(run.agent.encoder, name, counted)
    run.agent._encode_table = run.agent.encoder.encode_table
    collect(run.agent, run.env, run.carry, run.rollout, run.generator)
    assert calls == ["encode_table"]


def test_every_rollout_is_collected_with_the_current_weights(trainer: Callable[..., Trainer]) -> None:
    """The recorded values are those of the weights that acted, before and after an update."""
    run = trainer()
    for _ in range(2):
        rollout = run.rollout
        run.carry = collect(run.agent, run.env, run.carry, rollout, run.generator)
        state = map_tree(lambda x: x[0], rollout.states)
        with torch.no_grad():
            again = run.agent.evaluate_actions(
                rollout.obs, rollout.actions, rollout.rewards, rollout.starts, state
            )
        torch.testing.assert_close(again.values, rollout.values)
        torch.testing.assert_close(again.log_probs, rollout.log_probs)
        run.iterate()


def test_resumed_training_on_ids_equals_uninterrupted_training(trainer: Callable[..., Trainer]) -> None:
    whole, first = trainer(name="whole"), trainer(name="parts")
    for _ in range(4):
        whole.iterate()
    for _ in range(2):
        first.iterate()
    save_interrupted(first)
    second = trainer(name="parts")
    second.restore()
    assert_identical(first, second)
    for _ in range(2):
        second.iterate()
    assert_identical(whole, second)


def test_checkpoint_that_holds_observations_resumes_bit_for_bit(trainer: Callable[..., Trainer]) -> None:
    """Checkpoints of earlier releases hold them, and were written without ids."""
    ids, full = trainer(name="ids"), trainer(name="full", table=False)
    for run in (ids, full):
        run.iterate()
    state = ids.state_dict()
    older: list[Tensor] = [*leaves(full.carry.obs), *state["carry"]]
    resumed = trainer(name="resumed")
    assert resumed.load_state_dict({**state, "carry": older}) == []
    assert_identical(ids, resumed)
    for run in (ids, resumed):
        run.iterate()
    assert_identical(ids, resumed)


def test_curriculum_assigns_ids(tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path, env=rmc_envs.make(MAZES, 8, actions=3), config=CONFIG, curriculum=True)
    for _ in range(3):
        run.iterate()
    assert isinstance(run.carry.obs, ObservationIds)
    assert run.carry.obs.ids.shape == (8,)


def test_environments_return_observations_outside_of_training(trainer: Callable[..., Trainer]) -> None:
    run = trainer()
    run.iterate()
    assert not run.env.observe_ids
    assert isinstance(run.env.reset(), dict)

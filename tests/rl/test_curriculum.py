"""Curriculum: how environments are assigned to tasks, and training whose environments change their tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rmc_envs
from rmc_agents import ActorCritic, Trainer
from rmc_agents.rl.curriculum import HALF_LIFE, Curriculum, counts
from rmc_agents.rl.ppo import PPOConfig

LADDER = "MiniGrid-MemoryS5-v0,MiniGrid-MemoryS7-v0,MiniGrid-MemoryS9-v0"


@given(num_tasks=st.integers(2, 9), spare=st.integers(0, 100), data=st.data())
def test_counts_give_every_task_an_environment_and_the_frontier_most(
    num_tasks: int, spare: int, data: st.DataObject
) -> None:
    frontier = data.draw(st.integers(0, num_tasks - 1))
    numbers = counts(frontier, num_tasks, num_tasks + spare)
    assert sum(numbers) == num_tasks + spare
    assert min(numbers) >= 1
    assert numbers[frontier] == max(numbers)
    if spare > 8 * num_tasks:
        assert abs(numbers[frontier] / sum(numbers) - 0.5) < 0.1


@given(num_tasks=st.integers(2, 9), spare=st.integers(0, 100), data=st.data())
def test_assign_changes_as_few_environments_as_possible(
    num_tasks: int, spare: int, data: st.DataObject
) -> None:
    task = st.integers(0, num_tasks - 1)
    before = data.draw(st.lists(task, min_size=num_tasks + spare, max_size=num_tasks + spare))
    assigned = Curriculum(num_tasks).assign(before)
    wanted = counts(0, num_tasks, len(before))
    assert [assigned.count(task) for task in range(num_tasks)] == wanted
    changed = sum(a != b for a, b in zip(before, assigned, strict=True))
    assert changed == sum(max(0, n - before.count(task)) for task, n in enumerate(wanted))
    assert Curriculum(num_tasks).assign(assigned) == assigned


def test_frontier_is_the_first_task_not_solved() -> None:
    curriculum = Curriculum(3)
    assert curriculum.frontier == 0, "no task has episodes yet"
    curriculum.add([10, 500, 500], [10, 500, 500])
    assert curriculum.frontier == 0, "ten episodes are too few"
    curriculum.add([500, 0, 0], [480, 0, 0])
    assert curriculum.frontier == 2, "all are solved: the last one"
    curriculum.add([0, 500, 0], [0, 250, 0])
    assert curriculum.frontier == 1, "a task that is forgotten becomes the frontier again"


def test_curriculum_refuses_figures_that_are_not_numbers() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        Curriculum(2, ["many", 1.0], [0.0, 0.0])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="figures of 3 and 2"):
        Curriculum(2, [1.0, 1.0, 1.0], [0.0, 0.0])


def test_episodes_count_half_after_the_half_life() -> None:
    curriculum = Curriculum(2)
    curriculum.add([HALF_LIFE, 0], [0, 0])
    curriculum.add([HALF_LIFE, 0], [HALF_LIFE, 0])
    assert curriculum.episodes == [1.5 * HALF_LIFE, 0]
    assert curriculum.solved == [HALF_LIFE, 0]


@pytest.mark.parametrize(
    "build",
    [lambda: Curriculum(1), lambda: Curriculum(2, episodes=[1.0]), lambda: Curriculum(2, solved=[0.0] * 3)],
)
def test_curriculum_refuses_figures_of_another_number_of_tasks(build) -> None:
    with pytest.raises(ValueError, match="task"):
        build()


def curriculum_trainer(run_dir: Path, iterations: int = 12) -> Trainer:
    torch.manual_seed(0)
    env = rmc_envs.make(LADDER, 12, actions=3)
    agent = ActorCritic(env.observation_space, env.action_space, "gru", {"hidden_size": 16}, features=16)
    config = PPOConfig(
        total_steps=12 * 16 * iterations,
        num_steps=16,
        bptt_length=8,
        minibatch_size=96,
        learning_rate_end=3e-4,  # constant, so that a shorter run equals the start of a longer one
    )
    return Trainer(agent, env, config, run_dir, curriculum=True)


def test_environments_follow_the_frontier(tmp_path: Path) -> None:
    run = curriculum_trainer(tmp_path / "run")
    assert run.env.task_of.bincount().tolist() == [4, 4, 4]
    run.iterate()
    assert run.env.task_of.bincount().tolist() == [6, 3, 3], "half of the environments play the easiest task"
    assert run.curriculum is not None
    before = run.env.task_of.clone()
    run.curriculum.add([1000, 0, 0], [1000, 0, 0])
    run.iterate()
    changed = run.env.task_of != before
    assert run.env.task_of.bincount().tolist() == [3, 6, 3]
    assert int(changed.sum()) == 3
    assert bool(run.carry.starts[changed].all()), "a new task starts a new episode"
    assert not run.running.lengths[changed].any()
    assert not run.running.returns[changed].any()


def test_resumed_run_with_curriculum_equals_uninterrupted(tmp_path: Path) -> None:
    whole, first = (
        curriculum_trainer(tmp_path / "whole"),
        curriculum_trainer(tmp_path / "parts", iterations=3),
    )
    for run in (whole, first):
        assert run.curriculum is not None
        run.curriculum.add([70, 0, 0], [64, 0, 0])  # not solved for long: the untrained agent soon fails
        run.run()
    again = curriculum_trainer(tmp_path / "parts")
    again.restore()
    assert again.curriculum == first.curriculum
    assert first.env.task_of.tolist() != whole.env.task_of.tolist(), "tasks must change after the save, too"
    again.run()
    assert again.curriculum == whole.curriculum
    assert torch.equal(whole.env.task_of, again.env.task_of)
    assert torch.equal(whole.rollout.actions, again.rollout.actions)
    for a, b in zip(whole.agent.parameters(), again.agent.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frontier_is_logged(tmp_path: Path) -> None:
    run = curriculum_trainer(tmp_path / "run")
    run.run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["rollout/frontier"] for line in lines if "rollout/frontier" in line] == [0.0] * 12


@pytest.mark.parametrize(("mazes", "message"), [("rmc/Recall-v0", "cannot"), ("MiniGrid-MemoryS7-v0", "two")])
def test_curriculum_needs_environments_with_several_tasks(mazes: str, message: str, tmp_path: Path) -> None:
    env = rmc_envs.make(mazes, 12)
    agent = ActorCritic(env.observation_space, env.action_space, "gru")
    config = PPOConfig(num_steps=16, bptt_length=8, minibatch_size=96)
    with pytest.raises(ValueError, match=message):
        Trainer(agent, env, config, tmp_path / "run", curriculum=True)

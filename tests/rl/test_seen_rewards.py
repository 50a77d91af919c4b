"""A policy that waits for a signal: until rewards tell actions apart only the critic learns."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rmc_agents import PPOConfig, Trainer
from rmc_agents.environment import BatchedEnv, Transition
from rmc_agents.rl.seen_rewards import SeenRewards, read_seen_rewards
from rmc_agents.training.processes import ALONE, Processes
from tests.support.agents import collected, fresh_agent, small_agent, small_env
from tests.support.groups import in_processes
from tests.support.trainers import QUICK, assert_identical, ppo_trainer, save_interrupted

WAITS = dataclasses.replace(QUICK, total_steps=20 * 128, wait_for_signal=True)
Change = Callable[[Transition], Transition]


def changed(change: Change, num_envs: int = 8) -> BatchedEnv:
    """Return recall tasks whose answers are changed."""
    env = small_env(num_envs)
    step = env.step
    env.step = lambda actions: change(step(actions))  # type: ignore[method-assign]
    return env


def rewarded(reward: float, terminates: bool) -> Change:
    """Return a change to rewards that are all equal, and to ends of one kind."""

    def change(t: Transition) -> Transition:
        done, never = t.done, torch.zeros_like(t.done)
        ends = (done, never) if terminates else (never, done)
        return t._replace(reward=torch.full_like(t.reward, reward), terminated=ends[0], truncated=ends[1])

    return change


def own_heads(trainer: Trainer) -> list[Tensor]:
    """Return copies of the weights that only the policy has, and then of those that only the critic has."""
    agent = trainer.agent
    parts = agent.policy, agent.policy_hidden, agent.value_head, agent.value_hidden
    return [torch.cat([p.detach().flatten() for p in part.parameters()]) for part in parts]


def learned(change: Change, config: PPOConfig, run_dir: Path) -> tuple[bool, bool]:
    """Return whether three iterations changed the policy's own weights, and the critic's."""
    run = ppo_trainer(run_dir, env=changed(change), config=config)
    before = own_heads(run)
    for _ in range(3):
        run.iterate()
    moved = [not torch.equal(a, b) for a, b in zip(before, own_heads(run), strict=True)]
    assert moved[0] == moved[1]
    assert moved[2] == moved[3]
    return moved[0], moved[2]


@pytest.mark.parametrize(
    ("reward", "terminates", "signal"),
    [(-1.0, False, False), (-1.0, True, True), (0.0, True, False), (0.0, False, False), (2.5, True, True)],
)
def test_policy_learns_once_returns_can_differ(
    reward: float, terminates: bool, signal: bool, tmp_path: Path
) -> None:
    change = rewarded(reward, terminates)
    assert learned(change, WAITS, tmp_path / "waits") == (signal, True)
    without = dataclasses.replace(WAITS, wait_for_signal=False)
    assert learned(change, without, tmp_path / "plain") == (True, True)


def test_wait_ends_with_the_first_reward_that_differs_and_never_returns(tmp_path: Path) -> None:
    count = 0

    def change(t: Transition) -> Transition:
        nonlocal count
        count += 1
        reward = torch.zeros_like(t.reward)
        reward[3] = count == 2 * QUICK.num_steps + 7  # in the third rollout
        return t._replace(reward=reward)

    run = ppo_trainer(tmp_path, env=changed(change), config=WAITS)
    moved = []
    for _ in range(5):
        before = own_heads(run)[0]
        figures = run.iterate()
        moved.append(not torch.equal(before, own_heads(run)[0]))
        assert figures["train/entropy_coef"] == (QUICK.entropy_coef if moved[-1] else 0)
    assert moved == [False, False, True, True, True]


def test_log_says_that_the_policy_waits_and_when_it_starts_to_learn(tmp_path: Path) -> None:
    def change(t: Transition) -> Transition:
        return t._replace(reward=torch.full_like(t.reward, -float(next(count) > 2.5 * QUICK.num_steps)))

    for start, said in ((0, True), (1000, False)):
        count = itertools.count(start)
        folder = tmp_path / str(start)
        ppo_trainer(folder, env=changed(change), config=dataclasses.replace(WAITS, total_steps=512)).run()
        log = (folder / "log.jsonl").read_text()
        for note in (
            "rewards do not tell actions apart yet: the policy waits for a signal",
            "rewards tell actions apart since step 256: the policy learns",
        ):
            assert log.count(note) == said


def test_run_with_different_rewards_from_the_start_is_the_same_as_without_waiting(tmp_path: Path) -> None:
    waits, plain = (
        ppo_trainer(tmp_path / name, config=dataclasses.replace(WAITS, wait_for_signal=waits))
        for name, waits in (("waits", True), ("plain", False))
    )
    for run in (waits, plain):
        for _ in range(3):
            run.iterate()
    assert_identical(waits, plain)


def test_filler_steps_do_not_count() -> None:
    rollout = collected(small_agent("gru"), steps=16)[1]
    rollout.rewards.fill_(-1.0)
    rollout.terminated.fill_(False)
    rollout.rewards[3, 1], rollout.terminated[3, 1] = 5.0, True
    assert SeenRewards().with_rollout(rollout, ALONE) == (-1.0, 5.0, True)
    rollout.valid[3, 1] = False
    assert SeenRewards().with_rollout(rollout, ALONE) == (-1.0, -1.0, False)
    assert SeenRewards(-3.0, -2.0, True).with_rollout(rollout, ALONE) == (-3.0, -1.0, True)
    rollout.valid.fill_(False)
    assert SeenRewards().with_rollout(rollout, ALONE) == SeenRewards()


def resumed(change: Change, folder: Path) -> tuple[Trainer, Trainer]:
    """Return a run of four iterations, and one that was resumed after two."""

    def make(name: str) -> Trainer:
        return ppo_trainer(folder / name, env=changed(change), config=WAITS)

    whole, first, second = make("whole"), make("parts"), make("parts")
    for _ in range(4):
        whole.iterate()
    for _ in range(2):
        first.iterate()
    save_interrupted(first)
    second.restore()
    for _ in range(2):
        second.iterate()
    return whole, second


@pytest.mark.parametrize("reward", [-1.0, 0.0])
def test_resumed_run_waits_on_or_has_its_signal(reward: float, tmp_path: Path) -> None:
    for terminates in (True, False):
        whole, second = resumed(rewarded(reward, terminates), tmp_path / str(terminates))
        assert_identical(whole, second)
        assert whole.learner.seen == second.learner.seen == (reward, reward, terminates)


def test_run_saved_before_rewards_were_recorded_does_not_wait(tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path, env=changed(rewarded(0.0, True)), config=WAITS)
    run.iterate()
    state = run.state_dict()
    del state["seen_rewards"]
    run.load_state_dict(state)
    assert run.learner.seen.tell_actions_apart


@pytest.mark.parametrize("saved", [[1.0, 2.0], ["a", 1.0, True], [math.nan, 1.0, True], [0.0, 1.0, 1], 3])
def test_other_forms_are_refused(saved: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        read_seen_rewards(saved)


def train_share(group: Processes, folder: Path) -> list[Any]:
    """Train in two processes, of which only the second sees a reward that differs."""
    rank = group.rank

    def change(t: Transition) -> Transition:
        reward = torch.full_like(t.reward, -1.0)
        reward[0] += rank
        never = torch.zeros_like(t.done)
        return t._replace(reward=reward, terminated=never, truncated=t.done)

    env = changed(change, 8 // group.size)
    torch.manual_seed(5)
    config = dataclasses.replace(WAITS, total_steps=10 * 128)
    run = Trainer(fresh_agent("gru", env), env, config, folder, seed=5, processes=group)
    before = own_heads(run)[0]
    run.iterate()
    return [not torch.equal(before, own_heads(run)[0]), *run.learner.seen]


def test_signal_of_one_process_counts_for_all(tmp_path: Path) -> None:
    assert in_processes(lambda group: train_share(group, tmp_path)) == [[True, -1.0, 0.0, False]] * 2

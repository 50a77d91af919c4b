"""The loop: same seed same run, resumed equals uninterrupted, numbers that go wrong, learning to recall."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import envs
import rmc_agents
from rmc_agents import PPOConfig, Trainer, TrainingError, UsageError
from rmc_agents.checkpoint import checkpoints, read_newest
from rmc_agents.generators import OTHER_DEVICE
from rmc_agents.tree import leaves
from tests.conftest import CORES_WITH_MEMORY
from tests.support import MAZE, fresh_agent, small_agent, small_env

QUICK = PPOConfig(total_steps=8 * 16 * 4, num_steps=16, bptt_length=8, minibatch_size=64, epochs=2)
TASKS = [f"{MAZE},MiniGrid-MemoryS9-v0", *envs.NATIVE]


def trainer(run_dir: Path, core: str = "gru", env: envs.BatchedEnv | None = None, **options: Any) -> Trainer:
    torch.manual_seed(5)
    env = env or small_env(8)
    return Trainer(small_agent(core, env), env, options.pop("config", QUICK), run_dir, seed=5, **options)


def everything(t: Trainer) -> list[torch.Tensor]:
    moments = [x for s in t.optimizer.state.values() for x in s.values()]
    return [*t.agent.parameters(), *moments, *leaves(t.carry), *leaves(t.running), t.generator.get_state()]


def assert_identical(a: Trainer, b: Trainer) -> None:
    assert (a.steps, a.iterations, list(a.recent)) == (b.steps, b.iterations, list(b.recent))
    for x, y in zip(everything(a), everything(b), strict=True):
        assert torch.equal(x, y)


def test_the_same_seed_is_the_same_run(any_core: str, tmp_path: Path) -> None:
    runs = [trainer(tmp_path / name, any_core) for name in "ab"]
    for run in runs:
        run.run()
    assert_identical(*runs)


def test_the_mark_counts_the_episodes_of_the_tasks_that_are_judged(tmp_path: Path) -> None:
    tasks = ["MiniGrid-MemoryS5-v0", "MiniGrid-MemoryS7-v0"]
    config = dataclasses.replace(QUICK, total_steps=32 * 256 * 2, num_steps=256, minibatch_size=512)
    for judged in (None, tasks[:1], tasks[1:]):
        run = trainer(
            tmp_path / "run", env=envs.make(",".join(tasks), 32, actions=3), config=config, judged_by=judged
        )
        figures = run.iterate()
        which = "rollout/success_rate" if judged is None else f"rollout/success_rate/{judged[0]}"
        latest = run.recent.latest()
        assert latest is not None
        assert latest[0] == figures[which]
    assert len({figures[f"rollout/success_rate/{task}"] for task in tasks}) == 2
    with pytest.raises(ValueError, match="judged_by names MiniGrid-MemoryS9-v0"):
        trainer(tmp_path / "run", judged_by=["MiniGrid-MemoryS9-v0"])


@pytest.mark.parametrize("task", TASKS)
def test_resumed_equals_uninterrupted(any_core: str, task: str, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", any_core, envs.make(task, 8))
    for _ in range(4):
        whole.iterate()
    first = trainer(tmp_path / "cut", any_core, envs.make(task, 8))
    for _ in range(2):
        first.iterate()
    first._open_run_dir()
    first.save()
    second = trainer(tmp_path / "cut", any_core, envs.make(task, 8))
    second.agent.value_head.bias.data += 1  # whatever it was before, the checkpoint decides
    second.restore()
    for _ in range(2):
        second.iterate()
    assert_identical(whole, second)


@pytest.mark.parametrize("task", list(envs.NATIVE))
def test_a_run_goes_on_with_other_numbers_on_another_kind_of_device(task: str, tmp_path: Path) -> None:
    first = trainer(tmp_path, env=envs.make(task, 8))
    first.run()
    path, payload, _ = read_newest(tmp_path)
    # States of another length than a CPU's, such as a GPU gives.
    payload["generator"] = torch.arange(16, dtype=torch.uint8)
    payload["env"]["generator"] = torch.arange(16, 32, dtype=torch.uint8)
    torch.save(payload, path)
    runs = []
    for _ in range(2):
        config = dataclasses.replace(QUICK, total_steps=2 * QUICK.total_steps)
        again = trainer(tmp_path, env=envs.make(task, 8), config=config)
        assert again.restore() == [f"going on from {path}", OTHER_DEVICE]
        again.iterate()
        runs.append(again)
    assert_identical(*runs)


def test_a_run_leaves_what_is_needed_to_load_the_agent(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", "rmc")
    figures = run.run()
    assert figures["time/total_timesteps"] == QUICK.total_steps == run.steps
    agent = rmc_agents.load(tmp_path / "run")
    for x, y in zip(agent.parameters(), run.agent.parameters(), strict=True):
        assert torch.equal(x, y)
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_tensorboard_has_sb3s_names(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer(tmp_path / "run").run()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    names = set(events.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "time/fps"} <= names
    assert {"train/entropy_loss", "train/value_loss", "train/approx_kl", "train/explained_variance"} <= names
    assert [e.step for e in events.Scalars("time/fps")] == [128, 256, 384, 512]


def test_a_second_run_never_overwrites_the_first(tmp_path: Path) -> None:
    trainer(tmp_path / "run").run()
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="--resume"):
        trainer(tmp_path / "run").run()
    kept = {p: p.read_bytes() for p in before}
    assert kept == before


class Spoiled(envs.Recall):
    """Recall whose reward or observation is NaN from some step on."""

    def __init__(self, what: str, after: int) -> None:
        super().__init__(8)
        self.what, self.left = what, after

    def step(self, actions: torch.Tensor) -> envs.Transition:
        transition = super().step(actions)
        self.left -= 1
        if self.left < 0:
            spoiled = transition.reward if self.what == "reward" else transition.obs
            assert isinstance(spoiled, torch.Tensor)
            spoiled[3] = torch.nan
        return transition


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_nan_is_named_and_does_not_reach_the_agent(what: str, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", env=Spoiled(what, after=20), checkpoint_seconds=0)
    with pytest.raises(TrainingError, match=f"the {what} of environment 3"):
        run.run()
    assert all(p.isfinite().all() for p in run.agent.parameters())
    assert run.steps == 128
    assert len(checkpoints(tmp_path / "run")) == 1
    assert all(p.isfinite().all() for p in rmc_agents.load(tmp_path / "run").parameters())


def test_a_run_stops_at_its_mark(tmp_path: Path) -> None:
    config = PPOConfig(total_steps=10**6, num_steps=64, bptt_length=8, minibatch_size=512, epochs=1)
    run = trainer(tmp_path / "run", env=small_env(32), config=config, stop_at_success=0.1)
    figures = run.run()
    assert 1000 * 4 <= run.steps < 20_000
    assert figures["rollout/success_rate"] >= 0.1
    # What is saved is the agent that reached the mark, not one that learned on after it.
    assert "train/loss" not in figures
    assert run.iterations == 1 + max(int(s["step"]) for s in run.optimizer.state.values()) // 4


def test_kl_limit_ends_the_epochs_early(tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, epochs=50, learning_rate=1e-2)
    updates = {}
    for limit in (None, 1e-3):
        run = trainer(tmp_path / str(limit), config=dataclasses.replace(config, target_kl=limit))
        run.iterate()
        updates[limit] = max(int(s["step"]) for s in run.optimizer.state.values())
    assert updates[None] == 50 * 2
    assert 2 <= updates[1e-3] < 50


@pytest.mark.parametrize(("task", "says"), [("CartPole-v1", False), ("rmc/Recall-v0", True)])
def test_no_success_is_shown_where_none_is_known(task: str, says: bool, tmp_path: Path) -> None:
    env = envs.make(task, 8)
    run = trainer(tmp_path, env=env, config=dataclasses.replace(QUICK, num_steps=64))
    figures = run.iterate()
    env.close()
    assert "rollout/ep_rew_mean" in figures
    assert ("rollout/success_rate" in figures) == says


def test_spaces_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="observation_space"):
        Trainer(small_agent("gru"), small_env(8, num_symbols=5), QUICK, tmp_path)


def hinted(run_dir: Path, hint_size: int = 15, **changes: Any) -> Trainer:
    """Three objects of two dimensions, and 15 numbers to tell of them."""
    torch.manual_seed(5)
    env = envs.NthFarthest(8, num_objects=3, num_dims=2)
    agent = fresh_agent("rmc", env, hint_size=hint_size)
    return Trainer(agent, env, dataclasses.replace(QUICK, **{"hint_coef": 2.0, **changes}), run_dir)


def test_hints_come_to_be_told_and_are_told_of(tmp_path: Path) -> None:
    run = hinted(tmp_path / "a", total_steps=6000, learning_rate=3e-3)
    losses = [run.iterate()["train/hint_loss"] for _ in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    plain = hinted(tmp_path / "b", hint_coef=0.0, hint_size=0)
    assert "train/hint_loss" not in plain.iterate()


def test_a_run_with_hints_resumed_in_mid_episode_equals_uninterrupted(tmp_path: Path) -> None:
    whole, first = hinted(tmp_path / "whole"), hinted(tmp_path / "cut")
    assert QUICK.num_steps % 3
    for run, iterations in ((whole, 4), (first, 2)):
        for _ in range(iterations):
            run.iterate()
    first._open_run_dir()
    first.save()
    second = hinted(tmp_path / "cut")
    second.restore()
    for _ in range(2):
        second.iterate()
    assert_identical(whole, second)


def test_hints_need_an_environment_and_an_agent_that_have_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hint_size=7"):
        hinted(tmp_path, hint_size=7)
    with pytest.raises(ValueError, match="Recall-v0 has 0 numbers"):
        trainer(tmp_path, config=dataclasses.replace(QUICK, hint_coef=1.0))


RECALL = PPOConfig(
    total_steps=60_000,
    num_steps=24,
    bptt_length=12,
    minibatch_size=192,
    epochs=4,
    learning_rate=2e-3,
    learning_rate_end=2e-3,
)


@pytest.mark.parametrize("core", CORES_WITH_MEMORY)
def test_recall_is_learned_with_memory(core: str, tmp_path: Path) -> None:
    """Three symbols, four blank steps. Without memory nobody does better than 1/3."""
    env = small_env(32, num_symbols=3, delay=4)
    torch.manual_seed(0)
    run = Trainer(fresh_agent(core, env), env, RECALL, tmp_path, stop_at_success=0.95)
    run.run()
    assert run._reached_mark(), f"{core} solved {run.recent.score()} of the last episodes"


def test_recall_is_not_learned_without_memory(tmp_path: Path) -> None:
    """The control, with the whole budget: it stays at the memoryless ceiling of 1/3."""
    env = small_env(32, num_symbols=3, delay=4)
    torch.manual_seed(0)
    run = Trainer(fresh_agent("feedforward", env), env, RECALL, tmp_path, stop_at_success=0.95)
    run.run()
    count, solved, _ = (sum(x) for x in zip(*run.recent, strict=True))
    assert run.steps >= RECALL.total_steps
    assert abs(solved / count - 1 / 3) < 4 * (2 / 9 / count) ** 0.5

"""Waits of an iteration: on a GPU the host may read from the device twice, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rmc_envs
from rmc_agents import ActorCritic, PPOConfig, Trainer

MAZES = "MiniGrid-MemoryS5-v0,MiniGrid-MemoryS7-v0,MiniGrid-MemoryS13-v0"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Let meta tensors be read as lists of ones; return the shapes of those that were.

    Every other read of a meta tensor raises, and its device is not "cpu": code takes the path of a GPU.
    """
    shapes: list[tuple[int, ...]] = []
    tolist = torch.Tensor.tolist

    def read(tensor: torch.Tensor) -> Any:
        if not tensor.is_meta:
            return tolist(tensor)
        shapes.append(tuple(tensor.shape))
        return tolist(torch.ones(tensor.shape, dtype=tensor.dtype, device="cpu"))

    monkeypatch.setattr(torch.Tensor, "tolist", read)
    return shapes


@pytest.mark.parametrize("core", ["rmc", "lstm"])
def test_iteration_reads_from_the_device_twice(
    core: str, tmp_path: Path, reads: list[tuple[int, ...]]
) -> None:
    env = rmc_envs.make(MAZES, 8, "meta", actions=3)
    agent = ActorCritic(env.observation_space, env.action_space, core).to("meta")
    config = PPOConfig(num_steps=8, bptt_length=4, minibatch_size=32, epochs=2, target_kl=0.02)
    trainer = Trainer(agent, env, config, tmp_path, curriculum=True)
    assert trainer.curriculum is not None
    trainer.task_of = tasks = [0, 0, 0, 0, 0, 0, 1, 2]
    trainer.curriculum.episodes = trainer.curriculum.solved = [1e4, 0.0, 0.0]
    for _ in range(3):
        reads.clear()
        figures = trainer.iterate()
        assert len(reads) == 2, reads
    assert "train/approx_kl" in figures
    assert trainer.task_of != tasks, "the curriculum assigned tasks, without another read"

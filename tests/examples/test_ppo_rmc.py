"""examples/ppo_rmc.py: recurrent PPO in one file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

import rmc_envs

PATH = Path(__file__).parents[2] / "examples" / "ppo_rmc.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ppo_rmc", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_evaluates_chunks_as_it_acted(example: ModuleType) -> None:
    """Before the first update every probability ratio is 1: starts, memory and actions are aligned."""
    env = rmc_envs.make("rmc/Recall-v0", example.NUM_ENVS)
    agent = example.Agent(5, 4)
    torch.nn.init.normal_(agent.policy.weight)
    obs, starts = env.reset(0), torch.ones(example.NUM_ENVS, dtype=torch.bool)
    state = agent.memory.initial_state(example.NUM_ENVS)
    for _ in range(2):  # not from the very first step on: the carried memory matters
        rollout, obs, starts, state = example.collect(agent, env, obs, starts, state)
    chunks = example.Rollout(*map(example.split, rollout))
    policy, values, _ = agent(chunks.obs, example.RMCState(chunks.memory[0]), chunks.starts)
    torch.testing.assert_close(policy.log_prob(chunks.actions), chunks.log_probs, atol=1e-5, rtol=0)
    torch.testing.assert_close(values, chunks.values, atol=1e-5, rtol=1e-5)
    assert chunks.starts[1:].any()


def test_example_runs_to_its_budget(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    steps = example.NUM_ENVS * example.NUM_STEPS
    right = example.main(total_steps=2 * steps, seed=0)
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert 0.1 < right < 0.5


@pytest.mark.slow
def test_example_learns_to_remember(example: ModuleType) -> None:
    assert example.main(seed=1) > 0.99

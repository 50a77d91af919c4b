"""Training with reconstruction of observations: the loss, its metrics, resuming, and several processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import rmc_envs
from rmc_agents import PPOConfig, Trainer
from rmc_agents.agent.acceleration import accelerate
from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.rl.optimizer import make_optimizer
from rmc_agents.rl.ppo import ppo_loss
from rmc_agents.rl.prepared_step import PreparedStep
from rmc_agents.rl.rollout import Chunks
from rmc_agents.rl.update import Updater
from rmc_agents.training.processes import ALONE, Processes
from tests.support.agents import chunks_of, collected, fresh_agent, small_agent, small_env
from tests.support.groups import in_processes
from tests.support.trainers import QUICK, assert_identical, save_interrupted

RECONSTRUCTING = dataclasses.replace(QUICK, reconstruction_coef=0.5)


def with_fillers(agent: ActorCritic) -> Chunks:
    chunks = chunks_of(agent, collected(agent, steps=16)[1], 8)
    return chunks._replace(valid=torch.rand_like(chunks.returns) < 0.7)


def test_reconstruction_loss_is_the_mean_over_valid_steps(any_core: str) -> None:
    agent = small_agent(any_core, reconstruct=True)
    chunks = with_fillers(agent)
    plain, without = ppo_loss(agent, chunks, PPOConfig(), 0.01)
    loss, metrics = ppo_loss(agent, chunks, PPOConfig(reconstruction_coef=3.0), 0.01)
    errors = agent.evaluate_actions(
        chunks.obs, chunks.actions, chunks.rewards, chunks.starts, chunks.state
    ).reconstruction_errors
    assert errors is not None
    expected = errors[chunks.valid].mean()
    torch.testing.assert_close(metrics.reconstruction_loss, expected)
    torch.testing.assert_close(without.reconstruction_loss, expected)
    torch.testing.assert_close(loss, plain + 3 * expected)


def test_loss_without_a_decoder_has_no_reconstruction() -> None:
    agent = small_agent("gru")
    _, metrics = ppo_loss(agent, with_fillers(agent), PPOConfig(), 0.01)
    assert metrics.reconstruction_loss == 0


def step_on(group: Processes) -> list[torch.Tensor]:
    """Take steps on the chunks of a process: every chunk of the 8, or every second one."""
    torch.manual_seed(0)
    agent = fresh_agent("gru", small_env(), reconstruct=True)
    chunks = with_fillers(agent)
    own = torch.arange(group.rank, 8, group.size)
    config = PPOConfig(
        num_steps=16, bptt_length=8, minibatch_size=64, epochs=3, reconstruction_coef=2.0, max_grad_norm=0.1
    )
    updater = Updater(agent, make_optimizer(agent, config), config, group)
    metrics = updater.update(chunks.select(own), 3e-4, 0.01, torch.Generator().manual_seed(group.rank))
    return [torch.stack(metrics), *(p.detach() for p in agent.parameters())]


def test_divided_minibatch_gives_the_step_of_the_whole() -> None:
    whole = step_on(ALONE)
    first, second = in_processes(step_on)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.testing.assert_close(first[0], whole[0], rtol=1e-4, atol=1e-6)
    for divided, together in zip(first[1:], whole[1:], strict=True):
        torch.testing.assert_close(divided, together, rtol=0, atol=3e-5)  # a tenth of a learning rate


def trainer(run_dir: Path, config: PPOConfig = RECONSTRUCTING, **options: Any) -> Trainer:
    """Build a trainer in small mazes, whose observations are rows of a table."""
    torch.manual_seed(5)
    env = rmc_envs.make("MiniGrid-MemoryS5-v0", 8, actions=3, view_size=3)
    agent = fresh_agent("gru", env, **{"reconstruct": True, **options})
    return Trainer(agent, env, config, run_dir, seed=5)


def test_reconstruction_of_a_maze_improves_and_is_logged(tmp_path: Path) -> None:
    config = dataclasses.replace(RECONSTRUCTING, total_steps=4000, learning_rate=3e-3)
    run = trainer(tmp_path / "a", config)
    assert run.ids
    losses = [run.iterate()["train/reconstruction_loss"] for _ in range(24)]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    plain = trainer(tmp_path / "b", QUICK, reconstruct=False)
    assert "train/reconstruction_loss" not in plain.iterate()


def test_resumed_run_equals_uninterrupted(tmp_path: Path) -> None:
    whole, first = trainer(tmp_path / "whole"), trainer(tmp_path / "parts")
    for run, iterations in ((whole, 4), (first, 2)):
        for _ in range(iterations):
            run.iterate()
    save_interrupted(first)
    second = trainer(tmp_path / "parts")
    second.restore()
    for _ in range(2):
        second.iterate()
    assert_identical(whole, second)


def test_prepared_steps_leave_reconstruction_to_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreparedStep, "__call__", lambda *_: pytest.fail("a prepared step was taken"))
    run = trainer(tmp_path / "run")
    run.iterate()
    assert run.updater.prepared is None


def test_agent_option_and_coefficient_need_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reconstruct=True needs a weight .* reconstruction_coef=0.1"):
        trainer(tmp_path, QUICK)
    with pytest.raises(ValueError, match=r"reconstruction_coef=0.5 needs an agent with reconstruct=True"):
        trainer(tmp_path, reconstruct=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="reconstruction_coef must be 0 or more"):
        PPOConfig(reconstruction_coef=-1.0)


# torch.compile raises them on its first use.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_networks_reconstruct_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend="eager", fullgraph=True))
    agent = small_agent("feedforward", reconstruct=True)
    chunks = with_fillers(agent)
    config = PPOConfig(reconstruction_coef=1.0)
    expected = ppo_loss(agent, chunks, config, 0.01)[1]
    assert accelerate(agent, compiled=True) == []
    compiled = ppo_loss(agent, chunks, config, 0.01)[1]
    torch.compiler.reset()
    torch.testing.assert_close(torch.stack(compiled), torch.stack(expected))

"""Inputs of the core: those of equal observations are computed once, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import rmc_envs
from rmc_agents import ActorCritic, PPOConfig
from rmc_agents.cores.base import IndexedInputs
from rmc_agents.environment import ObservationIds
from rmc_agents.rl.ppo import ppo_loss
from rmc_agents.rl.rollout import Chunks
from tests.support.agents import MAZE, chunks_of, collected, small_agent
from tests.support.cores import needs_native


def agent_and_chunks(core: str, ids: bool = True, **options: Any) -> tuple[ActorCritic, Chunks]:
    """Return an agent and 256 steps in a maze, whose observations repeat, as ids or in full."""
    torch.manual_seed(0)
    env: Any = rmc_envs.make(MAZE, 4)
    agent = small_agent(core, env, **options)
    agent.use_observation_table(env.observation_table())
    env.observe_ids = ids
    return agent, chunks_of(agent, collected(agent, 64, env)[1], 8)


def read_by_id(agent: ActorCritic, chunks: Chunks) -> bool:
    """Return whether the core's inputs in a minibatch are given by id."""
    inputs = agent.core_inputs(chunks.obs, chunks.actions, chunks.rewards, chunks.starts)
    return isinstance(inputs, IndexedInputs)


def results(agent: ActorCritic, chunks: Chunks) -> list[Tensor]:
    """Return the metrics of PPO's loss, and the gradients of all parameters."""
    agent.zero_grad()
    loss, metrics = ppo_loss(agent, chunks, PPOConfig(), torch.tensor(0.01))
    loss.backward()
    gradients = [p.grad.clone() for p in agent.parameters() if p.grad is not None]
    assert len(gradients) == len(list(agent.parameters()))
    return [torch.stack(metrics), *gradients]


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize(
    ("core", "options"),
    [
        ("rmc", {}),
        ("lstm", {"skip": False}),
        ("gru", {"critic_memory": "separate"}),
        ("rnn", {"critic_memory": "none"}),
        ("dnc", {}),
    ],
)
def test_loss_and_gradients_are_those_of_copied_features(
    core: str, options: dict[str, Any], ids: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, chunks = agent_and_chunks(core, ids, **options)
    assert read_by_id(agent, chunks)
    found = results(agent, chunks)
    monkeypatch.setattr(agent, "core_inputs", lambda obs, *_: agent.encoder(obs))
    for one, other in zip(found, results(agent, chunks), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@needs_native
def test_ratio_is_one_before_the_first_update() -> None:
    agent, chunks = agent_and_chunks("rmc")
    assert read_by_id(agent, chunks)
    found = ppo_loss(agent, chunks, PPOConfig(), 0.0)[1]
    assert abs(found.approx_kl) < 1e-6
    assert found.clip_fraction == 0


def changed(agent: ActorCritic, how: str) -> None:
    if how == "hook":
        agent.encoder.register_forward_hook(lambda *_: None)
    elif how == "subclass":
        agent.encoder.__class__ = type("Other", (type(agent.encoder),), {})


@pytest.mark.parametrize("how", ["hook", "subclass"])
def test_changed_encoder_is_called(how: str) -> None:
    agent, chunks = agent_and_chunks("lstm")
    assert read_by_id(agent, chunks)
    changed(agent, how)
    assert not read_by_id(agent, chunks)


@pytest.mark.parametrize(
    "options", [{"previous_action": True}, {"previous_reward": True}, {"start_flag": True}, {"clock": 4}]
)
def test_inputs_that_differ_where_observations_do_not_are_copied(options: dict[str, Any]) -> None:
    agent, chunks = agent_and_chunks("lstm", **options)
    assert not read_by_id(agent, chunks)


def test_different_observations_and_those_without_gradients_are_copied() -> None:
    agent, chunks = agent_and_chunks("lstm")
    few = chunks.select(torch.arange(2))
    assert not read_by_id(agent, few._replace(obs=ObservationIds(torch.arange(16).view(8, 2))))
    with torch.no_grad():
        assert not read_by_id(agent, chunks)
    assert read_by_id(agent, chunks)
    with torch.autocast("cpu", torch.bfloat16):
        assert not read_by_id(agent, chunks)

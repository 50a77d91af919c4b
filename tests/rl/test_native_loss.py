"""PPO's loss in C: equal to that of PyTorch for every kind of agent, and left to PyTorch where it must be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents import ActorCritic, PPOConfig, Trainer
from rmc_agents.cores.kernels import heads_native
from rmc_agents.environment import AuxiliaryTargets
from rmc_agents.rl import native_loss, ppo
from rmc_agents.rl.ppo import Metrics, Normalization, ppo_loss
from rmc_agents.rl.rollout import Chunks
from tests.support.agents import chunks_of, collected, small_agent, small_env
from tests.support.cores import needs_native

pytestmark = needs_native


@pytest.fixture
def native_losses(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each loss that has been computed, whether it was computed in C."""
    used: list[bool] = []

    def record(*args: Any) -> Any:
        result = native_loss.native_losses(*args)
        used.append(result is not None)
        return result

    monkeypatch.setattr(ppo, "native_losses", record)
    return used


def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo, "native_losses", lambda *_: None)
    monkeypatch.setattr(heads_native, "works", lambda: False)


def perturbed(chunks: Chunks) -> Chunks:
    """Return chunks of which some ratios and values are clipped, and some steps are filler."""
    return chunks._replace(
        log_probs=chunks.log_probs + 0.3 * torch.randn_like(chunks.log_probs),
        values=chunks.values + 0.3 * torch.randn_like(chunks.values),
        valid=torch.rand_like(chunks.returns) < 0.8,
    )


def loss_and_gradients(agent: ActorCritic, *args: Any) -> tuple[Metrics, dict[str, Tensor | None]]:
    agent.zero_grad()
    loss, metrics = ppo_loss(agent, *args)
    loss.backward()
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in agent.named_parameters()}
    return metrics, gradients


@pytest.mark.parametrize(
    ("core", "options"),
    [
        ("rmc", {}),
        ("lstm", {"skip": False}),
        ("gru", {"previous_action": True, "previous_reward": True}),
        ("rmc", {"aux_size": 2}),
    ],
)
@pytest.mark.parametrize("clip_range_value", [None, 0.2])
@pytest.mark.parametrize("shared", [False, True])
def test_loss_equals_that_of_pytorch(
    core: str,
    options: dict[str, Any],
    clip_range_value: float | None,
    shared: bool,
    native_losses: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    agent = small_agent(core, **options)
    chunks = perturbed(chunks_of(small_agent(core), collected(small_agent(core), steps=32)[1], 8))
    if agent.aux_size:
        values = torch.randn(*chunks.starts.shape, agent.aux_size)
        chunks = chunks._replace(aux_targets=AuxiliaryTargets(values, torch.ones_like(values)))
    config = PPOConfig(clip_range_value=clip_range_value, aux_coef=float(agent.aux_size))
    numbers = (torch.tensor(x) for x in (50.0, 0.1, 1.3, 20.0))
    arguments = chunks, config, torch.tensor(0.05), Normalization(*numbers) if shared else None
    found, gradients = loss_and_gradients(agent, *arguments)
    assert native_losses == [True]
    without_native(monkeypatch)
    expected, exact = loss_and_gradients(agent, *arguments)
    assert found.clip_fraction > 0
    for name, x in expected._asdict().items():
        torch.testing.assert_close(getattr(found, name), x, atol=1e-5, rtol=1e-5, msg=name)
    assert gradients.keys() == exact.keys()
    for name, x in exact.items():
        torch.testing.assert_close(gradients[name], x, atol=1e-5, rtol=1e-4, msg=name)


def test_several_discrete_actions_are_supported(
    native_losses: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    env = small_env()
    agent = ActorCritic(env.observation_space, spaces.MultiDiscrete([3, 4]), "lstm", {"hidden_size": 8})
    chunks = perturbed(chunks_of(small_agent("lstm"), collected(small_agent("lstm"), steps=32)[1], 8))
    shape = *chunks.starts.shape, 2
    state = agent.initial_state(chunks.starts.shape[1])
    chunks = chunks._replace(actions=torch.randint(3, shape), state=state)
    found, gradients = loss_and_gradients(agent, chunks, PPOConfig(), 0.05)
    assert native_losses == [True]
    without_native(monkeypatch)
    expected, exact = loss_and_gradients(agent, chunks, PPOConfig(), 0.05)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), atol=1e-5, rtol=1e-5)
    for name, x in exact.items():
        torch.testing.assert_close(gradients[name], x, atol=1e-5, rtol=1e-4, msg=name)


def changed(agent: ActorCritic, how: str) -> None:
    if how == "wrapped":
        agent.wrap_networks(lambda networks: networks)
    elif how == "hook":
        agent.value_hidden[1].register_forward_hook(lambda *_: None)
    elif how == "replaced":
        agent.policy_hidden[1] = nn.ReLU()
    elif how == "parametrized":
        nn.utils.parametrize.register_parametrization(agent.value_head, "weight", nn.Identity())


@pytest.mark.parametrize("how", ["wrapped", "hook", "replaced", "parametrized"])
def test_changed_heads_are_left_to_pytorch(how: str, native_losses: list[bool]) -> None:
    agent = small_agent("lstm")
    chunks = chunks_of(agent, collected(agent, steps=16)[1], 8)
    ppo_loss(agent, chunks, PPOConfig(), 0.0)
    changed(agent, how)
    ppo_loss(agent, chunks, PPOConfig(), 0.0)
    assert native_losses == [True, False]


@pytest.mark.parametrize("options", [{"critic_memory": "none"}, {"critic_memory": "separate"}])
def test_other_critics_are_left_to_pytorch(options: dict[str, Any], native_losses: list[bool]) -> None:
    agent = small_agent("lstm", **options)
    ppo_loss(agent, chunks_of(agent, collected(agent, steps=16)[1], 8), PPOConfig(), 0.0)
    assert native_losses == [False]


def test_autocast_is_left_to_pytorch(native_losses: list[bool]) -> None:
    agent = small_agent("lstm")
    chunks = chunks_of(agent, collected(agent, steps=16)[1], 8)
    with torch.autocast("cpu", torch.bfloat16):
        ppo_loss(agent, chunks, PPOConfig(), 0.0)
    assert not any(native_losses)


def test_trainer_with_heads_in_pytorch_draws_the_same_actions(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PPOConfig(total_steps=1000, num_steps=16, bptt_length=8, minibatch_size=32)
    found = []
    for native in (True, False):
        if not native:
            without_native(monkeypatch)
        torch.manual_seed(0)
        env = small_env(8)
        trainer = Trainer(small_agent("lstm", env), env, config, tmp_path / str(native))
        found.append([trainer.iterate() and trainer.rollout.actions.clone() for _ in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))

"""Training with action masks: what it learns, and that rollouts, losses and checkpoints hold the masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

import rmc_envs
from rmc_agents import ActorCritic, PPOConfig, Trainer, evaluate
from rmc_agents.environment import BatchedEnv, ObservationIds
from rmc_agents.rl.fit import use_masks
from rmc_agents.rl.ppo import ppo_loss
from rmc_agents.rl.rollout import Rollout, collect, initial_carry, split_into_chunks
from rmc_agents.runs.folder import read_config
from rmc_agents.training.processes import Processes
from tests.conftest import small_options
from tests.support.groups import in_processes
from tests.support.masked_task import Extreme, Strict
from tests.support.trainers import assert_identical, save_interrupted

SMALL = PPOConfig(total_steps=512, num_steps=16, bptt_length=8, minibatch_size=64, learning_rate=1e-3)
LEARNING = PPOConfig(
    total_steps=15_360,
    num_steps=24,
    bptt_length=6,
    minibatch_size=192,
    learning_rate=4e-3,
    gamma=0.9,
)


def trainer_for(
    env: BatchedEnv, folder: Path, core: str = "gru", config: PPOConfig = SMALL, **options: Any
) -> Trainer:
    torch.manual_seed(0)
    agent = ActorCritic(env.observation_space, env.action_space, core, small_options(core), **options)
    return Trainer(agent, env, config, folder)


@pytest.mark.parametrize(
    ("core", "use", "learns"),
    [("gru", "auto", True), ("gru", "ignore", False), ("feedforward", "auto", False)],
)
def test_task_is_learned_with_masks_and_memory_only(
    core: str, use: str, learns: bool, tmp_path: Path
) -> None:
    env = Extreme(32)
    trainer = trainer_for(env, tmp_path, core, LEARNING, action_masks=use, features=32, hidden_size=32)
    trainer.run()
    success = evaluate(trainer.agent, env, 500).success_rate
    assert success is not None
    assert success > 0.95 if learns else success < 0.6


@pytest.mark.parametrize("space", [None, spaces.MultiBinary(3)])
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_training_and_evaluation_choose_no_forbidden_action(
    mode: AutoresetMode, space: spaces.Space | None, tmp_path: Path
) -> None:
    env = rmc_envs.GymnasiumEnvs(SyncVectorEnv([lambda: Strict(space)] * 8, autoreset_mode=mode))
    trainer = trainer_for(env, tmp_path)
    trainer.run()  # the environment raises at a forbidden action
    assert evaluate(trainer.agent, env, 20, deterministic=False).mean_length == 5


@pytest.mark.parametrize("components", [None, 2])
def test_rollout_holds_the_masks_of_its_actions(components: int | None, tmp_path: Path) -> None:
    trainer = trainer_for(Extreme(8, components=components), tmp_path)
    trainer.iterate()
    masks = trainer.rollout.action_masks
    assert masks is not None
    assert not masks.all()
    chosen = trainer.agent.policy.encode(trainer.rollout.actions).bool()
    assert not (chosen & ~masks).any()
    chunks = split_into_chunks(trainer.rollout, trainer.rollout.values, trainer.rollout.values, 8)
    picked = chunks.select(torch.tensor([9]))  # environment 1, from step 8 on
    assert picked.action_masks is not None
    assert torch.equal(picked.action_masks[:, 0], masks[8:, 1])


@pytest.mark.parametrize("components", [None, 2])
def test_probability_ratio_is_one_before_the_first_step(components: int | None, tmp_path: Path) -> None:
    trainer = trainer_for(Extreme(8, components=components), tmp_path, "rmc")
    trainer.collect(trainer.carry)
    rollout = trainer.rollout
    chunks = split_into_chunks(rollout, torch.randn_like(rollout.values), rollout.values, 8)
    _, metrics = ppo_loss(trainer.agent, chunks, trainer.config, 0.01)
    assert abs(float(metrics.approx_kl.detach())) < 1e-6
    assert float(metrics.clip_fraction) == 0
    assert 0 < float(metrics.entropy) <= (components or 1) * 0.6932  # log 2: two choices are allowed


class Listed(Extreme):
    """With ids of observations, for which training runs in C where there are no masks."""

    def observation_table(self) -> Tensor:
        return torch.arange(3, device=self.device)

    def _observe(self) -> Any:
        obs = super()._observe()
        return ObservationIds(obs) if self.observe_ids else obs


def test_training_with_ids_of_observations_uses_masks(tmp_path: Path) -> None:
    plain, listed = (trainer_for(task(8), tmp_path) for task in (Extreme, Listed))
    assert listed.ids
    for _ in range(3):
        plain.iterate()
        figures = listed.iterate()
        assert torch.equal(plain.rollout.actions, listed.rollout.actions)
    assert figures["train/entropy_loss"] >= -0.6932
    torch.testing.assert_close(dict(plain.agent.named_parameters()), dict(listed.agent.named_parameters()))


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, first, second = (trainer_for(Extreme(8), tmp_path / name) for name in ("whole", "parts", "parts"))
    for _ in range(4):
        whole.iterate()
    for _ in range(2):
        first.iterate()
    save_interrupted(first)
    assert read_config(tmp_path / "parts")["agent"]["action_masks"] == "use"
    second.restore()
    for _ in range(2):
        second.iterate()
    assert_identical(whole, second)


def test_processes_train_with_masks_and_stay_equal(tmp_path: Path) -> None:
    def train(group: Processes) -> list[Any]:
        env = Extreme(4)
        agent = ActorCritic(env.observation_space, env.action_space, "gru", small_options("gru"))
        trainer = Trainer(agent, env, SMALL, tmp_path, processes=group)
        for _ in range(2):
            trainer.iterate()
        assert trainer.rollout.action_masks is not None
        return [p.detach() for p in agent.parameters()]

    first, second = in_processes(train)
    assert not isinstance(first, str), first
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_collect_and_update_with_masks_run_on_the_meta_device(tmp_path: Path) -> None:
    """A meta tensor has no data: a hidden read to the host fails here."""
    env = Extreme(4, "meta", components=2)
    agent = ActorCritic(env.observation_space, env.action_space, "gru", small_options("gru")).to("meta")
    use_masks(agent, env)
    carry = initial_carry(agent, env, seed=0)
    rollout = Rollout.allocate(agent, carry, num_steps=8)
    collect(agent, env, carry, rollout, None)
    chunks = split_into_chunks(rollout, rollout.values, rollout.values, 4)
    loss, metrics = ppo_loss(agent, chunks, SMALL, torch.zeros((), device="meta"))
    loss.backward()
    assert all(x.is_meta for x in metrics)


def test_agent_that_needs_masks_is_not_trained_without(tmp_path: Path) -> None:
    env = rmc_envs.make("CartPole-v1", 8)
    with pytest.raises(ValueError, match=r"^action_masks='use': CartPole-v1 gives no action masks"):
        trainer_for(env, tmp_path, action_masks="use")
    trainer = trainer_for(env, tmp_path)
    assert trainer.agent.config.action_masks == "auto"
    assert trainer.rollout.action_masks is None


def test_agent_may_ignore_masks(tmp_path: Path) -> None:
    trainer = trainer_for(Extreme(8), tmp_path, action_masks="ignore")
    trainer.iterate()
    assert trainer.rollout.action_masks is None
    assert trainer.to_json()["agent"]["action_masks"] == "ignore"

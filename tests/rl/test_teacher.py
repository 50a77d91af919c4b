"""Learning from a teacher: the divergence, its place in the loss, and that training follows it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import rmc_envs
from rmc_agents import PPOConfig, Trainer
from rmc_agents.agent.heads import CategoricalHead
from rmc_agents.agent.saved import initialize
from rmc_agents.environment import BatchedEnv, Transition
from rmc_agents.errors import TrainingError
from rmc_agents.rl.ppo import ppo_loss
from rmc_agents.rl.rollout import Rollout, collect, initial_carry, split_into_chunks
from tests.support.agents import fresh_agent
from tests.support.trainers import QUICK

TASK = "rmc/BoxWorldViewport-v0"


def test_divergence_is_that_of_the_distributions() -> None:
    sizes = [4, 3]
    parameters = torch.randn(5, 2, 7, dtype=torch.float64)
    advice = torch.cat([torch.rand(5, 2, n, dtype=torch.float64).softmax(-1) for n in sizes], -1)
    expected = sum(
        torch.distributions.kl_divergence(
            torch.distributions.Categorical(probs=p), torch.distributions.Categorical(logits=logits)
        )
        for p, logits in zip(advice.split(sizes, -1), parameters.split(sizes, -1), strict=True)
    )
    head = CategoricalHead(1, spaces.MultiDiscrete(sizes))
    torch.testing.assert_close(head.divergence(parameters, advice), expected)


def test_divergence_is_0_without_advice_and_for_a_policy_that_agrees() -> None:
    advice = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    parameters = torch.tensor([[1.0, 5.0, 2.0], [3.0, 3.0, -1e8], [3.0, 3.0, 3.0]])
    expected = torch.tensor([0.0, 0.0, torch.tensor(1.5).log()])
    head = CategoricalHead(1, spaces.Discrete(3))
    torch.testing.assert_close(head.divergence(parameters, advice), expected)


@pytest.mark.parametrize("core", ["rmc", "gru", "entity_delta"])
def test_divergence_enters_the_loss_and_its_gradient_with_its_weight(core: str) -> None:
    torch.manual_seed(1)
    env = rmc_envs.make(TASK, 6, max_solution=2)
    agent = fresh_agent(core, env)
    carry = initial_carry(agent, env, 0)
    rollout = Rollout.allocate(agent, carry, 16, teacher=True)
    collect(agent, env, carry, rollout, torch.Generator().manual_seed(0))
    assert rollout.advice is not None
    assert (rollout.advice.sum(-1) - 1).abs().max() < 1e-6
    chunks = split_into_chunks(rollout, rollout.rewards, rollout.rewards, 8)
    chunks.valid[2, 1] = False
    evaluated = agent.evaluate_actions(
        chunks.obs, chunks.actions, chunks.rewards, chunks.starts, chunks.state
    )
    assert chunks.advice is not None
    each = agent.policy.divergence(evaluated.parameters, chunks.advice)
    apart = (each * chunks.valid).sum() / chunks.valid.sum()
    plain, without = ppo_loss(agent, chunks._replace(advice=None), PPOConfig(), 0.01)
    loss, metrics = ppo_loss(agent, chunks, PPOConfig(teacher_coef=3.0), 0.01)
    assert without.divergence == 0
    assert apart > 0.1
    torch.testing.assert_close(metrics.divergence, apart.detach())
    torch.testing.assert_close(loss, plain + 3 * apart, rtol=1e-5, atol=1e-6)
    weights = [p for p in agent.parameters() if p.requires_grad]
    expected = torch.autograd.grad(plain + 3 * apart, weights, allow_unused=True)
    for one, other in zip(expected, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_advice_belongs_to_the_observations_of_its_step() -> None:
    env, twin = (rmc_envs.make(TASK, 4, max_solution=2) for _ in range(2))
    agent = fresh_agent("gru", env)
    carry = initial_carry(agent, env, 3)
    rollout = Rollout.allocate(agent, carry, 12, teacher=True)
    collect(agent, env, carry, rollout, None)
    twin.reset(3)
    assert rollout.advice is not None
    for t in range(12):
        torch.testing.assert_close(rollout.advice[t], twin.teacher_actions())
        twin.step(rollout.actions[t])


class Opposite(BatchedEnv):
    """Rewards ask for the digit that is seen, and the teacher for the next one."""

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        self.num_envs, self.device = num_envs, torch.device(device)
        self.observation_space = self.action_space = spaces.Discrete(4)
        self.tasks, self.has_teacher = ("mine/Opposite-v0",), True
        self.task_of = torch.zeros(num_envs, dtype=torch.int64)
        self.generator = torch.Generator()
        self.digit = torch.zeros(num_envs, dtype=torch.int64)

    def reset(self, seed: int | None = None) -> Tensor:
        if seed is not None:
            self.generator.manual_seed(seed)
        self.digit = torch.randint(4, (self.num_envs,), generator=self.generator)
        return self.digit

    def step(self, actions: Tensor) -> Transition:
        shown, right = self.digit, actions == self.digit
        self.digit = torch.randint(4, (self.num_envs,), generator=self.generator)
        never = torch.zeros_like(right)
        return Transition(self.digit, right.float(), ~never, never, shown, right)

    def teacher_actions(self) -> Tensor:
        return torch.nn.functional.one_hot((self.digit + 1) % 4, 4).float()


@pytest.mark.parametrize(("coef", "solved"), [(0.0, True), (10.0, False)])
def test_training_follows_the_teacher_as_far_as_its_weight_says(
    coef: float, solved: bool, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    env = Opposite(16)
    config = dataclasses.replace(QUICK, total_steps=20_000, learning_rate=3e-3, teacher_coef=coef)
    run = Trainer(fresh_agent("feedforward", env), env, config, tmp_path, seed=2)
    figures: dict[str, float] = {}
    while not run.done:
        figures = run.iterate()
    rate = figures["rollout/success_rate"]
    assert rate > 0.9 if solved else rate < 0.1
    assert ("train/teacher_divergence" in figures) == bool(coef)
    assert figures.get("train/teacher_divergence", 0) < 0.2


def test_policy_goes_on_from_a_teacher_with_other_targets(tmp_path: Path) -> None:
    torch.manual_seed(3)
    taught = rmc_envs.make(TASK, 8, max_solution=1, targets="chain")
    config = dataclasses.replace(QUICK, teacher_coef=1.0, aux_coef=1.0)
    first = Trainer(fresh_agent("gru", taught, aux_size=taught.aux_size), taught, config, tmp_path / "taught")
    first.run()
    for targets, coef in (("places", 1.0), ("chain", 0.0)):
        env = rmc_envs.make(TASK, 8, max_solution=3, targets=targets)
        agent = fresh_agent("gru", env, aux_size=env.aux_size if coef else 0)
        own = {name: x.clone() for name, x in agent.state_dict().items()}
        initialize(agent, tmp_path / "taught")
        for name, x in agent.state_dict().items():
            source = own if name.startswith("aux_head") else first.agent.state_dict()
            torch.testing.assert_close(x, source[name])


class Silent(Opposite):
    def teacher_actions(self) -> Tensor:
        return torch.zeros(self.num_envs)


def test_advice_of_another_form_is_refused_before_training(tmp_path: Path) -> None:
    env = Silent(16)
    config = dataclasses.replace(QUICK, teacher_coef=1.0)
    expected = r"is float32 \[16\]; expected float32 \[16, 4\], the probabilities"
    with pytest.raises(ValueError, match=expected):
        Trainer(fresh_agent("gru", env), env, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_advice_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    class Broken(Opposite):
        def teacher_actions(self) -> Tensor:
            return super().teacher_actions() * torch.nan

    env = Broken(8)
    run = Trainer(fresh_agent("gru", env), env, dataclasses.replace(QUICK, teacher_coef=1.0), tmp_path)
    with pytest.raises(TrainingError, match="teacher's advice"):
        run.iterate()


def test_task_without_a_teacher_is_refused(tmp_path: Path) -> None:
    env = rmc_envs.make("MiniGrid-MemoryS5-v0", 8)
    config = dataclasses.replace(QUICK, teacher_coef=1.0)
    with pytest.raises(ValueError, match=r"teacher_coef=1 needs a task with a teacher, which .* is not"):
        Trainer(fresh_agent("gru", env), env, config, tmp_path)
    with pytest.raises(ValueError, match="teacher_coef must be 0 or more"):
        PPOConfig(teacher_coef=-1)

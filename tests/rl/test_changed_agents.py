"""Agents that their user changes, copies or shares between the iterations of a trainer."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rmc_agents import Trainer
from rmc_agents.rl.optimizer import FlatAdam
from tests.support.agents import small_agent, small_env
from tests.support.trainers import QUICK, assert_identical, ppo_trainer


def drop_gradients(agent: nn.Module) -> None:
    for p in agent.parameters():
        p.grad = None


def replace_values(agent: nn.Module) -> None:
    for p in agent.parameters():
        p.data = p.data.clone()


def use_another_optimizer(agent: nn.Module) -> None:
    optimizer = torch.optim.SGD(agent.parameters(), lr=0.0)
    next(agent.parameters()).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def keep_numbers(agent: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in agent.parameters()]


def has_moved(agent: nn.Module, before: list[Tensor]) -> bool:
    return any(not torch.equal(p, old) for p, old in zip(agent.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda agent: agent.zero_grad(),
        drop_gradients,
        replace_values,
        use_another_optimizer,
        lambda agent: agent.double().float(),
        lambda agent: agent.to("cpu"),
        lambda agent: agent.share_memory(),
        lambda agent: agent.load_state_dict(copy.deepcopy(agent.state_dict())),
    ],
)
def test_change_that_keeps_the_weights_leaves_training_as_it_was(
    tmp_path: Path, change: Callable[[nn.Module], object]
) -> None:
    undisturbed, disturbed = ppo_trainer(tmp_path / "a"), ppo_trainer(tmp_path / "b")
    for _ in range(2):
        undisturbed.iterate()
        disturbed.iterate()
        change(disturbed.agent)
    undisturbed.iterate()
    disturbed.iterate()
    assert_identical(undisturbed, disturbed)


def test_frozen_parameters_stay_until_they_are_trained_again(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path)
    trainer.iterate()
    core, heads = trainer.agent.core, trainer.agent.policy_hidden
    core.requires_grad_(False)
    frozen, trained = keep_numbers(core), keep_numbers(heads)
    trainer.iterate()
    assert not has_moved(core, frozen)
    assert has_moved(heads, trained)
    core.requires_grad_(True)
    trainer.iterate()
    assert has_moved(core, frozen)


def test_two_trainers_take_turns_with_one_agent(tmp_path: Path) -> None:
    first = ppo_trainer(tmp_path / "a")
    second = Trainer(first.agent, small_env(8), QUICK, tmp_path / "b", seed=6)
    for trainer in (first, second, first):
        before = keep_numbers(first.agent)
        trainer.iterate()
        assert has_moved(first.agent, before)


def test_copied_trainer_trains_its_own_agent(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path)
    trainer.iterate()
    other, before = copy.deepcopy(trainer), keep_numbers(trainer.agent)
    other.iterate()
    assert not has_moved(trainer.agent, before)
    trainer.iterate()
    assert_identical(trainer, other)


def test_trained_agent_is_pickled_once(tmp_path: Path) -> None:
    """Its parameters are views of one tensor, which pickle would write for each of them."""
    trainer = ppo_trainer(tmp_path, "rmc")
    trainer.iterate()
    pickled = pickle.dumps(trainer.agent)
    assert len(pickled) < 1.1 * len(pickle.dumps(small_agent("rmc")))
    other = pickle.loads(pickled)
    for ours, theirs in zip(trainer.agent.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert theirs.requires_grad
        assert theirs.untyped_storage().nbytes() == theirs.nbytes


def test_agent_of_another_type_is_refused(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path)
    trainer.agent.double()
    with pytest.raises(
        ValueError, match="a parameter of the agent is float64 on cpu, expected float32 on cpu"
    ):
        trainer.iterate()


def test_moments_of_parameters_that_were_frozen_for_a_while_are_loaded() -> None:
    own = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    reference = torch.optim.Adam(own)
    own[0].grad, own[1].grad = torch.ones(3), torch.ones(2)
    reference.step()
    own[1].grad = None
    reference.step()
    optimizer = FlatAdam(own, eps=1e-5, max_grad_norm=0.5)
    optimizer.load_state_dict(reference.state_dict())
    assert optimizer.steps == 2
    for p in own:
        assert torch.equal(optimizer.state[p]["exp_avg"], reference.state[p]["exp_avg"])

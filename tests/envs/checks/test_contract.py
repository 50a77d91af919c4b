"""The checker accepts tasks that follow the contract, and names each rule that a task breaks."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import rmc_envs
from rmc_agents.environment import BatchedEnv, EnvConfig, Obs, Transition
from tests.support.broken_tasks import BROKEN, DoubleReward
from tests.support.tiny_task import Tiny


def test_checker_accepts_a_task_that_follows_the_contract() -> None:
    rmc_envs.check(Tiny(4), steps=20)
    rmc_envs.check(Tiny(1), steps=20)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_checker_accepts_adapted_gymnasium_environments(vectorization: str) -> None:
    rmc_envs.check(rmc_envs.make("CartPole-v1", 3, vectorization=vectorization), steps=80)


def run_example(source: str) -> type[BatchedEnv]:
    """Return the class that the example of the contract's documentation defines."""
    names = {"BatchedEnv": BatchedEnv, "Transition": Transition, "spaces": spaces, "torch": torch}
    exec("from __future__ import annotations\n" + source, names)
    return names["Echo"]


def test_example_of_the_contract_passes_the_checker() -> None:
    assert BatchedEnv.__doc__ is not None
    example = BatchedEnv.__doc__.partition("that it sees:\n")[2].partition("    `rmc_envs.check")[0]
    source = textwrap.dedent(example)
    rmc_envs.check(run_example(source)(4))
    guard = """\
        if self.digit is None:
            raise RuntimeError("step before the first reset")
"""
    assert guard in source
    with pytest.raises(rmc_envs.ContractError) as error:
        rmc_envs.check(run_example(source.replace(guard, ""))(4))
    (violation,) = error.value.violations
    documented = re.findall(r'reports\s+"(.*?)\(\.\.\.\)(.*?)"', BatchedEnv.__doc__, re.DOTALL)[0]
    assert all(" ".join(part.split()) in str(violation) for part in documented)


@pytest.mark.parametrize("task", BROKEN, ids=lambda task: task.__name__)
def test_checker_names_the_broken_rule(task: type[Tiny]) -> None:
    pattern = BROKEN[task]
    with pytest.raises(rmc_envs.ContractError, match=f"- {pattern}") as error:
        rmc_envs.check(task(4), steps=20)
    assert str(error.value).startswith(f"{task.__name__} breaks 1 rule of BatchedEnv:")
    assert {violation.rule for violation in error.value.violations} == {pattern.partition(":")[0]}


def test_every_documented_rule_has_a_broken_task() -> None:
    documented = set(re.findall(r"\*\*([^*]+)\*\*", inspect.getdoc(rmc_envs.check) or ""))
    assert documented == {pattern.partition(":")[0] for pattern in BROKEN.values()}


def test_message_lists_all_broken_rules() -> None:
    class Several(DoubleReward):
        def assign(self, task_of: Any) -> Obs:
            raise ValueError

        def step(self, actions: Tensor) -> Transition:
            return (
                super(DoubleReward, self)
                .step(actions)
                ._replace(success=torch.ones(self.num_envs, dtype=torch.bool))
            )

    with pytest.raises(
        rmc_envs.ContractError, match="Several breaks 4 rules of BatchedEnv:\n- reset first"
    ) as error:
        rmc_envs.check(Several(2), steps=20)
    assert {violation.rule for violation in error.value.violations} == {
        "reset first",
        "success",
        "assign",
        "meta device",
    }
    assert str(error.value).count("\n- ") == 4


def test_checker_refuses_an_environment_that_was_reset() -> None:
    env = Tiny(2)
    env.reset(seed=0)
    with pytest.raises(rmc_envs.ContractError, match="Pass an environment that was not reset"):
        rmc_envs.check(env, steps=20)


def test_checker_warns_about_rules_that_it_could_not_check() -> None:
    with pytest.warns(UserWarning, match="ends of episodes, since none ended in 2 steps"):
        rmc_envs.check(Tiny(2), steps=2)
    with pytest.warns(UserWarning, match=r"another instance \(pass make="):
        rmc_envs.check(rmc_envs.Recall(2, delay=1), steps=20)
    rmc_envs.check(
        rmc_envs.Recall(2, delay=1),
        steps=20,
        make=lambda num_envs, device: rmc_envs.Recall(num_envs, device, delay=1),
    )
    maze = rmc_envs.MazeSpec(5)
    with pytest.warns(UserWarning, match=r"another instance .*; the meta device \(pass make="):
        rmc_envs.check(rmc_envs.MemoryMazes(maze, 2), steps=200)


def test_checker_builds_other_instances_from_the_configuration() -> None:
    env = rmc_envs.make("rmc/Recall-v0", 2, delay=1)
    assert env.config == EnvConfig(env="rmc/Recall-v0", env_options={"delay": 1}, num_envs=2)
    rmc_envs.check(env, steps=20)


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Box(np.float32([-1, -np.inf]), np.float32([1, np.inf])),
    ],
)
def test_checker_plays_every_action_space(space: spaces.Space) -> None:
    class Mirror(BatchedEnv):
        """Shows the latest action; every episode has one step."""

        def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
            self.num_envs, self.device = num_envs, torch.device(device)
            self.observation_space = self.action_space = space
            self.tasks = ("mirror",)
            self.task_of = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
            self.was_reset = False

        def first(self) -> Tensor:
            dtype = {"MultiDiscrete": torch.int64, "MultiBinary": torch.int8}.get(type(space).__name__)
            return torch.zeros(self.num_envs, *space.shape, dtype=dtype, device=self.device)

        def reset(self, seed: int | None = None) -> Obs:
            self.was_reset = True
            return self.first()

        def step(self, actions: Tensor) -> Transition:
            if not self.was_reset:
                raise RuntimeError("call reset first")
            self.require_actions(actions)
            first = self.first()
            done = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
            return Transition(first, done.float(), done, ~done, actions.to(first.dtype, copy=True))

    rmc_envs.check(Mirror(3), steps=20)

"""Steps of native tasks as a CUDA graph needs them: state at fixed addresses, nothing on the host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import rmc_envs
from rmc_agents.environment import BatchedEnv
from rmc_agents.tree import clone, leaves
from rmc_envs.fixed_addresses import FixedAddresses
from tests.support.native_tasks import EVERY_TASK

B, T = 16, 60
SEEDED_TASKS = [
    task for task in EVERY_TASK if not str(task.values[0]).startswith(("rmc/MemoryS", "rmc/Memory-"))
]
"""All but MiniGrid's mazes, which keep their own addresses; see tests/envs/minigrid/test_memory.py."""


def random_actions(env: BatchedEnv, steps: int) -> list[Tensor]:
    env.action_space.seed(0)
    shape = (env.num_envs, *(env.action_space.shape or ()))
    return [
        torch.stack([torch.as_tensor(env.action_space.sample()) for _ in range(env.num_envs)]).view(shape)
        for _ in range(steps)
    ]


def take_steps(env: BatchedEnv, context: AbstractContextManager[None], actions: list[Tensor]) -> None:
    with context:
        for action in actions:
            env.step(action)


def addresses(env: BatchedEnv) -> dict[str, list[int]]:
    found = {name: [x.data_ptr() for x in tensors_of(value)] for name, value in vars(env).items()}
    return {name: pointers for name, pointers in found.items() if pointers}


def require_equal(ours: Any, theirs: Any) -> None:
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("env_id", SEEDED_TASKS)
def test_recorded_steps_equal_others_and_leave_the_state_where_it_was(env_id: str) -> None:
    recorded, plain = rmc_envs.make(env_id, B), rmc_envs.make(env_id, B)
    actions = random_actions(plain, T)
    if not recorded.capturable:
        require_host_changes(recorded, actions)
        return
    require_equal(recorded.reset(0), plain.reset(0))
    kept: list[dict[str, list[int]]] = []
    state: Any = {}
    for piece in range(5):
        before = clone(state)
        recorded.prepare_steps(T)
        with recorded.recorded_steps():
            for action in actions:
                ours, theirs = recorded.step(action), plain.step(action)
                require_equal(ours, theirs)
                require_equal(recorded.auxiliary_targets(), plain.auxiliary_targets())
        kept.append(addresses(recorded))
        # The steps changed tensors in place, but not those of a state that was saved before.
        require_equal(tensors_of(state), tensors_of(before))
        if piece == 1:
            require_equal(recorded.reset(7), plain.reset(7))
        if piece == 2:
            state, other = recorded.state_dict(), plain.state_dict()
            assert other is not None
            require_equal(recorded.load_state_dict(state), plain.load_state_dict(other))
    assert kept[0]
    assert all(found == kept[0] for found in kept)


def require_host_changes(env: BatchedEnv, actions: list[Tensor]) -> None:
    """A task that cannot be recorded says so, and has a reason."""
    env.reset(0)
    with pytest.raises(RuntimeError, match="which is no tensor"):
        take_steps(env, FixedAddresses(env).steps(), actions)
    with pytest.raises(NotImplementedError, match="cannot be recorded in a CUDA graph"):
        env.prepare_steps(T)


def tensors_of(state: Any) -> tuple[Tensor, ...]:
    if isinstance(state, Tensor):
        return (state,)
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return tuple(x for part in parts for x in tensors_of(part))


class Notes:
    """Notes what a mode finds."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []


class HostLists(Notes, TorchFunctionMode):
    """Notes tensors that are made from numbers of the host, for which a graph would have to wait."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if function in (torch.tensor, torch.as_tensor, torch.from_numpy):
            self.found.append(function.__name__)
        return function(*args, **(kwargs or {}))


class HostTensors(Notes, TorchDispatchMode):
    """Notes operations that move numbers between the host and the device, which a graph cannot record."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if any(x.device.type == "cpu" for x in tensors_of((args, kwargs or {}))):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_steps_use_no_tensor_of_the_host(env_id: str) -> None:
    """On the device `meta`, which has no numbers, steps that wait for some would fail."""
    env = rmc_envs.make(env_id, B, "meta")
    env.reset(0)
    shape = (B, *(env.action_space.shape or ()))
    action = torch.zeros(shape, dtype=torch.as_tensor(env.action_space.sample()).dtype, device="meta")
    env.step(action)
    with HostLists() as lists, HostTensors() as tensors:
        for _ in range(3):
            env.step(action)
            env.auxiliary_targets()
            env.action_masks()
    assert lists.found + tensors.found == []


def test_steps_that_fail_leave_the_task_as_it_was() -> None:
    env = rmc_envs.make("rmc/Recall-v0", B)
    obs = env.reset(0)
    assert isinstance(obs, Tensor)
    before = dict(vars(env))
    action = torch.zeros(B, dtype=torch.int64)
    with pytest.raises(ValueError, match="actions of shape"):
        take_steps(env, env.recorded_steps(), [action, action[1:]])
    assert all(vars(env)[name] is value for name, value in before.items())


class Counter:
    """Counts its steps in some way."""

    def __init__(self, kind: str) -> None:
        self.kind, self.number = kind, 0
        self.many = [torch.zeros(B)] if kind == "list" else []
        self.numbers = {"steps": torch.zeros(B)}
        self.growing = torch.zeros(1)
        self.counts, self.array = {"steps": 0}, np.zeros(2)
        self.other = self.numbers["steps"]

    def step(self) -> None:
        if self.kind == "number":
            self.number += 1
        elif self.kind == "list":
            self.many[0] = self.many[0] + 1
        elif self.kind == "numbers":
            self.counts["steps"] += 1
        elif self.kind == "array":
            self.array = self.array + 1
        elif self.kind == "view":
            self.growing = self.numbers["steps"][:1]
        elif self.kind == "dictionary":
            self.numbers["steps"] = self.numbers["steps"] + 1
        elif self.kind == "shape":
            self.growing = torch.cat([self.growing, self.growing[:1]])
        elif self.kind == "swap":
            self.numbers, self.other = {"steps": self.other + 1}, self.numbers["steps"]


def count_steps(counter: Counter, rollouts: int) -> list[tuple[int, int]]:
    """Return the addresses after each rollout of 3 steps."""
    addresses, found = FixedAddresses(counter), []
    for _ in range(rollouts):
        addresses.prepare()
        with addresses.steps():
            for _ in range(3):
                counter.step()
        found.append((counter.numbers["steps"].data_ptr(), counter.other.data_ptr()))
    return found


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("number", "a step of Counter changes number, which is no tensor"),
        ("numbers", "a step of Counter changes counts, which is no tensor"),
        ("array", "a step of Counter changes array, which is no tensor"),
        ("view", "numbers and growing of Counter share memory: clone one of them"),
        ("list", "many of Counter is a list of tensors: use a tuple"),
        ("shape", "growing of Counter has other shapes than in the steps before"),
    ],
)
def test_what_a_graph_could_not_repeat_is_one_error(kind: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        count_steps(Counter(kind), 2)


@pytest.mark.parametrize("kind", ["dictionary", "swap"])
def test_replaced_entries_and_aliases_are_as_in_plain_steps(kind: str) -> None:
    recorded, plain = Counter(kind), Counter(kind)
    addresses = count_steps(recorded, 4)
    for _ in range(12):
        plain.step()
    assert torch.equal(recorded.numbers["steps"], plain.numbers["steps"])
    assert torch.equal(recorded.other, plain.other)
    assert addresses[1:] == addresses[:1] * 3
    assert addresses[0][0] != addresses[0][1]


def test_attribute_that_a_reset_empties_is_empty_in_the_next_steps() -> None:
    counter: Any = Counter("dictionary")
    addresses = FixedAddresses(counter)
    for last in (torch.ones(B), None):
        counter.last = last
        addresses.prepare()
        assert counter.last is last
        with addresses.steps():
            counter.step()


def test_option_that_changes_after_recording_is_an_error() -> None:
    env = rmc_envs.make("rmc/BoxWorld-v0", B)
    env.reset(0)
    env.prepare_steps(1)
    env.prepare_steps(1)
    env.max_steps = 7  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="rmc/BoxWorld-v0: an option was changed"):
        env.prepare_steps(1)

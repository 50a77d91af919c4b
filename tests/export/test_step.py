"""One step of an agent as a function of tensors: its names, and what `predict` computes, for every space."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents import AnnotatedBox, UsageError
from rmc_agents.export.step import ExportedStep
from rmc_agents.export.verification import compare
from rmc_agents.spaces.text import AnnotatedText
from tests.support.exports import Eager, agent_for
from tests.support.spaces import OBSERVATION_SPACES

OBSERVATIONS: dict[str, spaces.Space[Any]] = OBSERVATION_SPACES | {
    "codes": AnnotatedBox(spaces.Box(0, 4, (5, 5, 2), np.uint8), "codes"),
    "codes without channels": AnnotatedBox(spaces.Box(0, 9, (4, 3), np.int16), "codes"),
    "log": AnnotatedBox(spaces.Box(-1e6, 1e6, (3,)), "log"),
    "embedded": spaces.MultiDiscrete([1500, 3], start=[-7, 2]),
    "int8 discrete": spaces.Discrete(5, start=-2, dtype=np.int8),
    "halves": spaces.Box(-1, 1, (3,), np.float16),
    "doubles": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    "booleans": spaces.Box(0, 1, (4,), np.bool_),
    **{
        f"{np.dtype(kind).name} numbers": spaces.Box(0, 100, (3,), kind)
        for kind in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)
    },
    "frames": spaces.Box(0, 255, (4, 40, 40, 1), np.uint8),
    "nested": spaces.Dict(
        a=spaces.Dict(x=spaces.Box(0, 1, (2,)), n=spaces.Discrete(3, start=1)),
        b=spaces.Tuple((spaces.MultiBinary(3), spaces.Discrete(4))),
    ),
    "tuple": spaces.Tuple((spaces.Discrete(32), spaces.Discrete(2))),
    "text beside numbers": spaces.Dict(x=spaces.Box(-1, 1, (2,)), mission=spaces.Text(9)),
    "words": spaces.Dict(x=spaces.Box(-1, 1, (2,)), mission=AnnotatedText(["go", "to", "the", "key"], 5)),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "discrete from 5": spaces.Discrete(3, start=5),
    "int32 discrete": spaces.Discrete(3, start=-1, dtype=np.int32),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multidiscrete matrix": spaces.MultiDiscrete([[3, 2], [2, 4]], start=[[1, 0], [-3, 7]]),
    "multibinary": spaces.MultiBinary((2, 3)),
    "box": spaces.Box(-0.1, np.array([[0.2, 0.3]], np.float32), (1, 2)),
    "scalar box": spaces.Box(-1, 1, ()),
    "doubles": spaces.Box(-0.1, 0.1, (2,), np.float64),
    "integers": spaces.Box(-2, 3, (4,), np.int16),
    "large integers": spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64),
    "large unsigned integers": spaces.Box(0, 2**64 - 1, (2,), np.uint64),
    "dict": spaces.Dict(a=spaces.Discrete(3, start=1), b=spaces.MultiBinary(2)),
    "tuple of boxes": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Box(0, 5, (1, 2), np.int32))),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_step_reads_every_observation_as_predict_does(name: str) -> None:
    agent = agent_for(OBSERVATIONS[name])
    assert compare(Eager(agent), agent, steps=20, rows=3).error < 1e-5
    assert compare(Eager(agent), agent, steps=3, rows=1).error < 1e-5


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("name", ACTIONS)
def test_step_acts_in_every_space_as_predict_does(name: str, sample: bool) -> None:
    agent = agent_for(action_space=ACTIONS[name])
    file = Eager(agent, sample)
    assert compare(file, agent, steps=40, rows=3).error < 1e-5
    outputs = file.run({key: x.numpy() for key, x in file.step.example(2).items()})
    for key, slot in file.step.outputs.items():
        assert (outputs[key].dtype, outputs[key].shape) == (slot.dtype, (2, *slot.shape))


@pytest.mark.parametrize("name", ["large integers", "large unsigned integers"])
def test_actions_beyond_large_bounds_are_members(name: str) -> None:
    space = ACTIONS[name]
    step = ExportedStep(agent_for(action_space=space))
    (actions,) = step.members(torch.tensor([[1e25, -1e25], [0.4, 7.0]]))
    assert all(action in space for action in actions.numpy())
    assert actions[1].tolist() == [0, 7]


@pytest.mark.parametrize(
    ("previous_action", "previous_reward", "critic_memory", "skip"),
    [
        (*previous, critic_memory, skip)
        for previous, critic_memory, skip in itertools.product(
            itertools.product([False, True], repeat=2), ["shared", "separate", "none"], [True]
        )
    ]
    + [(True, True, "separate", False)],
)
def test_every_kind_of_agent_is_exported(
    previous_action: bool, previous_reward: bool, critic_memory: Any, skip: bool
) -> None:
    options = {"previous_action": previous_action, "previous_reward": previous_reward, "skip": skip}
    agent = agent_for(action_space=spaces.MultiDiscrete([3, 2]), critic_memory=critic_memory, **options)
    file = Eager(agent, sample=True)
    assert compare(file, agent, steps=60, rows=3, carry=True).error < 1e-5
    assert ("reward" in file.step.inputs, "state.action" in file.step.inputs) == (
        previous_reward,
        previous_action,
    )
    assert ("state.critic_memory.h" in file.step.inputs) == (critic_memory == "separate")


@pytest.mark.parametrize("action", [spaces.MultiDiscrete([3, 2]), spaces.Box(-1, 1, (2,))], ids=str)
def test_persistence_of_actions_is_part_of_the_step(action: spaces.Space[Any]) -> None:
    agent = agent_for(action_space=action, action_persistence=0.9)
    file = Eager(agent, sample=True)
    assert compare(file, agent, steps=60, rows=3, carry=True).error < 1e-5
    assert "state.action" in file.step.inputs


@pytest.mark.parametrize("options", [{"normalize_observations": True}, {"scale_actions": True}])
def test_normalisation_and_scaling_are_part_of_the_step(options: dict[str, Any]) -> None:
    space = spaces.Box(-np.inf, np.inf, (3,))
    agent = agent_for(space, spaces.Box(-3, 5, (2,)), **options)
    obs = 5 + 3 * torch.randn(8, 4, 3)
    agent.update_statistics(obs, torch.ones(8, 4, dtype=torch.bool))
    assert compare(Eager(agent, sample=True), agent, steps=20, rows=3).error < 1e-5


def test_step_names_its_inputs_and_outputs() -> None:
    space = spaces.Dict(image=spaces.Box(0, 255, (7, 7, 3), np.uint8), direction=spaces.Discrete(4))
    step = ExportedStep(agent_for(space, spaces.Dict(go=spaces.Discrete(2)), "lstm"), sample=True)
    names = ["obs.image", "obs.direction", "episode_start", "noise", "state.memory.h", "state.memory.c"]
    assert list(step.inputs) == names
    outputs = ["action.go", "parameters", "value", "next_state.memory.h", "next_state.memory.c"]
    assert list(step.outputs) == outputs
    assert step.inputs["obs.image"].to_json() == {"dtype": "uint8", "shape": (7, 7, 3), "path": ("image",)}
    assert step.inputs["noise"].shape == (2,)


def test_agent_without_memory_has_no_state() -> None:
    step = ExportedStep(agent_for(core="feedforward"))
    assert list(step.inputs) == ["obs", "episode_start"]
    assert list(step.outputs) == ["action", "parameters", "value"]


def test_state_does_not_count_at_an_episode_start(any_core: str) -> None:
    file = Eager(agent_for(core=any_core))
    zeros = {name: x.numpy() for name, x in file.step.example(2).items()}
    garbage = {name: np.full_like(x, np.nan) if name.startswith("state.") else x for name, x in zeros.items()}
    for name, x in file.run(garbage).items():
        np.testing.assert_array_equal(x, file.run(zeros)[name])


def test_words_of_a_text_are_named() -> None:
    step = ExportedStep(agent_for(OBSERVATIONS["words"]))
    assert step.inputs["obs.mission"].to_json()["words"] == ("go", "to", "the", "key")
    assert step.inputs["obs.mission"].shape == (5,)


def test_actions_of_equal_names_are_refused() -> None:
    space = spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(2))})
    with pytest.raises(UsageError, match=r"two parts of the actions .* have the same name, action\.a\.b"):
        ExportedStep(agent_for(action_space=space))


def test_agent_is_copied() -> None:
    agent = agent_for().train()
    step = ExportedStep(agent)
    assert agent.training
    torch.nn.init.zeros_(agent.policy.linear.weight)
    assert step.agent.policy.linear.weight.abs().sum() > 0

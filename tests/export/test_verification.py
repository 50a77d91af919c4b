"""The comparison of a file with its agent finds every kind of difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents.export.formats import Arrays
from rmc_agents.export.verification import Mismatch, compare
from tests.support.exports import Eager, agent_for


class Wrong(Eager):
    """A step with one output that is changed."""

    def __init__(self, agent: Any, name: str, change: Any) -> None:
        super().__init__(agent)
        self.name, self.change = name, change

    def run(self, inputs: Arrays) -> Arrays:
        outputs = super().run(inputs)
        return outputs | {self.name: self.change(outputs[self.name])}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("value", lambda x: x + 0.01, "value differs from the agent's by 0.01"),
        ("value", lambda x: x.astype(np.float64), "value is float64"),
        ("value", lambda x: x[:, None], r"value is float32 \[8, 1\], expected float32 \[8\]"),
        ("value", lambda x: x * np.nan, "value differs from the agent's by nan"),
        ("parameters", lambda x: x * 1.001, "parameters differs"),
        ("next_state.memory.h", lambda x: -x, "next_state.memory.h differs"),
        ("next_state.action", lambda x: x + 1, "next_state.action differs"),
        ("action", lambda x: x + 1, "action differs"),
    ],
)
def test_wrong_output_is_found(name: str, change: Any, message: str) -> None:
    agent = agent_for(previous_action=True)
    with pytest.raises(Mismatch, match=message):
        compare(Wrong(agent, name, change), agent)


def test_wrong_conversion_of_actions_is_found() -> None:
    """The file's own parameters explain its actions, but `predict` chooses others."""
    agent, other = (agent_for(action_space=spaces.Discrete(3, start=start)) for start in (0, 1))
    other.load_state_dict(agent.state_dict())
    file = Eager(agent)
    with pytest.raises(Mismatch, match=r"action is \d; the agent chose \d"):
        compare_with(file, agent, other)


def compare_with(file: Eager, agent: Any, other: Any) -> None:
    """Compare a file with an agent whose `predict` is that of another."""
    agent.predict = other.predict
    compare(file, agent)


def test_other_weights_are_found() -> None:
    agent, other = agent_for(), agent_for()
    with pytest.raises(Mismatch):
        compare(Eager(other), agent)


def test_wrong_reset_is_found() -> None:
    class Forgetful(Eager):
        def run(self, inputs: Arrays) -> Arrays:
            return super().run(inputs | {"episode_start": np.zeros_like(inputs["episode_start"])})

    agent = agent_for(core="rmc")
    with pytest.raises(Mismatch):
        compare(Forgetful(agent), agent)


def test_choice_between_equal_actions_is_no_difference() -> None:
    agent = agent_for(previous_action=True)
    torch.nn.init.zeros_(agent.policy.linear.weight)
    assert compare(Wrong(agent, "parameters", lambda x: x), agent, steps=10).error < 1e-5

    class OtherChoice(Eager):
        def run(self, inputs: Arrays) -> Arrays:
            tilt = np.array([0, 1e-6, 0], np.float32)  # as if by rounding
            outputs = super().run(inputs)
            chosen = np.ones_like(outputs["action"])
            changes = {
                "parameters": outputs["parameters"] + tilt,
                "action": chosen,
                "next_state.action": chosen,
            }
            return outputs | changes

    assert compare(OtherChoice(agent), agent, steps=10).episodes == 80  # each step starts a new episode


def test_comparison_is_deterministic() -> None:
    agent = agent_for(action_space=spaces.Box(-1, 1, (2,)), core="rmc")
    first, second = (compare(Eager(agent, sample=True), agent, steps=20, seed=3) for _ in range(2))
    assert first == second
    assert (first.steps, first.rows) == (20, 8)

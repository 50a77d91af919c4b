"""Exported agents with action masks choose what the agent does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rmc_agents import ActorCritic, export_file
from rmc_agents.export.formats import open_exported
from rmc_agents.export.verification import compare
from rmc_agents.spaces.masks import choice_sizes
from tests.support.exports import Eager, agent_for

PAIR = spaces.MultiDiscrete([2, 3], start=[0, 4])


def masked(space: spaces.Space[Any] = PAIR, core: str = "gru", **options: Any) -> ActorCritic:
    agent = agent_for(action_space=space, core=core, **options)
    agent.use_action_masks()
    return agent


@pytest.mark.parametrize("space", [spaces.Discrete(4, start=2), PAIR, spaces.MultiBinary(3)])
@pytest.mark.parametrize("sample", [False, True])
def test_exported_step_agrees_with_the_agent(space: spaces.Space[Any], sample: bool) -> None:
    agent = masked(space, previous_action=True)
    file = Eager(agent, sample)
    assert compare(file, agent, steps=30).error < 1e-5
    assert file.step.inputs["action_mask"].to_json() == {
        "dtype": "bool",
        "shape": (sum(choice_sizes(agent.action_space) or []),),
    }


def test_agents_without_masks_have_no_such_input() -> None:
    assert "action_mask" not in Eager(agent_for()).step.inputs
    assert "action_mask" not in Eager(agent_for(action_masks="ignore")).step.inputs


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".pt2", marks=pytest.mark.slow)])
def test_file_chooses_allowed_actions_only(suffix: str, tmp_path: Path) -> None:
    export = export_file(masked(), tmp_path / f"agent{suffix}", sample=True)
    file = open_exported(export.path)
    rng = np.random.default_rng(0)
    inputs = {name: np.zeros((200, *slot.shape), slot.dtype) for name, slot in export.inputs.items()}
    inputs["episode_start"][:] = True
    inputs["noise"] = rng.exponential(size=(200, 5)).astype(np.float32)
    inputs["action_mask"] = np.tile([True, False, True, False, True], (200, 1))
    outputs = file.run(inputs)
    assert set(outputs["action"][:, 0]) == {0}
    assert set(outputs["action"][:, 1]) == {4, 6}
    assert (outputs["parameters"][:, [1, 3]] == -1e8).all()

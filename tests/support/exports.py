"""Exported steps without a file, and agents that use every kind of observation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from rmc_agents import ActorCritic, AnnotatedBox
from rmc_agents.export.files import describe_step
from rmc_agents.export.formats import Arrays, ExportedFile
from rmc_agents.export.step import ExportedStep
from rmc_agents.spaces.text import AnnotatedText
from tests.conftest import small_options
from tests.support.spaces import OBSERVATION_SPACES

EVERY_OBSERVATION = spaces.Dict(
    {
        **{key.replace(" ", "_").replace(",", ""): space for key, space in OBSERVATION_SPACES.items()},
        "codes": AnnotatedBox(spaces.Box(0, 4, (5, 5, 2), np.uint8), "codes"),
        "log": AnnotatedBox(spaces.Box(-1e6, 1e6, (3,)), "log"),
        "embedded": spaces.MultiDiscrete([1500, 3], start=[-7, 2]),
        "words": AnnotatedText(["go", "to", "the", "key"], 5),
        "tuple": spaces.Tuple((spaces.Box(-1, 1, (2,), np.float64), spaces.Box(0, 9, (2,), np.uint16))),
    }
)
"""A nested observation with parts of every kind."""

VECTOR, CHOICE = spaces.Box(-1, 1, (3,)), spaces.Discrete(3)


class Eager(ExportedFile):
    """A step that runs in PyTorch, in place of a file."""

    def __init__(self, agent: ActorCritic, sample: bool = False) -> None:
        self.step = ExportedStep(agent, sample)
        self.about = describe_step(self.step)

    def run(self, inputs: Arrays) -> Arrays:
        assert set(inputs) == set(self.step.inputs)
        with torch.no_grad():
            outputs = self.step({name: torch.as_tensor(x) for name, x in inputs.items()})
        return {name: x.numpy() for name, x in outputs.items()}


def agent_for(
    observation_space: spaces.Space[Any] = VECTOR,
    action_space: spaces.Space[Any] = CHOICE,
    core: str = "gru",
    **options: Any,
) -> ActorCritic:
    """Build a small agent whose policy is far from uniform, so that an error shows in its actions."""
    agent = ActorCritic(
        observation_space,
        action_space,
        core,
        small_options(core),
        features=16,
        hidden_size=16,
        **options,
    )
    torch.nn.init.normal_(agent.policy.linear.weight)
    return agent

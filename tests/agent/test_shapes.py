"""Networks as shapes: those of the real network, without torch's decompositions."""

from __future__ import annotations

from pathlib import Path

import torch

from rmc_agents.agent.shapes import shapes_only
from tests.support import fork_server
from tests.support.agents import MAZE, small_agent, small_env

IMPORTS = f"""
import sys, rmc_envs
from rmc_agents import ActorCritic
from rmc_agents.agent.shapes import shapes_only
env = rmc_envs.make({MAZE!r}, 2)
before = set(sys.modules)
with shapes_only():
    ActorCritic(env.observation_space, env.action_space, "rmc")
print(len(set(sys.modules) - before) < 20)  # the decompositions are 900
"""


def test_shapes_are_those_of_the_network(any_core: str) -> None:
    env = small_env()
    real = small_agent(any_core, env)
    with shapes_only():
        shapes = small_agent(any_core, env)
    assert all(x.is_meta for x in shapes.state_dict().values())
    found, expected = ({name: (x.shape, x.dtype) for name, x in a.named_parameters()} for a in (shapes, real))
    assert found == expected
    assert [x.shape for x in shapes.buffers()] == [x.shape for x in real.buffers()]
    assert torch.nn.Linear(2, 2).weight.abs().sum() > 0, "values are set again outside"


def test_shapes_import_no_decompositions(tmp_path: Path) -> None:
    process = fork_server.start(["-c", IMPORTS], tmp_path)
    assert process.communicate() == ("True\n", "")

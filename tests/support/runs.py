"""Run folders of untrained agents."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import rmc_envs
from rmc_agents.runs.checkpoint import save_checkpoint
from rmc_agents.runs.folder import write_config
from tests.support.agents import MAZE, small_agent


def saved_run(
    folder: Path, env_id: str = MAZE, core: str = "rmc", imports: tuple[str, ...] = (), **options: Any
) -> Path:
    """Save an untrained agent as a run that was trained in an environment with these options.

    Its weights are the same in every order of the tests.
    """
    env = rmc_envs.make(env_id, 2, **options)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        agent = small_agent(core, env)
    assert env.config is not None
    config = {**agent.to_json(), "environment": asdict(env.config), "seed": 0, "imports": list(imports)}
    env.close()
    write_config(folder, config)
    save_checkpoint(folder, 7, {"agent": agent.state_dict()})
    return folder

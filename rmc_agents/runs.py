"""Trained agents in their run folders, for the scripts that look at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from rmc_agents import checkpoint
from rmc_agents.actor_critic import ActorCritic
from rmc_agents.errors import UsageError

GRIDS = ("MiniGrid-", "BabyAI-")
"""How ids of Farama's grid worlds begin."""


@dataclass(frozen=True)
class Run:
    """A run's agent, as one of its checkpoints has it."""

    folder: Path
    path: Path
    agent: ActorCritic
    env_ids: str
    """What it was trained in, with commas between; empty where config.json does not say."""
    env_options: dict[str, Any] | None
    """The options of these environments; None where config.json does not say."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def options_for(self, env_id: str) -> dict[str, Any]:
        """An environment's options: as in training, or such that the agent fits another grid."""
        if env_id in names(self.env_ids) and self.env_options is not None:
            return {name: value for name, value in self.env_options.items() if name != "seeding"}
        space, actions = self.agent.observation_space, self.agent.action_space
        grid = env_id.startswith((*GRIDS, "rmc/Memory"))
        if grid and isinstance(space, spaces.Dict) and "image" in space.spaces:
            three = isinstance(actions, spaces.Discrete) and actions.n == 3
            return {"view_size": (space["image"].shape or (7,))[0], **({"actions": 3} if three else {})}
        return {}

    def require_fit(self, env_id: str, env: Any) -> None:
        """Raise UsageError unless the agent can see and act in these environments (any with spaces)."""
        for name in ("observation_space", "action_space"):
            had, has = getattr(self.agent, name), getattr(env, name)
            if had != has:
                raise UsageError(
                    f"{self.folder} was trained with {name} {had}; {env_id} has {has}. Choose an --env with "
                    f"the same{f', such as {self.env_ids}' if self.env_ids else ''}"
                )


def load(path: Path, device: torch.device) -> Run:
    """The agent of a run folder, or of one checkpoint."""
    if path.is_file():
        folder, saved = path.parent.parent, path
    else:
        folder, saved = path, checkpoint.read_newest(path)[0]
    env = checkpoint.read_config(folder).get("env", {})  # a `Trainer` from Python need not say
    return Run(folder, saved, checkpoint.load(saved, device), env.get("id", ""), env.get("options"))


def names(env_ids: str) -> list[str]:
    """`"A, B"` as `["A", "B"]`."""
    return [name.strip() for name in env_ids.split(",")]

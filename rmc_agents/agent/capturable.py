"""Whether an agent can be recorded in a CUDA graph, which replays its kernels and runs no Python."""

from __future__ import annotations

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.cores import MemoryCore


def why_not_captured(agent: ActorCritic) -> str | None:
    """Return why gradient steps and rollouts of an agent must not be recorded; None if they may be."""
    for module in agent.modules():
        if isinstance(module, MemoryCore) and not vars(type(module)).get("capturable", False):
            name = type(module).__name__
            return f"the core {name} does not say that it can be (`capturable = True` in its class)"
    return None

"""How an agent's networks are run: as they stand, compiled, or in bfloat16.

Acting and learning share one path through encoder, core and heads; that path is what is replaced here.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rmc_agents.actor_critic import ActorCritic
from rmc_agents.tree import map_tree

Precision = Literal["float32", "bf16"]


def run_networks(agent: ActorCritic, precision: Precision = "float32", compiled: bool = False) -> list[str]:
    """Run the networks in that precision, compiled or not, from now on; returns what to tell the user.

    `compiled` uses `torch.compile`: on a GPU with CUDA graphs (mode "reduce-overhead"), which save the host
    most of its work. Where that is not possible the agent runs as it stands, and the answer says why. bf16 is
    `torch.autocast` of matrix products; parameters, states and results stay float32.

    On a CPU the cores in C are faster than either, and are used with neither.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
    notes: list[str] = []
    device = agent.device
    options: dict[str, Any] = {"mode": "reduce-overhead"} if device.type == "cuda" else {}
    if compiled:
        reason = why_not_compiled(device)
        if reason is not None:
            notes.append(f"--compile is not possible here, going on without: {reason}")
            compiled = False
    if not compiled and precision == "float32":
        return notes
    forward = agent._forward
    if compiled:
        # Acting and learning are two shapes each for good; a graph that fits any shape would be slower.
        forward = torch.compile(forward, dynamic=False, **options)

    def copied(x: Tensor) -> Tensor:
        # CUDA graphs write every result to the same memory, and ours outlive the next call.
        return x.to(torch.float32 if x.is_floating_point() else x.dtype, copy=True)

    def run(*args: Any) -> Any:
        if compiled:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            results = forward(*args)
        return map_tree(copied, results)

    agent._forward = run  # type: ignore[method-assign]
    return notes


def why_not_compiled(device: torch.device) -> str | None:
    """None if `torch.compile` works on this device, else the reason (no compiler, ...) in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.compile(lambda x: (x + 1).relu())(torch.zeros(8, device=device))
    except Exception as error:  # a missing compiler, header or library: every part of it has its own type
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
    return None

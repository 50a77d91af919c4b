"""Compiled networks, and networks in bfloat16.

Acting and learning share one function that runs encoder, core and heads; it is wrapped here.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic, Networks
from rmc_agents.cores import GRU, LSTM, RMC
from rmc_agents.cores.kernels import gated_triton, rmc_triton
from rmc_agents.tree import map_tree

Precision = Literal["float32", "tf32", "bf16"]


def accelerate(agent: ActorCritic, precision: Precision = "float32", compiled: bool = False) -> list[str]:
    """Set the precision of an agent's networks; optionally compile them.

    On a CPU the cores' C kernels are faster than either, and neither uses them.

    Args:
        agent: changed in place.
        precision: tf32 lets a GPU compute all matrix products of the process in TensorFloat-32; bf16 is
            `torch.autocast` of matrix products. Parameters, states and results stay float32.
        compiled: use `torch.compile`, on a GPU with CUDA graphs (mode "reduce-overhead"), which save the host
            most of its work. Where it does not work the agent runs uncompiled.

    Returns:
        notes for the user, such as why the networks are not compiled.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
    notes: list[str] = []
    device = agent.device
    if compiled:
        reason = why_not_compiled(device)
        if reason is not None:
            notes.append(f"the networks cannot be compiled here and run uncompiled: {reason}")
            compiled = False
    if precision == "bf16" and bfloat16_is_slow(device):
        notes.append("precision bf16 is slower than float32 on this CPU, which multiplies bfloat16 slowly")
    if precision == "tf32":
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        else:
            notes.append(f"precision tf32 is for GPUs: on {device.type} it is float32")
            precision = "float32"
    if device.type == "cuda" and not compiled:
        notes += _notes_on_triton(agent, precision)
    if not compiled and precision == "float32":
        return notes

    agent.wrap_networks(Accelerated(precision, compiled, device.type))
    return notes


def _notes_on_triton(agent: ActorCritic, precision: Precision) -> list[str]:
    """Return a note with the reason if a core of the agent runs without its Triton kernels on a GPU."""
    notes: dict[str, None] = {}
    for core in (agent.core, agent.critic_core):
        if isinstance(core, RMC):
            reason = rmc_triton.why_not(core, agent.device)
        elif isinstance(core, LSTM | GRU):
            reason = gated_triton.why_not(core, agent.device)
        else:
            continue
        if precision == "bf16":
            reason = "they compute in float32 or tf32"
        if reason is not None:
            notes[f"{type(core).__name__} runs in PyTorch instead of its Triton kernels: {reason}"] = None
    return list(notes)


@dataclass(frozen=True)
class Accelerated:
    """Wrapper of networks; a class rather than a closure, so that agents can be copied and pickled."""

    precision: Precision
    compiled: bool
    device_type: str

    @property
    def name(self) -> str:
        """The precision, after "compiled" if they are."""
        return f"compiled {self.precision}" if self.compiled else self.precision

    def __call__(self, networks: Networks) -> Networks:
        if self.precision == "tf32" and not self.compiled:
            return networks  # a setting of the process, and of backward passes, too
        options: dict[str, Any] = {"mode": "reduce-overhead"} if self.device_type == "cuda" else {}
        # Acting and learning have one fixed shape each; a graph for dynamic shapes would be slower.
        inner = torch.compile(networks, dynamic=False, **options) if self.compiled else networks

        def run(*args: Any) -> Any:
            if self.compiled:
                torch.compiler.cudagraph_mark_step_begin()
            bf16 = self.precision == "bf16"
            with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=bf16):
                results = inner(*args)
            return map_tree(_copied, results)

        return run


def bfloat16_is_slow(device: torch.device) -> bool:
    """Return whether a CPU multiplies matrices more slowly in bfloat16 than in float32, measured in 5 ms.

    CPUs without instructions for bfloat16 are many times slower.
    """
    if device.type != "cpu":
        return False
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(256, 256, dtype=dtype, device=device)
        measured = []
        for _ in range(4):
            started = time.perf_counter()
            torch.mm(a, a)
            measured.append(time.perf_counter() - started)
        seconds[dtype] = min(measured)
    return seconds[torch.bfloat16] > 1.5 * seconds[torch.float32]


def _copied(x: Tensor) -> Tensor:
    # CUDA graphs write every result to the same memory, and ours must survive the next call.
    return x.to(torch.float32 if x.is_floating_point() else x.dtype, copy=True)


def why_not_compiled(device: torch.device) -> str | None:
    """Return None if `torch.compile` works on this device, else the reason in one line (no compiler, ...)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.compile(lambda x: (x + 1).relu())(torch.zeros(8, device=device))
    except Exception as error:  # a missing compiler, header or library: every part of it has its own type
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
    return None

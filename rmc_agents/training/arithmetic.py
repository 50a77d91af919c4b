"""What the last digits of a run depend on: torch, processor, kernels, threads.

A resumed run equals an uninterrupted one bit for bit only with the same arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch

from rmc_agents.cores.kernels.active import active_kernels, kernels_in_use
from rmc_agents.errors import shown


def arithmetic(device: torch.device, networks: str) -> dict[str, str]:
    """Describe the arithmetic of this process.

    Args:
        device: where the networks run.
        networks: how they run, such as "compiled".
    """
    described = {"torch": str(torch.__version__), "device": device.type, "networks": networks}
    if device.type == "cpu":
        described["processor"] = torch.backends.cpu.get_cpu_capability()
        described["threads"] = str(torch.get_num_threads())
        kernels = kernels_in_use()
        if kernels is not None:
            described["native kernels"] = _brief(kernels)
    elif device.type == "cuda":
        described["processor"] = torch.cuda.get_device_name(device)
    return described


def compare_arithmetic(saved: Any, now: dict[str, str]) -> list[str]:
    """Return one note if the arithmetic differs from that of a checkpoint.

    Args:
        saved: what `arithmetic` returned then; older checkpoints hold nothing.
        now: what it returns now.
    """
    if not isinstance(saved, dict):
        return []
    if "native kernels" in saved and now.get("device") == "cpu":
        now = {**now, "native kernels": _brief(active_kernels())}
    changed = [
        f"{name} {shown(saved[name], 40)}, now {now[name]}"
        for name in now
        if name in saved and str(saved[name]) != now[name]
    ]
    if not changed:
        return []
    return [
        f"this run was saved with other arithmetic ({'; '.join(changed)}): from here on it may differ from "
        "an uninterrupted run"
    ]


def _brief(kernels: str) -> str:
    return kernels.partition(" (")[0]  # without the reason

"""What all tests share."""

from __future__ import annotations

import pytest
import torch

from rmc_agents.cores import CORES


@pytest.fixture(autouse=True)
def _quick_and_repeatable() -> None:
    """One thread (the sizes are small), denormals flushed as in training, weights from one seed."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)


SMALL: dict[str, dict[str, int]] = {
    "rmc": {"num_slots": 4, "num_heads": 2, "head_size": 8},
    "dnc": {"hidden_size": 32, "num_rows": 4, "row_size": 8, "num_reads": 1},
}
"""Options that keep a core small and quick; the others get `hidden_size` 32 where they have one."""


def small_options(core: str) -> dict[str, int]:
    """Small sizes for any core in the registry."""
    from rmc_agents.cores import core_options

    return SMALL.get(core, {"hidden_size": 32} if "hidden_size" in core_options(core) else {})


CORES_WITH_MEMORY = [name for name in CORES if name != "feedforward"]


@pytest.fixture(params=list(CORES))
def any_core(request: pytest.FixtureRequest) -> str:
    """Every core in the registry, so that a new one is tested on the day it arrives."""
    return request.param

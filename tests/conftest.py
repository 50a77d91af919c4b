"""Fixtures and small core sizes shared by all tests."""

from __future__ import annotations

import pytest
import torch

from rmc_agents.cores import CORES, core_options


@pytest.fixture(autouse=True)
def _fast_and_deterministic() -> None:
    """Use one thread (the sizes are small), flush denormals as in training, and seed torch."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)


SMALL: dict[str, dict[str, int]] = {
    "rmc": {"num_slots": 4, "num_heads": 2, "head_size": 8},
    "dnc": {"hidden_size": 32, "num_rows": 4, "row_size": 8, "num_reads": 1},
}
"""Options of small, fast cores. Other cores get `hidden_size` 32 if they have that option."""


def small_options(core: str) -> dict[str, int]:
    """Return options that make any registered core small."""
    return SMALL.get(core, {"hidden_size": 32} if "hidden_size" in core_options(core) else {})


CORES_WITH_MEMORY = [name for name in CORES if name != "feedforward"]


@pytest.fixture(params=list(CORES))
def any_core(request: pytest.FixtureRequest) -> str:
    """Name of a registered core; a test that uses this runs for every core."""
    return request.param

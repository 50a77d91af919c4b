"""Fixtures and small core sizes shared by all tests."""

from __future__ import annotations

import gc
import getpass
import os
import sys
import tempfile

import pytest
import torch

from rmc_agents.cores import CORES, core_options

# The processes that tests start: each worker of pytest-xdist has one core for itself and for them.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
# Scripts that the tests start import the package hundreds of times: compile each module once.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Without a GPU, Triton kernels run in Triton's interpreter; Triton reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# torch.compile would run code of its cache that was compiled with another ATEN_CPU_CAPABILITY.
_user, _capability = getpass.getuser(), torch.backends.cpu.get_cpu_capability().replace(" ", "-")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/inductor-{_user}-{_capability}")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare what is imported now, 600,000 objects, the garbage collections of all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fast_and_deterministic() -> None:
    """Use one thread (the sizes are small), flush denormals as in training, and seed torch."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _logs_of_sb3(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let Stable-Baselines3 log into a folder of the tests, here and in subprocesses."""
    os.environ["SB3_LOGDIR"] = str(tmp_path_factory.mktemp("sb3"))


SMALL: dict[str, dict[str, int]] = {
    "rmc": {"num_slots": 4, "num_heads": 2, "head_size": 8},
    "dnc": {"hidden_size": 32, "num_rows": 4, "row_size": 8, "num_reads": 1},
    "gated_delta": {"num_heads": 2, "key_size": 8, "value_size": 8},
    "lru": {"hidden_size": 32, "state_size": 16},
    "shm": {"hidden_size": 8, "num_rows": 16},
    "delta_rmc": {"num_slots": 2, "num_heads": 2, "head_size": 8, "delta_heads": 2, "delta_value_size": 8},
    "entity_delta": {"hidden_size": 16, "key_size": 8, "value_size": 4, "num_reads": 2},
    "gtrxl": {"hidden_size": 16, "num_heads": 2, "window": 8, "mlp_size": 16},
}
"""Options of small, fast cores. Other cores get `hidden_size` 32 if they have that option."""


def small_options(core: str) -> dict[str, int]:
    """Return options that make any registered core small."""
    return SMALL.get(core, {"hidden_size": 32} if "hidden_size" in core_options(core) else {})


CORES_WITH_MEMORY = [name for name in CORES if name != "feedforward"]


FAST_CORES = ("rmc", "lstm", "gru", "feedforward")
"""Cores with which tests of every core run in the fast suite; with the others, they are marked as slow."""


@pytest.fixture(
    params=[name if name in FAST_CORES else pytest.param(name, marks=pytest.mark.slow) for name in CORES]
)
def any_core(request: pytest.FixtureRequest) -> str:
    """Name of a registered core; a test that uses this runs for every core."""
    return request.param

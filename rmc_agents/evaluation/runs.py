"""Loading of runs after their plug-ins."""

from __future__ import annotations

from pathlib import Path

import torch

from rmc_agents.agent.saved import Run, load_run
from rmc_agents.errors import UsageError
from rmc_agents.plugins import import_modules
from rmc_agents.runs.folder import read_config, run_folder_of


def load_with_imports(path: Path, device: torch.device | str = "cpu") -> Run:
    """Import the modules that a run's config.json names, and load the run's agent.

    Args:
        path: a run folder (its newest intact checkpoint is read) or one checkpoint in it.
        device: where to put the agent.

    Raises:
        UsageError: no run, one of its modules cannot be imported, or no readable checkpoint.
        NotAnAgent: the run is a classifier.
    """
    folder = run_folder_of(path)
    config = read_config(folder)
    try:
        import_modules(config.get("imports", ()))
    except UsageError as error:
        raise UsageError(f"{folder} cannot be loaded: {error}") from error
    return load_run(path, device)

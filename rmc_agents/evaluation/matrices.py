"""Score matrices [runs, tasks] by algorithm, as JSON: what rliable's functions take.

{"tasks": ["MiniGrid-MemoryS9-v0"], "scores": {"rmc": [[0.99], [0.97]], "gru": [[1.0], [0.98]]}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rmc_agents.errors import UsageError
from rmc_agents.runs.files import write_json


def write_matrices(path: Path, tasks: Sequence[str], scores: Mapping[str, Sequence[Sequence[float]]]) -> Path:
    """Write the scores of algorithms as JSON; return the path.

    Args:
        path: of the file.
        tasks: names of K tasks.
        scores: by algorithm the scores of its runs on each task, K lists of equal length.

    Raises:
        UsageError: an algorithm has no scores, or not the same number of runs on every task, so that there
            is no matrix.
        OSError: the file cannot be written.
    """
    matrices = {name: as_matrix(name, by_task) for name, by_task in scores.items()}
    if not matrices or any(len(row) != len(tasks) for rows in matrices.values() for row in rows):
        raise UsageError(f"there are no scores of every algorithm in {len(tasks)} tasks")
    write_json(path, {"tasks": list(tasks), "scores": matrices})
    return path


def as_matrix(name: str, by_task: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return scores by task and run as a matrix by run and task.

    Raises:
        UsageError: tasks have different numbers of runs, or none; or a score is not finite.
    """
    counts = {len(runs) for runs in by_task}
    if len(counts) != 1 or 0 in counts:
        raise UsageError(
            f"{name} has {', '.join(str(len(runs)) for runs in by_task) or 'no'} runs: a matrix of scores "
            "needs the same number, and at least one, in every environment"
        )
    if not all(math.isfinite(score) for runs in by_task for score in runs):
        raise UsageError(f"{name} has a score that is not finite")
    return [list(map(float, run)) for run in zip(*by_task, strict=True)]

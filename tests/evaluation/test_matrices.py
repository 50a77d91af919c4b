"""Score matrices in rliable's shape: a dictionary of arrays [runs, tasks]."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rmc_agents.errors import UsageError
from rmc_agents.evaluation.matrices import write_matrices
from rmc_agents.evaluation.statistics import interquartile_mean

TASKS = ["a", "b", "c"]
SCORES = {
    "rmc": [[0.9, 0.8], [0.1, 0.7], [1.0, 1.0]],
    "gru": [[0.5, 0.6], [0.4, 0.2], [0.0, 0.3]],
}


def rliable_iqm(scores: np.ndarray) -> float:
    """Compute `aggregate_iqm` of rliable: the mean of the middle half of all entries."""
    return float(stats.trim_mean(scores.flatten(), proportiontocut=0.25))


def test_matrices_are_what_rliable_takes(tmp_path: Path) -> None:
    path = write_matrices(tmp_path / "new" / "scores.json", TASKS, SCORES)
    data = json.loads(path.read_text())
    assert data["tasks"] == TASKS
    score_dict = {name: np.array(rows) for name, rows in data["scores"].items()}
    assert {name: matrix.shape for name, matrix in score_dict.items()} == {"rmc": (2, 3), "gru": (2, 3)}
    assert score_dict["rmc"][1].tolist() == [0.8, 0.7, 1.0]
    middle = np.sort(score_dict["rmc"].flatten())[1:5]
    assert rliable_iqm(score_dict["rmc"]) == pytest.approx(middle.mean())
    for name, matrix in score_dict.items():
        assert rliable_iqm(matrix) == pytest.approx(interquartile_mean(SCORES[name]))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"rmc": [[1.0, 0.5], [1.0], [0.5, 0.5]]}, "rmc has 2, 1, 2 runs"),
        ({"rmc": [[], [], []]}, "rmc has 0, 0, 0 runs"),
        ({"rmc": []}, "rmc has no runs"),
        ({"rmc": [[1.0]]}, "scores of every algorithm in 3 tasks"),
        ({"rmc": [[1.0], [float("nan")], [1.0]]}, "not finite"),
        ({}, "no scores"),
    ],
)
def test_scores_without_a_matrix_are_refused(
    scores: dict[str, list[list[float]]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        write_matrices(tmp_path / "scores.json", TASKS, scores)
    assert not (tmp_path / "scores.json").exists()

"""Results: entries of evaluation.json survive reading and writing, and are grouped by core."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmc_agents import UsageError
from rmc_agents.evaluation.entries import Entry, Figures
from rmc_agents.evaluation.results import (
    Result,
    Scores,
    by_size,
    by_training,
    kept_note,
    merge_entry,
    read_entries,
    read_evaluation,
    read_results,
    save_entry,
    scores_by_core,
    training_of,
)
from rmc_agents.runs.files import write_json
from tests.support.agents import evaluation_figures

ROOT = Path(__file__).parents[2]


def entry_json(success: float | None, value: float = 0.25) -> dict[str, Any]:
    figures = evaluation_figures(success, value)
    return {**figures, "random": {**figures, "success_rate": 0.26}, "best_possible": None}


def entry(success: float | None, value: float = 0.25) -> Entry:
    return Entry.from_json(entry_json(success, value), "test")


MAZE_ENTRY = {
    "success_rate": 0.5,
    "success_ci95": [0.25, 0.75],
    "mean_return": 0.25,
    "return_ci95": None,
    "mean_length": 12,
    "episodes": 1,
    "first_seed": 1_000_000,
    "implementation": "batched",
    "deterministic": True,
    "seconds": 1.25,
    "random": {"success_rate": 0.3, "mean_return": 0.1, "mean_length": 99.0, "implementation": "exact"},
    "best_possible": {"success_rate": 1.0, "mean_return": 0.9, "mean_length": 7.0},
    "hallway": None,
    "trained_hallway": 5,
    "memoryless": {"run": "blind", **evaluation_figures(0.5, 0.2)},
    "command": "python train/evaluate.py runs/x",
    "versions": {"torch": "2.6"},
    "checkpoint": "runs/x/checkpoints/step_000000000007.pt",
    "date": "2026-01-02T03:04:05+00:00",
}
"""An entry with every key that `train/evaluate.py` writes for a maze."""
POLE_ENTRY = {
    **evaluation_figures(None, 20.0),
    "first_seed": 3,
    "random": evaluation_figures(None, 18.0),
    "best_possible": None,
}
"""An entry for a task without success."""


@pytest.mark.parametrize("data", [MAZE_ENTRY, POLE_ENTRY, {**MAZE_ENTRY, "mine": None, "my_note": [1]}])
def test_entry_survives_a_round_trip(data: dict[str, Any]) -> None:
    assert Entry.from_json(data, "test").to_json() == data


def test_entry_of_a_maze_is_written_in_order() -> None:
    assert list(Entry.from_json(MAZE_ENTRY, "test").to_json()) == list(MAZE_ENTRY)


def test_entry_of_a_classifier_survives_a_round_trip() -> None:
    path = ROOT / "trained" / "nth-farthest-rmc" / "evaluation.json"
    for env_id, data in json.loads(path.read_text()).items():
        read = Entry.from_json(data, env_id)
        assert read.figures.success_rate == data["success_rate"]
        assert read.other["by_rank"] == data["by_rank"]
        assert read.to_json() == data


NUMBERS = st.none() | st.floats(allow_nan=False, allow_subnormal=False) | st.integers()
FIGURES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("success_rate", "mean_return", "mean_length"), NUMBERS),
        **dict.fromkeys(
            ("success_ci95", "return_ci95"),
            st.none() | st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=2),
        ),
        **dict.fromkeys(("episodes", "first_seed", "hallway"), st.none() | st.integers()),
        **dict.fromkeys(("implementation", "run", "command"), st.none() | st.text()),
    },
)


@given(FIGURES, st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_entry_keeps_every_value(known: dict[str, Any], unknown: dict[str, Any]) -> None:
    unknown = {f"own {key}": value for key, value in unknown.items()}
    data = {**known, "random": known, **unknown, "mean_return": 1.0}
    written = Entry.from_json(data, "test").to_json()
    assert {key: value for key, value in written.items() if key in unknown} == unknown
    for found, expected in ((written, data), (written["random"], known)):
        nested = () if found is written else ("hallway", "command")  # no figures: ignored
        skipped = {"random", *unknown, *nested}
        own = {key: value for key, value in expected.items() if value is not None and key not in skipped}
        assert {key: found[key] for key in own} == own


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ([0.5], r"\[0\.5\]' is not an object"),
        ({"success_rate": "0.9"}, "success_rate is '0.9', expected a number"),
        ({"success_rate": True}, "success_rate is 'True', expected a number"),
        ({"success_ci95": [0.5]}, "success_ci95 is .*expected two numbers"),
        ({"success_ci95": 0.5}, "success_ci95 is .*expected two numbers"),
        ({"episodes": 0.5}, "episodes is .*expected a whole number"),
        ({"implementation": 7}, "implementation is .*expected a string"),
        ({"deterministic": 1}, "deterministic is .*expected true or false"),
        ({"versions": "2.6"}, "versions is .*expected an object"),
        ({"random": 0.5}, "random: '0.5' is not an object"),
        ({"memoryless": {"mean_length": []}}, "memoryless: mean_length is"),
        ({"hallway": "3"}, "hallway is .*expected a whole number"),
        ({"mean_return": 10**400}, "mean_return is .*expected a number"),
        ({"trained_hallway": -(10**400)}, "trained_hallway is .*expected a whole number"),
        ({"success_rate": None, "mean_return": None}, "neither a success_rate nor a mean_return"),
    ],
)
def test_damaged_entry_is_one_error_that_names_file_and_entry(
    tmp_path: Path, damage: Any, message: str
) -> None:
    data = MAZE_ENTRY | damage if isinstance(damage, dict) else damage
    write_json(tmp_path / "evaluation.json", {"Fine-v0": MAZE_ENTRY, "Maze-v0": data})
    with pytest.raises(UsageError, match=rf"evaluation\.json, entry 'Maze-v0'.*{message}.*evaluate again"):
        read_evaluation(tmp_path)


def test_figures_ignore_keys_that_are_not_figures() -> None:
    assert Figures.from_json({"success_rate": 0.5, "mine": 3}, "test") == Figures(success_rate=0.5)


def test_entries_are_merged_by_environment(tmp_path: Path) -> None:
    save_entry(tmp_path, "A", entry(0.5))
    save_entry(tmp_path, "B", entry(0.6))
    path = save_entry(tmp_path, "A", entry(0.7))
    saved = json.loads(path.read_text())
    assert {env_id: figures["success_rate"] for env_id, figures in saved.items()} == {"A": 0.7, "B": 0.6}
    assert list(tmp_path.iterdir()) == [path]
    assert read_evaluation(tmp_path) == {"A": entry(0.7), "B": entry(0.6)}


def test_merge_entry_leaves_other_entries_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "probe.json"
    write_json(path, {"A": {"anything": [1, None]}, "B": 3})
    merge_entry(path, "B", {"x": 1})
    assert read_entries(path) == {"A": {"anything": [1, None]}, "B": {"x": 1}}


@pytest.mark.parametrize("damaged", ["{", "[]"])
def test_damaged_file_is_not_overwritten(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(damaged)
    with pytest.raises(UsageError, match=r"evaluation\.json .*delete or move it"):
        save_entry(tmp_path, "A", entry(0.5))
    assert path.read_text() == damaged
    assert read_evaluation(tmp_path / "none") == {}


def test_scores_are_grouped_by_core() -> None:
    results = [
        Result(f"{core}{seed}", core, "Maze-v0", entry(rate))
        for core, rates in {"gru": (0.5, 0.6, 0.4), "rmc": (0.9, 0.95, 0.99)}.items()
        for seed, rate in enumerate(rates)
    ]
    results.append(Result("rmc0", "rmc", "Other-v0", entry(0.0)))  # gru was not evaluated there
    by_core = {"gru": [[0.5, 0.6, 0.4]], "rmc": [[0.9, 0.95, 0.99]]}
    assert scores_by_core(results) == Scores("success rate", ("Maze-v0",), by_core)


def test_scores_are_returns_if_a_task_reports_no_success() -> None:
    results = [Result("a", "gru", "Pole-v1", entry(None, 20.0)), Result("b", "rmc", "Maze-v0", entry(0.5))]
    with pytest.raises(ValueError, match="no environment"):
        scores_by_core(results)
    assert scores_by_core(results[:1]) == Scores("mean return", ("Pole-v1",), {"gru": [[20.0]]})


def test_mazes_are_sorted_by_size() -> None:
    sizes = ["S7", "S9", "S13", "S13Random", "S17", "S65"]
    ids = [f"MiniGrid-Memory{size}-v0" for size in sizes]
    assert sorted(sorted(ids), key=by_size) == ids


def test_results_are_read_from_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run folder"):
        read_results(tmp_path / "none")
    write_json(tmp_path / "config.json", {"format": 2, "agent": {"core": "gru"}})
    assert read_results(tmp_path) == []
    for env_id in ("Maze10-v0", "Maze9-v0"):
        save_entry(tmp_path, env_id, entry(0.5))
    assert read_results(tmp_path) == [
        Result(tmp_path.name, "gru", env_id, entry(0.5)) for env_id in ("Maze9-v0", "Maze10-v0")
    ]


def counted(episodes: int, step: int = 7, **more: Any) -> Entry:
    """Return an entry of so many episodes, of the checkpoint after so many steps."""
    checkpoint = f"runs/x/checkpoints/step_{step:012d}.pt"
    data = {**entry_json(episodes / 1000), "episodes": episodes, "checkpoint": checkpoint, **more}
    return Entry.from_json(data, "test")


def kept(folder: Path, *entries: Entry) -> Entry:
    """Save entries one after the other, and return what the file holds."""
    for each in entries:
        save_entry(folder, "A", each)
    return read_evaluation(folder)["A"]


def test_more_episodes_of_the_same_agent_are_kept(tmp_path: Path) -> None:
    best = counted(1000, date="2026-01-01T00:00:00+00:00")
    few = counted(200, date="2026-01-02T00:00:00+00:00")
    assert kept(tmp_path, best, few) == best
    path = tmp_path / "evaluation.json"
    assert kept_note(path, "A", few) == f"{path} keeps the figures of 1,000 episodes instead of these 200"
    more = counted(1000, command="again", date="2026-01-03T00:00:00+00:00")
    assert kept(tmp_path, more) == more, "of equally many episodes, the later figures"
    assert kept_note(path, "A", more) is None


def test_memoryless_figures_are_added_to_better_ones(tmp_path: Path) -> None:
    blind = {"run": "blind", **evaluation_figures(0.5, 0.2)}
    found = kept(tmp_path, counted(1000), counted(200, memoryless=blind))
    assert found.episodes == 1000
    assert found.memoryless is not None
    assert found.memoryless.run == "blind"


def test_better_figures_of_another_checkpoint_are_kept_besides(tmp_path: Path) -> None:
    old = counted(1000, date="2026-01-01T00:00:00+00:00")
    new = counted(200, step=9, date="2026-01-02T00:00:00+00:00")
    found = kept(tmp_path, old, new)
    assert dataclasses.replace(found, earlier=()) == new
    assert found.earlier == (old,)
    path = tmp_path / "evaluation.json"
    assert kept_note(path, "A", new) == f"{path} keeps the figures of 1,000 episodes besides these 200"
    found = kept(tmp_path, counted(2000, step=9))
    assert (found.episodes, found.earlier) == (2000, ())
    found = kept(tmp_path, counted(3000, step=11))
    assert (found.episodes, found.earlier) == (3000, ())


def test_figures_of_the_other_kind_of_actions_are_kept_besides(tmp_path: Path) -> None:
    best, drawn = counted(1000), counted(300, deterministic=False)
    found = kept(tmp_path, best, drawn)
    assert dataclasses.replace(found, earlier=()) == drawn
    assert found.earlier == (best,)
    found = kept(tmp_path, counted(200))
    assert (found.episodes, found.is_drawn) == (1000, False), "fewer episodes do not replace earlier ones"
    assert found.earlier == (drawn,)


def test_checkpoint_that_was_written_again_is_another_agent(tmp_path: Path) -> None:
    checkpoint = tmp_path / "step_000000000007.pt"
    checkpoint.write_text("")
    old = counted(1000, checkpoint=str(checkpoint), date="2020-01-01T00:00:00+00:00")
    new = counted(200, checkpoint=str(checkpoint))
    found = kept(tmp_path, old, new)
    assert (found.episodes, [each.episodes for each in found.earlier]) == (200, [1000])


def test_runs_trained_in_different_environments_are_not_pooled() -> None:
    results = [
        Result(name, "rmc", env_id, entry(rate), training)
        for name, training, rate in (("a", "MemoryS7", 0.2), ("b", "MemoryS13", 0.9), ("c", "MemoryS13", 0.8))
        for env_id in ("Maze-v0", "Other-v0")
    ]
    scores = scores_by_core(results)
    assert scores.by_core == {
        "rmc, trained in MemoryS7": [[0.2], [0.2]],
        "rmc, trained in MemoryS13": [[0.9, 0.8], [0.9, 0.8]],
    }
    assert list(by_training(results[2:])) == ["rmc"], "one training needs no label"
    own = [Result(env_id, "rmc", env_id, entry(0.5), env_id) for env_id in ("Maze-v0", "Other-v0")]
    assert list(by_training(own)) == ["rmc"], "each run in its own environment: nothing is pooled"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (None, ""),
        ("nonsense", ""),
        (
            {"env": "MiniGrid-MemoryS9-v0", "env_options": {"view_size": 3, "seeding": "x"}},
            "MemoryS9 view_size=3",
        ),
        ({"env": "A-v0", "train_on": "MiniGrid-MemoryS5-v0, B-v1"}, "MemoryS5, B-v1"),
        ({"env": "[/x]\x1b[2J", "env_options": []}, r"[/x]\x1b[2J"),
    ],
)
def test_training_is_described_by_environments_and_options(environment: Any, expected: str) -> None:
    assert training_of(environment) == expected

"""Stored scores of random, memoryless and reference play are those of the players."""

from __future__ import annotations

from pathlib import Path

import pytest

import rmc_envs
from rmc_envs.measure import measure
from rmc_envs.popgym.levels import FAMILIES, LEVELS, POPGYM_ALIASES, POPGYM_IDS
from rmc_envs.references import References


@pytest.mark.parametrize("env_id", POPGYM_IDS)
def test_every_level_has_references_in_order(env_id: str) -> None:
    found = rmc_envs.references(env_id)
    assert found is not None
    assert -1 <= found.random <= found.memoryless <= found.reference <= 1


def test_references_are_found_by_alias_and_for_no_other_task() -> None:
    for alias, env_id in POPGYM_ALIASES.items():
        assert rmc_envs.references(alias) == rmc_envs.references(env_id)
    assert rmc_envs.references("MiniGrid-MemoryS9-v0") is None
    assert rmc_envs.references("rmc/RepeatPrevious-v0") is None


@pytest.mark.parametrize("env_id", ["rmc/Recall-v0", "rmc/KeyValue-v0", "rmc/NthFarthest-v0"])
def test_perfect_memory_answers_all_questions_of_a_sequence(env_id: str) -> None:
    found, measured = rmc_envs.references(env_id), measure(env_id, episodes=200, seed=3)
    assert found is not None
    assert measured["reference"] == found.reference == 1.0
    assert measured["memoryless"] == pytest.approx(found.memoryless, abs=5 * measured["memoryless error"])


def test_perfect_memory_is_the_reference_where_the_task_is_memory() -> None:
    for family in ("RepeatFirst", "RepeatPrevious", "Autoencode", "CountRecall", "PositionOnlyCartPole"):
        found = rmc_envs.references(f"popgym-{family}Hard-v0")
        assert found is not None
        assert found.reference == 1.0


@pytest.mark.parametrize(
    "env_id",
    [
        *("popgym-RepeatPreviousEasy-v0", "popgym-CountRecallEasy-v0", "popgym-HigherLowerEasy-v0"),
        *(
            "popgym-ConcentrationEasy-v0",
            "popgym-BattleshipEasy-v0",
            "popgym-NoisyPositionOnlyCartPoleHard-v0",
        ),
    ],
)
def test_stored_scores_are_those_of_the_players(env_id: str) -> None:
    stored, measured = rmc_envs.references(env_id), measure(env_id, episodes=100, seed=7)
    assert stored is not None
    for name in References._fields:
        tolerance = 5 * measured[f"{name} error"] + 1e-4
        assert getattr(stored, name) == pytest.approx(measured[name], abs=tolerance), name


def test_normalized_score_is_relative_to_memoryless_and_reference_play() -> None:
    found = References(random=-0.5, memoryless=-0.25, reference=0.75)
    assert [found.normalized(score) for score in (-0.25, 0.25, 0.75)] == [0.0, 0.5, 1.0]


def test_guide_shows_the_stored_scores() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "popgym.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        (line,) = [line for line in guide.splitlines() if line.startswith(f"| {family.FAMILY} |")]
        found = [rmc_envs.references(family.popgym_id(level)) for level in LEVELS]
        expected = [
            " / ".join(f"{getattr(scores, name):.2f}" for scores in found) for name in References._fields
        ]
        assert [cell.strip() for cell in line.split("|")[3:6]] == expected

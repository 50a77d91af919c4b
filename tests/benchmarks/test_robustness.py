"""The soak: its parts are run once each, and its report shows their results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.robustness import attacks, mutations, soak
from benchmarks.robustness.forgeries import FORGED, INTACT
from benchmarks.robustness.processes import SMALL_CORES


def kill_result(core: str) -> dict[str, Any]:
    """Return the result of kills that did no damage."""
    counts = dict.fromkeys(("kills during a write", "checkpoints lost", "damaged files", "tracebacks"), 0)
    logs = dict.fromkeys(("steps doubled in log.jsonl", "steps doubled in TensorBoard"), 0)
    return {"core": core, "kills": 5, **counts, "equal to an uninterrupted run": "yes", **logs}


def test_soak_continues_after_an_interruption(
    tmp_path: Path, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    results: dict[str, Any] = {
        "growth": [{"iteration": i, "memory (MiB)": 100 + i / 10, "open files": 8} for i in (10, 20)],
        **{f"kills-{core}": kill_result(core) for core in SMALL_CORES},
        "mutations": Counter({"refused": 3, "ValueError: x": 1}),
        "configs": Counter({"agent loaded, training refused": 2}),
        "attacks": [{"attack": "archives that are loaded", "attempts": 9, "damage": 0}],
    }

    def make_parts(args: object) -> dict[str, Callable[[Path], Any]]:
        def part(name: str) -> Any:
            calls.append(name)
            if calls == ["growth", *(f"kills-{core}" for core in SMALL_CORES), "mutations"]:
                raise KeyboardInterrupt
            return results[name]

        return {name: lambda folder, name=name: part(name) for name in results}

    monkeypatch.setattr(soak, "make_parts", make_parts)
    command = ("robustness.soak", "--quick", "--out", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run(*command)
    run(*command)
    assert calls == [*[*results][:5], "mutations", "configs", "attacks"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reliability.json", "reliability.md"]
    written = json.loads((tmp_path / "reliability.json").read_text())
    measured = [row["measured"] for row in written["Targets"]]
    assert measured == [0, 0, 1, 0, pytest.approx(0.99), 0, 0, 0]
    assert [row["reached"] for row in written["Targets"]] == ["yes", "yes", "no", *["yes"] * 5]
    assert written["Targets"][-1]["quantity"].startswith("archives that are loaded, of 9")
    assert written["Mutated checkpoints"][0] == {"outcome": "refused", "files": 3}


@pytest.mark.slow
def test_attacks_on_training_do_no_damage(tmp_path: Path) -> None:
    rows = attacks.attack(tmp_path, 1, seed=3)
    assert [row["damage"] for row in rows] == [0, 0, 0, 0, 0], rows
    assert [row["attempts"] for row in rows] == [len(INTACT) + len(FORGED), 1, 1, 1, 4]


def test_outcome_is_clear_if_it_is_a_load_or_a_refusal() -> None:
    assert mutations.is_clear(
        Counter({"read; refused by a training run": 1, "agent loaded, training refused": 2})
    )
    assert not mutations.is_clear(Counter({"refused": 9, "ValueError: x": 1}))

"""Running a benchmark as a user does, but in this process (importing torch again takes seconds)."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Benchmark = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs a benchmark with the given flags: run("speed.cores", "--quick")."""

    def run_main(name: str, *flags: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *flags])
        importlib.import_module(f"benchmarks.{name}").main()

    return run_main


@pytest.fixture
def benchmark(tmp_path: Path, run: Callable[..., None]) -> Benchmark:
    """Return a function that makes a quick run, checks its files, and returns its JSON."""

    def run_quickly(name: str, *flags: str) -> dict[str, Any]:
        run(f"speed.{name}", "--quick", "--out", str(tmp_path), *flags)
        files = [f"{name}.{ending}" for ending in ("json", "md", "png")]
        assert sorted(path.name for path in tmp_path.iterdir()) == files
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        results = json.loads((tmp_path / f"{name}.json").read_text())
        page = (tmp_path / f"{name}.md").read_text()
        assert f"python -m benchmarks.speed.{name}" in page
        titles = [title for title, rows in results.items() if isinstance(rows, list) and title[0].isupper()]
        assert all(title in page for title in titles)
        assert {"processor", "cores", "torch threads", "date", "versions"} <= set(results["machine"])
        return results

    return run_quickly

"""The repository: what a clone holds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a git checkout")
def test_no_source_file_is_ignored_by_git() -> None:
    """A pattern such as `runs/` in .gitignore would keep rmc_agents/runs out of every clone."""
    folders = ("rmc_agents", "envs", "train", "tests", "benchmarks", "examples", "docs")
    files = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="\n".join(files),
        capture_output=True,
        text=True,
    )
    assert ignored.stdout.splitlines() == []

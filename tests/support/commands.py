"""Scripts of train/, run in this process or in a separate one (see also `fork_server`)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import fork_server

ROOT = Path(__file__).parents[2]


class Result(NamedTuple):
    """End of a command."""

    code: int
    """Exit code."""
    out: str
    errors: str


Command = Callable[..., Result]
"""Takes the words of a command line."""


def in_process(name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs train/NAME.py in this process, since importing torch takes seconds."""
    script = import_module(f"train.{name}")

    def run(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", [f"train/{name}.py", *words])
        code = 0
        try:
            script.cli()
        except SystemExit as left:
            code = int(left.code or 0)
        return Result(code, *capfd.readouterr())

    return run


def run_python(*words: str, cwd: Path, **environment: str) -> Result:
    """Run Python in a process of its own, with a command line and further environment variables."""
    result = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return Result(result.returncode, result.stdout, result.stderr)


def run_script(name: str, *words: str, cwd: Path, **environment: str) -> Result:
    """Run train/NAME.py in a process of its own, with a command line and further environment variables."""
    process = fork_server.start([script_path(name), *words], cwd, **environment)
    out, errors = process.communicate()
    return Result(process.wait(), out, errors)


def script_path(name: str) -> str:
    """Return the path of train/NAME.py."""
    return str(ROOT / "train" / f"{name}.py")

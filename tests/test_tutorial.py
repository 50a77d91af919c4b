"""The tutorial: every command and every block of code, in order, in a fresh folder."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from rmc_agents.cli.start import COMMANDS
from tests.support import fork_server
from tests.support.commands import script_path
from tests.support.documents import DOCS, ROOT

pytestmark = pytest.mark.slow

PAGE = DOCS / "start" / "tutorial.md"
SMALLER = [
    (r"--total-steps 100_000", "--total-steps 512 --num-envs 4"),
    (r"for seed in 0 1 2", "for seed in 0 1"),
    (r"--episodes \d+", "--episodes 20"),
    (r"episodes=1000", "episodes=20"),
    (r"runs/lstm-\* runs/feedforward-\*", "runs/feedforward-0"),
    (r"--out comparison", "--out comparison --episodes 20"),
]
"""Smaller numbers, with which a step takes seconds."""
RECORD = """
record() { printf '%s\\037' "$@"; echo; }
for program in {programs}; do eval "$program() {{ record $program \\"\\$@\\"; }}"; done
"""
"""Start of a shell script: programs become functions that print their arguments, a command a line."""
SCRIPTS = {command: script for script, command in COMMANDS.items()}
ENVIRONMENT = ("python3", "source", "pip")
"""Commands that build the environment, which the tests have."""


class Block(NamedTuple):
    language: str
    file: str
    """Where the page says to save it; empty for none."""
    text: str


def blocks() -> list[Block]:
    pattern = r'^```(\w*)(?: title="(\S+)")?\n(.*?)^```'
    return [Block(*found) for found in re.findall(pattern, PAGE.read_text(), re.MULTILINE | re.DOTALL)]


def shrunk(text: str) -> str:
    for pattern, smaller in SMALLER:
        text = re.sub(pattern, smaller, text)
    return text


def commands_of(text: str, folder: Path) -> tuple[list[list[str]], Path]:
    """Return the commands of a block in `folder` as the shell expands them, and the folder it changes to."""
    programs = " ".join([*SCRIPTS, *ENVIRONMENT, "cp"])
    script = RECORD.replace("{programs}", programs).replace("{{", "{").replace("}}", "}")
    shell = subprocess.run(
        ["bash", "-ec", f"{script}\n{text}\npwd"], cwd=folder, capture_output=True, text=True, check=True
    )
    *lines, last = shell.stdout.splitlines()
    return [line.rstrip("\037").split("\037") for line in lines], Path(last)


def run(words: list[str], folder: Path) -> str:
    """Run a script, which must succeed without warnings of Python; return its output."""
    process = fork_server.start(words, folder)
    out, errors = process.communicate()
    assert process.wait() == 0, f"{words}: {out}\n{errors}"
    assert "Warning" not in errors
    return out


def test_tutorial_works_from_the_first_command_to_the_last(tmp_path: Path) -> None:
    (tmp_path / "rmc-agents").symlink_to(ROOT)
    folder, output = tmp_path, ""
    for i, (language, file, text) in enumerate(blocks()):
        if file:
            (folder / file).write_text(text)
        elif language == "python":
            (folder / f"block{i}.py").write_text(shrunk(text))
            output += run([str(folder / f"block{i}.py")], folder)
        else:
            assert language == ""
            found, after = commands_of(shrunk(text), folder)
            for program, *words in found:
                if program in SCRIPTS:
                    output += run(
                        [script_path(SCRIPTS[program]), *words], folder if "cd " not in text else after
                    )
                elif program == "cp":
                    subprocess.run([program, *words], cwd=folder, check=True)
            folder = after
    home = tmp_path / "my-memory"
    assert folder == home / "runs" / "latch-0" / "pretrained"
    assert len(list((home / "runs").iterdir())) == 6
    assert "P(better than first)" in (home / "comparison" / "comparison.md").read_text()
    assert (home / "runs" / "latch-0" / "agent.onnx").is_file()
    assert "opens door" in output


def test_tutorial_is_short() -> None:
    assert len(PAGE.read_text().splitlines()) <= 250

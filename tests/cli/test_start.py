"""Ctrl-C while a script starts: exit code 130 and one line, for scripts and console commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rmc_agents.cli.start import COMMANDS
from tests.support.commands import ROOT, script_path

SLOW = "import os, time\nos.write(1, b'importing\\n')\ntime.sleep(60)\n"
"""A module that is still being imported when Ctrl-C is pressed."""
COMMAND = "import sys; sys.argv = ['/usr/bin/{command}']; from rmc_agents.scripts.{script} import cli; cli()"


def interrupted(words: list[str], folder: Path) -> tuple[int, str]:
    """Press Ctrl-C while a command imports torch; return its exit code and its messages."""
    (folder / "torch.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.mark.parametrize("script", COMMANDS)
def test_ctrl_c_while_a_script_imports_is_one_line(script: str, tmp_path: Path) -> None:
    assert interrupted([script_path(script)], tmp_path) == (130, "error: interrupted\n")


@pytest.mark.parametrize(("script", "command"), COMMANDS.items())
def test_ctrl_c_while_a_console_command_imports_is_one_line(
    script: str, command: str, tmp_path: Path
) -> None:
    code = COMMAND.format(command=command, script=script)
    assert interrupted(["-c", code], tmp_path) == (130, "error: interrupted\n")


def test_import_in_another_program_leaves_its_handler() -> None:
    """This process imports the scripts, too."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

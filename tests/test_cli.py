"""What the scripts share: how to go on, and how they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rmc_agents.cli import resume_command

SCRIPT = """
import sys
from rmc_agents.cli import run_script

def main(args):
    print("first", flush=True)
    sys.stdin.readline()
    {body}

run_script(main)
"""


def test_how_to_go_on_keeps_what_a_run_folder_does_not() -> None:
    given = ["--core", "gru", "--threads", "2", "--compile", "--keep-checkpoints=5", "--seed", "3"]
    said = resume_command("train/ppo.py", Path("runs/a b"), given)
    assert said == "python train/ppo.py --resume 'runs/a b' --threads 2 --keep-checkpoints 5 --compile"
    assert resume_command("train/ppo.py", Path("runs/a"), []) == "python train/ppo.py --resume runs/a"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[print('x' * 100, flush=True) for _ in range(100_000)]", ""),
        ("print('last')", ""),
        ("raise BrokenPipeError('another pipe')", "BrokenPipeError: another pipe"),
    ],
    ids=["while it prints", "at its end", "not its output"],
)
def test_output_that_nobody_reads_ends_a_script_without_a_word(body: str, message: str) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SCRIPT.format(body=body)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "first\n"
        if not message:
            process.stdout.close()
        process.stdin.write("go on\n")
        process.stdin.flush()
        errors = process.stderr.read().strip()
    assert process.returncode == 1
    if message:
        assert errors.endswith(message)
    else:
        assert errors == ""

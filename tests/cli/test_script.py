"""What the scripts share: flags old and new, messages in flags, commands to resume, exit codes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tyro._docstrings import parse_docstring_from_object

from rmc_agents.cli.config import RunConfig, RunOptions, Selection
from rmc_agents.cli.flags import OLD_FLAGS, field_names, in_flags, parse, parse_some, whole_number
from rmc_agents.cli.script import (
    GPU_MINIBATCH,
    changed_fields,
    checking,
    choose_device,
    resume_command,
    run_script,
    say,
)
from rmc_agents.cli.start import COMMANDS, command_name
from rmc_agents.errors import Interrupted, TrainingError, UsageError
from rmc_agents.options import Options
from rmc_agents.scripts.nth_farthest_flags import NthFarthestConfig
from tests.support.commands import ROOT
from train.evaluate_flags import EvaluateConfig
from train.play import PlayConfig
from train.probe import ProbeConfig
from train.report import ReportConfig

SCRIPT = """
import sys
from rmc_agents.cli.script import run_script

def main(args):
    print("first", flush=True)
    sys.stdin.readline()
    {body}

run_script(main)
"""


@dataclass(frozen=True)
class Inner:
    """Inner settings."""

    width: int = 3
    """Width of something."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width={self.width}: expected 1 or more")


@dataclass(frozen=True)
class Outer:
    """Outer settings."""

    inner: Inner = field(default_factory=Inner)
    steps_at_once: int = 5
    """Number of steps."""
    options: Options = field(default_factory=dict)
    """Free-form."""
    run_dir: Path | None = None
    """A folder."""


# ---- flags


def test_parse_reads_nested_flags_numbers_and_options() -> None:
    words = ["--width", "4", "--steps-at-once", "5e3", "--options", "a=1", "b=x", "--run-dir", "r"]
    expected = Outer(Inner(4), 5000, {"a": 1, "b": "x"}, Path("r"))
    assert parse(Outer, None, words, "test") == expected
    assert parse(Outer, expected, ["--width", "7"], "test") == Outer(
        Inner(7), 5000, {"a": 1, "b": "x"}, Path("r")
    )


def test_parse_reports_what_a_nested_dataclass_refuses_in_one_message() -> None:
    with pytest.raises(UsageError, match=r"^width=0: expected 1 or more$"):
        parse(Outer, None, ["--width", "0"], "test")


def test_refused_value_is_one_message_where_the_output_is_ascii() -> None:
    command = [sys.executable, "train/ppo.py", "--num-envs", "0"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --num-envs 0: expected 1 or more, and below 2^31\n"


@pytest.mark.parametrize("flag", ["--stop-at-success", "--stop_at_success"])
def test_old_flag_is_accepted_with_hyphens_and_underscores(flag: str) -> None:
    assert parse(RunConfig, None, [flag, "0.5"], "test").run.target_success_rate == 0.5


def test_names_of_options_are_not_taken_for_flags() -> None:
    with pytest.raises(UsageError) as caught, checking(names_options=True):
        raise TypeError("hidden_size must be a whole number")
    assert caught.value.names_options
    with pytest.raises(TypeError), checking():
        raise TypeError("a bug")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", -1),
        ("threads", 99_999),
        ("seed", -1),
        ("seed", 2**63),
        ("checkpoint_seconds", -1.0),
        ("keep_checkpoints", 0),
    ],
)
def test_run_option_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value}: expected"):
        RunOptions(**{name: value})


def test_parse_exits_with_usage_on_an_unknown_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(Outer, None, ["--widht", "4"], "test")
    assert left.value.code == 2
    assert "--widht" in capsys.readouterr().err


def test_parse_some_ignores_other_flags_and_help() -> None:
    words = (
        "--epochs 3 --env a --core=gru --core-options x=1 y=2 --no-preset --help --env-options view_size=3 "
    )
    words += "--import one --import two --run-dir r --auto-resume -h"
    assert parse_some(Selection, words.split()) == Selection(
        env="a",
        env_options={"view_size": 3},
        core="gru",
        core_options={"x": 1, "y": 2},
        preset=False,
        imports=("one", "two"),
        run_dir=Path("r"),
        auto_resume=True,
    )
    assert parse_some(Selection, []) == Selection()
    assert parse_some(Selection, ["--resume", "r"]).resume == Path("r")


@pytest.mark.parametrize(("old", "new"), OLD_FLAGS.items())
def test_old_flags_mean_the_new_ones_and_are_hidden(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    accepted = 0
    for config in (RunConfig, NthFarthestConfig):
        with pytest.raises(SystemExit):
            parse(config, None, ["--help"], "test")
        shown = capsys.readouterr().out.replace("│", " ").split()
        flags = {word.rstrip(",") for word in shown}
        assert old not in flags
        if new not in flags:
            continue
        accepted += 1
        given = [] if new.endswith("aux-targets") else ["0.5"]
        expected = parse(config, None, [new, *given], "test")
        assert parse(config, None, [old, *given], "test") == expected
        if given:
            assert parse(config, None, [f"{old}=0.5"], "test") == expected
            assert expected != config()
    assert accepted, f"no script has {new}"


def test_whole_numbers_may_be_written_as_floats() -> None:
    assert [whole_number(text) for text in ("12", "5e6", "5_000")] == [12, 5_000_000, 5_000]
    with pytest.raises(ValueError, match="whole number"):
        whole_number("2.5")


def test_choose_device_refuses_devices_that_are_not_here() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UsageError, match=r"device 'warp' cannot be used here .*; try --device cpu"):
        choose_device("warp")


def test_auto_takes_a_gpu_for_native_tasks_and_for_large_minibatches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    chosen = [choose_device("auto", size).type for size in (None, GPU_MINIBATCH, GPU_MINIBATCH - 1)]
    assert chosen == ["cuda", "cuda", "cpu"]
    assert "these environments step on the CPU" in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


# ---- messages


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("width=0: expected 1 or more", "--width 0: expected 1 or more"),
        ("steps_at_once must divide width", "--steps-at-once must divide width"),
        ("width must be odd, got 4", "--width must be odd, got 4"),
        ("the width must be odd", "the width must be odd"),
        ("height must be odd", "height must be odd"),
        ("steps_at_once=3 and width=4", "--steps-at-once 3 and --width 4"),
        ("choose another run_dir", "choose another --run-dir"),
        ("width=True with steps_at_once=False", "--width with --no-steps-at-once"),
        ("--run-dir was a, now b", "--run-dir was a, now b"),
        ("cannot write to runs/run_dir/x: make room", "cannot write to runs/run_dir/x: make room"),
        ("run_dir.py is not imported", "run_dir.py is not imported"),
        ("unknown_name=3 is kept", "unknown_name=3 is kept"),
        ("steps_at_once(3) is a call", "steps_at_once(3) is a call"),
        ("width == 3", "width == 3"),
    ],
)
def test_in_flags_names_flags_instead_of_arguments(message: str, expected: str) -> None:
    assert in_flags(message, Outer) == expected
    assert in_flags(message, None) == message


def test_field_names_include_those_of_nested_dataclasses() -> None:
    assert field_names(Outer) == {"width", "steps_at_once", "options", "run_dir"}
    assert {"env", "core", "learning_rate", "seed"} <= field_names(RunConfig)


# ---- commands


def test_resume_command_keeps_what_a_run_folder_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train/ppo.py"])
    run = RunOptions(threads=2, compile=True, keep_checkpoints=5, seed=3, run_dir=Path("runs/a b"))
    names = ("device", "threads", "compile", "checkpoint_seconds", "keep_checkpoints")
    changed = changed_fields(run, names)
    assert changed == {"threads": 2, "compile": True, "keep_checkpoints": 5}
    command = resume_command("ppo", Path("runs/a b"), changed)
    assert command == "python train/ppo.py --resume 'runs/a b' --threads 2 --compile --keep-checkpoints 5"
    assert resume_command("ppo", Path("runs/a"), {}) == "python train/ppo.py --resume runs/a"
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/rmc-train"])
    assert resume_command("ppo", Path("runs/a"), {}) == "rmc-train --resume runs/a"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_name_is_that_of_the_script_or_of_the_installed_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (ROOT / "train" / f"{name}.py").is_file()
    monkeypatch.setattr(sys, "argv", [f"train/{name}.py"])
    assert command_name(name) == f"python train/{name}.py"
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{COMMANDS[name]}"])
    assert command_name(name) == COMMANDS[name]


# ---- exit codes


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("width=0 is wrong"), 2, "error: --width 0 is wrong\n"),
        (TrainingError("try a smaller steps_at_once"), 1, "error: try a smaller --steps-at-once\n"),
        (LookupError("environment 3 fell over"), 1, "error: environment 3 fell over\n"),
        (Interrupted("interrupted after 3 steps", 15), 143, "interrupted after 3 steps\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_run_script_exits_with_a_code_and_one_message(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as left:
        run_script(lambda args: fail(error), Outer, failures=(LookupError,))
    assert left.value.code == code
    assert capsys.readouterr().err == message


def test_run_script_passes_the_command_line_and_other_errors_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script", "--a", "b"])
    seen: list[Sequence[str]] = []
    run_script(seen.append)
    assert seen == [["--a", "b"]]
    with pytest.raises(ValueError, match="a bug"):
        run_script(lambda args: fail(ValueError("a bug")), Outer)


def test_checking_turns_value_errors_into_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"^wrong$") as error, checking():
        raise ValueError("wrong")
    assert type(error.value.__cause__) is ValueError
    original = UsageError("as it is")
    with pytest.raises(UsageError) as error, checking():
        raise original
    assert error.value is original
    with pytest.raises(TypeError), checking():
        raise TypeError("a bug")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[print('x' * 100, flush=True) for _ in range(100_000)]", ""),
        ("print('last')", ""),
        ("raise BrokenPipeError('another pipe')", "BrokenPipeError: another pipe"),
    ],
    ids=["while it prints", "at its end", "not its output"],
)
def test_script_whose_output_nobody_reads_ends_without_a_message(body: str, message: str) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SCRIPT.format(body=body)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "first\n"
        if not message:
            process.stdout.close()
        process.stdin.write("continue\n")
        process.stdin.flush()
        errors = process.stderr.read().strip()
    assert process.returncode == 1
    if message:
        assert errors.endswith(message)
    else:
        assert errors == ""


CONFIGS = [RunConfig, NthFarthestConfig, EvaluateConfig, ProbeConfig, PlayConfig, ReportConfig]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_help_of_each_flag_is_one_paragraph(
    config: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    with pytest.raises(SystemExit):
        parse(config, None, ["--help"], "test")
    out = capsys.readouterr().out
    parts = [config, *(type(value) for value in vars(_plain(config)).values())]
    for part in filter(dataclasses.is_dataclass, parts):
        for each in dataclasses.fields(part):
            text = " ".join((parse_docstring_from_object(part).get(each.name) or "").split())
            assert text or dataclasses.is_dataclass(each.default_factory), f"{each.name} has no help"
            assert text[:200] in out  # a line of a box holds about 250 characters


def test_help_of_nth_farthest_groups_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(NthFarthestConfig, None, ["--help"], "test")
    out = capsys.readouterr().out
    groups = ("network options", "supervised options", "run options", "evaluation options")
    places = [out.index(group) for group in groups]
    assert places == sorted(places)


def _plain(config: type) -> Any:
    """Return a configuration with its defaults."""
    return config(runs=()) if "runs" in field_names(config) else config()


def test_say_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2J\nb [/x]")
    assert capsys.readouterr().out == "a\\x1b[2J\\nb [/x]\n"


TABLE = """
import sys
from rmc_agents.cli.script import run_script, say
from rmc_agents.report.tables import Table

def main(args):
    {body}
    print("went on", file=sys.stderr)

run_script(main)
"""


@pytest.mark.parametrize(
    "body", ["say('x')", "Table('title', ('a',), frozenset(), ((('b',),),)).print()"], ids=["line", "table"]
)
def test_script_whose_results_cannot_be_printed_continues_and_exits_with_1(body: str) -> None:
    command = [sys.executable, "-c", TABLE.format(body=f"{body}; {body}")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "warning: stdout cannot be written (No space left on device); output is discarded",
        "went on",
    ]


def test_help_on_a_full_disk_is_one_message() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "train/report.py", "--help"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "error: the output cannot be written (No space left on device)\n",
    )


def test_help_without_stdout_ends_with_0() -> None:
    done = subprocess.run(
        [sys.executable, "train/report.py", "--help"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.close(1),
    )
    assert (done.returncode, done.stderr) == (0, "")

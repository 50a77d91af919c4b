"""What the scripts in train/ share: numbers such as 5e6, one message for a mistake, exit codes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro

from rmc_agents.errors import Interrupted, TrainingError, UsageError

Config = TypeVar("Config")


def parse(config: type[Config], default: Config | None, args: Sequence[str], prog: str) -> Config:
    """Parse flags into a dataclass; whole numbers may be written 5e6 or 5_000_000.

    Exits with code 2 and the usage on a flag that does not fit.
    """
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def _(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
        if info.type is not int:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda words: whole_number(words[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    options: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(config, args=list(args), prog=prog, registry=registry, **options)


def whole_number(text: str) -> int:
    """5000000, 5_000_000 or 5e6 as an int.

    Raises:
        ValueError: not a whole number.
    """
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(f"expected a whole number, got {text}") from None
        return int(number)


def choose_device(name: str) -> torch.device:
    """A device by its name; "auto" is cuda where there is one.

    Raises:
        UsageError: torch does not know it, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here ({reason}); try --device cpu") from error
    return device


def flag_value(args: Sequence[str], flag: str) -> str | None:
    """What follows a flag (`--env X` or `--env=X`), before the flags are parsed in full."""
    for i, word in enumerate(args):
        if word == flag and i + 1 < len(args):
            return args[i + 1]
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return None


NOT_SAVED = ("--device", "--threads", "--checkpoint-seconds", "--keep-checkpoints")
NOT_SAVED_SWITCHES = ("--compile",)
"""Flags of the training scripts that a run folder does not keep."""


def resume_command(script: str, run_dir: Path, args: Sequence[str]) -> str:
    """What to type to go on with an interrupted run as it was begun."""
    again = [(flag, flag_value(args, flag)) for flag in NOT_SAVED]
    kept = [word for flag, value in again if value is not None for word in (flag, value)]
    kept += [switch for switch in NOT_SAVED_SWITCHES if switch in args]
    return shlex.join(["python", script, "--resume", str(run_dir), *kept])


def run_script(script: Callable[[Sequence[str]], None], failures: tuple[type[Exception], ...] = ()) -> None:
    """Run a script's main function and leave with its exit code.

    0: done. 1: something broke while running (`TrainingError`, `failures`), said in one message; or what
    read the output has closed it, as `| head` does, with no message.
    2: the user asked for what cannot be (`UsageError`, `ValueError` of a configuration).
    130: Ctrl-C; 143: SIGTERM (training has finished its iteration and saved).
    """
    try:
        script(sys.argv[1:])
        sys.stdout.flush()
    except UsageError as error:
        _leave(str(error), 2)
    except (TrainingError, *failures) as error:
        _leave(str(error), 1)
    except Interrupted as interruption:
        _leave(str(interruption), 128 + interruption.signal, "")
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except BrokenPipeError:
        if not _output_closed():
            raise
        sys.exit(1)


def _output_closed() -> bool:
    """Whether nobody reads the output any more; then what is still to be printed is thrown away."""
    output = sys.stdout.fileno()
    try:
        os.write(output, b"\n")  # Python has let go of what it could not write: only trying tells.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
        return True
    return False


def _leave(message: str, code: int, kind: str = "error: ") -> None:
    print(f"{kind}{message}", file=sys.stderr)
    sys.exit(code)

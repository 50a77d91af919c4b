"""Code shared by the scripts: flags, messages, exit codes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro

from rmc_agents.errors import Interrupted, TrainingError, UsageError
from rmc_agents.options import Options, parse_options
from rmc_agents.plugins import import_modules, load_installed

Config = TypeVar("Config")

OLD_FLAGS = {
    "--hint-coef": "--aux-coef",
    "--hint-weight": "--aux-coef",
    "--hints": "--aux-targets",
    "--no-hints": "--no-aux-targets",
    "--aids-share": "--aux-until",
    "--stop-at-success": "--target-success-rate",
    "--stop-at-accuracy": "--target-accuracy",
}
"""Flags of the previous release, accepted for one more release."""
COMMANDS = {
    "ppo": "rmc-train",
    "evaluate": "rmc-evaluate",
    "probe": "rmc-probe",
    "report": "rmc-report",
    "play": "rmc-play",
    "nth_farthest": "rmc-nth-farthest",
}
"""Console command of each script, as installed by pip."""


def parse(
    config: type[Config],
    default: Config | None,
    args: Sequence[str],
    prog: str,
    description: str | None = None,
) -> Config:
    """Parse flags into a dataclass; nested dataclasses become groups of flags without a prefix.

    Exits with code 2 and the usage on a flag that tyro cannot read.

    Args:
        config: the dataclass.
        default: the values of flags that are not given; the dataclass's own defaults if None.
        args: the command line.
        prog: name of the command, for the usage.
        description: shown by --help; the dataclass's docstring if None.

    Raises:
        UsageError: a dataclass refuses its values.
    """
    for word in args:
        old = word.partition("=")[0]
        if old.startswith("--") and (new := current_flag(old)) != old:
            print(f"note: {old} is now {new}; the old name works for one more release", file=sys.stderr)
    options: dict[str, Any] = {} if default is None else {"default": default}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(
                config,
                args=_renamed(args),
                prog=prog,
                description=description,
                registry=_registry(),
                config=(tyro.conf.OmitArgPrefixes,),
                **options,
            )
    except SystemExit:
        reason = _refusal(printed.getvalue())
        if reason is not None:
            raise UsageError(reason) from None
        sys.stderr.write(printed.getvalue())
        raise


def _refusal(box: str) -> str | None:
    """Return the message of a nested dataclass's ValueError from the box in which tyro prints it."""
    # Its lines are framed by │ and ─, or by spaces and - where the output has only ASCII.
    text = " ".join(line.strip("│| ") for line in box.splitlines())
    found = re.search(r"Error parsing \w+: (.*?) [─-]{5,}", text)
    return found[1] if found else None


def parse_some(config: type[Config], args: Sequence[str]) -> Config:
    """Parse the flags of a dataclass, and ignore all others; `parse` checks them later."""
    known, _ = tyro.cli(
        config,
        args=_renamed([word for word in args if word not in ("-h", "--help")]),
        registry=_registry(),
        config=(tyro.conf.OmitArgPrefixes,),
        return_unknown_args=True,
        add_help=False,
    )
    return known


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Return tyro's rules for whole numbers (5e6, 5_000_000) and for options (KEY=VALUE)."""
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

    @registry.primitive_rule
    def _(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[Options] | None:
        if info.type != Options:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="KEY=VALUE",
            instance_from_str=parse_options,
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda value: [f"{key}={option}" for key, option in value.items()],
        )

    return registry


def _renamed(args: Sequence[str]) -> list[str]:
    """Replace flags of the previous release by their new names."""
    words = []
    for word in args:
        flag, equals, value = word.partition("=")
        words.append(current_flag(flag) + equals + value if flag.startswith("--") else word)
    return words


def current_flag(flag: str) -> str:
    """Return the present name of a flag, which may be one of the previous release."""
    return OLD_FLAGS.get(flag.replace("_", "-"), flag)


def whole_number(text: str) -> int:
    """Read 5000000, 5_000_000 or 5e6 as an int.

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
    """Return a device by its name; "auto" is cuda if there is a GPU, else cpu.

    Raises:
        UsageError: torch does not know it, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here ({reason}); try --device cpu") from error
    return device


def import_plugins(imports: Sequence[str]) -> None:
    """Import installed plug-ins, printing a warning for each that fails, and the modules of --import.

    Raises:
        UsageError: a module of --import cannot be imported.
    """
    for warning in load_installed():
        print(warning, flush=True)
    import_modules(imports)


def command_name(script: str) -> str:
    """Return how the user starts a script of train/: `python train/ppo.py`, or the console command."""
    installed = Path(sys.argv[0]).name.startswith("rmc-")
    return COMMANDS[script] if installed else f"python train/{script}.py"


def resume_command(script: str, run_dir: Path, options: Mapping[str, object]) -> str:
    """Return the command that resumes an interrupted run as it was started.

    Args:
        script: name of the script.
        run_dir: the run folder.
        options: values of flags that differ from their defaults and that the run folder does not keep.
    """
    words = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return f"{command_name(script)} {shlex.join(['--resume', str(run_dir), *words])}"


def changed_fields(config: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the named fields of a dataclass whose values are not the defaults."""
    plain = type(config)()
    return {name: x for name in names if (x := getattr(config, name)) != getattr(plain, name)}


@contextlib.contextmanager
def checking(names_options: bool = False) -> Iterator[None]:
    """Turn a ValueError into a UsageError, while a script parses flags and checks that they fit.

    A later ValueError is a bug and keeps its traceback.

    Args:
        names_options: what is checked are options of a core or an environment. Their names are not flags, and
            a wrong type raises TypeError as often as ValueError.
    """
    try:
        yield
    except UsageError as error:
        error.names_options |= names_options
        raise
    except (ValueError, TypeError) as error:
        if isinstance(error, TypeError) and not names_options:
            raise
        mistake = UsageError(str(error))
        mistake.names_options = names_options
        raise mistake from error


def run_script(
    script: Callable[[Sequence[str]], None],
    config: type | None = None,
    failures: tuple[type[Exception], ...] = (),
) -> None:
    """Run a script's main function, and exit with its code.

    0: done.
    1: something broke while running (`TrainingError`, `failures`), reported in one message; or the reader of
    the output closed it, as `| head` does, without a message.
    2: a mistake of the user's (`UsageError`), reported in one message.
    130: Ctrl-C; 143: SIGTERM (training has finished its iteration and saved).

    Args:
        script: takes the command line.
        config: the dataclass of its flags; messages that name its fields then name the flags.
        failures: exceptions besides `TrainingError` that are reported in one message.
    """
    try:
        script(sys.argv[1:])
        sys.stdout.flush()
    except UsageError as error:
        _leave(str(error) if error.names_options else in_flags(str(error), config), 2)
    except (TrainingError, *failures) as error:
        _leave(in_flags(str(error), config), 1)
    except Interrupted as interruption:
        _leave(str(interruption), 128 + interruption.signal, "")
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except BrokenPipeError:
        if not _output_closed():
            raise
        sys.exit(1)


def in_flags(message: str, config: type | None) -> str:
    """Return a message of the library, which names Python arguments, with flags instead.

    `num_envs=0` becomes `--num-envs 0`, and `learning_rate` becomes `--learning-rate`.
    """
    names = field_names(config) if config is not None else set()
    given = r"(?<![\w/.-])(\w+)=(?=[^\s=])"
    message = re.sub(given, lambda m: f"{_flag(m[1])} " if m[1] in names else m[0], message)
    word = r"(?<![\w/.-])([a-z]+(?:_[a-z]+)+)(?![\w/(\[]|\.\w)"
    return re.sub(word, lambda m: _flag(m[1]) if m[1] in names else m[0], message)


def field_names(config: type) -> set[str]:
    """Return the names of a dataclass's fields, those of nested dataclasses included."""
    names: set[str] = set()
    for each in dataclasses.fields(config):
        nested = each.default_factory if dataclasses.is_dataclass(each.default_factory) else None
        names |= field_names(nested) if isinstance(nested, type) else {each.name}
    return names


def _flag(name: str) -> str:
    return "--import" if name == "imports" else f"--{name.replace('_', '-')}"


def _output_closed() -> bool:
    """Return whether nobody reads the output any more; if so, discard what is still to be printed."""
    output = sys.stdout.fileno()
    try:
        os.write(output, b"\n")  # writing is the only way to find out
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
        return True
    return False


def _leave(message: str, code: int, kind: str = "error: ") -> None:
    print(f"{kind}{message}", file=sys.stderr)
    sys.exit(code)

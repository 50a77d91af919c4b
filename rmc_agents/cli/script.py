"""Code shared by the scripts: device, messages, exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rmc_agents.agent.shapes import shapes_only
from rmc_agents.cli.flags import in_flags
from rmc_agents.cli.start import command_name, leave_on_interrupt, raise_on_interrupt
from rmc_agents.errors import Incomplete, Interrupted, TrainingError, UsageError, printable, shown
from rmc_agents.plugins import import_modules, load_installed
from rmc_agents.training.progress import discard, output_failed

MAX_MESSAGE = 2000
"""Characters of an error message."""


GPU_MINIBATCH = 2048
"""Size of a gradient step, in steps of sequences, from which `--device auto` chooses a GPU for environments
that step on the CPU. A GPU takes as long for a small step as for a large one, since it waits for the host."""


_lost: list[OSError] = []
"""Why results could not be printed."""


def say(text: str) -> None:
    """Print a line for the user; control characters in it are escaped (see `showing`)."""
    with showing():
        print(printable(text), flush=True)


@contextlib.contextmanager
def showing() -> Iterator[None]:
    """Print results inside this context: where the output fails, the script continues, and exits with 1.

    What is still to be printed is discarded. A reader that closed the output (`| head`) ends the script.

    Raises:
        BrokenPipeError: nobody reads the output any more.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _lost.append(error)
        output_failed(error)


def choose_device(name: str, minibatch_size: int | None = None) -> torch.device:
    """Return a device by its name; "auto" is cuda if there is a GPU and enough work for it, else cpu.

    Args:
        name: auto, or a name that torch knows.
        minibatch_size: steps of sequences in a gradient step, for "auto", where environments step on the CPU;
            None if that does not matter.

    Raises:
        UsageError: torch does not know it, or this machine does not have it.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        if minibatch_size is None or minibatch_size >= GPU_MINIBATCH:
            return torch.device("cuda")
        say(
            "device cpu, although there is a GPU: these environments step on the CPU, and gradient steps on "
            f"{minibatch_size:,} steps of sequences are too small for a GPU (from {GPU_MINIBATCH:,} on auto "
            "chooses it); --device cuda uses it anyway"
        )
        return torch.device("cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = shown(str(error).partition("\n")[0])
        raise UsageError(
            f"device {shown(name, 40)!r} cannot be used here ({reason}); try --device cpu"
        ) from error
    return torch.device("cpu") if device.type == "cpu" else device


def require_room(build: Callable[[], nn.Module]) -> None:
    """Raise UsageError if the parameters of a network, and what training needs for them, exceed the memory.

    Args:
        build: returns the network. It is called where tensors take no memory.
    """
    try:
        with shapes_only():
            parameters = sum(p.numel() for p in build().parameters())
    except Exception:  # what cannot be built at all is reported where it is built
        return
    needed = 16 * parameters  # weights, gradients and two moments in float32
    if hasattr(os, "sysconf") and needed > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise UsageError(
            f"a network of {parameters:,} parameters does not fit into memory: training needs "
            f"{needed / 2**30:,.0f} GiB for them"
        )


def import_plugins(imports: Sequence[str]) -> None:
    """Import installed plug-ins, printing a warning for each that fails, and the modules of --import.

    Raises:
        UsageError: a module of --import cannot be imported.
    """
    for warning in load_installed():
        say(warning)
    import_modules(imports)


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
def resumable(script: str, run_dir: Path, run: Any, not_saved: Sequence[str]) -> Iterator[None]:
    """Train inside this context: an interruption also names the command that resumes the run.

    Args:
        script: name of the script.
        run_dir: the run folder.
        run: dataclass of the flags of the run.
        not_saved: names of those that the run folder does not keep.

    Raises:
        Interrupted: training was interrupted.
    """
    try:
        yield
    except Interrupted as stop:
        command = resume_command(script, run_dir, changed_fields(run, not_saved))
        raise Interrupted(f"{stop}\nresume with: {command}", stop.signal) from None


@contextlib.contextmanager
def checking(names_options: bool = False) -> Iterator[None]:
    """Turn a ValueError or OSError into a UsageError, while a script parses flags and checks that they fit.

    A later one is a bug and keeps its traceback.

    Args:
        names_options: what is checked are options of a core or an environment. Their names are not flags, and
            a wrong type raises TypeError as often as ValueError.
    """
    try:
        yield
    except UsageError as error:
        error.names_options |= names_options
        raise
    except BrokenPipeError:
        raise
    except OSError as error:  # a path that is too long, or may not be read
        if error.filename is None and _output_fails():  # --help, written to a full disk
            _leave(f"the output cannot be written ({error.strerror})", 1)
        raise UsageError(f"{shown(error.filename or '')}: {error.strerror or error}".lstrip(": ")) from error
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
    1: something broke while running (`TrainingError`, `Incomplete`, `failures`), reported in one message; the
    output cannot be written; or its reader closed it, as `| head` does, without a message.
    2: a mistake of the user's (`UsageError`), reported in one message.
    130: Ctrl-C; 143: SIGTERM (training has finished its iteration and saved).

    Args:
        script: takes the command line.
        config: the dataclass of its flags; messages that name its fields then name the flags.
        failures: exceptions besides `TrainingError` that are reported in one message.
    """
    starting = raise_on_interrupt()
    if sys.stdout is None:  # closed from the start
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for an output that has only ASCII
    try:
        try:
            _lost.clear()
            script(sys.argv[1:])
            sys.stdout.flush()
            if _lost:  # said when it happened
                sys.exit(1)
        finally:
            if starting:
                leave_on_interrupt()
    except UsageError as error:
        _leave(str(error) if error.names_options else in_flags(str(error), config), 2)
    except (TrainingError, Incomplete, *failures) as error:
        _leave(in_flags(str(error), config), 1)
    except Interrupted as interruption:
        lines = "\n".join(shown(line, MAX_MESSAGE) for line in str(interruption).splitlines())
        _leave(lines, 128 + interruption.signal, "")
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except OSError as error:
        if not _output_fails():
            raise
        if not isinstance(error, BrokenPipeError):
            _leave(f"the output cannot be written ({error.strerror})", 1)
        sys.exit(1)


def _output_fails() -> bool:
    """Return whether the output cannot be written; if so, discard what is still to be printed."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file
        return False
    try:
        os.write(output, b"\n")  # writing is the only way to find out
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
        return True
    return False


def _leave(message: str, code: int, kind: str = "error: ") -> None:
    text = shown(message, MAX_MESSAGE) if kind else message
    try:
        print(f"{kind}{text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        discard(sys.__stderr__)  # the code counts, also where nobody reads the message
    sys.exit(code)

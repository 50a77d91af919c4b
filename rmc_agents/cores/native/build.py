"""Compile the C sources beside this file with the machine's own compiler, once, and load the result.

The library lies in the user's cache folder under a name made from the sources, the flags and everything the
compiler says about itself and the processor, so whatever changes any of them makes a new one. It is written
under another name first and then renamed: of several processes that build at once, the last one wins, and all
of them load a whole file.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

SWITCH = "RMC_AGENTS_NATIVE"
"""Environment variable; "0" keeps everything in PyTorch."""

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-fPIC", "-shared", "-pthread", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math")
PROCESSOR_FLAGS = ("-march=native", "-mcpu=native")  # some compilers know only the second
TIMEOUT = 120  # seconds

_lock = threading.Lock()
_found: list[ctypes.CDLL | None] = []  # empty before the first search


class BuildError(Exception):
    """Why there is no library, in one line."""


def library() -> ctypes.CDLL | None:
    """The compiled kernels, built now if they never were; None, after saying so once, where that fails."""
    if not _found:
        with _lock:
            if not _found:
                _found.append(_load_or_none())
    return _found[0]


def give_up(reason: str) -> None:
    """Go on without native kernels in this process, and say why."""
    _found[:] = [None]
    _say(reason)


def _say(reason: str) -> None:
    logging.getLogger("rmc_agents").warning(
        "native kernels are off, PyTorch does their work more slowly: %s (%s=0 silences this)", reason, SWITCH
    )


def _load_or_none() -> ctypes.CDLL | None:
    if os.environ.get(SWITCH, "1") == "0":
        return None
    try:
        return _load()
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        _say(_first_line(str(error)))
        return None


def _load() -> ctypes.CDLL:
    folder = Path(__file__).parent
    sources = sorted(folder.glob("*.c"))
    compiler, flags, description = _compiler()
    digest = hashlib.sha256(description)
    for path in (*sources, *sorted(folder.glob("*.h"))):
        digest.update(path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:24]}.so"
    try:
        target = _own_cache_folder() / name
        if target.exists():
            try:
                return ctypes.CDLL(str(target))
            except OSError:
                target.unlink()  # cut off by a full disk, say: build it again
        _compile(compiler, flags, sources, target)
        return ctypes.CDLL(str(target))
    except (
        OSError,
        RuntimeError,
    ):  # no place to keep it, or none to run it from: build for this process alone
        with tempfile.TemporaryDirectory(prefix="rmc_agents-") as temporary:
            target = Path(temporary) / name
            _compile(compiler, flags, sources, target)
            return ctypes.CDLL(str(target))


def cache_folder() -> Path:
    """Where libraries are kept: $XDG_CACHE_HOME/rmc_agents or ~/.cache/rmc_agents."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rmc_agents"


def _own_cache_folder() -> Path:
    """The cache folder, made if need be. What lies in somebody else's is not run."""
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "geteuid") and folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _compiler() -> tuple[str, tuple[str, ...], bytes]:
    """The first compiler that works, its flags, and every macro it defines: its version, the processor's."""
    complaint = f"no C compiler found, looked for {', '.join(COMPILERS)}"
    found = [path for path in map(shutil.which, COMPILERS) if path]
    for path in found:
        for processor in PROCESSOR_FLAGS:
            flags = (*FLAGS, processor)
            result = _run([path, *flags, "-dM", "-E", "-x", "c", os.devnull])
            if result.returncode == 0:
                return path, flags, " ".join((path, *flags)).encode() + result.stdout
            complaint = f"{path} does not work: {_first_line(result.stderr)}"
    raise BuildError(complaint)


def _compile(compiler: str, flags: tuple[str, ...], sources: list[Path], target: Path) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".building-", suffix=".so")
    os.close(handle)
    unfinished = Path(name)
    try:
        result = _run([compiler, *flags, "-o", name, *map(str, sources), "-lm"])
        if result.returncode != 0:
            raise BuildError(f"{compiler} failed: {_first_line(result.stderr)}")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, capture_output=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL, check=False
    )


def _first_line(output: bytes | str) -> str:
    text = output if isinstance(output, str) else output.decode(errors="replace")
    lines = text.strip().splitlines()
    return lines[0] if lines else "it said nothing"

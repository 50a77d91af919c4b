"""Compilation of the C sources in `c/` with the machine's own compiler, once, and loading of the result.

The library is kept in the user's cache folder. Its name is a hash of the sources, the flags, and everything
that the compiler reports about itself and the processor, so that a change of any of these builds a new
library. The compiler writes to a temporary file, which is then renamed: if several processes build at once,
the last one wins, and each of them loads a complete file.
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
"""Environment variable; "0" disables the native kernels without a warning."""

SOURCES = Path(__file__).parent / "c"
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-fPIC", "-shared", "-pthread", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math")
PROCESSOR_FLAGS = ("-march=native", "-mcpu=native")  # some compilers accept only the second
TIMEOUT = 120  # seconds

_lock = threading.Lock()
_loaded: list[ctypes.CDLL | None] = []  # empty until the first attempt; [None] where it failed


class BuildError(Exception):
    """No library could be built; the message gives the reason in one line."""


def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, built at the first call; None, with one warning, where that fails."""
    if not _loaded:
        with _lock:
            if not _loaded:
                _loaded.append(_load_or_none())
    return _loaded[0]


def disable(reason: str) -> None:
    """Disable the native kernels in this process and log a warning with the reason."""
    _loaded[:] = [None]
    _warn(reason)


def _warn(reason: str) -> None:
    logging.getLogger("rmc_agents").warning(
        "native kernels are disabled; the slower PyTorch code runs instead: %s (set %s=0 to silence this)",
        reason,
        SWITCH,
    )


def _load_or_none() -> ctypes.CDLL | None:
    if os.environ.get(SWITCH, "1") == "0":
        return None
    try:
        return _load()
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        _warn(_first_line(str(error)))
        return None


def _load() -> ctypes.CDLL:
    sources = sorted(SOURCES.glob("*.c"))
    compiler, flags, description = _compiler()
    digest = hashlib.sha256(description)
    for path in (*sources, *sorted(SOURCES.glob("*.h"))):
        digest.update(path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:24]}.so"
    try:
        target = _own_cache_folder() / name
        if target.exists():
            try:
                return ctypes.CDLL(str(target))
            except OSError:
                target.unlink()  # truncated, for example by a full disk: build it again
        _compile(compiler, flags, sources, target)
        return ctypes.CDLL(str(target))
    except (OSError, RuntimeError):
        # The cache folder cannot be written, or libraries there cannot be run: build for this process only.
        with tempfile.TemporaryDirectory(prefix="rmc_agents-") as temporary:
            target = Path(temporary) / name
            _compile(compiler, flags, sources, target)
            return ctypes.CDLL(str(target))


def cache_folder() -> Path:
    """Return the folder of compiled libraries: $XDG_CACHE_HOME/rmc_agents or ~/.cache/rmc_agents."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rmc_agents"


def _own_cache_folder() -> Path:
    """Return the cache folder, created if missing.

    Raises:
        PermissionError: it belongs to another user, whose libraries must not be run.
    """
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "geteuid") and folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _compiler() -> tuple[str, tuple[str, ...], bytes]:
    """Return the first working compiler, its flags, and a description of it for the hash.

    The description contains every macro that it predefines, among them its version and the processor's
    features.

    Raises:
        BuildError: no compiler was found, or none works.
    """
    reason = f"no C compiler found, looked for {', '.join(COMPILERS)}"
    found = [path for path in map(shutil.which, COMPILERS) if path]
    for path in found:
        for processor in PROCESSOR_FLAGS:
            flags = (*FLAGS, processor)
            result = _run([path, *flags, "-dM", "-E", "-x", "c", os.devnull])
            if result.returncode == 0:
                return path, flags, " ".join((path, *flags)).encode() + result.stdout
            reason = f"{path} does not work: {_first_line(result.stderr)}"
    raise BuildError(reason)


def _compile(compiler: str, flags: tuple[str, ...], sources: list[Path], target: Path) -> None:
    """Compile to a temporary file beside `target`, then rename it."""
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
    return lines[0] if lines else "no error message"

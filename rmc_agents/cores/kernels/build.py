"""Compilation of the C sources in `c/` with the machine's own compiler, once, and loading of the result.

The library is kept in the user's cache folder (`cache.py`). Its name starts with a hash of the sources, the
flags, and everything that the compiler reports about itself and the processor, so that a change of any of
these builds a new library. Processes that start together build once: one compiles, the others wait for it.
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

from rmc_agents.cores.kernels import cache

SWITCH = "RMC_AGENTS_NATIVE"
"""Environment variable: "0" disables the native kernels without a warning, "1" compiles them for this
processor (the default), a name in `INSTRUCTIONS` for that instruction set."""

SOURCES = Path(__file__).parent / "c"
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-fPIC", "-shared", "-pthread", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math")
PROCESSOR_FLAGS = ("-march=native", "-mcpu=native")  # some compilers accept only the second
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "avx512": ("avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"),
    "avx2": ("avx2", "fma"),
    "sse2": ("sse2",),
}
"""Instruction sets of x86 to compile for on request, with the processor features that each uses."""
TIMEOUT = 120  # seconds

_lock = threading.Lock()
_loaded: list[ctypes.CDLL | str] = []  # empty until the first attempt; the reason if there is no library


class BuildError(Exception):
    """No library could be built; the message gives the reason in one line."""


def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, built at the first call; None, with one warning, where that fails."""
    if not _loaded:
        with _lock:
            if not _loaded:
                _loaded.append(_load_or_reason())
    loaded = _loaded[0]
    return None if isinstance(loaded, str) else loaded


def asked() -> bool:
    """Return whether `library` has been called in this process."""
    return bool(_loaded)


def state() -> str:
    """Return the instruction set of the kernels, such as "avx2", or "off (the reason)"."""
    kernels = library()
    if kernels is None:
        return f"off ({_loaded[0]})"
    kernels.instruction_set.restype = ctypes.c_char_p
    return kernels.instruction_set().decode()


def disable(reason: str) -> None:
    """Disable the native kernels in this process and log a warning with the reason."""
    _loaded[:] = [reason]
    _warn(reason)


def _warn(reason: str) -> None:
    logging.getLogger("rmc_agents").warning(
        "native kernels are disabled; the slower PyTorch code runs instead: %s (set %s=0 to silence this)",
        reason,
        SWITCH,
    )


def _load_or_reason() -> ctypes.CDLL | str:
    wanted = os.environ.get(SWITCH) or "1"
    if wanted == "0":
        return f"{SWITCH}=0"
    try:
        return load(wanted)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        reason = _first_line(str(error))
        _warn(reason)
        return reason


def load(wanted: str = "1") -> ctypes.CDLL:
    """Load the library from the cache, built if it is not there or not intact.

    Args:
        wanted: "1" for this processor, or a name in `INSTRUCTIONS`.

    Raises:
        BuildError: no compiler works, or this processor has no such instructions.
        OSError, subprocess.SubprocessError: the compiler hangs, or its library cannot be loaded.
    """
    compiler, flags, description = _compiler(wanted)
    sources = sorted(SOURCES.glob("*.c"))
    digest = hashlib.sha256(description)
    for path in (*sources, *sorted(SOURCES.glob("*.h"))):
        digest.update(path.read_bytes())
    stem = f"kernels-{digest.hexdigest()[:24]}"
    command = (compiler, *flags), (*map(str, sources), "-lm")
    try:
        return _from_cache(stem, *command)
    except (OSError, RuntimeError, BuildError):
        # The cache folder cannot be written, is full, or holds libraries that cannot be run: build for this
        # process only.
        with tempfile.TemporaryDirectory(prefix="rmc_agents-") as temporary:
            return _build(Path(temporary), stem, *command)


def _from_cache(stem: str, compiler: tuple[str, ...], arguments: tuple[str, ...]) -> ctypes.CDLL:
    folder = cache.own_cache_folder()
    found = cache.find(folder, stem)
    wait = 0 if found else TIMEOUT
    if found is None or any(folder.glob(f"{cache.UNFINISHED}*")):
        with cache.locked(folder, wait) as alone:
            if alone:
                cache.remove_unfinished(folder)
            found = found or cache.find(folder, stem)  # another process may have built it meanwhile
            if found is None:
                return _build(folder, stem, compiler, arguments)
    return ctypes.CDLL(str(found))


def _build(folder: Path, stem: str, compiler: tuple[str, ...], arguments: tuple[str, ...]) -> ctypes.CDLL:
    """Compile to a temporary file, load it, and keep it if that worked."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=cache.UNFINISHED, suffix=".so")
    os.close(handle)
    try:
        result = _run([*compiler, "-o", name, *arguments])
        if result.returncode != 0:
            raise BuildError(f"{compiler[0]} failed: {_first_line(result.stderr)}")
        kernels = ctypes.CDLL(name)
        cache.store(Path(name), stem)
        return kernels
    finally:
        Path(name).unlink(missing_ok=True)


def _compiler(wanted: str) -> tuple[str, tuple[str, ...], bytes]:
    """Return the first working compiler, its flags, and a description of it for the hash.

    The description contains every macro that it predefines, among them its version and the processor's
    features.

    Raises:
        BuildError: no compiler was found, none works, or the processor has not the wanted instructions.
    """
    if wanted != "1" and wanted not in INSTRUCTIONS:
        raise BuildError(f"{SWITCH}={wanted[:20]!r}: expected 0, 1, {', '.join(INSTRUCTIONS)}")
    reason = f"no C compiler found, looked for {', '.join(COMPILERS)}"
    for path in filter(None, map(shutil.which, COMPILERS)):
        for processor in PROCESSOR_FLAGS:
            flags = (*FLAGS, processor)
            result = _macros(path, flags)
            if result.returncode != 0:
                reason = f"{path} does not work: {_first_line(result.stderr)}"
                continue
            if wanted != "1":
                defined = set(result.stdout.decode(errors="replace").split())
                missing = [x for x in INSTRUCTIONS[wanted] if f"__{x.upper()}__" not in defined]
                if missing:
                    raise BuildError(f"{SWITCH}={wanted}: this processor has no {' and no '.join(missing)}")
                flags = (*FLAGS, "-march=x86-64", *(f"-m{feature}" for feature in INSTRUCTIONS[wanted]))
                result = _macros(path, flags)
            return path, flags, " ".join((path, *flags)).encode() + result.stdout
    raise BuildError(reason)


def _macros(compiler: str, flags: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
    return _run([compiler, *flags, "-dM", "-E", "-x", "c", os.devnull])


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, capture_output=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL, check=False
    )


def _first_line(output: bytes | str) -> str:
    text = output if isinstance(output, str) else output.decode(errors="replace")
    lines = text.strip().splitlines()
    return lines[0] if lines else "no error message"

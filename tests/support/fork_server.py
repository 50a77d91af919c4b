"""Python processes that have imported torch already: forks of a server, each with a clean `rmc_agents`.

Importing torch takes longer than most scripts of the tests. `start` runs a script in a process of its own, as
`subprocess.Popen` does, except that the large libraries are loaded. Tests of the start and the end of the
interpreter itself, and of what a module imports, need `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn

LIBRARIES = (
    *("torch", "torch.distributed", "torch.utils.tensorboard", "gymnasium", "scipy.special", "tyro"),
    *("rich.progress", "rich.table", "matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image"),
)
"""What the server imports: nothing of this repository, whose imports are part of what is tested."""


class Process:
    """A running script, with the part of `subprocess.Popen` that the tests need.

    Args:
        pid: id of the process.
        status: file from which its wait status can be read when it has ended.
        stdout: its output, or None if it is discarded.
        stderr: its messages.
    """

    def __init__(self, pid: int, status: int, stdout: IO[str] | None, stderr: IO[str]) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process is running."""
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                os.set_blocking(self._status, False)
                self._read_status()
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """Wait until the process has ended; return its exit code.

        Raises:
            TimeoutError: it is still running after `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise TimeoutError(f"process {self.pid} is still running after {timeout:g} s")
            time.sleep(0.005)
        return code

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """Wait until the process has ended; return its output and its messages."""
        texts = {"stdout": "", "stderr": ""}

        def read(name: str, file: IO[str]) -> None:
            with file:
                texts[name] = file.read()

        files = [(name, file) for name in texts if (file := getattr(self, name)) is not None]
        readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in files]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return texts["stdout"], texts["stderr"]

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _read_status(self) -> None:
        data = os.read(self._status, 4)
        os.close(self._status)
        self.returncode = os.waitstatus_to_exitcode(*struct.unpack("i", data))


def start(words: Sequence[str], cwd: Path, *, keep_stdout: bool = True, **environment: str) -> Process:
    """Start a Python script; its stdin is empty.

    Args:
        words: the path of a script, `-m` and a module, or `-c` and code; then its command line. `-W error`
            may come first.
        cwd: its working directory.
        keep_stdout: whether its output can be read.
        environment: further environment variables, which Python itself does not read, except PYTHONPATH.
    """
    request = {"words": list(words), "cwd": str(cwd), "environment": {**os.environ, **environment}}
    data = json.dumps(request).encode()
    nothing = os.open(os.devnull, os.O_RDWR)
    out, out_end = os.pipe() if keep_stdout else (None, os.dup(nothing))
    (errors, errors_end), (status, status_end) = os.pipe(), os.pipe()
    theirs = [nothing, out_end, errors_end, status_end]
    socket.send_fds(_server(), [struct.pack("i", len(data))], theirs)
    _server().sendall(data)
    for file in theirs:
        os.close(file)
    pid = struct.unpack("i", os.read(status, 4))[0]
    return Process(pid, status, None if out is None else open(out), open(errors))


@cache
def _server() -> socket.socket:
    """Start the server; return a connection to it. It ends when the connection is closed."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)

    @atexit.register
    def end() -> None:
        ours.close()
        server.wait()

    return ours


def _serve(connection: socket.socket) -> None:
    for library in LIBRARIES:
        __import__(library)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks of this process
    while True:
        head, files, _, _ = socket.recv_fds(connection, 4, 4)
        if not head:
            return
        data = b""
        while len(data) < struct.unpack("i", head)[0]:
            data += connection.recv(1 << 16)
        if not os.fork():
            connection.close()
            _watch(files, json.loads(data))
        for file in files:
            os.close(file)


def _watch(files: list[int], request: dict[str, Any]) -> NoReturn:
    """Start the script, and report its id and its wait status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, status = files
    pid = os.fork()
    if not pid:
        os.close(status)
        _run(standard, request)
    for file in standard:
        os.close(file)
    with contextlib.suppress(BrokenPipeError):  # the tests have ended
        os.write(status, struct.pack("i", pid))
        os.write(status, struct.pack("i", os.waitpid(pid, 0)[1]))
    os._exit(0)


def _run(standard: list[int], request: dict[str, Any]) -> NoReturn:
    """Run the script in this process, as the interpreter does after its start."""
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    random.seed()
    sys.modules["numpy"].random.seed()
    words = request["words"]
    sys.orig_argv = [sys.executable, *words]
    if words[:2] == ["-W", "error"]:
        words = words[2:]
        warnings.simplefilter("error")
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    status = 1
    try:
        if words[0] == "-m":
            sys.argv, sys.path[:0] = words[1:], [request["cwd"], *path]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = ModuleType("__main__")
            if words[0] == "-c":
                sys.argv, sys.path[:0], code = ["-c", *words[2:]], ["", *path], words[1]
            else:
                sys.argv, sys.path[:0] = list(words), [str(Path(words[0]).parent), *path]
                main.__file__, code = words[0], Path(words[0]).read_text()
            exec(compile(code, words[0], "exec"), vars(main))
        status = 0
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        status = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))

"""Ctrl-C while a script starts or ends: one line and exit code 130, instead of a traceback of the imports.

Each script imports this module before all others, since torch takes seconds to import. The import changes
nothing in a process that is not one of the scripts.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

COMMANDS = {
    "ppo": "rmc-train",
    "evaluate": "rmc-evaluate",
    "export": "rmc-export",
    "probe": "rmc-probe",
    "report": "rmc-report",
    "play": "rmc-play",
    "tune": "rmc-tune",
    "nth_farthest": "rmc-nth-farthest",
}
"""Console command of each script, as installed by pip."""


def command_name(script: str) -> str:
    """Return how the user starts a script of train/: `python train/ppo.py`, or the console command."""
    installed = os.path.basename(sys.argv[0]).startswith("rmc-")
    return COMMANDS[script] if installed else f"python train/{script}.py"


def leave_on_interrupt() -> None:
    """Let Ctrl-C end the process at once with one line, where Python's own handler would raise."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> bool:
    """Let Ctrl-C raise KeyboardInterrupt again; return whether it did not."""
    if signal.getsignal(signal.SIGINT) is not _leave:
        return False
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return True


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(128 + number)


def _runs_a_script() -> bool:
    """Return whether this process runs one of the scripts, and is not a worker of one."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        return False
    return name.removesuffix(".exe") in {*COMMANDS.values(), *(f"{script}.py" for script in COMMANDS)}


if _runs_a_script():
    leave_on_interrupt()

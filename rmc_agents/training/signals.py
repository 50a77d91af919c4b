"""Ctrl-C, SIGTERM and a closed terminal, deferred to the end of an iteration."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from rmc_agents.training.processes import ALONE, Processes

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # Windows has no SIGHUP


class Interruption:
    """Record of the first Ctrl-C, SIGTERM or SIGHUP, in `signal`.

    A second Ctrl-C raises KeyboardInterrupt at once. Use it as a context manager in the main thread. In other
    threads Python delivers no signals, and it does nothing. A signal that was ignored before (`nohup`) stays
    ignored.

    Args:
        processes: of the run; process 0 alone prints.
    """

    def __init__(self, processes: Processes = ALONE) -> None:
        self.signal: int | None = None
        self.processes = processes
        self._before: dict[int, Any] = {}

    def agree(self) -> int | None:
        """Return the signal that a process of the run has received, the same in all, and record it."""
        if self.processes.size > 1:
            heard = self.processes.any(*(self.signal == number for number in SIGNALS))
            agreed = next((n for n, somewhere in zip(SIGNALS, heard, strict=True) if somewhere), None)
            if agreed is None:
                return None  # a signal that has just arrived here is for the next call
            self.signal = agreed
        return self.signal

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            if self.processes.rank:
                return
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            # Not `print`: the signal may arrive while Python itself is writing.
            message = f"\n{name}: finishing this iteration, then saving; press Ctrl-C again to stop at once\n"
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(2, message.encode())
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

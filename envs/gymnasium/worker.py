"""A process that runs one Gymnasium environment and answers requests through a pipe.

The process first sends its spaces, and then one answer for each request: (True, value) or (False, reason).
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import gymnasium

from rmc_agents.environment import EnvironmentFailed

from .failures import CannotBuild, CloseWarning, described
from .notes import layers_with_statistics

PR_SET_PDEATHSIG = 1
"""Linux: number of the request that a signal is sent when the parent dies."""
WATCH_SECONDS = 1.0
"""Seconds between two looks whether the parent is alive."""


class Failure:
    """An environment's failure, in the place of its answer."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Worker:
    """A process with one environment, and the pipe to it. It ends with its parent, however that ends."""

    def __init__(self, maker: Callable[[], gymnasium.Env], label: str) -> None:
        """
        Args:
            maker: builds the environment, in the process.
            label: how messages name the environment.

        Raises:
            CannotBuild: `maker` cannot be sent to another process.
        """
        context = multiprocessing.get_context()
        self.method = context.get_start_method()
        self.label, self.responds = label, True
        self.pipe, child_pipe = context.Pipe()
        # Linux sends the signal when the thread ends that started the process, so that only the main thread
        # may ask for it. The parent of a process of the fork server is that server.
        by_signal = self.method == "forkserver" or threading.current_thread() is threading.main_thread()
        parent = None if self.method == "forkserver" else os.getpid()
        args = (self._portable(maker), label, child_pipe, self.pipe, parent, by_signal)
        with warnings.catch_warnings(), _interrupts_blocked(self.method):
            # Python warns against forking a process with threads; the child does not use them.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process = context.Process(target=_run, args=args, daemon=True)  # pyright: ignore[reportAttributeAccessIssue]
            self.process.start()
        child_pipe.close()

    def _portable(self, maker: Callable[[], gymnasium.Env]) -> Callable[[], gymnasium.Env] | bytes:
        """Return the maker as a new process can read it; a forked one has it already."""
        if self.method == "fork":
            return maker
        try:
            return cloudpickle.dumps(maker)
        except Exception as error:
            raise CannotBuild(
                self.label, f"it cannot be sent to a process of its own ({described(error)})"
            ) from error

    def send(self, request: str, data: Any = None) -> None:
        """Send a request. If the process is gone, `receive` reports it."""
        with contextlib.suppress(OSError):
            self.pipe.send((request, data))

    def receive(self) -> Any:
        """Return the answer that is waiting in the pipe, or a `Failure`."""
        try:
            succeeded, answer = self.pipe.recv()
        except (EOFError, OSError):
            return Failure(self._exit_message())
        except Exception as error:  # a class that only the worker knows
            return Failure(f"sent an answer that cannot be read: {described(error)}")
        return answer if succeeded else Failure(answer)

    def receive_within(self, seconds: float) -> Any:
        """Wait for an answer; return it, or a `Failure`."""
        if self.pipe.poll(seconds):
            return self.receive()
        self.responds = False
        return Failure(f"did not answer within {seconds:g} seconds")

    def _exit_message(self) -> str:
        """Describe how the process died."""
        self.process.join(5)
        code = self.process.exitcode
        if code == 0:
            return "is gone: the environment ended its own process (exit code 0)"
        try:
            name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        except ValueError:  # a signal without a name
            name = f"signal {-code}" if code is not None else ""
        hint = ""
        if code == 1 and self.method != "fork":
            hint = (
                f"; with the start method {self.method!r}, a script must build environments below "
                "`if __name__ == '__main__':`"
            )
        return f"is gone: its process died ({name}){hint}"

    def join(self, seconds: float) -> None:
        """Wait until the process has ended."""
        self.process.join(seconds)

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block.

    Python swallows exceptions that are raised inside the hooks of a fork, KeyboardInterrupt among them.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    arrived: list[Any] = []
    signal.signal(signal.SIGINT, lambda number, frame: arrived.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if arrived:
            before(signal.SIGINT, arrived[0])


@contextlib.contextmanager
def _interrupts_blocked(method: str) -> Iterator[None]:
    """Let processes that start in this block begin with Ctrl-C blocked, until they ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    if method != "fork":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # its start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(
    maker: Callable[[], gymnasium.Env] | bytes,
    label: str,
    pipe: Connection,
    parent_pipe: Connection,
    parent: int | None,
    by_signal: bool,
) -> None:
    """Build an environment and answer requests until "close" arrives; the main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent_pipe.close()
    _end_with_parent(parent, by_signal)
    env: gymnasium.Env | None = None

    def build() -> Any:
        nonlocal env
        env = built = (pickle.loads(maker) if isinstance(maker, bytes) else maker)()
        return built.observation_space, built.action_space, layers_with_statistics(built)

    try:
        succeeded = _answer(pipe, label, build)
        while succeeded:
            request, data = pipe.recv()
            if request == "close":
                break
            assert env is not None
            call = _step if request == "step" else _reset
            succeeded = _answer(pipe, label, lambda call=call, env=env, data=data: call(env, data))
    except (EOFError, OSError):
        pass  # the parent is gone
    finally:
        with contextlib.suppress(OSError):
            pipe.send((True, [] if env is None else _close(env, label)))


def _answer(pipe: Connection, label: str, call: Callable[[], Any]) -> bool:
    """Send the result of a call, or the reason why there is none; return whether there is one.

    Raises:
        OSError: nobody reads the pipe.
    """
    try:
        answer = True, call()
    except CannotBuild as error:
        answer = False, error.reason
    except EnvironmentFailed as error:
        answer = False, str(error).removeprefix(f"{label} ")
    except BaseException as error:
        answer = False, f"raised {described(error)}"
    try:
        pipe.send(answer)
    except OSError:
        raise
    except Exception as error:
        answer = False, f"returned a value that cannot be sent to another process: {described(error)}"
        pipe.send(answer)
    return answer[0]


def _reset(env: gymnasium.Env, data: dict[str, Any]) -> Any:
    return env.reset(**data)


def _step(env: gymnasium.Env, action: Any) -> Any:
    obs, reward, terminated, truncated, info = env.step(action)
    final = None
    if terminated or truncated:
        final = obs, info
        obs, info = env.reset()
    return obs, reward, terminated, truncated, info, final


def _close(env: gymnasium.Env, label: str) -> list[str]:
    """Close the environment; return warnings for the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            env.close()
        except BaseException as error:
            return [f"{label} raised in close: {described(error)}"]
    return [str(each.message) for each in caught if issubclass(each.category, CloseWarning)]


def _end_with_parent(parent: int | None, by_signal: bool) -> None:
    """Arrange that this process ends when its parent does, also while the environment hangs or computes.

    Args:
        parent: process id of the parent; None for a parent that is known by its sentinel only.
        by_signal: whether the kernel may send the signal (Linux). A thread watches in any case.
    """
    expected = os.getppid() if parent is None else parent
    if by_signal and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(expected,), daemon=True).start()


def _watch(expected: int) -> None:
    """End this process once its parent has ended."""
    parent = multiprocessing.parent_process()
    while True:
        orphaned = os.name == "posix" and os.getppid() != expected
        if orphaned or (parent is not None and not parent.is_alive()):
            os._exit(1)
        threading.Event().wait(WATCH_SECONDS) if parent is None else parent.join(WATCH_SECONDS)

"""Errors of Gymnasium environments: how they are described, and the one that reports a failed constructor."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rmc_agents.environment import EnvironmentFailed
from rmc_agents.errors import UsageError, shown

from .protocol import ProtocolError

MAX_LENGTH = 1000
"""Number of characters of an environment's error that a message shows."""


class CannotBuild(UsageError):
    """An environment cannot be built: wrong options, a missing package, an error in its constructor.

    Args:
        name: the environment.
        reason: of the failure.
        options: of the environment.
    """

    names_options = True

    def __init__(self, name: str, reason: str, options: Mapping[str, Any] | None = None) -> None:
        given = [f"{key}={shown(repr(value), 60)}" for key, value in (options or {}).items()]
        for wrong in given:
            if reason.startswith(f"{wrong}: "):  # the reason names the option itself
                given, reason = [wrong], reason.removeprefix(f"{wrong}: ")
                break
        self.reason = f"cannot be built{' with ' if given else ''}{', '.join(given)}: {reason}"
        super().__init__(f"{shown(name)} {self.reason}")


class CloseWarning(UserWarning):
    """An environment raised when it was closed."""


def call(function: Callable[[], Any], label: str, when: str) -> Any:
    """Call an environment; everything that it raises is its failure, but for Ctrl-C.

    Args:
        function: the call.
        label: of the environment, such as "environment 3 (CartPole-v1)".
        when: "in reset", or "at step 7 of its episode".

    Raises:
        EnvironmentFailed: the environment raised, or did not return what Gymnasium asks for.
    """
    try:
        return function()
    except (KeyboardInterrupt, EnvironmentFailed):
        raise
    except ProtocolError as error:
        raise EnvironmentFailed(f"{label} {error}, {when}") from error
    except BaseException as error:
        raise EnvironmentFailed(f"{label} raised {when}: {described(error)}") from error


def close(function: Callable[[], Any], label: str) -> None:
    """Close an environment; an error becomes a warning, since nothing depends on it any more."""
    try:
        function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        warnings.warn(f"{label} raised in close: {described(error)}", CloseWarning, stacklevel=3)


@contextlib.contextmanager
def building(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever an environment's constructor raises (SystemExit, too) into `CannotBuild`.

    Only Ctrl-C passes, and errors that already are messages for the user.

    Args:
        name: the environment, for the message.
        options: of the environment.
    """
    try:
        yield
    except (KeyboardInterrupt, UsageError):
        raise
    except BaseException as error:
        reason = described(error)
        if type(error) is ValueError:  # the text says it all
            reason = reason.removeprefix("ValueError: ")
        raise CannotBuild(name, reason, options) from error


def described(error: BaseException) -> str:
    """Return an error's type and text in one line; of an error without a text, the line that raised it."""
    try:
        # Gymnasium adds the arguments to a constructor's TypeError; the caller's message has them already.
        text = str(error).partition(" was raised from the environment creator for ")[0]
    except Exception:
        text = "an error that cannot be printed"
    name = type(error).__name__
    if text:
        return f"{name}: {shown(' '.join(text.split()), MAX_LENGTH)}"
    places = traceback.extract_tb(error.__traceback__)
    where = f" in {shown(Path(places[-1].filename).name)}, line {places[-1].lineno}" if places else ""
    line = f": {shown(places[-1].line)}" if places and places[-1].line else ""
    return f"{name}{where}{line}"

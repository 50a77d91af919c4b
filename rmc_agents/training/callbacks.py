"""Callbacks: code of the user's that a trainer calls while it trains.

class StopWhenGood(Callback):
    def on_iteration(self, trainer, figures):
        return figures.get("rollout/ep_rew_mean", 0.0) < 0.9  # False ends training

Trainer(agent, env, config, "runs/mine", callbacks=[StopWhenGood()]).run()
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Callback:
    """Base class of callbacks: override the methods that you need.

    Each method gets the trainer, a `Trainer` or a `SupervisedTrainer`, and may read anything in it. With
    several processes, callbacks are called in process 0 only, so they may not change the trainer.

    An exception in a callback ends training and keeps its traceback. If it comes from `on_iteration`, the
    iteration is saved first. The run folder can be resumed in any case.
    """

    def on_start(self, trainer: Any) -> None:
        """Called before the first iteration; config.json has been written, and a resumed run is loaded."""

    def on_iteration(self, trainer: Any, figures: dict[str, float]) -> bool | None:
        """Called after each iteration, before its figures are logged.

        Args:
            trainer: the trainer.
            figures: of the iteration, by TensorBoard tag. Numbers that are added here are logged, too, and
                callbacks that are called later see them.

        Returns:
            False, also NumPy's or a tensor's, to end training after this iteration, as if the budget were
            used up; anything else to continue.
        """

    def on_checkpoint(self, trainer: Any, path: Path) -> None:
        """Called after a checkpoint was saved at `path`."""

    def on_end(self, trainer: Any, figures: dict[str, float]) -> None:
        """Called once training has ended and the last checkpoint is saved, also after Ctrl-C or SIGTERM.

        Args:
            trainer: the trainer.
            figures: of the last iteration; empty if there was none.
        """

    def on_error(self, trainer: Any, error: BaseException) -> None:
        """Called instead of `on_end` when training ends with an exception.

        Each callback whose `on_start` has returned gets one call of `on_end` or `on_error`, never both. An
        exception in `on_end` comes after training, so that the others still get `on_end`.
        """


class Callbacks:
    """The callbacks of a trainer, called one after the other.

    Args:
        trainer: passed to each of them.
        callbacks: in the order of their calls.
    """

    def __init__(self, trainer: Any, callbacks: Sequence[Callback]) -> None:
        self.trainer, self.callbacks = trainer, callbacks
        self.begun: list[Callback] = []
        """Those whose `on_start` has returned and that wait for `on_end` or `on_error`."""

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """Call `on_start`; if the `with` block raises, call `on_error` of those that `end` has not called."""
        try:
            for callback in self.callbacks:
                callback.on_start(self.trainer)
                self.begun.append(callback)
            yield
        except BaseException as error:
            for callback in self.begun:
                with contextlib.suppress(Exception):  # the first error is the one to report
                    callback.on_error(self.trainer, error)
            raise

    def iteration(self, figures: dict[str, float]) -> bool:
        """Call `on_iteration`; return whether one of them ends training.

        Raises:
            ValueError: a callback added a figure that is not a number.
        """
        answers = [callback.on_iteration(self.trainer, figures) for callback in self.callbacks]
        if self.callbacks:
            figures.update({tag: _number(tag, figure) for tag, figure in figures.items()})
        return any(_is_false(answer) for answer in answers)

    def checkpoint(self, path: Path) -> None:
        """Call `on_checkpoint`."""
        for callback in self.callbacks:
            callback.on_checkpoint(self.trainer, path)

    def end(self, figures: dict[str, float]) -> None:
        """Call `on_end` of all callbacks, also after one of them has raised; then raise the first error."""
        failures: list[Exception] = []
        while self.begun:
            try:
                self.begun.pop(0).on_end(self.trainer, figures)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]


def require_callbacks(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks of a trainer.

    Raises:
        ValueError: one of them is not a `Callback`, or is a class instead of an object.
    """
    for each in callbacks:
        if not isinstance(each, Callback):
            raise ValueError(f"callbacks: expected objects of subclasses of Callback, got {each!r:.80}")
    return tuple(callbacks)


def _is_false(answer: object) -> bool:
    """Return whether an answer is False; comparisons of NumPy's numbers and of tensors have their own."""
    return isinstance(answer, bool | np.bool_ | torch.Tensor) and not answer


def _number(tag: str, figure: Any) -> float:
    """Return a figure as a float."""
    try:
        return float(figure)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a callback set figures[{tag!r}] to {figure!r:.60}: expected a number") from error

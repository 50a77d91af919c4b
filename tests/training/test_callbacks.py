"""Callbacks: when they are called, how they end training, and what a bug in one leaves behind."""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rmc_agents import Callback, SupervisedTrainer, Trainer, TrainingError
from rmc_agents.errors import Interrupted
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import checkpoints
from rmc_agents.training.processes import Processes
from tests.support.agents import small_env
from tests.support.groups import in_processes
from tests.support.trainers import assert_identical, ppo_trainer, supervised_trainer

Build = Callable[..., Trainer | SupervisedTrainer]


def build_supervised(run_dir: Path, callbacks: Sequence[Callback] = ()) -> SupervisedTrainer:
    trainer = supervised_trainer(run_dir)
    trainer.callbacks = tuple(callbacks)
    return trainer


BUILDERS: dict[str, Build] = {"ppo": ppo_trainer, "supervised": build_supervised}
ITERATIONS = {"ppo": 4, "supervised": 8}


@pytest.fixture(params=BUILDERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Name of a trainer; a test that uses this runs for both."""
    return request.param


class Recorder(Callback):
    """Note of every call, with the trainer's count of steps or samples."""

    def __init__(self, last: int = 1_000_000) -> None:
        self.last = last
        self.calls: list[tuple[Any, ...]] = []
        self.iterations = 0

    def on_start(self, trainer: Any) -> None:
        assert (trainer.run_dir / "config.json").exists()
        self.calls.append(("start", trainer.count))

    def on_iteration(self, trainer: Any, figures: dict[str, float]) -> bool | None:
        self.iterations += 1
        self.calls.append(("iteration", figures["time/fps"] > 0))
        figures["own/iterations"] = self.iterations
        return False if self.iterations == self.last else None

    def on_checkpoint(self, trainer: Any, path: Path) -> None:
        assert path.is_file()
        self.calls.append(("checkpoint", path.name))

    def on_end(self, trainer: Any, figures: dict[str, float]) -> None:
        self.calls.append(("end", figures.get("own/iterations")))

    def on_error(self, trainer: Any, error: BaseException) -> None:
        self.calls.append(("error", repr(error)))


class Broken(Callback):
    """A callback with a bug in one of its methods."""

    def __init__(self, method: str, error: Exception | None = None) -> None:
        setattr(self, method, self.fail)
        self.error = error or ZeroDivisionError("a bug")

    def fail(self, *_: Any) -> Any:
        raise self.error


def logged(run_dir: Path, tag: str) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [line[tag] for line in lines if tag in line]


def test_callback_is_called_in_order(kind: str, tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = BUILDERS[kind](tmp_path, callbacks=[recorder])
    trainer.run()
    number = ITERATIONS[kind]
    (path,) = checkpoints(tmp_path)
    iterations = [("iteration", True)] * number
    assert recorder.calls == [("start", 0), *iterations, ("checkpoint", path.name), ("end", number)]


def test_added_figures_are_logged_and_seen_by_later_callbacks(kind: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = []

    class Reader(Callback):
        def on_iteration(self, trainer: Any, figures: dict[str, float]) -> None:
            seen.append(figures["own/iterations"])
            figures["own/tensor"] = torch.tensor(0.5)  # type: ignore[assignment] # pyright: ignore[reportArgumentType]

    BUILDERS[kind](tmp_path, callbacks=[Recorder(), Reader()]).run()
    expected = [float(n + 1) for n in range(ITERATIONS[kind])]
    assert seen == logged(tmp_path, "own/iterations") == expected
    assert logged(tmp_path, "own/tensor") == [0.5] * len(expected)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("own/iterations")] == expected


def test_false_ends_training_and_the_run_resumes_to_the_same_end(kind: str, tmp_path: Path) -> None:
    BUILDERS[kind](tmp_path / "whole").run()
    recorder, later = Recorder(last=2), Recorder()
    BUILDERS[kind](tmp_path / "parts", callbacks=[recorder, later]).run()
    assert recorder.iterations == later.iterations == 2
    (path,) = checkpoints(tmp_path / "parts")
    assert recorder.calls[-2:] == [("checkpoint", path.name), ("end", 2)]
    again = BUILDERS[kind](tmp_path / "parts", callbacks=[later])
    again.restore()
    again.run()
    assert later.calls[-1] == ("end", ITERATIONS[kind])
    a, b = (read_newest(tmp_path / run)[1]["agent"] for run in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("answer", [np.float64(1) < 0, torch.tensor(1) < 0, False])
def test_false_of_a_comparison_ends_training(answer: Any, kind: str, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_iteration(self, trainer: Any, figures: dict[str, float]) -> Any:
            return answer

    trainer = BUILDERS[kind](tmp_path, callbacks=[Stop()])
    trainer.run()
    assert not trainer.done
    assert len(logged(tmp_path, "time/fps")) == 1


@pytest.mark.parametrize("answer", [None, 0, 0.0, "", np.True_, torch.tensor(True)])
def test_other_answers_continue_training(answer: Any, tmp_path: Path) -> None:
    class Answer(Callback):
        def on_iteration(self, trainer: Any, figures: dict[str, float]) -> Any:
            return answer

    trainer = ppo_trainer(tmp_path, callbacks=[Answer()])
    trainer.run()
    assert trainer.done


def test_figure_that_is_no_number_is_named_and_the_iteration_saved(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Text(Callback):
        def on_iteration(self, trainer: Any, figures: dict[str, Any]) -> None:
            figures["own/text"] = "good"

    with pytest.raises(
        ValueError, match=r"a callback set figures\['own/text'\] to 'good': expected a number"
    ):
        BUILDERS[kind](tmp_path, callbacks=[Text()]).run()
    (saved,) = checkpoints(tmp_path)
    assert f"saved: {saved}" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [Recorder, None, print], ids=["class", "none", "function"])
def test_what_is_no_callback_is_refused_before_training(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"callbacks: expected objects of subclasses of Callback, got "):
        ppo_trainer(tmp_path, callbacks=[wrong])


def test_bug_in_a_callback_keeps_its_traceback_and_saves_the_iteration(kind: str, tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = BUILDERS[kind](tmp_path, callbacks=[recorder, Broken("on_iteration")])
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        trainer.run()
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"
    assert recorder.calls == [("start", 0), ("iteration", True), ("error", "ZeroDivisionError('a bug')")]
    assert json.loads((tmp_path / "diagnostic.json").read_text())["error"] == "ZeroDivisionError('a bug')"
    again = BUILDERS[kind](tmp_path)
    again.restore()
    assert again.count == trainer.count > 0
    again.run()


@pytest.mark.parametrize(
    ("method", "last"),
    [("on_checkpoint", "error"), ("on_end", "end")],
)
def test_bug_after_the_last_checkpoint_leaves_a_whole_run(
    method: str, last: str, kind: str, tmp_path: Path
) -> None:
    """An OSError of a callback is not taken for a full disk."""
    recorder, error = Recorder(), OSError("no such server")
    with pytest.raises(OSError, match="no such server"):
        BUILDERS[kind](tmp_path, callbacks=[recorder, Broken(method, error)]).run()
    answers = {"error": "OSError('no such server')", "end": ITERATIONS[kind]}
    assert recorder.calls[-1] == (last, answers[last])
    again = BUILDERS[kind](tmp_path)
    again.restore()
    assert again.done


def test_bug_in_on_start_ends_training_before_it_begins(kind: str, tmp_path: Path) -> None:
    first, last = Recorder(), Recorder()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        BUILDERS[kind](tmp_path, callbacks=[first, Broken("on_start"), last]).run()
    assert first.calls == [("start", 0), ("error", "ZeroDivisionError('a bug')")]
    assert last.calls == []
    assert checkpoints(tmp_path) == []
    BUILDERS[kind](tmp_path).run()


METHODS = ["on_start", "on_iteration", "on_checkpoint", "on_end", "on_error"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("method", METHODS)
def test_each_callback_that_has_started_ends_exactly_once(
    method: str, error: type[Exception], kind: str, tmp_path: Path
) -> None:
    """Whatever one of them raises: trackers close their run once, as finished or as failed."""
    calls: list[tuple[str, str]] = []

    class Named(Callback):
        def __init__(self, name: str, fails: bool = False) -> None:
            self.name, self.fails = name, fails

        def _note(self, called: str) -> None:
            calls.append((self.name, called))
            if self.fails and called == method:
                raise error

        def on_start(self, trainer: Any) -> None:
            self._note("on_start")

        def on_iteration(self, trainer: Any, figures: dict[str, float]) -> None:
            self._note("on_iteration")
            if method == "on_error":
                raise ArithmeticError

        def on_checkpoint(self, trainer: Any, path: Path) -> None:
            self._note("on_checkpoint")

        def on_end(self, trainer: Any, figures: dict[str, float]) -> None:
            self._note("on_end")

        def on_error(self, trainer: Any, error: BaseException) -> None:
            self._note("on_error")

    callbacks = [Named("first"), Named("broken", fails=True), Named("last")]
    with pytest.raises((error, ArithmeticError)):
        BUILDERS[kind](tmp_path, callbacks=callbacks).run()
    for name in ("first", "broken", "last"):
        own = [called for who, called in calls if who == name]
        started = own[:1] == ["on_start"] and not (name == "broken" and method == "on_start")
        reached = error is ZeroDivisionError or method != "on_error" or name != "last"
        assert sum(called in ("on_end", "on_error") for called in own) == (started and reached)
    if method == "on_end" and error is ZeroDivisionError:
        assert [who for who, called in calls if called == "on_end"] == ["first", "broken", "last"]


def test_error_of_training_reaches_callbacks_whatever_they_do(kind: str, tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = BUILDERS[kind](tmp_path, callbacks=[Broken("on_error"), recorder])

    def fail() -> dict[str, float]:
        raise TrainingError("the loss is not finite")

    trainer.iterate = fail  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="the loss is not finite"):
        trainer.run()
    assert recorder.calls == [("start", 0), ("error", "TrainingError('the loss is not finite')")]


def test_signal_ends_training_as_its_end_does(kind: str, tmp_path: Path) -> None:
    class Signal(Callback):
        def on_iteration(self, trainer: Any, figures: dict[str, float]) -> None:
            signal.raise_signal(signal.SIGTERM)

    recorder = Recorder()
    with pytest.raises(Interrupted):
        BUILDERS[kind](tmp_path, callbacks=[recorder, Signal()]).run()
    assert [call[0] for call in recorder.calls] == ["start", "iteration", "checkpoint", "end"]


def run_in_group(group: Processes, run_dir: Path, *more: Callback) -> list[Any]:
    recorder = Recorder(last=2)
    callbacks = [recorder, *more]
    trainer = ppo_trainer(run_dir, env=small_env(4), processes=group, callbacks=callbacks)
    trainer.run()
    return [trainer.iterations, [call[0] for call in recorder.calls]]


def test_process_0_alone_calls_callbacks_and_all_stop_together(tmp_path: Path) -> None:
    first, second = in_processes(lambda group: run_in_group(group, tmp_path))
    assert first == [2, ["start", "iteration", "iteration", "checkpoint", "end"]]
    assert second == [2, []]


def test_bug_in_a_callback_ends_all_processes_with_a_checkpoint(tmp_path: Path) -> None:
    first, second = in_processes(lambda group: run_in_group(group, tmp_path, Broken("on_iteration")))
    assert first == "ZeroDivisionError: a bug"
    assert second == "ProcessLost: a callback failed in process 0; training stopped"
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000000000128.pt"]


def test_callbacks_do_not_change_training(tmp_path: Path) -> None:
    plain, watched = (
        ppo_trainer(tmp_path / name, callbacks=callbacks)
        for name, callbacks in (("plain", []), ("watched", [Recorder()]))
    )
    plain.run()
    watched.run()
    assert_identical(plain, watched)

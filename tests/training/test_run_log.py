"""Run log: every step once, also after a crash; a full disk costs figures only."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rmc_agents.training.run_log import RunLog


def test_log_cut_short_by_a_crash_continues_without_doubled_steps(tmp_path: Path) -> None:
    lines = [json.dumps({"step": n}) for n in (1, 2, 3, 4)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "ti')
    log = RunLog(tmp_path, 2, note=pytest.fail)
    log.figures(3, {"time/fps": float("nan")})
    log.close()
    assert [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "time/fps": None},
    ]


def test_figures_that_cannot_be_written_cause_one_warning(tmp_path: Path) -> None:
    notes: list[str] = []
    log = RunLog(tmp_path, 0, note=notes.append)
    log.lines.close()
    log.lines = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    for step in range(3):
        log.figures(step, {"time/fps": 1.0})
    log.close()
    assert len(notes) == 1
    assert "No space left on device" in notes[0]


def test_messages_and_figures_appear_in_order(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, note=pytest.fail)
    log.figures(1, {"time/fps": 2.0})
    log.message(1, "warning: hot")
    log.close()
    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "time/fps": 2.0}, {"step": 1, "note": "warning: hot"}]


def test_pipe_instead_of_a_log_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(OSError, match="not a regular file"):
        RunLog(tmp_path, 0, note=pytest.fail)


def scalars(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    """Return steps and values of a tag as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_runs_that_start_within_a_second_are_read_in_order(tmp_path: Path) -> None:
    """Also those that a machine with a later clock wrote."""
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.9000000000.other.9.9").touch()
    for start in (0, 2, 4):
        log = RunLog(tmp_path, start, note=pytest.fail)
        for step in range(start + 1, start + 4):
            log.figures(step, {"time/fps": float(10 * start + step)})
        log.close()
    expected = [(1, 1.0), (2, 2.0), (3, 23.0), (4, 24.0), (5, 45.0), (6, 46.0), (7, 47.0)]
    assert scalars(tmp_path, "time/fps") == expected
    names = sorted(path.name.split(".")[3] for path in (tmp_path / "tensorboard").iterdir())
    assert names == ["9000000000", "9000000001", "9000000002", "9000000003"]


def test_figures_are_on_disk_after_each_iteration(tmp_path: Path) -> None:
    threads = threading.active_count()
    log = RunLog(tmp_path, 0, note=pytest.fail)
    for step in (1, 2):
        log.figures(step, {"time/fps": 1.0})
        assert len(scalars(tmp_path, "time/fps")) == step
    assert threading.active_count() == threads
    log.close()


def test_full_disk_costs_events_only_until_it_has_room(tmp_path: Path) -> None:
    notes: list[str] = []
    log = RunLog(tmp_path, 0, note=notes.append)
    events: Any = log.writer.file_writer
    log.figures(1, {"time/fps": 1.0})
    whole, events.event_writer.file = events.event_writer.file, open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    log.figures(2, {"time/fps": 2.0})
    events.event_writer.file.close()
    events.event_writer.file = whole
    log.figures(3, {"time/fps": 3.0})
    log.close()
    assert len(notes) == 1
    assert scalars(tmp_path, "time/fps") == [(1, 1.0), (3, 3.0)]


def test_tools_that_listen_to_summary_writer_see_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(SummaryWriter, "add_scalar", lambda self, *words: seen.append(words))
    log = RunLog(tmp_path, 0, note=pytest.fail)
    log.figures(7, {"time/fps": 1.0, "train/loss": 2.0})
    log.close()
    assert seen == [("time/fps", 1.0, 7), ("train/loss", 2.0, 7)]


def hparams_tab(folder: Path) -> Any:
    """Return what TensorBoard's HPARAMS tab shows for a folder of runs."""
    from tensorboard import context
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    tab = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request: Any = api_pb2.ListSessionGroupsRequest(  # pyright: ignore[reportAttributeAccessIssue]
        slice_size=10, include_metrics=True, allowed_statuses=[0, 1, 2, 3]
    )
    return list_session_groups.Handler(context.RequestContext(), tab, "", request).run()


def test_hyperparameters_appear_beside_the_latest_metrics(tmp_path: Path) -> None:
    for start in (0, 2):
        log = RunLog(tmp_path, start, note=pytest.fail)
        log.hyperparameters({"ppo/gamma": 0.5, "agent/core": "gru", "on": True}, ["score", "never"])
        log.figures(start + 1, {"score": 0.25 + start})
        log.close()
    (group,) = hparams_tab(tmp_path).session_groups
    assert group.hparams["ppo/gamma"].number_value == 0.5
    assert group.hparams["agent/core"].string_value == "gru"
    assert [(each.name.tag, each.value) for each in group.metric_values] == [("score", 2.25)]
    assert {path.name for path in tmp_path.iterdir()} == {"log.jsonl", "tensorboard"}
    assert all(path.is_file() for path in (tmp_path / "tensorboard").iterdir())

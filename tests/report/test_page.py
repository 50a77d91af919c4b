"""Report of a run: its contents, escaped text from outside, its size, and how a real browser shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rmc_agents import UsageError
from rmc_agents.evaluation.entries import Entry
from rmc_agents.evaluation.results import Result, save_entry
from rmc_agents.report.page import MAX_BYTES, collect_pictures, markdown, write_markdown, write_report
from rmc_agents.runs.files import write_json
from tests.support.browser import CHROMIUM, browser_page

HOSTILE = '</pre><script>alert("x")</script>&<b>'


def entry(success: float, **more: Any) -> Entry:
    figures = {"success_rate": success, "mean_return": 0.5, "mean_length": 12.0}
    data = {
        **figures,
        "success_ci95": [success - 0.1, success + 0.05],
        "episodes": 1000,
        "implementation": "farama",
        "random": {**figures, "implementation": "exact"},
        "best_possible": {**figures, "mean_length": 8.0},
        "command": f"python train/evaluate.py '{HOSTILE}'",
        "versions": {"python": "3.12", "torch": "2.6"},
        "date": "2026-01-02",
        **more,
    }
    return Entry.from_json(data, "test")


def picture(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(
        path
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with every kind of contents, and with hostile text in them."""
    folder = tmp_path / "maze <1>"
    folder.mkdir()
    environment = {"env": "MiniGrid-MemoryS9-v0", "note": HOSTILE}
    config = {"format": 2, "agent": {"core": "rmc"}, "environment": environment, "seed": 3}
    write_json(folder / "config.json", config)
    save_entry(folder, "MiniGrid-MemoryS9-v0", entry(0.9, hallway=3, trained_hallway=3))
    save_entry(folder, "MiniGrid-MemoryS17-v0", entry(0.6, hallway=11, trained_hallway=3))
    lines = [
        {
            "step": step,
            "rollout/success_rate": step / 4000,
            "train/entropy_loss": -1.0,
            "time/total_seconds": 90,
        }
        for step in (1000, 2000, 3000)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    picture(folder / "media" / "MiniGrid-MemoryS9-v0.gif")
    picture(folder / "media" / "probe'\"<x>.png")
    (folder / "probe.json").write_text(json.dumps({"what": HOSTILE}))
    return folder


def test_report_shows_everything_and_escapes_it(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    page = path.read_text()
    assert len(page) < MAX_BYTES
    for part in (
        "maze &lt;1&gt;",
        "MiniGrid-MemoryS17-v0",
        "90.0%",
        "1.5 min",
        "0.900 [0.800, 0.950]",
        "3.12",
    ):
        assert part in page
    assert "<script" not in page
    assert page.count("&lt;/pre&gt;&lt;script&gt;") >= 3  # the command, the configuration, the probe
    assert page.count("<img") == 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    for name in ("training.png", "training.svg", "success-by-hallway.png", "success-by-hallway.svg"):
        assert (run / "media" / name).is_file()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_browser_shows_every_picture_without_errors(run: Path, tmp_path: Path) -> None:
    path = write_report(run)
    with browser_page(tmp_path / "profile") as page:
        for width, dark in ((1200, False), (390, True)):
            page.set_screen(width, dark=dark)
            page.open(path)
            widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
            assert len(widths) == 4
            assert min(widths) > 0
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            ink, paper = (
                page.evaluate(f"getComputedStyle(document.body).{name}")
                for name in ("color", "backgroundColor")
            )
            assert (brightness(ink) > brightness(paper)) is dark
        assert page.evaluate("document.title") == "maze <1>: rmc in MiniGrid-MemoryS9-v0"
        for method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            assert page.reported(method) == []
        asked = [event["request"]["url"] for event in page.reported("Network.requestWillBeSent")]
        assert {url.split(":")[0] for url in asked} == {"file", "data"}
        assert {url for url in asked if url.startswith("file")} == {path.as_uri()}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_browser_reports_a_broken_picture_and_an_error(tmp_path: Path) -> None:
    """The check above can fail."""
    path = tmp_path / "broken.html"
    path.write_text('<img src="data:image/png;base64,AAAA"><script>console.error("no")</script>')
    with browser_page(tmp_path / "profile") as page:
        page.open(path)
        assert page.evaluate("document.images[0].naturalWidth") == 0
        assert len(page.reported("Runtime.consoleAPICalled")) == 1


def brightness(color: str) -> int:
    return sum(int(part) for part in re.findall(r"\d+", color)[:3])


def test_run_that_was_not_evaluated_has_a_report(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"format": 2, "agent": {"core": "gru"}})
    page = write_report(tmp_path).read_text()
    assert "Not evaluated yet" in page
    assert "<img" not in page
    assert not (tmp_path / "evaluation.md").exists()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run folder"):
        write_report(tmp_path / "none")
    with pytest.raises(UsageError, match="is not a run folder"):
        write_markdown(tmp_path / "none")


def test_pictures_without_room_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.gif").write_bytes(bytes(2_000_000))
    (tmp_path / "c.svg").write_bytes(bytes(100))
    (tmp_path / "c.png").write_bytes(bytes(200))
    (tmp_path / "film.mp4").write_bytes(bytes(10))
    pictures, left_out = collect_pictures(tmp_path, 5_000_000)
    assert [(p.name, p.data.partition(",")[0]) for p in pictures] == [
        ("a", "data:image/gif;base64"),
        ("c", "data:image/svg+xml;base64"),
    ]
    assert left_out == ["b.gif"]
    assert collect_pictures(tmp_path, 1000) == (pictures[1:], ["a.gif", "b.gif"])
    assert collect_pictures(tmp_path / "none", 1000) == ([], [])


def test_report_stays_below_its_largest_size(run: Path) -> None:
    for i in range(5):
        (run / "media" / f"film{i}.gif").write_bytes(bytes(1_000_000))
    (run / "probe.json").write_text(json.dumps(["<figure>"] * 60_000))
    page = write_report(run).read_text()
    assert 4_000_000 < len(page.encode()) <= MAX_BYTES
    assert "film4.gif" in page  # its name


def test_evaluation_md_has_table_notes_and_commands(run: Path) -> None:
    text = write_markdown(run).read_text()
    assert text.startswith("# Evaluation of maze &lt;1&gt;\n")
    assert "| MiniGrid-MemoryS9-v0 | maze &lt;1&gt; (rmc) | 0.900 [0.800, 0.950] |" in text
    assert text.index("MemoryS9") < text.index("MemoryS17")
    assert text.count("python train/evaluate.py") == 1  # both entries have this command
    assert "python 3.12, torch 2.6" in text
    assert "The most likely action" in text
    drawn = markdown([Result("a", "gru", "A", entry(0.5, deterministic=False))])
    assert "Actions are drawn" in drawn


def test_evaluation_md_has_html_only_in_code(run: Path) -> None:
    text = write_markdown(run).read_text()
    (command,) = [line for line in text.splitlines() if "<" in line]
    assert command == f"- `python train/evaluate.py '{HOSTILE}'` (2026-01-02)"


def test_classifier_has_a_report(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"format": 2, "classifier": {"core": "dnc"}, "seed": 1})
    save_entry(tmp_path, "rmc/NthFarthest-v0", Entry.from_json({"success_rate": 0.95}, "test"))
    page = write_report(tmp_path).read_text()
    assert "dnc core" in page
    assert "0.950" in page


@pytest.mark.parametrize("environment", [None, [], "maze", {}, {"env": None}, {"env": 3}])
def test_run_without_environment_ids_has_a_report(tmp_path: Path, environment: object) -> None:
    config = {"format": 2, "agent": {"core": "gru"}, "environment": environment}
    write_json(tmp_path / "config.json", config)
    assert "gru core" in write_report(tmp_path).read_text()


def test_names_that_are_not_utf8_become_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "run\udc80\x1b"
    try:
        folder.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses such names")
    write_json(folder / "config.json", {"format": 2, "agent": {"core": "gru"}})
    save_entry(folder, "A", entry(0.5))
    picture(folder / "media" / "a\udc80.png")
    page = write_report(folder).read_text()
    assert "<h1>run\\udc80\\x1b</h1>" in page
    assert "a\\udc80" in page
    assert "run\\\\udc80\\\\x1b" in (folder / "evaluation.md").read_text()


def test_folder_that_cannot_be_written_is_a_usage_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rmc_agents.report.page.write_text", full)
    for write in (write_markdown, write_report):
        with pytest.raises(UsageError, match="No space left on device"):
            write(run)

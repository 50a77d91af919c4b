"""Reports: timing, targets, tables and snippets, and the stored results."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.common import RESULTS, ROOT, speed_up, stored_results, take_turns, with_current_flags
from benchmarks.report import Report, Summary, describe_machine, markdown_table, read_snippets, show, target
from benchmarks.studies.nth_farthest import commands_of
from benchmarks.studies.nth_farthest_runs import RUNS

STORED = {
    "speed.cores": "cores",
    "speed.environments": "environments",
    "speed.training": "training",
    "speed.scaling": "scaling",
    "speed.sb3": "sb3",
    "speed.pictures": "pictures",
    "speed.counts": "counts",
    "studies.classic_control": "classic_control",
    "studies.memory_mazes": "memory_mazes",
    "studies.nth_farthest": "nth_farthest",
    "studies.nth_farthest_ppo": "nth_farthest_ppo",
    "studies.continuous_control": "continuous_control",
    "studies.key_value": "key_value",
    "studies.popgym": "popgym",
    "studies.worlds": "worlds",
    "studies.places": "places",
    "robustness.soak": "reliability",
}
"""Benchmarks with stored results, and the name of their files."""


def test_candidates_take_turns() -> None:
    calls: list[str] = []
    times = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0, (3, 9))
    assert calls == ["a", "b"] * 5  # two rounds of warm-up
    assert [len(seconds) for seconds in times.values()] == [3, 3]


def test_speed_up_is_the_median_of_ratios_within_rounds() -> None:
    assert speed_up({"a": [1, 2, 1], "b": [2, 8, 3]}, "a", over="b") == 3


def test_target_compares_with_its_limit() -> None:
    assert target("x", 3.0, at_least=3.0)["reached"] == "yes"
    assert target("x", 3.1, at_most=3.0)["reached"] == "no"
    assert target("x", None, at_most=3.0)["reached"] == "not measured"


def test_cells_have_three_significant_digits() -> None:
    assert [show(x) for x in (None, 12345.6, 0.01234, 7, "a")] == ["", "12,346", "0.0123", "7", "a"]


def test_table_prints_cells_by_column_name() -> None:
    rows = [{"core": "lstm", "torch": 1, "loop": 2}, {"core": "dnc", "loop": 3, "torch": None}]
    assert markdown_table(rows).splitlines()[-1] == "| dnc |  | 3 |"


def test_page_holds_every_section_as_a_snippet() -> None:
    report = Report("benchmarks.speed.x", "X", describe_machine([1]), {"Some rows": [{"a": 1}]}, ["A note."])
    report.summaries = [Summary("short", "Short", [{"b": "2"}], "Below.")]
    report.sections = {"Commands": "- `make`"}
    page = report.to_markdown(picture=True)
    found = read_snippets(page)
    assert list(found) == ["short", "some-rows", "commands", "method", "machine"]
    assert found["some-rows"] == "| a |\n| --: |\n| 1 |"
    assert found["short"] == "| b |\n| --- |\n| 2 |\n\nBelow."
    assert found["method"] == "- A note."
    assert page.startswith("# X\n\n`python -m benchmarks.speed.x`\n\n![X](x.png)\n")


def test_page_refuses_two_snippets_of_one_name() -> None:
    report = Report("benchmarks.speed.x", "X", describe_machine([1]), {"Short": [{"a": 1}]})
    report.summaries = [Summary("short", "Summary", [{"b": "2"}])]
    with pytest.raises(ValueError, match="two snippets of x have the same name"):
        report.to_markdown(picture=False)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", [*STORED, "speed.gpu_check"])
def test_benchmark_runs_as_a_module(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    assert end.value.code == 0
    assert f"python -m benchmarks.{name} " in capsys.readouterr().out


@pytest.mark.parametrize(("name", "files"), STORED.items())
def test_stored_report_matches_its_results(
    name: str, files: str, tmp_path: Path, run: Callable[..., None]
) -> None:
    shutil.copy(RESULTS / f"{files}.json", tmp_path)
    if (RESULTS / files).is_dir():
        shutil.copytree(RESULTS / files, tmp_path / files)
    run(name, "--report", "--out", str(tmp_path))
    for ending in ("json", "md"):
        written = (tmp_path / f"{files}.{ending}").read_text()
        assert written == (RESULTS / f"{files}.{ending}").read_text(), (
            f"run: python -m benchmarks.{name} --report"
        )
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", written)
    assert pictures or files in ("sb3", "pictures", "counts", "reliability")
    for picture in pictures:
        assert (tmp_path / picture).stat().st_size > 5000
        assert (RESULTS / picture).exists()


def test_report_without_stored_results_asks_for_a_run(tmp_path: Path, run: Callable[..., None]) -> None:
    with pytest.raises(
        SystemExit, match=r"cores\.json does not exist: run `python -m benchmarks\.speed\.cores`"
    ):
        run("speed.cores", "--report", "--out", str(tmp_path))


def test_recorded_commands_are_those_of_today() -> None:
    results = stored_results(RESULTS / "nth_farthest", RUNS)
    assert list(results) == list(RUNS)
    for name, result in results.items():
        recorded = [with_current_flags(command) for command in result["commands"]]
        assert recorded == commands_of(name, RESULTS / "nth_farthest"), name


def test_no_file_of_results_is_left_over() -> None:
    names = {path.stem for path in (RESULTS / "nth_farthest").iterdir()}
    assert names == set(RUNS)
    assert {path.stem for path in RESULTS.glob("*.json")} == {*STORED.values(), "gpu_check"}
    assert ROOT / "benchmarks" / "results" == RESULTS

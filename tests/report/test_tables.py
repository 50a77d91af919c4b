"""Tables show the figures of results, on the terminal and in Markdown, and text from outside as it is."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rmc_agents.evaluation.entries import Entry
from rmc_agents.evaluation.results import Result
from rmc_agents.report.tables import Table, core_table, evaluation_table
from tests.support.agents import evaluation_figures

RANDOM = {"success_rate": 0.26, "mean_return": 0.1, "mean_length": 48.0, "implementation": "exact"}
BEST = {"success_rate": 1.0, "mean_return": 0.98, "mean_length": 8.0}


def entry(success: float | None, value: float = 0.25, **more: Any) -> Entry:
    figures = evaluation_figures(success, value)
    return Entry.from_json({**figures, "random": RANDOM, "best_possible": None, **more}, "test")


def test_agents_are_shown_with_no_memory_random_and_best() -> None:
    memoryless = {**evaluation_figures(0.5, 0.25), "run": "blind"}
    results = [
        Result("s10", "rmc", "Maze10-v0", entry(None)),
        Result("s9", "rmc", "Maze9-v0", entry(0.876, best_possible=BEST, memoryless=memoryless)),
        Result("s9b", "gru", "Maze9-v0", entry(0.75, best_possible=BEST, memoryless=memoryless)),
    ]
    small, large = evaluation_table(results).sections
    assert [row[:2] for row in small] == [
        ("Maze9-v0", "s9 (rmc)"),
        ("", "s9b (gru)"),
        ("", "blind (no memory)"),
        ("", "random"),
        ("", "best possible"),
    ]
    agent = ("0.876 [0.111, 0.999]", "0.250 [0.200, 0.300]", "12.0", "1.50", "1,000", "farama")
    assert small[0][2:] == agent
    assert small[3][2:] == ("0.260", "0.100", "48.0", "6.00", "", "exact")
    assert small[4][2:] == ("1.000", "0.980", "8.0", "1.00", "", "")
    assert [row[:3] for row in large] == [("Maze10-v0", "s10 (rmc)", "-"), ("", "random", "0.260")]
    assert large[0][5] == ""


def test_classifier_is_shown_without_return_and_length() -> None:
    result = Result("nth", "rmc", "rmc/NthFarthest-v0", Entry.from_json({"success_rate": 0.95}, "test"))
    assert evaluation_table([result]).sections == (
        (("rmc/NthFarthest-v0", "nth (rmc)", "0.950", "-", "-", "", "", ""),),
    )


def test_runs_are_aggregated_by_core() -> None:
    rates = {
        "gru": {"A": (0.5, 0.6, 0.4), "B": (0.5, 0.5, 0.5)},
        "rmc": {"A": (0.9, 0.95, 0.99), "B": (0.5, 0.5, 0.5), "C": (0.0,)},  # gru was not evaluated in C
    }
    results = [
        Result(f"{core}{seed}", core, env_id, entry(rate))
        for core, by_env in rates.items()
        for env_id, scores in by_env.items()
        for seed, rate in enumerate(scores)
    ]
    table = core_table(results)
    assert "success rate" in table.title
    a, b, both = table.sections
    assert a == (
        ("A", "rmc", "0.947", "[0.900, 0.990]", "3", ""),
        ("", "gru", "0.500", "[0.400, 0.600]", "3", "0.00 [0.000, 0.000]"),
    )
    assert b[1] == ("", "rmc", "0.500", "[0.500, 0.500]", "3", "0.50 [0.500, 0.500]")
    assert [row[:2] for row in both] == [("all environments", "rmc"), ("", "gru")]
    assert both[1][5] == "0.25 [0.250, 0.250]"  # loses every comparison in A, ties in B


def test_single_run_of_a_core_has_no_interval() -> None:
    results = [Result(core, core, "A", entry(None, value)) for core, value in (("gru", 1.0), ("rmc", 2.0))]
    table = core_table(results)
    assert "mean return" in table.title
    assert table.sections == ((("A", "rmc", "2.000", "", "1", ""), ("", "gru", "1.000", "", "1", "0.00")),)


def printed(table: Table, width: int = 170) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    table.print(console)
    return console.export_text()


def test_table_is_printed_and_written_in_markdown() -> None:
    table = Table("figures", ("what", "how many"), frozenset({"how many"}), ((("a|b", "1"), ("c", "2")),))
    assert table.markdown() == "| what | how many |\n| --- | --: |\n| a\\|b | 1 |\n| c | 2 |"
    shown = printed(table, 80)
    for part in ("figures", "what", "a|b", "2"):
        assert part in shown


@pytest.mark.parametrize(
    "name", ["[/joint]", "[red]run[/red]", "sweep[lr=1e-3]", ":smile:", "[link=x]", "\\["]
)
def test_markup_in_names_is_printed_as_it_is(name: str) -> None:
    """Rich would read brackets as styles, and fail at an unmatched closing tag."""
    shown = printed(Table(name, (name, "number"), frozenset({"number"}), (((name, name),),)))
    assert shown.count(name) == 4


def test_control_characters_in_names_are_printed_as_escapes() -> None:
    shown = printed(Table("a\x1b[2Jb", ("c\rd",), frozenset(), ((("e\nf\udc80",),),)))
    for part in (r"a\x1b[2Jb", r"c\rd", r"e\nf\udc80"):
        assert part in shown
    assert "\x1b" not in shown
    shown.encode()


def test_names_in_markdown_are_neither_markup_nor_html() -> None:
    hostile = "<script>|*x*|`y`\n# z"
    text = Table("", (hostile, hostile), frozenset(), (((hostile, hostile),),)).markdown()
    assert len(text.splitlines()) == 3
    assert "<script>" not in text
    assert r"&lt;script&gt;\|\*x\*\|\`y\`\\n# z" in text

"""Tables say what the figures say, on the terminal and in Markdown."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from rmc_agents.results import Result
from rmc_agents.tables import Table, core_table, evaluation_table
from tests.support import evaluation_figures


def entry(success: float | None, value: float = 0.25, **more: Any) -> dict[str, Any]:
    figures = evaluation_figures(success, value)
    random = {"success_rate": 0.26, "mean_return": 0.1, "mean_length": 48.0, "implementation": "exact"}
    return {**figures, "random": random, "best_possible": None, **more}


BEST = {"success_rate": 1.0, "mean_return": 0.98, "mean_length": 8.0}


def test_an_agent_stands_beside_no_memory_random_and_best() -> None:
    memoryless = {**entry(0.5), "run": "blind"}
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


def test_runs_are_put_together_by_core() -> None:
    rates = {
        "gru": {"A": (0.5, 0.6, 0.4), "B": (0.5, 0.5, 0.5)},
        "rmc": {"A": (0.9, 0.95, 0.99), "B": (0.5, 0.5, 0.5), "C": (0.0,)},  # gru was not judged in C
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
    assert [row[:2] for row in both] == [("all of them", "rmc"), ("", "gru")]
    assert both[1][5] == "0.25 [0.250, 0.250]"  # loses all in A, ties in B


def test_one_run_a_core_has_no_interval() -> None:
    results = [Result(core, core, "A", entry(None, value)) for core, value in (("gru", 1.0), ("rmc", 2.0))]
    table = core_table(results)
    assert "mean return" in table.title
    assert table.sections == ((("A", "rmc", "2.000", "", "1", ""), ("", "gru", "1.000", "", "1", "0.00")),)


def test_a_table_is_shown_and_written() -> None:
    table = Table("figures", ("what", "how many"), frozenset({"how many"}), ((("a|b", "1"), ("c", "2")),))
    assert table.markdown() == "| what | how many |\n| --- | --: |\n| a\\|b | 1 |\n| c | 2 |"
    console = Console(file=io.StringIO(), width=80, record=True)
    table.print(console)
    shown = console.export_text()
    for part in ("figures", "what", "a|b", "2"):
        assert part in shown

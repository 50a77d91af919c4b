"""Tables and plots of the Nth Farthest study."""

from __future__ import annotations

import collections
import itertools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common import with_current_flags
from benchmarks.report import CORE_NAMES, Report, Row, Summary, with_interval
from benchmarks.studies.nth_farthest_runs import (
    ABLATIONS,
    FEW,
    FIRST_RECIPE,
    MAIN_RUNS,
    RUNS,
    SAMPLES,
    SCRIPT,
    TIME,
    root_of,
    runs_in,
)
from rmc_agents.cores import make_core
from rmc_agents.plots.style import MARKERS, OKABE_ITO, styles

Result = dict[str, Any]
"""The stored result of one run; its "others" are the held-out questions."""
Look = dict[str, Any]
"""Matplotlib's options of a line."""

NO_RELATION, CHANCE = 0.25, 1 / 8
"""Accuracy without relating vectors to each other, and of guessing."""
NOTES = [
    "Accuracy: share of right answers to 20,000 fresh questions of the paper's distribution: 8 objects, 16 "
    "dimensions, m and n uniform, one answer after the last object. Intervals are 95 % (Wilson). n = 1 asks "
    "for the farthest object, n = 8 for the reference itself.",
    "Held-out accuracy: the same for 100,000 other questions, on which no setting was chosen; empty for runs "
    "that were made before this test existed. Intervals cover the questions drawn, not the seeds.",
    f"An accuracy of {NO_RELATION} needs no relation between vectors: answer m where n asks for m itself, "
    f"and guess among the other labels elsewhere. Chance is {CHANCE}.",
    "Unless the name of a run says otherwise, training has the same auxiliary losses for every core "
    "(auxiliary targets, answers in between) and uses Muon; the first recipe has levels, too. The test has "
    "none of them. The vectors are multiplied by 4 in training and test.",
    "Every read-out has four layers of 256 on the core's output, and cores with their read-outs have about "
    "the same number of parameters. The sizes of their outputs differ: RMC's output is its whole memory, "
    "the outputs of the others are narrower, and a DNC's does not include its external memory. A linear "
    "layer predicts the auxiliary targets from the output, so they may suit RMC better. That layer, with "
    "264 parameters for each number of the output and 264 more, exists in training only and is not counted.",
    f"First recipe: `{shlex.join(FIRST_RECIPE)}`, the script's defaults until a lower learning rate was "
    "found to be better. Runs of this recipe are compared with one another only.",
    "Learning curves show the accuracy on the whole task. With levels it jumps when training reaches the "
    "last one; earlier levels ask for small n only.",
    "Minutes are of training alone, with one thread, on a machine that did other work at the same time: "
    "compare them with care. CPU minutes are the process's own. Equal wall time means equal minutes.",
    "The machine below is that of the latest runs. The machine and the date of each run are in "
    "results/nth_farthest.",
]


def make_report(results: Mapping[str, Result], machine: Row) -> Report:
    """Return the report of the runs that were made."""
    titles = dict.fromkeys(run.table for run in RUNS.values())
    tables = {title: [full_row(name, results[name]) for name in made(title, results)] for title in titles}
    report = Report(
        "benchmarks.studies.nth_farthest",
        "Memory cores on Nth Farthest",
        machine,
        {title: rows for title, rows in tables.items() if rows},
        list(NOTES),
    )
    report.notes += [describe_unseen(name, x) for name, x in results.items() if "unseen" in x]
    missing = [name for name in RUNS if name not in results]
    if missing:
        report.notes.append(f"Not made yet: {', '.join(missing)}.")
    summaries = summarize_cores(results), summarize_ablations(results)
    report.summaries = [each for each in summaries if each.rows]
    if results:
        report.sections["Commands"] = "\n".join(map(describe_commands, results, results.values()))
    return report


def made(table: str, results: Mapping[str, Result]) -> list[str]:
    """Return the names of a table's runs that were made; none if only its reference was."""
    names = [name for name in runs_in(table) if name in results]
    return names if any(RUNS[name].table == table for name in names) else []


def full_row(name: str, result: Result) -> Row:
    """Return the row of a run in its table."""
    (low, high), held_out = result["ci95"], result.get("others")
    by_rank = {
        f"n={rank + 1}": None if share is None else round(share, 3)
        for rank, share in enumerate(result["by_rank"])
    }
    return {
        "run": name,
        "parameters": result["parameters"],
        "output size": make_core(result["core"], 1, result["core_options"]).output_size,
        "samples (M)": result["samples"] / 1e6,
        "minutes": result["seconds"] / 60,
        "CPU minutes": None if result["cpu_seconds"] is None else result["cpu_seconds"] / 60,
        "accuracy": f"{result['accuracy']:.4f}",
        "95 % interval": f"[{low:.4f}, {high:.4f}]",
        "held-out accuracy": "" if held_out is None else f"{held_out['success_rate']:.4f}",
        **by_rank,
    }


def summarize_cores(results: Mapping[str, Result]) -> Summary:
    """Return the main runs of each core."""
    rows = []
    for name in MAIN_RUNS:
        if name in results:
            flags = RUNS[root_of(name)].flags
            seed = flags[flags.index("--seed") + 1]
            start = {"run": name, "core": CORE_NAMES[results[name]["core"]], "seed": seed}
            rows.append(start | summary_figures(results[name]))
    note = (
        "The main runs: after six million samples, for as many minutes as RMC needed for them (`-time`), and "
        "an RMC that was continued to 24.6 million samples (first recipe)."
    )
    return Summary("cores", "Cores", rows, note)


def summarize_ablations(results: Mapping[str, Result]) -> Summary:
    """Return the ablations of RMC."""
    rows = [
        {"run": name, "change": RUNS[name].change, "parameters": f"{results[name]['parameters']:,}"}
        | summary_figures(results[name])
        for name in made(ABLATIONS, results)
    ]
    note = f"`FIRST_RECIPE` stands for `{shlex.join(FIRST_RECIPE)}`."
    return Summary("ablations", "Ablations of RMC", rows, note)


def summary_figures(result: Result) -> Row:
    """Return the figures of a run, as a summary shows them."""
    held_out = result.get("others")
    flags = with_current_flags(result["commands"][-1]).removeprefix(f"python {SCRIPT} ")
    return {
        "samples (M)": f"{result['samples'] / 1e6:.1f}",
        "CPU minutes": "" if result["cpu_seconds"] is None else f"{result['cpu_seconds'] / 60:.0f}",
        "accuracy [95 %]": with_interval(result["accuracy"], result["ci95"]),
        "held-out accuracy [95 %]": (
            "" if held_out is None else with_interval(held_out["success_rate"], held_out["success_ci95"])
        ),
        "accuracy for n = 1, 2, ... 8": " ".join(
            "-" if share is None else f"{share:.2f}" for share in result["by_rank"]
        ),
        f"flags of `python {SCRIPT}`": f"`{flags.replace(shlex.join(FIRST_RECIPE), 'FIRST_RECIPE')}`",
    }


def describe_commands(name: str, result: Result) -> str:
    """Return a list item with the commands that make a run, one after the other."""
    commands = (f"`{with_current_flags(command)}`" for command in result["commands"])
    return f"- {name}: {', then '.join(commands)}"


def describe_unseen(name: str, result: Result) -> str:
    """Return a note on the third test of a run."""
    unseen = result["unseen"]
    low, high = unseen["success_ci95"]
    return (
        f"{name} was made because the held-out accuracy of the run before it was too low. Its accuracy on "
        f"{unseen['samples']:,} further questions, never used before, is "
        f"{unseen['success_rate']:.4f} [{low:.4f}, {high:.4f}]."
    )


def draw(results: Mapping[str, Result]) -> Figure:
    """Draw learning curves and accuracy by n: of the cores, then of RMC's ablations."""
    panels = [
        ("cores, equal samples", by_core(made(SAMPLES, results), results), False),
        ("cores, equal wall time", by_core(made(TIME, results), results), True),
        ("cores, two million samples, first recipe", by_core(made(FEW, results), results), False),
        ("RMC and its ablations, first recipe", by_run(made(ABLATIONS, results)), False),
    ]
    panels = [panels[0], *(panel for panel in panels[1:] if panel[1])]
    figure = Figure(figsize=(13, 4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 2, squeeze=False)
    for pair, (title, looks, by_time) in zip(axes, panels, strict=True):
        draw_curves(pair[0], looks, results, title, by_time)
        draw_ranks(pair[1], looks, results)
        if looks:
            pair[1].legend(*pair[0].get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def by_core(names: Sequence[str], results: Mapping[str, Result]) -> dict[str, Look]:
    """Return the look of each run: a core keeps its color, and its further seeds are dashed and dotted."""
    looks: dict[str, Look] = {}
    lines = collections.defaultdict(lambda: itertools.cycle(("-", "--", ":")))
    for name in names:
        core = results[name]["core"]
        color, marker = styles([core])[core]
        looks[name] = {"color": color, "marker": marker, "linestyle": next(lines[core])}
    return looks


def by_run(names: Sequence[str]) -> dict[str, Look]:
    """Return the look of each run: a color and a marker of its own."""
    return {
        name: {
            "color": OKABE_ITO[i % len(OKABE_ITO)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": "-" if i < len(OKABE_ITO) else "--",
        }
        for i, name in enumerate(names)
    }


def draw_curves(
    axes: Axes, looks: Mapping[str, Look], results: Mapping[str, Result], title: str, by_time: bool
) -> None:
    """Draw the accuracy on the whole task during training."""
    for name, look in looks.items():
        points = results[name]["curve"]
        x = [seconds / 60 if by_time else step / 1e6 for step, seconds, _ in points]
        axes.plot(x, [accuracy for _, _, accuracy in points], label=name, markevery=6, **look)
    axes.axhline(NO_RELATION, color="grey", linewidth=0.8, linestyle=":")
    xlabel = "minutes of training" if by_time else "samples (millions)"
    axes.set(title=title, xlabel=xlabel, ylabel="accuracy on the whole task", ylim=(0, 1))
    axes.set_xlim(left=0)


def draw_ranks(axes: Axes, looks: Mapping[str, Look], results: Mapping[str, Result]) -> None:
    """Draw the accuracy for each n."""
    for name, look in looks.items():
        shares = [0.0 if share is None else share for share in results[name]["by_rank"]]
        axes.plot(range(1, 9), shares, **look)
    axes.axhline(1 / 7, color="grey", linewidth=0.8, linestyle=":")
    axes.set(
        title="accuracy by n",
        xlabel="n (1: the farthest, 8: the reference)",
        ylabel="accuracy",
        ylim=(0, 1.02),
    )

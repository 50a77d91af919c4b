"""The paper's claim, tested: RMC against LSTM, GRU and DNC on Nth Farthest, and what RMC owes to its parts.

    python benchmarks/nth_farthest.py                 # every run of the study, in turn: many hours
    python benchmarks/nth_farthest.py --only rmc lstm # these alone
    python benchmarks/nth_farthest.py --report        # no run: the tables and the picture from what there is
    python benchmarks/nth_farthest.py --quick         # does it run? a minute

Every run is `python train/nth_farthest.py` with the flags in `RUNS`. It can be stopped at any time: the same
command goes on where it was. What a run gave is kept in results/nth_farthest/NAME.json; a run without such a
file has not been made, and is not in the tables.
"""

from __future__ import annotations

import collections
import itertools
import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ROOT, Machine, Report, Row, kept_results, parse_study, prepare, run_script
from matplotlib.figure import Figure

from rmc_agents.checkpoint import write_json
from rmc_agents.cores import make_core
from rmc_agents.palette import MARKERS, OKABE_ITO, styles

SCRIPT = "train/nth_farthest.py"
OTHERS, OTHERS_SEED, UNSEEN_SEED = 100_000, 5_000_000, 7_000_000
"""Every run is tested on so many other questions, on which no setting was chosen; and `looked_at` ones on as
many again."""
MAX_POINTS = 100
"""Of a learning curve in a file."""


@dataclass(frozen=True)
class Run:
    """One training, by the flags that differ from the script's defaults."""

    table: str
    flags: tuple[str, ...]
    as_long_as: str | None = None
    """Train for as many minutes in all as that run took, rather than on as many samples."""
    goes_on_from: str | None = None
    """Begin where that run ended. Its learning rate had fallen to 0 by then, and rises again."""
    looked_at: bool = False
    """Begun because of what the other questions showed of the run before it."""


SAMPLES, TIME = "Equal samples", "Equal wall time"
FIRST_SAMPLES, LONGER = "Equal samples, the first recipe", "More samples, the first recipe"
FEW = "Equal samples, fewer, the first recipe"
NO_LEVELS = "Equal samples, fewer, the first recipe, all of them of the whole task"
PARTS = "What RMC owes to its parts, the first recipe"
HELD_OUT, FIRST_HELD_OUT = ("--seed", "14"), ("--seed", "11")
"""Settings were chosen with RMC on seed 0."""
ENDLESS, FEWER = ("--total-samples", "1e9"), ("--total-samples", "2000000")
FIRST_NO_LEVELS = ("--muon-lr", "0.01", "--hint-weight", "5", "--aids-share", "0.85")
FIRST = (*FIRST_NO_LEVELS, "--ranks", "1", "2", "4", "8")
"""The first recipe: the script's defaults until a lower learning rate was found to be better. Runs of it are
compared among themselves."""
INPUT_ONLY = ("--core-options", "slot_attention=none")
RUNS: dict[str, Run] = {
    "rmc": Run(SAMPLES, ("--core", "rmc", *HELD_OUT)),
    "rmc-s15": Run(SAMPLES, ("--core", "rmc", "--seed", "15")),
    "rmc-s16": Run(SAMPLES, ("--core", "rmc", "--seed", "16")),
    "dnc": Run(SAMPLES, ("--core", "dnc", *HELD_OUT)),
    "lstm": Run(SAMPLES, ("--core", "lstm", *HELD_OUT)),
    "gru": Run(SAMPLES, ("--core", "gru", *HELD_OUT)),
    "dnc-time": Run(TIME, ("--core", "dnc", *HELD_OUT, *ENDLESS), as_long_as="rmc"),
    "lstm-time": Run(TIME, ("--core", "lstm", *HELD_OUT, *ENDLESS), as_long_as="rmc"),
    "gru-time": Run(TIME, ("--core", "gru", *HELD_OUT, *ENDLESS), as_long_as="rmc"),
    "rmc-first": Run(FIRST_SAMPLES, ("--core", "rmc", *FIRST_HELD_OUT, *FIRST)),
    "rmc-first-s12": Run(FIRST_SAMPLES, ("--core", "rmc", "--seed", "12", *FIRST)),
    "rmc-first-s13": Run(FIRST_SAMPLES, ("--core", "rmc", "--seed", "13", *FIRST)),
    "dnc-first": Run(FIRST_SAMPLES, ("--core", "dnc", *FIRST_HELD_OUT, *FIRST)),
    "lstm-first": Run(FIRST_SAMPLES, ("--core", "lstm", *FIRST_HELD_OUT, *FIRST)),
    "rmc-longer": Run(LONGER, ("--total-samples", "12000000"), goes_on_from="rmc-first"),
    "rmc-longest": Run(LONGER, ("--total-samples", "15000000"), goes_on_from="rmc-longer"),
    "rmc-16m": Run(LONGER, ("--total-samples", "16400000"), goes_on_from="rmc-longest"),
    "rmc-22m": Run(LONGER, ("--total-samples", "22400000"), goes_on_from="rmc-16m"),
    "rmc-25m": Run(LONGER, ("--total-samples", "24600000"), goes_on_from="rmc-22m", looked_at=True),
    "rmc-s12-longer": Run(LONGER, ("--total-samples", "7800000"), goes_on_from="rmc-first-s12"),
    "rmc-s13-longer": Run(LONGER, ("--total-samples", "7800000"), goes_on_from="rmc-first-s13"),
    "dnc-longer": Run(LONGER, ("--total-samples", "1e9", "--minutes", "90.64"), goes_on_from="dnc-first"),
    "rmc-fewer": Run(FEW, ("--core", "rmc", *FEWER, *FIRST)),
    "lstm-fewer": Run(FEW, ("--core", "lstm", *FEWER, *FIRST)),
    "gru-fewer": Run(FEW, ("--core", "gru", *FEWER, *FIRST)),
    "dnc-fewer": Run(FEW, ("--core", "dnc", *FEWER, *FIRST)),
    "dnc-no-levels": Run(NO_LEVELS, ("--core", "dnc", *FEWER, *FIRST_NO_LEVELS)),
    "lstm-no-levels": Run(NO_LEVELS, ("--core", "lstm", *FEWER, *FIRST_NO_LEVELS)),
    "rmc-own-slot": Run(PARTS, (*FEWER, "--core-options", "slot_attention=own", *FIRST)),
    "rmc-input-only": Run(PARTS, (*FEWER, *INPUT_ONLY, *FIRST)),
    "rmc-input-only-no-levels": Run(PARTS, (*FEWER, *INPUT_ONLY, *FIRST_NO_LEVELS)),
    "rmc-slots-1": Run(PARTS, (*FEWER, "--core-options", "num_slots=1", *FIRST)),
    "rmc-slots-4": Run(PARTS, (*FEWER, "--core-options", "num_slots=4", *FIRST)),
    "rmc-slots-16": Run(PARTS, (*FEWER, "--core-options", "num_slots=16", *FIRST)),
    "rmc-gate-memory": Run(PARTS, (*FEWER, "--core-options", "gate_style=memory", *FIRST)),
    "rmc-gate-none": Run(PARTS, (*FEWER, "--core-options", "gate_style=none", *FIRST)),
    "rmc-no-levels": Run(PARTS, (*FEWER, *FIRST_NO_LEVELS)),
    "rmc-no-hints": Run(PARTS, (*FEWER, "--no-hints", *FIRST)),
    "rmc-no-aids": Run(
        PARTS, (*FEWER, "--no-hints", "--extra-steps", "0", "--vector-scale", "1", "--muon-lr", "0")
    ),
}
"""In the order of what matters most, by name."""
MEASURED_BY = {LONGER: "rmc-first", TIME: "rmc", NO_LEVELS: "rmc-no-levels", PARTS: "rmc-fewer"}
"""The run of another table that stands first in this one."""
QUICK = ("--total-samples", "512", "--batch-size", "64", "--test-every", "256", "--test-samples", "500")
QUICK_LONGER = ("--total-samples", "1024")


def main() -> None:
    args = parse_study(__doc__, RUNS, ROOT / "runs" / "nth-farthest")
    machine = prepare(args)
    kept = args.out / "nth_farthest"
    runs = args.out / "runs" if args.quick else args.runs
    names = args.only or (["lstm", "lstm-time"] if args.quick else list(RUNS))
    for name in () if args.report else names:
        if not (kept / f"{name}.json").exists():
            make(name, runs, kept, machine, args.quick)
    found = kept_results(kept, RUNS)
    report(found, machine).write(args.out, draw(found))


def make(name: str, runs: Path, kept: Path, machine: Machine, quick: bool) -> None:
    """Train, or go on training, and keep what came of it; before that make the runs that it needs."""
    run, run_dir = RUNS[name], runs / name
    if run.as_long_as is not None and not (kept / f"{run.as_long_as}.json").exists():
        make(run.as_long_as, runs, kept, machine, quick)
    flags = [*flags_of(run, kept), "--threads", str(machine.facts["torch threads"][0])]
    if quick:
        flags += [*QUICK, *(QUICK_LONGER if run.as_long_as or run.goes_on_from else ())]
    if run.goes_on_from is None:
        flags += ["--run-dir", str(run_dir), "--auto-resume"]
    else:
        flags += ["--resume", str(run_dir)]
        if not run_dir.exists():
            go_on_from(run.goes_on_from, run_dir, kept, machine, quick)
    run_script([SCRIPT, *flags])
    result = keep(run_dir, name, kept, machine)
    result["others"] = others(run_dir, OTHERS_SEED, quick)
    if run.looked_at:
        result["unseen"] = others(run_dir, UNSEEN_SEED, quick)
    write_json(kept / f"{name}.json", result)


def flags_of(run: Run, kept: Path) -> list[str]:
    """All that makes a run what it is."""
    if run.as_long_as is None:
        return list(run.flags)
    seconds = json.loads((kept / f"{run.as_long_as}.json").read_text())["seconds"]
    return [*run.flags, "--minutes", f"{seconds / 60:.4g}"]


def others(run_dir: Path, seed: int, quick: bool) -> dict[str, Any]:
    """How a run does on other questions than those by which it is judged."""
    samples = "500" if quick else str(OTHERS)
    run_script([SCRIPT, "--evaluate", str(run_dir), "--test-seed", str(seed), "--test-samples", samples])
    entry = read_entry(run_dir)
    return {key: entry[key] for key in ("success_rate", "success_ci95", "samples", "first_seed")}


def read_entry(run_dir: Path) -> dict[str, Any]:
    """What the latest test of a run gave."""
    (entry,) = json.loads((run_dir / "evaluation.json").read_text()).values()
    return entry


def go_on_from(before: str, run_dir: Path, kept: Path, machine: Machine, quick: bool) -> None:
    """Copy an ended run, which is made first where its folder is not there: at once, or not at all."""
    # A run is judged at its end, so that evaluation.json stands for that.
    if not (run_dir.parent / before / "evaluation.json").exists():
        make(before, run_dir.parent, kept, machine, quick)
    copy = run_dir.with_name(f".{run_dir.name}.copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run_dir.parent / before, copy)
    (copy / "evaluation.json").unlink()
    copy.rename(run_dir)


def commands(name: str, kept: Path) -> list[str]:
    """What to type for a run, without the benchmark: first the run that it goes on from, if there is one."""
    run = RUNS[name]
    if run.goes_on_from is None:
        return [shlex.join(["python", SCRIPT, *flags_of(run, kept)])]
    resumed = shlex.join(["python", SCRIPT, "--resume", "RUN", *flags_of(run, kept)])
    return [*commands(run.goes_on_from, kept), resumed]


def keep(run_dir: Path, name: str, kept: Path, machine: Machine) -> dict[str, Any]:
    """What lasts of a run: its test, and its curve in about `MAX_POINTS` points."""
    entry = read_entry(run_dir)
    config = json.loads((run_dir / "config.json").read_text())
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    tested = [line for line in lines if "test/accuracy" in line]
    # With the last one, where the learning rate is 0.
    thin = tested[::-1][:: -(-len(tested) // MAX_POINTS)][::-1] if tested else []
    return {
        "commands": commands(name, kept),
        "core": config["agent"]["core"],
        "core_options": config["agent"]["core_options"],
        "parameters": entry["parameters"]["all"],
        "samples": entry["training_samples"],
        "seconds": entry["training_seconds"],
        "cpu_seconds": entry["training_cpu_seconds"],
        "accuracy": entry["success_rate"],
        "ci95": entry["success_ci95"],
        "by_rank": entry["by_rank"],
        "test_samples": entry["samples"],
        "levels": [[line["step"], line["note"]] for line in lines if "level" in str(line.get("note"))],
        "curve": [[x["step"], round(x["time/total_seconds"], 1), x["test/accuracy"]] for x in thin],
        "machine": machine.facts,
        "date": entry["date"],
    }


def report(found: dict[str, dict[str, Any]], machine: Machine) -> Report:
    """The tables."""
    titles = dict.fromkeys(run.table for run in RUNS.values())
    tables = {title: [row(name, found[name]) for name in runs_of(title, found)] for title in titles}
    made = Report("nth_farthest", machine, {title: rows for title, rows in tables.items() if rows})
    missing = [name for name in RUNS if name not in found]
    made.notes = [
        "Right answers in 20,000 fresh questions of the paper's distribution: 8 objects, 16 dimensions, m "
        "and n uniform, one answer after the last object. 95 % intervals (Wilson). By n: 1 is the farthest, "
        "8 the reference itself.",
        "Of the others: right answers in 100,000 other questions, on which no setting was chosen; empty for "
        "runs made before this was asked. Intervals are of the questions drawn, not of seeds.",
        *(never_looked_at(name, result) for name, result in found.items() if "unseen" in result),
        "0.25 takes no relation at all: name m where n asks for m itself, guess among the others elsewhere. "
        "Chance is 0.125.",
        "Where a run's name takes nothing away, training has the same aids for every core: hints, "
        "answers in between, Muon; in the first recipe levels, too. The test has none. The vectors are "
        "multiplied by 4 in both.",
        "Every read-out has four layers of 256 on the core's output, and cores with their read-outs have "
        "about as many parameters. Their outputs are not equally wide: RMC's is its whole memory, others' "
        "are narrower, and a DNC's does not show its external memory. Hints have to be told from the output "
        "by a linear layer, so they may suit RMC better. That layer, of 264 numbers for each of the output's "
        "and 264 more, is there in training alone, and not among the parameters.",
        "Learning curves are of the whole task; where there are levels they jump as training comes to the "
        "last, before which it asks for the first few n only.",
        "Minutes are of training alone, with one thread, on a machine that did other work beside: compare "
        "them with care. CPU minutes are what the run itself used. Wall time is minutes.",
        "Machine and date below are those of this report; each run has its own in results/nth_farthest, and "
        "the commands that make it.",
    ]
    if missing:
        made.notes.append(f"Not made yet: {', '.join(missing)}.")
    made.print()
    return made


def never_looked_at(name: str, result: dict[str, Any]) -> str:
    unseen, (low, high) = result["unseen"], result["unseen"]["success_ci95"]
    return (
        f"{name} was begun because the run before it had too few of the others right. Of "
        f"{unseen['samples']:,} more, at which nobody had looked, it has {unseen['success_rate']:.4f} "
        f"[{low:.4f}, {high:.4f}]."
    )


def runs_of(table: str, found: dict[str, dict[str, Any]]) -> list[str]:
    """The runs of a table, first that by which they are measured."""
    names = [name for name in found if RUNS[name].table == table]
    reference = MEASURED_BY.get(table)
    return [reference, *names] if names and reference in found else names


def row(name: str, result: dict[str, Any]) -> Row:
    (low, high), others = result["ci95"], result.get("others")
    ranks = {
        f"n={rank + 1}": None if share is None else round(share, 3)
        for rank, share in enumerate(result["by_rank"])
    }
    return {
        "run": name,
        "parameters": result["parameters"],
        "output": make_core(result["core"], 1, result["core_options"]).output_size,
        "samples (M)": result["samples"] / 1e6,
        "minutes": result["seconds"] / 60,
        "CPU minutes": None if result["cpu_seconds"] is None else result["cpu_seconds"] / 60,
        "right": f"{result['accuracy']:.4f}",
        "95 %": f"[{low:.4f}, {high:.4f}]",
        "of the others": "" if others is None else f"{others['success_rate']:.4f}",
        **ranks,
    }


def draw(found: dict[str, dict[str, Any]]) -> Figure:
    """Learning curves and accuracy by n, first of the cores, then of RMC's variants."""
    rows = [
        ("cores, equal samples", by_core(runs_of(SAMPLES, found), found), False),
        ("cores, equal wall time", by_core(runs_of(TIME, found), found), True),
        ("cores, fewer samples, first recipe", by_core(runs_of(FEW, found), found), False),
        ("RMC and its variants, first recipe", variants(runs_of(PARTS, found)), False),
    ]
    rows = [rows[0], *(row for row in rows[1:] if row[1])]
    figure = Figure(figsize=(13, 4 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False)
    for pair, (title, looks, by_time) in zip(axes, rows, strict=True):
        curves(pair[0], looks, found, title, by_time)
        ranks(pair[1], looks, found)
        if looks:
            pair[1].legend(*pair[0].get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def by_core(names: Sequence[str], found: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """A core has its colour everywhere; further seeds of it are dashed and dotted."""
    looks: dict[str, dict[str, str]] = {}
    lines = collections.defaultdict(lambda: itertools.cycle(("-", "--", ":")))
    for name in names:
        core = found[name]["core"]
        colour, marker = styles([core])[core]
        looks[name] = {"color": colour, "marker": marker, "linestyle": next(lines[core])}
    return looks


def variants(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Of one core, each with a colour and a marker of its own."""
    return {
        name: {
            "color": OKABE_ITO[i % len(OKABE_ITO)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": "-" if i < len(OKABE_ITO) else "--",
        }
        for i, name in enumerate(names)
    }


def curves(
    axes: Any, looks: dict[str, dict[str, str]], found: dict[str, dict[str, Any]], title: str, by_time: bool
) -> None:
    for name, look in looks.items():
        points = found[name]["curve"]
        axes.plot(
            [seconds / 60 if by_time else step / 1e6 for step, seconds, _ in points],
            [right for _, _, right in points],
            label=name,
            markevery=6,
            **look,
        )
    axes.axhline(0.25, color="grey", linewidth=0.8, linestyle=":")
    xlabel = "minutes of training" if by_time else "samples (millions)"
    axes.set(title=title, xlabel=xlabel, ylabel="right on the whole task", ylim=(0, 1))
    axes.set_xlim(left=0)


def ranks(axes: Any, looks: dict[str, dict[str, str]], found: dict[str, dict[str, Any]]) -> None:
    for name, look in looks.items():
        shares = [0.0 if share is None else share for share in found[name]["by_rank"]]
        axes.plot(range(1, 9), shares, **look)
    axes.axhline(1 / 7, color="grey", linewidth=0.8, linestyle=":")
    axes.set(title="by n", xlabel="n (1: the farthest, 8: itself)", ylabel="right", ylim=(0, 1.02))


if __name__ == "__main__":
    main()

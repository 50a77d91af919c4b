"""The paper's claim, tested: RMC against LSTM, GRU and DNC on Nth Farthest, and ablations of RMC.

    python -m benchmarks.studies.nth_farthest                  # all runs without a result: many hours
    python -m benchmarks.studies.nth_farthest --only rmc lstm  # some of them
    python -m benchmarks.studies.nth_farthest --report         # tables and picture from stored results
    python -m benchmarks.studies.nth_farthest --quick          # a few tiny runs: a minute

A run is `python train/nth_farthest.py` with the flags in `nth_farthest_runs.RUNS`. Its result is stored in
results/nth_farthest/NAME.json; a run without that file has not been made, and no table shows it. The study
can be stopped at any time: the same command resumes it.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ROOT,
    make_study_parser,
    prepare,
    run_script,
    stored_results,
    study_machine,
)
from benchmarks.report import Row
from benchmarks.studies.nth_farthest_report import draw, make_report
from benchmarks.studies.nth_farthest_runs import (
    HELD_OUT_SAMPLES,
    HELD_OUT_SEED,
    RUNS,
    SCRIPT,
    UNSEEN_SEED,
    Run,
)
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import read_config

MAX_POINTS = 100
"""Largest number of stored points of a learning curve."""
QUICK = ("--total-samples", "512", "--batch-size", "64", "--test-every", "256", "--test-samples", "500")
QUICK_LONGER = ("--total-samples", "1024")


def main() -> None:
    """Make the runs that have no result yet, and write the report."""
    parser = make_study_parser(__doc__, ROOT / "runs" / "nth-farthest")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), metavar="NAME", help="make only these runs")
    args = parser.parse_args()
    machine = prepare(args)
    results, runs = args.out / "nth_farthest", args.out / "runs" if args.quick else args.runs
    names = args.only or (["lstm", "lstm-time"] if args.quick else list(RUNS))
    missing = [] if args.report else [name for name in names if not (results / f"{name}.json").exists()]
    for name in missing:
        if not (results / f"{name}.json").exists():  # it may have been made for another run
            make_run(name, runs, results, machine, args.quick)
    found = stored_results(results, RUNS)
    machine = study_machine(args, "nth_farthest", machine, bool(missing))
    report = make_report(found, machine)
    report.print()
    report.write(args.out, draw(found))


def make_run(name: str, runs: Path, results: Path, machine: Row, quick: bool) -> None:
    """Train and test, from where an earlier call stopped, and store the result.

    The runs that this run depends on are made first.
    """
    run, run_dir = RUNS[name], runs / name
    if run.same_time_as is not None and not (results / f"{run.same_time_as}.json").exists():
        make_run(run.same_time_as, runs, results, machine, quick)
    flags = [*flags_of(run, results), "--threads", str(machine["torch threads"][0]), "--processes", "1"]
    if quick:
        flags += [*QUICK, *(QUICK_LONGER if run.same_time_as or run.continues else ())]
    if run.continues is None:
        flags += ["--run-dir", str(run_dir), "--auto-resume"]
    else:
        flags += ["--resume", str(run_dir)]
        if not run_dir.exists():
            copy_ended_run(run.continues, run_dir, results, machine, quick)
    run_script([SCRIPT, *flags])
    result = summarize(run_dir, name, results, machine)
    result["others"] = test_again(run_dir, HELD_OUT_SEED, quick)
    if run.needs_unseen_test:
        result["unseen"] = test_again(run_dir, UNSEEN_SEED, quick)
    write_json(results / f"{name}.json", result)


def flags_of(run: Run, results: Path) -> list[str]:
    """Return the flags that define a run, with the minutes of the run that it is compared with."""
    if run.same_time_as is None:
        return list(run.flags)
    seconds = json.loads((results / f"{run.same_time_as}.json").read_text())["seconds"]
    return [*run.flags, "--minutes", f"{seconds / 60:.4g}"]


def test_again(run_dir: Path, seed: int, quick: bool) -> dict[str, Any]:
    """Test a run on other questions than those of its own test."""
    samples = "500" if quick else str(HELD_OUT_SAMPLES)
    run_script([SCRIPT, "--evaluate", str(run_dir), "--test-seed", str(seed), "--test-samples", samples])
    entry = read_entry(run_dir)
    return {key: entry[key] for key in ("success_rate", "success_ci95", "samples", "first_seed")}


def read_entry(run_dir: Path) -> dict[str, Any]:
    """Return the results of a run's latest test."""
    (entry,) = json.loads((run_dir / "evaluation.json").read_text()).values()
    return entry


def copy_ended_run(before: str, run_dir: Path, results: Path, machine: Row, quick: bool) -> None:
    """Copy an ended run to `run_dir` in one step; make it first if its folder is missing."""
    # A run is tested at its end, so that evaluation.json shows that it has ended.
    if not (run_dir.parent / before / "evaluation.json").exists():
        make_run(before, run_dir.parent, results, machine, quick)
    copy = run_dir.with_name(f".{run_dir.name}.copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run_dir.parent / before, copy)
    (copy / "evaluation.json").unlink()
    copy.rename(run_dir)


def commands_of(name: str, results: Path) -> list[str]:
    """Return the commands that make a run without this study, those of the run that it continues first."""
    run = RUNS[name]
    if run.continues is None:
        return [shlex.join(["python", SCRIPT, *flags_of(run, results)])]
    resumed = shlex.join(["python", SCRIPT, "--resume", "RUN", *flags_of(run, results)])
    return [*commands_of(run.continues, results), resumed]


def summarize(run_dir: Path, name: str, results: Path, machine: Row) -> dict[str, Any]:
    """Return what is stored of a run: its test, and its curve in at most `MAX_POINTS` points."""
    entry, classifier = read_entry(run_dir), read_config(run_dir)["classifier"]
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    tested = [line for line in lines if "test/accuracy" in line]
    # Counted from the end: the last point, where the learning rate is 0, is always among them.
    thinned = tested[::-1][:: -(-len(tested) // MAX_POINTS)][::-1] if tested else []
    return {
        "commands": commands_of(name, results),
        "core": classifier["core"],
        "core_options": classifier["core_options"],
        "parameters": entry["parameters"]["all"],
        "samples": entry["training_samples"],
        "seconds": entry["training_seconds"],
        "cpu_seconds": entry["training_cpu_seconds"],
        "accuracy": entry["success_rate"],
        "ci95": entry["success_ci95"],
        "by_rank": entry["by_rank"],
        "test_samples": entry["samples"],
        "levels": [[line["step"], line["note"]] for line in lines if "level" in str(line.get("note"))],
        "curve": [[x["step"], round(x["time/total_seconds"], 1), x["test/accuracy"]] for x in thinned],
        "machine": machine,
        "date": entry["date"],
    }


if __name__ == "__main__":
    main()

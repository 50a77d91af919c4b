"""Report of what `gpu_check` found on a GPU.

    python -m benchmarks.speed.gpu_report                      # from results/gpu_check/h100.jsonl
    python -m benchmarks.speed.gpu_report FOLDER/gpu_check.jsonl --out FOLDER   # of your own card

Writes gpu_check.{json,md}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.common import RESULTS, Tables
from benchmarks.report import CORE_NAMES, Report, Row

STORED = RESULTS / "gpu_check" / "h100.jsonl"


def tables_of(rows: Sequence[Row]) -> Tables:
    """Return the tables of the stages that ran; a stage without results has none."""
    tables = {
        "Target": [_training(row) for row in _named(rows, "target", "training")],
        "Speed": [_speed(row) for row in _named(rows, "speed", "speed")],
        "Tasks": [_task(row) for row in _named(rows, "task-speed", "speed")],
        "Graphs in all tasks": [_recorded(row) for row in _named(rows, "tasks", "tasks")],
        "Kernels": [_kernels(row) for row in _named(rows, "triton", "sequence")],
        "Graphs": [_graphs(row) for row in _named(rows, "graphs", "graphs")],
        "Profile": [_profile(row) for row in _named(rows, "kernels", "kernels")],
        "Rates": list(_rates(rows)),
        "Checks": list(_checks(rows)),
    }
    return {title: table for title, table in tables.items() if table}


def _named(rows: Iterable[Row], stage: str, what: str) -> Iterable[Row]:
    """Return the results of a kind that were measured."""
    return (
        row
        for row in rows
        if (row["stage"], row["what"]) == (stage, what) and not {"failed", "skipped"} & set(row)
    )


def _training(row: Row) -> Row:
    return {
        "flags": f"`{row['flags']}`" if row["flags"] else "none (the preset)",
        "solved": row["solved"],
        "environment steps": row["steps"],
        "steps/s": row["steps_per_s"],
        "training (s)": row["training_s"],
        "with start and end (s)": row["wall_s"],
    }


def _speed(row: Row) -> Row:
    return {
        "core": CORE_NAMES[row["core"]],
        "environments": row["envs"],
        "steps": row["steps"],
        "L": row["L"],
        "minibatch": row["minibatch"],
        "computed with": row["mode"],
        "steps/s": row["steps_per_s"],
        "collecting, steps/s": row["collect_steps_per_s"],
        "gradient step (ms)": row["gradient_step_ms"],
        "peak GB": row.get("peak_GB"),
    }


def _task(row: Row) -> Row:
    speed = _speed(row)
    del speed["computed with"]
    return {"task": row["task"], **speed}


def _recorded(row: Row) -> Row:
    return {
        "task": row["task"],
        "rollout in a graph": "yes" if row["rollout_recorded"] else "no",
        "largest difference of weights": f"{row['difference']:.0e}" if row["difference"] else "0",
    }


def _kernels(row: Row) -> Row:
    return {
        "core": CORE_NAMES[row["core"]],
        "precision": row["precision"],
        "T": row["T"],
        "B": row["B"],
        "PyTorch (ms)": row["PyTorch_ms"],
        "PyTorch, graph (ms)": row["PyTorch_graph_ms"],
        "Triton (ms)": row["ms"],
        "Triton, graph (ms)": row["graph_ms"],
        "relative difference": f"{row['difference']:.0e}",
    }


def _graphs(row: Row) -> Row:
    return {
        "core": CORE_NAMES[row["core"]],
        "minibatch": row["minibatch"],
        "by the host (ms)": row["host_step_ms"],
        "graph (ms)": row["graph_step_ms"],
        "largest difference of weights": f"{row['difference']:.0e}" if row["difference"] else "0",
    }


def _profile(row: Row) -> Row:
    return {
        "core": CORE_NAMES[row["core"]],
        "precision": row["precision"],
        "minibatch": row["minibatch"],
        "part": row["part"],
        "kernels": row["kernels"],
        "GPU busy (us)": row["busy_us"],
        "by the host (us)": row["wall_us"],
    }


def _rates(rows: Iterable[Row]) -> Iterable[Row]:
    """Return the ceilings of the card: bytes, products and launches."""
    for row in rows:
        if row["what"] == "copy":
            yield {"what": "copy, bytes read and written", "rate": row["TB_per_s"], "unit": "TB/s"}
        elif row["what"] == "product":
            what = f"product {row['size']}, {row['precision']}"
            yield {"what": what, "rate": row["TFLOP_per_s"], "unit": "TFLOP/s"}
        elif row["what"].startswith("launch "):
            yield {"what": row["what"], "rate": row["us"], "unit": "us"}


def _checks(rows: Sequence[Row]) -> Iterable[Row]:
    """Return what was compared, and how much of it agreed."""
    for row in rows:
        if row["what"] == "checks that passed":
            what = "environments, cores, gradients, updates: equal to a CPU up to rounding"
            yield {"check": what, "passed": row["count"], "failed": _failures(rows, "checks")}
        elif row["what"] == "waits in an iteration":
            own = [number for place, number in row["places"].items() if not place.startswith("__init__")]
            yield {
                "check": "waits of the host in an iteration: 2",
                "passed": int(sum(own) == 2),
                "failed": int(sum(own) != 2),
            }
        elif row["what"] == "resumed run equals the uninterrupted one":
            yield {"check": row["what"], "passed": int(row["passed"]), "failed": int(not row["passed"])}
    for stage, what, check in (
        ("tasks", "waits", "tasks whose steps let the host wait for nothing"),
        ("tasks", "tasks", "tasks in which training in graphs changes no weight"),
        ("cores", "cores", "cores with which training in graphs changes no weight"),
    ):
        passed = [bool(row.get("passed")) for row in rows if (row["stage"], row["what"]) == (stage, what)]
        if passed:
            yield {"check": check, "passed": sum(passed), "failed": len(passed) - sum(passed)}
    chains = [row for row in rows if row["stage"] == "commands"]
    if chains:
        passed = sum(row["passed"] for row in chains)
        what = "chains of commands: tasks, cores, options, evaluation, export, resuming"
        yield {"check": what, "passed": passed, "failed": len(chains) - passed}


def _failures(rows: Iterable[Row], stage: str) -> int:
    return sum(row["stage"] == stage and row.get("passed") is False for row in rows)


NOTES = [
    "The stages of `python -m benchmarks.speed.gpu_check`, in several calls, each on a card of this kind.",
    "Speed: training in MemoryS13, 4 epochs, medians of 3 iterations after a warm-up. graphs: CUDA graphs. "
    "float32 and tf32 use the Triton kernels, which multiply in TF32x3 and TF32; PyTorch is float32 without "
    "them; RNN and DNC have none.",
    "Tasks: the same with an RMC in other tasks, in TF32 and graphs. Graphs in all tasks: a GRU in 64 "
    "environments, 32 steps, one epoch with minibatches of 512.",
    "Target: `python train/ppo.py --env MiniGrid-MemoryS13-v0 --seed 11 --processes 1 --device cuda FLAGS` "
    "until 99 % of the latest episodes are solved; one seed each. Training: without imports, compilation and "
    "start.",
    "Kernels: outputs and all gradients of a sequence of T steps and B rows; the difference is the largest "
    "of them, relative to PyTorch in the same precision.",
    "Profile: without graphs; the GPU is busy for a part of the time that the host takes.",
]


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?", default=STORED, help="a file of gpu_check")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the report")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.results.read_text().splitlines()]
    found = next((row for row in rows if row["what"] == "machine"), {})
    kept = ("python", "torch", "triton", "numpy", "gymnasium", "minigrid")
    machine = {
        "GPU": found.get("gpu"),
        "cores": found.get("cpus"),
        "torch threads": [1],
        "versions": {name: found[name] for name in (*kept, "cuda") if name in found},
    }
    report = Report(
        "benchmarks.speed.gpu_report", "GPU check", machine, tables_of(rows), NOTES, files="gpu_check"
    )
    report.print()
    report.write(args.out)


if __name__ == "__main__":
    main()

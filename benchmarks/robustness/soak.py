"""Soak test: kills, damaged files, attacks and long runs, in large numbers.

    python -m benchmarks.robustness.soak            # about ten minutes; writes results/reliability.{json,md}
    python -m benchmarks.robustness.soak --report   # the report from stored results
    python -m benchmarks.robustness.soak --quick    # see whether it runs: half a minute

- kills: a training run is killed (kill -9) at random moments and resumed, again and again. In the end it must
  equal an uninterrupted one bit for bit, and its logs must hold every step once.
- mutations: damaged and forged checkpoints and config.json are loaded. Each must load, or be refused with one
  message.
- attacks: forged archives, damaged newest checkpoints, two trainers in one run folder, a full disk behind
  stdout, hostile names of run folders. None may lose a checkpoint or end a run.
- growth: memory and open files over 10,000 iterations.

A soak that is stopped continues with the next part when it is started again. The tests run the same functions
with smaller counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Tables, make_parser, make_report
from benchmarks.report import Row, target
from benchmarks.robustness.attacks import attack
from benchmarks.robustness.growth import measure_growth
from benchmarks.robustness.kills import LONGEST, kill_and_resume
from benchmarks.robustness.mutations import is_clear, mutate_checkpoints, mutate_configs
from benchmarks.robustness.processes import SMALL_CORES, tiny_run

FILES = "reliability"
"""Name of the result files."""
QUICK = {"kills": 12, "mutations": 50, "configs": 20, "attacks": 1, "iterations": 50}
NOTES = [
    "Kills: `kill -9` of a training run that is resumed by `--auto-resume`. One half comes up to "
    f"{LONGEST} seconds after a start, the other up to 0.3 seconds after the first checkpoint since. A "
    "checkpoint is saved after every iteration, or every 0.05 seconds. Checkpoints lost: the newest readable "
    "checkpoint is older than one that existed before the kill. Equal: every parameter, moment, generator, "
    "memory and environment after the last kill.",
    "Mutated checkpoints: bits, bytes and blocks are changed, in the file and, with valid checksums, in its "
    "records. A file that was read and then loaded by a training run is well-formed, with other or the same "
    "contents.",
    "Mutated config.json: values of other types, missing keys, changed letters.",
    "Attacks: archives in which readers of zip files see different records; files that cannot be read, with "
    "higher numbers than the good checkpoints and at least as many as are kept; a second process that starts "
    "or resumes the run that a first one trains; a full disk behind stdout, or behind stdout and stderr; "
    "brackets, quotes, control characters and the like in the name of the run folder.",
]


def make_parts(args: argparse.Namespace) -> dict[str, Callable[[Path], Any]]:
    """Return the parts of the soak by name; each takes a temporary folder."""
    parts: dict[str, Callable[[Path], Any]] = {
        "growth": lambda folder: measure_growth(folder, args.iterations)
    }
    for n, core in enumerate(SMALL_CORES):
        share = args.kills // len(SMALL_CORES) + (n < args.kills % len(SMALL_CORES))
        parts[f"kills-{core}"] = lambda folder, x=(share, core, n): kill_and_resume(folder, *x)
    parts["mutations"] = lambda folder: mutate_checkpoints(tiny_run(folder), args.mutations)
    parts["configs"] = lambda folder: mutate_configs(tiny_run(folder), args.configs)
    parts["attacks"] = lambda folder: attack(folder, args.attacks)
    return parts


def measure(args: argparse.Namespace) -> Tables:
    """Run all parts that have not been run yet, and return the tables."""
    torch.set_num_threads(args.threads[0])
    # The results of finished parts, so that a soak that was stopped does not repeat them.
    state = args.out / f"{FILES}.unfinished.json"
    done: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {}
    for name, part in make_parts(args).items():
        if name not in done:
            print(f"{name} ...", flush=True)
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="soak-") as folder:
                result = part(Path(folder))
            done[name] = {"result": result, "minutes": (time.monotonic() - started) / 60}
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text(json.dumps(done))
        print(done[name], flush=True)
    tables = make_tables({name: part["result"] for name, part in done.items()})
    tables["Duration"] = [{"part": name, "minutes": part["minutes"]} for name, part in done.items()]
    state.unlink()
    return tables


def make_tables(results: Mapping[str, Any]) -> Tables:
    """Return the tables of the results, by the name of the part."""
    grown: list[Row] = results["growth"]
    killed: list[Row] = [results[f"kills-{core}"] for core in SMALL_CORES]
    mutated, configs = (Counter[str](results[name]) for name in ("mutations", "configs"))
    return {
        "Targets": [*target_table(grown, killed, mutated, configs), *attack_targets(results["attacks"])],
        "Kills": killed,
        "Mutated checkpoints": outcome_table(mutated),
        "Mutated config.json": outcome_table(configs),
        "Attacks": results["attacks"],
        "Memory and open files": grown,
    }


def target_table(
    grown: list[Row], killed: list[Row], mutated: Counter[str], configs: Counter[str]
) -> list[Row]:
    """Return the targets, and whether they were reached."""
    first, last = grown[0], grown[-1]
    kills = sum(row["kills"] for row in killed)
    lost = sum(row["checkpoints lost"] for row in killed)
    unequal = sum(row["equal to an uninterrupted run"] != "yes" for row in killed)
    doubled = sum(row["steps doubled in log.jsonl"] + row["steps doubled in TensorBoard"] for row in killed)
    between = f"iteration {first['iteration']:,.0f} and {last['iteration']:,.0f}"
    more = 100 * (last["memory (MiB)"] / first["memory (MiB)"] - 1)
    files = last["open files"] - first["open files"]
    return [
        target(f"checkpoints lost in {kills} kills at random moments", lost, at_most=0),
        target("runs that differ from an uninterrupted one", unequal, at_most=0),
        target(
            f"mutated checkpoints, of {mutated.total():,}, neither loaded nor refused clearly",
            count_unclear(mutated),
            at_most=0,
        ),
        target(
            f"mutated config.json, of {configs.total():,}, neither loaded nor refused clearly",
            count_unclear(configs),
            at_most=0,
        ),
        target(f"growth of memory between {between} (%)", round(more, 2), at_most=1),
        target("growth of the number of open files between them", files, at_most=0),
        target("steps doubled in log.jsonl or TensorBoard after all kills", doubled, at_most=0),
    ]


def attack_targets(attacks: list[Row]) -> list[Row]:
    """Return the targets of the attacks: none does damage."""
    return [target(f"{row['attack']}, of {row['attempts']}", row["damage"], at_most=0) for row in attacks]


def count_unclear(outcomes: Counter[str]) -> int:
    """Return the number of files that were neither loaded nor refused with one message."""
    return sum(n for text, n in outcomes.items() if not is_clear(Counter([text])))


def outcome_table(outcomes: Counter[str]) -> list[Row]:
    """Return the number of files by outcome, the most frequent one first."""
    return [{"outcome": text, "files": n} for text, n in outcomes.most_common()]


def main() -> None:
    """Run the soak, and write the report."""
    parser = make_parser(__doc__, threads=(1,))
    parser.add_argument("--kills", type=int, default=200, help="kills, over all cores")
    parser.add_argument("--mutations", type=int, default=10_000, help="mutated checkpoints")
    parser.add_argument("--configs", type=int, default=2_000, help="mutated config.json")
    parser.add_argument("--attacks", type=int, default=20, help="attempts of each attack on training")
    parser.add_argument("--iterations", type=int, default=10_000, help="iterations of the long run")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(QUICK)
    report = make_report("benchmarks.robustness.soak", "Reliability", args, measure, files=FILES)
    report.notes = list(NOTES)
    report.print()
    report.write(args.out)


if __name__ == "__main__":
    main()

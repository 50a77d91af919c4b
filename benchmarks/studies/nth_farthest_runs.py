"""The runs of the Nth Farthest study: their flags, and the tables that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

SCRIPT = "train/nth_farthest.py"
HELD_OUT_SAMPLES = 100_000
"""Questions of a second test of every run."""
HELD_OUT_SEED = 5_000_000
"""Fixes these questions. No setting was chosen on them."""
UNSEEN_SEED = 7_000_000
"""Fixes as many other questions, for runs with `needs_unseen_test`."""


@dataclass(frozen=True)
class Run:
    """One training run, by the flags that differ from the script's defaults."""

    table: str
    """Title of the table that shows it."""
    flags: tuple[str, ...]
    """Flags of train/nth_farthest.py."""
    change: str = ""
    """How an ablation differs from the complete RMC."""
    same_time_as: str | None = None
    """Train for as many minutes as that run took, instead of on as many samples."""
    continues: str | None = None
    """Start from the end of that run. Its learning rate had fallen to 0 by then, and rises again."""
    needs_unseen_test: bool = False
    """Made because of the held-out accuracy of the run before it, so that a third test is needed."""


SAMPLES, TIME = "Equal samples", "Equal wall time"
FIRST_SAMPLES, LONGER = "Equal samples, first recipe", "More samples, first recipe"
FEW = "Two million samples, first recipe"
NO_LEVELS = "Two million samples, first recipe without levels"
ABLATIONS = "Ablations of RMC, first recipe"
SEED_14, SEED_11 = ("--seed", "14"), ("--seed", "11")
"""No setting was chosen on these seeds: that was done with RMC on seed 0."""
ENDLESS, FEWER = ("--total-samples", "1e9"), ("--total-samples", "2000000")
FIRST_NO_LEVELS = ("--muon-lr", "0.01", "--aux-coef", "5", "--aux-until", "0.85")
FIRST_RECIPE = (*FIRST_NO_LEVELS, "--ranks", "1", "2", "4", "8")
"""The script's defaults until a lower learning rate was found to be better. Runs of this recipe are compared
with one another only."""
INPUT_ONLY = ("--core-options", "slot_attention=none")
NO_AUXILIARY = ("--no-aux-targets", "--extra-steps", "0", "--vector-scale", "1", "--muon-lr", "0")
RUNS: dict[str, Run] = {
    "rmc": Run(SAMPLES, ("--core", "rmc", *SEED_14)),
    "rmc-s15": Run(SAMPLES, ("--core", "rmc", "--seed", "15")),
    "rmc-s16": Run(SAMPLES, ("--core", "rmc", "--seed", "16")),
    "dnc": Run(SAMPLES, ("--core", "dnc", *SEED_14)),
    "lstm": Run(SAMPLES, ("--core", "lstm", *SEED_14)),
    "gru": Run(SAMPLES, ("--core", "gru", *SEED_14)),
    "delta-rmc": Run(SAMPLES, ("--core", "delta_rmc", *SEED_14)),
    "delta-rmc-s15": Run(SAMPLES, ("--core", "delta_rmc", "--seed", "15")),
    "dnc-time": Run(TIME, ("--core", "dnc", *SEED_14, *ENDLESS), same_time_as="rmc"),
    "lstm-time": Run(TIME, ("--core", "lstm", *SEED_14, *ENDLESS), same_time_as="rmc"),
    "gru-time": Run(TIME, ("--core", "gru", *SEED_14, *ENDLESS), same_time_as="rmc"),
    "rmc-first": Run(FIRST_SAMPLES, ("--core", "rmc", *SEED_11, *FIRST_RECIPE)),
    "rmc-first-s12": Run(FIRST_SAMPLES, ("--core", "rmc", "--seed", "12", *FIRST_RECIPE)),
    "rmc-first-s13": Run(FIRST_SAMPLES, ("--core", "rmc", "--seed", "13", *FIRST_RECIPE)),
    "dnc-first": Run(FIRST_SAMPLES, ("--core", "dnc", *SEED_11, *FIRST_RECIPE)),
    "lstm-first": Run(FIRST_SAMPLES, ("--core", "lstm", *SEED_11, *FIRST_RECIPE)),
    "rmc-longer": Run(LONGER, ("--total-samples", "12000000"), continues="rmc-first"),
    "rmc-longest": Run(LONGER, ("--total-samples", "15000000"), continues="rmc-longer"),
    "rmc-16m": Run(LONGER, ("--total-samples", "16400000"), continues="rmc-longest"),
    "rmc-22m": Run(LONGER, ("--total-samples", "22400000"), continues="rmc-16m"),
    "rmc-25m": Run(LONGER, ("--total-samples", "24600000"), continues="rmc-22m", needs_unseen_test=True),
    "rmc-s12-longer": Run(LONGER, ("--total-samples", "7800000"), continues="rmc-first-s12"),
    "rmc-s13-longer": Run(LONGER, ("--total-samples", "7800000"), continues="rmc-first-s13"),
    "dnc-longer": Run(LONGER, ("--total-samples", "1e9", "--minutes", "90.64"), continues="dnc-first"),
    "rmc-fewer": Run(FEW, ("--core", "rmc", *FEWER, *FIRST_RECIPE), "none: the complete RMC"),
    "lstm-fewer": Run(FEW, ("--core", "lstm", *FEWER, *FIRST_RECIPE)),
    "gru-fewer": Run(FEW, ("--core", "gru", *FEWER, *FIRST_RECIPE)),
    "dnc-fewer": Run(FEW, ("--core", "dnc", *FEWER, *FIRST_RECIPE)),
    "dnc-no-levels": Run(NO_LEVELS, ("--core", "dnc", *FEWER, *FIRST_NO_LEVELS)),
    "lstm-no-levels": Run(NO_LEVELS, ("--core", "lstm", *FEWER, *FIRST_NO_LEVELS)),
    "rmc-own-slot": Run(
        ABLATIONS,
        (*FEWER, "--core-options", "slot_attention=own", *FIRST_RECIPE),
        "each slot attends to the input and itself",
    ),
    "rmc-input-only": Run(
        ABLATIONS, (*FEWER, *INPUT_ONLY, *FIRST_RECIPE), "each slot attends to the input only"
    ),
    "rmc-input-only-no-levels": Run(
        ABLATIONS, (*FEWER, *INPUT_ONLY, *FIRST_NO_LEVELS), "the same, and no levels"
    ),
    "rmc-slots-1": Run(ABLATIONS, (*FEWER, "--core-options", "num_slots=1", *FIRST_RECIPE), "1 slot"),
    "rmc-slots-4": Run(ABLATIONS, (*FEWER, "--core-options", "num_slots=4", *FIRST_RECIPE), "4 slots"),
    "rmc-slots-16": Run(ABLATIONS, (*FEWER, "--core-options", "num_slots=16", *FIRST_RECIPE), "16 slots"),
    "rmc-gate-memory": Run(
        ABLATIONS,
        (*FEWER, "--core-options", "gate_style=memory", *FIRST_RECIPE),
        "one gate per slot instead of one per number",
    ),
    "rmc-gate-none": Run(ABLATIONS, (*FEWER, "--core-options", "gate_style=none", *FIRST_RECIPE), "no gates"),
    "rmc-no-levels": Run(ABLATIONS, (*FEWER, *FIRST_NO_LEVELS), "no levels"),
    "rmc-no-aux-targets": Run(ABLATIONS, (*FEWER, "--no-aux-targets", *FIRST_RECIPE), "no auxiliary targets"),
    "rmc-paper-training": Run(
        ABLATIONS,
        (*FEWER, *NO_AUXILIARY),
        "training as in the paper: no auxiliary targets, extra answers or levels, unscaled vectors, Adam "
        "only",
    ),
}
"""By name, the most important ones first."""
REFERENCES = {LONGER: "rmc-first", TIME: "rmc", NO_LEVELS: "rmc-no-levels", ABLATIONS: "rmc-fewer"}
"""The run of another table that a table is compared with; it comes first there."""
MAIN_RUNS = (
    "rmc",
    "rmc-s15",
    "rmc-s16",
    "delta-rmc",
    "delta-rmc-s15",
    "dnc",
    "gru",
    "lstm",
    "dnc-time",
    "gru-time",
    "lstm-time",
    "rmc-25m",
)
"""Runs of the summary of cores."""


def runs_in(table: str) -> list[str]:
    """Return the names of a table's runs, with its reference first."""
    names = [name for name, run in RUNS.items() if run.table == table]
    return [REFERENCES[table], *names] if table in REFERENCES else names


def root_of(name: str) -> str:
    """Return the run that a run continues, in the end: the one that started untrained."""
    before = RUNS[name].continues
    return name if before is None else root_of(before)

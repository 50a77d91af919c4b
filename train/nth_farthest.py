"""Reproduce the paper's claim: `python train/nth_farthest.py --core rmc`; `--evaluate` shows the trained RMC.

Supervised: the answer after the last of eight objects, as in Santoro et al. 2018, A.1. Training has auxiliary
losses (auxiliary targets, answers in between) and levels on request, the same for every core; the test has
none. The scale of the vectors is part of the network.
"""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rmc_agents.cli.config import Imports
from rmc_agents.cli.resume import require_same_folder, run_to_resume
from rmc_agents.cli.script import (
    changed_fields,
    checking,
    choose_device,
    command_name,
    parse,
    parse_some,
    resume_command,
    run_script,
)
from rmc_agents.errors import Interrupted, UsageError
from rmc_agents.options import Options
from rmc_agents.plugins import import_modules, load_installed
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import checkpoints, free_run_dir, read_config
from rmc_agents.runs.versions import versions
from rmc_agents.supervised.classifier import SequenceClassifier, export_classifier, load_classifier
from rmc_agents.supervised.evaluate import evaluate_classifier, pooled
from rmc_agents.supervised.objective import Examples, SupervisedConfig
from rmc_agents.supervised.trainer import SupervisedTrainer
from rmc_envs.sequences.nth_farthest import (
    compute_auxiliary_targets,
    count_auxiliary_targets,
    draw_questions,
)

BUNDLED_RUN = Path(__file__).resolve().parents[1] / "trained" / "nth-farthest-rmc"
"""Run folder of the trained RMC in the repository; a wheel does not hold it."""
NUM_OBJECTS, NUM_DIMS = 8, 16
"""Of the paper."""
LEVELS = {"ranks": (1, NUM_OBJECTS), "objects": (2, NUM_OBJECTS), "dims": (1, NUM_DIMS)}
"""Settings that may grow by level: the smallest value, and the paper's."""
NOT_SAVED = ("device", "threads", "checkpoint_seconds")
"""Flags that a run folder does not keep."""


@dataclass(frozen=True)
class NthFarthestConfig:
    """Train a memory core on Nth Farthest, or evaluate trained ones."""

    core: str = "rmc"
    """Memory core: rmc, lstm, gru, rnn, dnc, feedforward, or one that an --import registered."""
    core_options: Options = field(default_factory=dict)
    """Options of the core, such as `--core-options num_slots=8 head_size=32`; added to those used here."""
    ranks: tuple[int, ...] = (NUM_OBJECTS,)
    """Levels of training: in each, n is uniform below that number (1 asks for the farthest only). The last
    must be 8, the whole task."""
    objects: tuple[int, ...] = (NUM_OBJECTS,)
    """Levels of training: number of objects in a sequence, with labels out of 8. The last must be 8. A level
    of --ranks above that number asks for any of them."""
    dims: tuple[int, ...] = (NUM_DIMS,)
    """Levels of training: number of dimensions of the vectors; the others are 0. The last must be 16."""
    vector_scale: float = 4.0
    """Factor of the vectors before the network reads them, in training and test alike."""
    aux_targets: bool = True
    """In training, a linear layer on the core's output predicts for each label the vector, its difference
    from the reference and their distance."""

    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    target_accuracy: float | None = None
    """Stop once this share is right in a test of the task itself (--test-every); None uses the whole budget.
    The learning rate may still be high then; --average-updates compensates for most of that."""

    seed: int = 0
    """Fixes weights and questions."""
    device: str = "auto"
    """auto (cuda if there is a GPU), cpu, cuda, cuda:1, ..."""
    threads: int = 1
    """CPU threads of torch; 0 leaves the choice to torch."""
    imports: Imports = ()
    """Module that registers user-defined cores; one flag per module. The run folder remembers them."""
    run_dir: Path | None = None
    """Run folder; runs/nth-farthest-CORE-SEED if not given."""
    resume: Path | None = None
    """Run folder to resume; other settings are read from it, except --device, --threads, --total-samples,
    --minutes, --target-accuracy and --checkpoint-seconds."""
    auto_resume: bool = False
    """Resume --run-dir if it holds a run, else start one there: a job that may be stopped at any time can be
    restarted with the same command."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; a final checkpoint is always saved."""

    evaluate: tuple[Path, ...] | None = None
    """Do not train: evaluate these run folders on the test distribution; without a name, the RMC in the
    repository."""
    export: Path | None = None
    """With --evaluate of one run: write its network alone, in half precision, as a run folder there, and
    evaluate that."""
    test_samples: int = 20_000
    """Number of fresh questions in an evaluation."""
    test_seed: int = 1_000_000
    """Seed of the test questions; far from the seeds of training."""

    def __post_init__(self) -> None:
        bad = [f"{name}={value}" for name, value in self._out_of_range().items()]
        if bad:
            raise ValueError(
                f"{', '.join(bad)}: expected a scale above 0, a share above 0 and up to 1, a seed from 0 to "
                f"2^63 - 1, at least 1 test sample, and no negative threads or seconds"
            )
        for name, (least, whole) in LEVELS.items():
            levels = getattr(self, name)
            if not levels or levels[-1] != whole or not all(least <= level <= whole for level in levels):
                raise ValueError(
                    f"--{name} {' '.join(map(str, levels))}: expected levels from {least} to {whole}, the "
                    f"last of them {whole}, the whole task"
                )
        if self.export is not None and (self.evaluate is None or len(self.evaluate) != 1):
            raise ValueError("--export needs --evaluate with one run")

    def _out_of_range(self) -> dict[str, float]:
        share = 1.0 if self.target_accuracy is None else self.target_accuracy
        checks = {
            "vector_scale": (self.vector_scale, 0 < self.vector_scale < math.inf),
            "target_accuracy": (share, 0 < share <= 1),
            "seed": (self.seed, 0 <= self.seed < 2**63),
            "test_seed": (self.test_seed, 0 <= self.test_seed < 2**63),
            "test_samples": (self.test_samples, self.test_samples >= 1),
            "threads": (self.threads, self.threads >= 0),
            "checkpoint_seconds": (self.checkpoint_seconds, self.checkpoint_seconds >= 0),
        }
        return {name: value for name, (value, fits) in checks.items() if not fits}


@dataclass(frozen=True)
class Selection:
    """The flags that decide about the defaults of all others."""

    run_dir: Path | None = None
    resume: Path | None = None
    auto_resume: bool = False
    imports: Imports = ()


CORE_OPTIONS: dict[str, dict[str, Any]] = {
    "rmc": {"num_slots": 8, "num_heads": 4, "head_size": 32},
    "lstm": {"hidden_size": 276},
    "gru": {"hidden_size": 314},
    "rnn": {"hidden_size": 508},
    "dnc": {"hidden_size": 184, "num_rows": 16, "row_size": 32, "num_reads": 4},
}
"""Default sizes in this task: with the read-out about 617,000 parameters each."""


class NthFarthestTask:
    """Questions as examples. A level is (n below, objects, dimensions); by default the whole task."""

    num_groups = NUM_OBJECTS

    def __init__(
        self,
        ranks: Sequence[int] = (NUM_OBJECTS,),
        objects: Sequence[int] = (NUM_OBJECTS,),
        dims: Sequence[int] = (NUM_DIMS,),
        *,
        aux_targets: bool,
        device: torch.device | str = "cpu",
    ) -> None:
        kinds = (ranks, objects, dims)
        self.num_levels = max(map(len, kinds))
        # What has fewer levels stays at its last one.
        self.levels = [tuple(kind[min(i, len(kind) - 1)] for kind in kinds) for i in range(self.num_levels)]
        self.aux_targets, self.device = aux_targets, device

    def draw(self, batch_size: int, level: int, generator: torch.Generator | None) -> Examples:
        """Draw fresh questions, in the format of the whole task."""
        max_rank, objects, dims = self.levels[level]
        questions = draw_questions(
            batch_size,
            num_objects=objects,
            num_dims=NUM_DIMS,
            max_rank=min(max_rank, objects),
            num_labels=NUM_OBJECTS,
            used_dims=dims,
            generator=generator,
            device=self.device,
        )
        values, weights = questions.inputs[..., :0], questions.inputs[..., :0]
        if self.aux_targets:
            values, weights = compute_auxiliary_targets(questions, NUM_DIMS, dims)
        return Examples(
            questions.inputs,
            questions.answers_so_far,
            questions.answerable,
            questions.ranks,
            values,
            weights,
        )


def main(args: Sequence[str]) -> None:
    """Parse the flags; train, or evaluate what was trained."""
    with checking():
        selection = parse_some(Selection, args)
        resume = run_to_resume(selection.resume, selection.auto_resume, selection.run_dir)
        notes = load_installed()
        import_modules(selection.imports)
        default = resumed(resume) if resume else None
        config = parse(NthFarthestConfig, default, args, command_name("nth_farthest"))
        if default is not None:  # flags add to the modules that the run folder remembers
            imports = tuple(dict.fromkeys([*default.imports, *config.imports]))
            config = replace(config, imports=imports)
        import_modules(config.imports)
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.evaluate is not None:
            require_no_training(config)
            evaluate_all(config, args)
            return
        if default is not None:
            require_same(default, config)
        trainer = build(config)
        # A run that was killed before its first checkpoint starts again.
        notes += trainer.restore() if resume and checkpoints(trainer.run_dir) else []
        if default is not None:
            require_budget(default, trainer)
    for note in [*notes, f"run folder: {trainer.run_dir}"]:
        print(note, flush=True)
    try:
        trainer.run()
    except Interrupted as stop:
        command = resume_command("nth_farthest", trainer.run_dir, changed_fields(config, NOT_SAVED))
        raise Interrupted(f"{stop}\nresume with: {command}", stop.signal) from None
    print(f"trained on {trainer.samples:,} samples in {trainer.seconds:.0f} s")
    evaluate_run(trainer.run_dir, config, args)


def build(config: NthFarthestConfig) -> SupervisedTrainer:
    """Build the trainer that a configuration describes."""
    device = choose_device(config.device)
    options = {**CORE_OPTIONS.get(config.core, {}), **config.core_options}
    torch.manual_seed(config.seed)
    try:
        model = SequenceClassifier(
            NUM_DIMS + 3 * NUM_OBJECTS,
            NUM_OBJECTS,
            config.core,
            options,
            scaled_inputs=NUM_DIMS,
            input_scale=config.vector_scale,
            aux_size=count_auxiliary_targets(NUM_DIMS, NUM_OBJECTS) if config.aux_targets else 0,
        ).to(device)
    except (RuntimeError, TypeError) as error:  # what a core says of a width of -1 or of "x"
        raise UsageError(f"no {config.core} of core_options {options} can be built: {error}") from error
    task = NthFarthestTask(
        config.ranks, config.objects, config.dims, aux_targets=config.aux_targets, device=device
    )
    described = {name: value for name, value in asdict(config).items() if name in DESCRIBED}
    return SupervisedTrainer(
        model,
        task,
        config.supervised,
        config.resume or config.run_dir or free_run_dir(f"nth-farthest-{config.core}-s{config.seed}"),
        seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
        target_accuracy=config.target_accuracy,
        extra={"nth_farthest": described, "imports": list(config.imports)},
    )


DESCRIBED = ("core", "core_options", *LEVELS, "vector_scale", "aux_targets", "seed")
"""Fields that define a run, besides `supervised`."""
RESUME_MAY_CHANGE = ("total_samples", "minutes")
"""Fields of `supervised` that may change on resume."""


def resumed(run_dir: Path) -> NthFarthestConfig:
    """Return the configuration that a run was started with.

    Raises:
        UsageError: no run of this script.
    """
    saved = read_config(run_dir)
    try:
        described = dict(saved["nth_farthest"])
        described |= {name: tuple(described[name]) for name in LEVELS}
        return NthFarthestConfig(
            **{name: described[name] for name in DESCRIBED},
            supervised=SupervisedConfig(**saved["supervised"]),
            target_accuracy=saved["target_accuracy"],
            imports=tuple(saved.get("imports", ())),
            resume=run_dir,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{run_dir}/config.json does not describe a run of this script: {error}") from error


def require_same(saved: NthFarthestConfig, asked: NthFarthestConfig) -> None:
    """Raise UsageError if flags ask a resumed run to be another run."""
    pairs = [(name, getattr(saved, name), getattr(asked, name)) for name in DESCRIBED]
    old, new = asdict(saved.supervised), asdict(asked.supervised)
    pairs += [(name, old[name], new[name]) for name in old if name not in RESUME_MAY_CHANGE]
    changed = [f"--{n.replace('_', '-')} was {a}, now {b}" for n, a, b in pairs if a != b]
    if changed:
        raise UsageError(f"a resumed run cannot change: {'; '.join(changed)}")
    require_same_folder(asked.resume, asked.run_dir)


def require_budget(saved: NthFarthestConfig, trainer: SupervisedTrainer) -> None:
    """Raise UsageError if a resumed run is given a budget that it has already exceeded."""
    samples, minutes = trainer.config.total_samples, trainer.config.minutes
    # At its end a run may have exceeded its samples a little, and always exceeds its minutes.
    if samples != saved.supervised.total_samples and trainer.samples > samples:
        raise UsageError(f"--total-samples {samples:,}: the run has already learned from {trainer.samples:,}")
    if minutes not in (None, saved.supervised.minutes) and trainer.seconds > 60 * minutes:
        raise UsageError(
            f"--minutes {minutes:g}: the run has already trained for {trainer.seconds / 60:.1f} minutes, "
            "which count from its start"
        )


def require_no_training(config: NthFarthestConfig) -> None:
    """Raise UsageError if --evaluate comes with flags for training."""
    training = (*DESCRIBED, "supervised", "target_accuracy", "run_dir", "resume", "auto_resume")
    plain = NthFarthestConfig()
    given = [n.replace("_", "-") for n in training if getattr(config, n) != getattr(plain, n)]
    if given:
        raise UsageError(
            f"--evaluate uses the network as it is: leave out the flags for training ({', '.join(given)})"
        )


def evaluate_all(config: NthFarthestConfig, args: Sequence[str]) -> None:
    """Evaluate the runs of --evaluate, or the one in the repository."""
    runs = config.evaluate or (BUNDLED_RUN,)
    if not config.evaluate and not BUNDLED_RUN.exists():
        raise UsageError("--evaluate needs a run folder here: the trained RMC is in the repository only")
    if config.export is not None:
        print(f"written: {export_classifier(runs[0], config.export)}")
        runs = (config.export,)
    for run_dir in runs:
        evaluate_run(run_dir, config, args)


def evaluate_run(run_dir: Path, config: NthFarthestConfig, args: Sequence[str]) -> None:
    """Evaluate a run's newest checkpoint: print a table, and write evaluation.json."""
    device = choose_device(config.device)
    import_modules(read_config(run_dir).get("imports", ()))
    model, path, payload = load_classifier(run_dir, device)
    entry = evaluate(model, config.test_samples, config.test_seed)
    entry |= {
        "training_samples": payload.get("counters", [None])[0],
        "training_seconds": payload.get("seconds"),
        "training_cpu_seconds": finite(payload.get("cpu_seconds")),
        "checkpoint": str(path),
        "command": f"{command_name('nth_farthest')} {shlex.join(args)}".strip(),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    show(run_dir.name, model, entry)
    # What the repository holds is written with the network itself, not by everyone who looks at it.
    if run_dir.resolve() != BUNDLED_RUN or config.export is not None:
        write_json(run_dir / "evaluation.json", {"rmc/NthFarthest-v0": entry})
        print(f"figures: {run_dir / 'evaluation.json'}")


def finite(number: float | None) -> float | None:
    """Return None for NaN, which JSON does not know."""
    return number if number is not None and math.isfinite(number) else None


def evaluate(model: SequenceClassifier, samples: int, seed: int) -> dict[str, Any]:
    """Return the accuracy on fresh questions of the paper's distribution, also by n, with 95 % intervals."""
    task = NthFarthestTask(aux_targets=False, device=model.device)
    by_rank = evaluate_classifier(model, task, samples, seed)
    total = pooled(by_rank)
    return {
        "success_rate": total.rate,
        "success_ci95": total.ci95,
        "samples": samples,
        "first_seed": seed,
        "by_rank": [each.rate for each in by_rank],
        "by_rank_ci95": [each.ci95 for each in by_rank],
        "parameters": {
            "core": sum(p.numel() for p in model.core.parameters()),
            "all": sum(p.numel() for n, p in model.named_parameters() if not n.startswith("aux_head.")),
        },
    }


def show(name: str, model: SequenceClassifier, entry: dict[str, Any]) -> None:
    """Print a table of accuracies: of all questions, and of those of each n."""
    low, high = entry["success_ci95"]
    title = (
        f"{name} ({model.core_name}, {entry['parameters']['all']:,} parameters): "
        f"{entry['success_rate']:.4f} [{low:.4f}, {high:.4f}] of {entry['samples']:,} questions"
    )
    caption = "0.25 is reachable without relations; chance is 0.125"
    table = Table(title=title, title_justify="left", caption=caption)
    table.add_column("n")
    for rank in range(NUM_OBJECTS):
        words = {0: "farthest", NUM_OBJECTS - 1: "itself"}
        table.add_column(words.get(rank, str(rank + 1)), justify="right")
    table.add_row("right", *("-" if share is None else f"{share:.3f}" for share in entry["by_rank"]))
    console = Console()
    (console if console.is_terminal else Console(width=100)).print(table)


def cli() -> None:
    """Run the script as a command."""
    run_script(main, NthFarthestConfig)


if __name__ == "__main__":
    cli()

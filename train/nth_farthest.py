"""Reproduce the paper's claim: `python train/nth_farthest.py --core rmc`; `--evaluate` shows what it gave.

Supervised: the answer after the last of eight objects, as in Santoro et al. 2018, A.1. Training has
aids (hints, answers in between, and levels where they are asked for), the same for every core; the test has
none. The scale of the vectors is part of the network.
"""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from envs.nth_farthest import count_hints, draw_hints, draw_questions
from rmc_agents.checkpoint import checkpoints, free_run_dir, read_config, write_json
from rmc_agents.classifier import SequenceClassifier, export_classifier, load_classifier
from rmc_agents.cli import choose_device, parse, resume_command, run_script
from rmc_agents.config import Options
from rmc_agents.errors import Interrupted, UsageError
from rmc_agents.examples import Examples, SupervisedConfig, count_right
from rmc_agents.resume import require_same_folder, run_to_resume
from rmc_agents.statistics import wilson
from rmc_agents.supervised import SupervisedTrainer
from rmc_agents.versions import versions

KEPT = Path(__file__).parents[1] / "trained" / "nth-farthest-rmc"
"""The run folder of the trained RMC that comes with the repository."""
NUM_OBJECTS, NUM_DIMS = 8, 16
"""The paper's."""
LEVELS = {"ranks": (1, NUM_OBJECTS), "objects": (2, NUM_OBJECTS), "dims": (1, NUM_DIMS)}
"""What may grow while training: from the least on, to the paper's."""


@dataclass(frozen=True)
class NthFarthestConfig:
    """Train a memory core to name the n-th farthest vector from the one labelled m, or judge trained ones."""

    core: str = "rmc"
    """Memory core: rmc, lstm, gru, rnn, dnc, feedforward, or your own in CORES."""
    core_options: Options = field(default_factory=dict)
    """The core's own options, as `--core-options num_slots=8 head_size=32`, over those used here."""
    ranks: tuple[int, ...] = (NUM_OBJECTS,)
    """Levels of training: at each n is uniform below that number (1 asks for the farthest only). The last
    must be 8, the whole task."""
    objects: tuple[int, ...] = (NUM_OBJECTS,)
    """Levels of training: objects of a sequence, with labels out of 8. The last must be 8. A level of
    --ranks above that asks for any of them."""
    dims: tuple[int, ...] = (NUM_DIMS,)
    """Levels of training: dimensions that vectors have; the others are 0. The last must be 16."""
    vector_scale: float = 4.0
    """The vectors are multiplied by that before they are read, in training and test alike."""
    hints: bool = True
    """While training a linear layer on the core's output shall tell, for each label, the vector, its
    difference from the reference and their distance."""

    learning: Annotated[SupervisedConfig, tyro.conf.arg(name="")] = field(default_factory=SupervisedConfig)
    """How to learn."""
    stop_at_accuracy: float | None = None
    """Stop once that share is right at a look at the task itself (--test-every); None uses the whole budget.
    The learning rate need not have fallen by then: --average-updates shows much of what that would bring."""

    seed: int = 0
    """Fixes weights and questions."""
    device: str = "auto"
    """auto (cuda where there is one), cpu, cuda, cuda:1, ..."""
    threads: int = 1
    """CPU threads of torch; 0 leaves the choice to torch."""
    run_dir: Path | None = None
    """Where to save; runs/nth-farthest-CORE-SEED if not given."""
    resume: Path | None = None
    """A run folder to go on with; all else is taken from there, but for --device, --threads,
    --total-samples, --minutes, --stop-at-accuracy and --checkpoint-seconds."""
    auto_resume: bool = False
    """Go on with --run-dir if it holds a run, else start one there: a job that may be stopped at any time is
    started again with the same command."""
    checkpoint_seconds: float = 60.0
    """How often to save; the end is always saved."""

    evaluate: tuple[Path, ...] | None = None
    """Do not train: judge these run folders on the test distribution; without a name the RMC that comes with
    the repository."""
    export: Path | None = None
    """With --evaluate of one run: write its network alone, in half precision, as a run folder there, and
    judge that."""
    test_samples: int = 20_000
    """Fresh questions to judge by."""
    test_seed: int = 1_000_000
    """Fixes them; far from the seeds of training."""

    def __post_init__(self) -> None:
        bad = [f"--{name} {value}" for name, value in self._out_of_range().items()]
        if bad:
            raise ValueError(
                f"{', '.join(bad)}: expected a scale above 0, a share above 0 and up to 1, a seed of 0 to "
                f"2^63 - 1, at least 1 test sample, and no negative threads or seconds"
            )
        for name, (least, whole) in LEVELS.items():
            levels = getattr(self, name)
            if not levels or levels[-1] != whole or not all(least <= level <= whole for level in levels):
                raise ValueError(
                    f"--{name} {' '.join(map(str, levels))}: expected levels of {least} to {whole}, the last "
                    f"of them {whole}, the whole task"
                )
        if self.export is not None and (self.evaluate is None or len(self.evaluate) != 1):
            raise ValueError("--export goes with --evaluate and one run")

    def _out_of_range(self) -> dict[str, float]:
        share = 1.0 if self.stop_at_accuracy is None else self.stop_at_accuracy
        checks = {
            "vector-scale": (self.vector_scale, 0 < self.vector_scale < math.inf),
            "stop-at-accuracy": (share, 0 < share <= 1),
            "seed": (self.seed, 0 <= self.seed < 2**63),
            "test-seed": (self.test_seed, 0 <= self.test_seed < 2**63),
            "test-samples": (self.test_samples, self.test_samples >= 1),
            "threads": (self.threads, self.threads >= 0),
            "checkpoint-seconds": (self.checkpoint_seconds, self.checkpoint_seconds >= 0),
        }
        return {name: value for name, (value, fits) in checks.items() if not fits}


CORE_OPTIONS: dict[str, dict[str, Any]] = {
    "rmc": {"num_slots": 8, "num_heads": 4, "head_size": 32},
    "lstm": {"hidden_size": 276},
    "gru": {"hidden_size": 314},
    "rnn": {"hidden_size": 508},
    "dnc": {"hidden_size": 184, "num_rows": 16, "row_size": 32, "num_reads": 4},
}
"""The sizes used here where the flags say nothing: with the read-out about 617,000 parameters each."""


class NthFarthestTask:
    """Questions as examples. A level is (n below, objects, dimensions); without any, the whole task alone."""

    num_groups = NUM_OBJECTS

    def __init__(
        self,
        ranks: Sequence[int] = (NUM_OBJECTS,),
        objects: Sequence[int] = (NUM_OBJECTS,),
        dims: Sequence[int] = (NUM_DIMS,),
        *,
        hints: bool,
        device: torch.device | str = "cpu",
    ) -> None:
        kinds = (ranks, objects, dims)
        self.num_levels = max(map(len, kinds))
        # What has fewer levels stays at its last.
        self.levels = [tuple(kind[min(i, len(kind) - 1)] for kind in kinds) for i in range(self.num_levels)]
        self.hints, self.device = hints, device

    def draw(self, batch_size: int, level: int, generator: torch.Generator | None) -> Examples:
        """Fresh questions, in the format of the whole task."""
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
        if self.hints:
            values, weights = draw_hints(questions, NUM_DIMS, dims)
        return Examples(
            questions.inputs,
            questions.answers_so_far,
            questions.answerable,
            questions.ranks,
            values,
            weights,
        )


def main(args: Sequence[str]) -> None:
    """Parse the flags; train, or judge what was trained."""
    resume = run_to_resume(args)
    try:
        default = resumed(Path(resume)) if resume else None
        config = parse(NthFarthestConfig, default, args, prog="train/nth_farthest.py")
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.evaluate is not None:
            require_no_training(config)
            judge(config, args)
            return
        if default is not None:
            require_same(default, config)
        trainer = build(config)
        # A run that was killed before it first saved begins again.
        notes = trainer.restore() if resume and checkpoints(trainer.run_dir) else []
        if default is not None:
            require_budget(default, trainer)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for note in notes:
        print(note)
    print(f"run folder: {trainer.run_dir}", flush=True)
    try:
        trainer.run()
    except Interrupted as stop:
        command = resume_command("train/nth_farthest.py", trainer.run_dir, args)
        raise Interrupted(f"{stop}\ngo on with: {command}", stop.signal) from None
    print(f"trained on {trainer.samples:,} samples in {trainer.seconds:.0f} s")
    judge_run(trainer.run_dir, config, args)


def build(config: NthFarthestConfig) -> SupervisedTrainer:
    """The trainer that a configuration describes."""
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
            hint_size=count_hints(NUM_DIMS, NUM_OBJECTS) if config.hints else 0,
        ).to(device)
    except (RuntimeError, TypeError) as error:  # what a core says of a width of -1 or of "x"
        raise UsageError(f"no {config.core} of --core-options {options} can be built: {error}") from error
    task = NthFarthestTask(config.ranks, config.objects, config.dims, hints=config.hints, device=device)
    described = {name: value for name, value in asdict(config).items() if name in DESCRIBED}
    return SupervisedTrainer(
        model,
        task,
        config.learning,
        config.resume or config.run_dir or free_run_dir(f"nth-farthest-{config.core}-s{config.seed}"),
        seed=config.seed,
        description={"nth_farthest": described, "stop_at_accuracy": config.stop_at_accuracy},
        checkpoint_seconds=config.checkpoint_seconds,
        stop_at_accuracy=config.stop_at_accuracy,
    )


DESCRIBED = ("core", "core_options", *LEVELS, "vector_scale", "hints", "seed")
"""Fields that make a run what it is, beside `learning`."""
FREE = ("total_samples", "minutes")
"""Of `learning`, what a resumed run may have otherwise."""


def resumed(run_dir: Path) -> NthFarthestConfig:
    """The configuration that a run was started with.

    Raises:
        UsageError: no run of this script.
    """
    saved = read_config(run_dir)
    try:
        # Earlier runs do not know levels of objects.
        described = {"objects": (NUM_OBJECTS,), **saved["nth_farthest"]}
        described |= {name: tuple(described[name]) for name in LEVELS}
        return NthFarthestConfig(
            **{name: described[name] for name in DESCRIBED},
            learning=SupervisedConfig(**saved["supervised"]),
            stop_at_accuracy=saved["stop_at_accuracy"],
            resume=run_dir,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{run_dir}/config.json does not describe a run of this script: {error}") from error


def require_same(saved: NthFarthestConfig, asked: NthFarthestConfig) -> None:
    """Raise UsageError if a resumed run was asked to be another run."""
    pairs = [(name, getattr(saved, name), getattr(asked, name)) for name in DESCRIBED]
    old, new = asdict(saved.learning), asdict(asked.learning)
    pairs += [(name, old[name], new[name]) for name in old if name not in FREE]
    changed = [f"--{n.replace('_', '-')} was {a}, asked for {b}" for n, a, b in pairs if a != b]
    if changed:
        raise UsageError(f"a resumed run cannot change: {'; '.join(changed)}")
    require_same_folder(asked.resume, asked.run_dir)


def require_budget(saved: NthFarthestConfig, trainer: SupervisedTrainer) -> None:
    """Raise UsageError if a resumed run is given a budget beyond which it has gone."""
    samples, minutes = trainer.config.total_samples, trainer.config.minutes
    # At its end a run may have gone a little beyond its samples, and always beyond its minutes.
    if samples != saved.learning.total_samples and trainer.samples > samples:
        raise UsageError(f"--total-samples {samples:,}: the run has learned from {trainer.samples:,} already")
    if minutes not in (None, saved.learning.minutes) and trainer.seconds > 60 * minutes:
        raise UsageError(
            f"--minutes {minutes:g}: the run has trained for {trainer.seconds / 60:.1f} already, and they "
            "count from its beginning"
        )


def require_no_training(config: NthFarthestConfig) -> None:
    """Raise UsageError if beside --evaluate there are flags that say how to train."""
    training = (*DESCRIBED, "learning", "stop_at_accuracy", "run_dir", "resume", "auto_resume")
    plain = NthFarthestConfig()
    given = [n.replace("_", "-") for n in training if getattr(config, n) != getattr(plain, n)]
    if given:
        raise UsageError(
            f"--evaluate takes the network as it is: leave out what says how to train ({', '.join(given)})"
        )


def judge(config: NthFarthestConfig, args: Sequence[str]) -> None:
    """Judge the runs of --evaluate, or the one that comes with the repository."""
    runs = config.evaluate or (KEPT,)
    if config.export is not None:
        print(f"written: {export_classifier(runs[0], config.export)}")
        runs = (config.export,)
    for run_dir in runs:
        judge_run(run_dir, config, args)


def judge_run(run_dir: Path, config: NthFarthestConfig, args: Sequence[str]) -> None:
    """Test a run's newest checkpoint: a table, and evaluation.json."""
    device = choose_device(config.device)
    model, path, payload = load_classifier(run_dir, device)
    entry = test(model, config.test_samples, config.test_seed)
    entry |= {
        "training_samples": payload.get("counters", [None])[0],
        "training_seconds": payload.get("seconds"),
        "training_cpu_seconds": finite(payload.get("cpu_seconds")),
        "checkpoint": str(path),
        "command": shlex.join(["python", "train/nth_farthest.py", *args]),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    show(run_dir.name, model, entry)
    # What the repository holds is written with the network itself, not by everybody who looks at it.
    if run_dir.resolve() != KEPT.resolve() or config.export is not None:
        write_json(run_dir / "evaluation.json", {"rmc/NthFarthest-v0": entry})
        print(f"figures: {run_dir / 'evaluation.json'}")


def finite(number: float | None) -> float | None:
    """JSON knows no NaN."""
    return number if number is not None and math.isfinite(number) else None


def test(model: SequenceClassifier, samples: int, seed: int) -> dict[str, Any]:
    """Accuracy on fresh questions of the paper's distribution, by n, with 95 % intervals."""
    torch.set_flush_denormal(True)
    generator = torch.Generator(model.device).manual_seed(seed)
    task = NthFarthestTask(hints=False, device=model.device)
    right, asked = count_right(model, task, samples, generator).long()
    by_rank = list(zip(right.tolist(), asked.tolist(), strict=True))
    total = int(right.sum())
    return {
        "success_rate": total / samples,
        "success_ci95": wilson(total, samples),
        "samples": samples,
        "first_seed": seed,
        "by_rank": [r / n if n else None for r, n in by_rank],
        "by_rank_ci95": [wilson(r, n) if n else None for r, n in by_rank],
        "parameters": {
            "core": sum(p.numel() for p in model.core.parameters()),
            "all": sum(p.numel() for name, p in model.named_parameters() if not name.startswith("hint.")),
        },
    }


def show(name: str, model: SequenceClassifier, entry: dict[str, Any]) -> None:
    """A table of accuracies: all questions, and those of each n."""
    low, high = entry["success_ci95"]
    title = (
        f"{name} ({model.core_name}, {entry['parameters']['all']:,} parameters): "
        f"{entry['success_rate']:.4f} [{low:.4f}, {high:.4f}] of {entry['samples']:,} questions"
    )
    table = Table(title=title, title_justify="left", caption="2/8 = 0.25 shows no relation; chance is 0.125")
    table.add_column("n")
    for rank in range(NUM_OBJECTS):
        words = {0: "farthest", NUM_OBJECTS - 1: "itself"}
        table.add_column(words.get(rank, str(rank + 1)), justify="right")
    table.add_row("right", *("-" if share is None else f"{share:.3f}" for share in entry["by_rank"]))
    console = Console()
    (console if console.is_terminal else Console(width=100)).print(table)


if __name__ == "__main__":
    run_script(main)

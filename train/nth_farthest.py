"""Reproduce the paper's claim: `python train/nth_farthest.py --core rmc`; `--evaluate` shows the trained RMC.

Supervised: the answer after the last of eight objects, as in Santoro et al. 2018, A.1. Training has auxiliary
losses (auxiliary targets, answers in between) and levels on request, the same for every core; the test has
none. The scale of the vectors is part of the network.
"""

from __future__ import annotations

# First, so that Ctrl-C is handled while the others are imported:
from rmc_agents.cli.start import command_name

# isort: split
import datetime
import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rmc_agents.cli.config import Start
from rmc_agents.cli.flags import in_flags, parse, parse_some
from rmc_agents.cli.processes import Plan, choose_processes, device_of, follow_process_0, train_by_plan
from rmc_agents.cli.resume import require_named, run_to_resume
from rmc_agents.cli.script import checking, choose_device, require_room, resumable, run_script
from rmc_agents.cli.waiting import waiting
from rmc_agents.errors import Incomplete, UsageError, shown
from rmc_agents.evaluation.entries import Entry
from rmc_agents.evaluation.output import output_folder
from rmc_agents.evaluation.results import kept_note, save_entry
from rmc_agents.options import require_sizes
from rmc_agents.plugins import import_modules, load_installed
from rmc_agents.report.tables import Table
from rmc_agents.runs.folder import (
    cannot_write_results,
    checkpoints,
    free_run_dir,
    read_config,
    require_no_run,
)
from rmc_agents.runs.versions import versions
from rmc_agents.scripts.nth_farthest_flags import (  # pyright: ignore[reportMissingImports]
    NUM_DIMS,
    NUM_OBJECTS,
    NthFarthestConfig,
    described,
    ineffective,
    require_budget,
    require_no_training,
    require_same,
    resumed,
)
from rmc_agents.supervised.classifier import SequenceClassifier, export_classifier, load_classifier
from rmc_agents.supervised.evaluate import evaluate_classifier, pooled
from rmc_agents.supervised.objective import Examples
from rmc_agents.supervised.trainer import SupervisedTrainer
from rmc_agents.training.processes import ALONE, Processes, share_of
from rmc_agents.training.progress import say
from rmc_agents.training.trackers import make_trackers
from rmc_envs.sequences.nth_farthest import (
    compute_auxiliary_targets,
    count_auxiliary_targets,
    draw_questions,
)

ENV_ID = "rmc/NthFarthest-v0"
BUNDLED_RUN = Path(__file__).resolve().parents[1] / "trained" / "nth-farthest-rmc"
"""Run folder of the trained RMC in the repository; a wheel does not hold it."""
NOT_SAVED = ("device", "threads", "checkpoint_seconds")
"""Flags that a run folder does not keep."""
CORE_OPTIONS: dict[str, dict[str, Any]] = {
    "rmc": {"num_slots": 8, "num_heads": 4, "head_size": 32},
    "lstm": {"hidden_size": 276},
    "gru": {"hidden_size": 314},
    "rnn": {"hidden_size": 508},
    "gated_delta": {"num_heads": 8, "key_size": 64, "value_size": 138},
    "mingru": {"hidden_size": 1224},
    "lru": {"hidden_size": 314, "state_size": 314},
    "shm": {"hidden_size": 128, "num_rows": 16, "projection_size": 1024},
    "gtrxl": {"hidden_size": 96, "num_layers": 2, "num_heads": 4, "window": 8, "mlp_size": 192},
    "delta_rmc": {"num_slots": 8, "num_heads": 4, "head_size": 32},
    "entity_delta": {"hidden_size": 224, "key_size": 32, "value_size": 16},
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
    follow_process_0(train)
    with checking():
        start = parse_some(Start, args)
        resume = run_to_resume(start)
        notes = load_installed()
        import_modules(start.imports)
        default = resumed(resume) if resume else None
        config = parse(NthFarthestConfig, default, args, command_name("nth_farthest"))
        if default is not None:  # flags add to the modules that the run folder remembers
            imports = tuple(dict.fromkeys([*default.run.imports, *config.run.imports]))
            config = replace(config, run=replace(config.run, imports=imports))
        import_modules(config.run.imports)
        if config.evaluation.evaluate is not None:
            if config.run.threads:
                torch.set_num_threads(config.run.threads)
            require_no_training(config)
            evaluate_all(config, args)
            return
        if default is not None:
            require_same(default, config)
        device = choose_device(config.run.device)
        number, more_notes = number_of_processes(config, default, device)
        # A run that was killed before its first checkpoint starts again.
        restore = resume is not None and bool(checkpoints(resume))
    plan = Plan(config, device, restore, number, [*notes, *more_notes], default)
    run_dir = train_by_plan(train, plan)
    evaluate_run(run_dir, config, args)


def number_of_processes(
    config: NthFarthestConfig, saved: NthFarthestConfig | None, device: torch.device
) -> tuple[int, list[str]]:
    """Return the number of processes that train, and notes for the user.

    Args:
        config: the configuration.
        saved: that of the resumed run.
        device: where to train.

    Raises:
        ValueError: batches cannot be divided among them.
    """
    batch_size = config.supervised.batch_size
    number, notes = choose_processes(
        config.run.processes,
        saved=None if saved is None else saved.run.processes,
        sequences=batch_size,
        envs=None,
        steps=config.supervised.total_samples,
        threads=config.run.threads,
        helpful=device.type == "cpu",
    )
    share_of(batch_size, number, "batch_size")
    return number, notes


def train(
    processes: Processes,
    config: NthFarthestConfig,
    device: torch.device,
    restore: bool,
    notes: Sequence[str] = (),
    saved: NthFarthestConfig | None = None,
) -> Path:
    """Train in one process of a run; return the run folder.

    Args:
        processes: of the run.
        config: the configuration.
        device: where to train.
        restore: whether to continue from a checkpoint.
        notes: for the user.
        saved: the configuration of the resumed run.
    """
    with checking():
        import_modules(config.run.imports)
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        trainer = build(config, processes, device)
        notes = [*notes, *(ineffective(config, saved) if processes.rank == 0 else ())]
        notes += trainer.restore() if restore else []
        if saved is not None:
            require_budget(saved, trainer)
    for note in notes:
        say(trainer.wording(note))
    say(f"run folder: {trainer.run_dir}")
    with resumable("nth_farthest", trainer.run_dir, config.run, NOT_SAVED):
        trainer.run()
    say(f"trained on {trainer.samples:,} samples in {trainer.seconds:.0f} s")
    return trainer.run_dir


def run_dir_of(config: NthFarthestConfig) -> Path:
    """Return the run folder.

    Raises:
        UsageError: it is to be a new one, and holds a run.
    """
    network, run = config.network, config.run
    if run.resume:
        return run.resume
    run_dir = require_named(run.run_dir) or free_run_dir(f"nth-farthest-{network.core}-s{run.seed}")
    require_no_run(run_dir)
    return run_dir


def build(
    config: NthFarthestConfig, processes: Processes = ALONE, device: torch.device | None = None
) -> SupervisedTrainer:
    """Build the trainer that a configuration describes, or that of one of several processes."""
    network, run = config.network, config.run
    device = device_of(device or choose_device(run.device), processes)
    options = {**CORE_OPTIONS.get(network.core, {}), **network.core_options}
    run_dir = processes.from_first(lambda: run_dir_of(config))
    make = partial(
        SequenceClassifier,
        NUM_DIMS + 3 * NUM_OBJECTS,
        NUM_OBJECTS,
        network.core,
        options,
        scaled_inputs=NUM_DIMS,
        input_scale=network.vector_scale,
        aux_size=count_auxiliary_targets(NUM_DIMS, NUM_OBJECTS) if network.aux_targets else 0,
    )
    require_sizes({"classifier": options}, f"core {network.core}")
    require_room(make)
    torch.manual_seed(run.seed)
    try:
        model = make().to(device)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:  # of a width of -1, of "x" or 1e30
        raise UsageError(
            f"no {network.core} of core_options {options} can be built: {shown(error)}"
        ) from error
    task = NthFarthestTask(
        network.ranks, network.objects, network.dims, aux_targets=network.aux_targets, device=device
    )
    trainer = SupervisedTrainer(
        model,
        task,
        config.supervised,
        run_dir,
        seed=run.seed,
        checkpoint_seconds=run.checkpoint_seconds,
        target_accuracy=run.target_accuracy,
        extra={"nth_farthest": described(config), "track": run.track, "imports": list(run.imports)},
        processes=processes,
        callbacks=make_trackers(run.track) if processes.rank == 0 else (),
    )
    trainer.translate = partial(in_flags, config=NthFarthestConfig)
    return trainer


def evaluate_all(config: NthFarthestConfig, args: Sequence[str]) -> None:
    """Evaluate the runs of --evaluate, or the one in the repository."""
    runs = config.evaluation.evaluate or (BUNDLED_RUN,)
    if not config.evaluation.evaluate and not BUNDLED_RUN.exists():
        raise UsageError("--evaluate needs a run folder here: the trained RMC is in the repository only")
    if config.evaluation.export is not None:
        say(f"written: {export_classifier(runs[0], config.evaluation.export)}")
        runs = (config.evaluation.export,)
    for run_dir in runs:
        evaluate_run(run_dir, config, args)


def evaluate_run(run_dir: Path, config: NthFarthestConfig, args: Sequence[str]) -> None:
    """Evaluate a run's newest checkpoint: print a table, and write evaluation.json.

    Raises:
        Incomplete: evaluation.json cannot be written.
    """
    evaluation = config.evaluation
    device = choose_device(config.run.device)
    import_modules(read_config(run_dir).get("imports", ()))
    model, path, payload = load_classifier(run_dir, device)
    output = output_folder(run_dir, evaluation.output, len(evaluation.evaluate or ()))
    figures = evaluate(model, evaluation.test_samples, evaluation.test_seed)
    figures |= {
        "training_samples": payload.get("counters", [None])[0],
        "training_seconds": payload.get("seconds"),
        "training_cpu_seconds": finite(payload.get("cpu_seconds")),
        "checkpoint": str(path),
        "command": f"{command_name('nth_farthest')} {shlex.join(args)}".strip(),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(),
    }
    show(run_dir.resolve().name, model, figures)
    entry = Entry.from_json(figures, f"evaluation of {run_dir}")
    try:
        saved = save_entry(output, ENV_ID, entry)
    except OSError as error:
        raise Incomplete(f"the figures were not saved: {cannot_write_results(output, error)}") from error
    say(kept_note(saved, ENV_ID, entry) or f"figures: {saved}")


def finite(number: float | None) -> float | None:
    """Return None for NaN, which JSON does not know."""
    return number if number is not None and math.isfinite(number) else None


def evaluate(model: SequenceClassifier, samples: int, seed: int) -> dict[str, Any]:
    """Return the accuracy on fresh questions of the paper's distribution, also by n, with 95 % intervals."""
    task = NthFarthestTask(aux_targets=False, device=model.device)
    with waiting("questions of the test", samples) as report:
        by_rank = evaluate_classifier(model, task, samples, seed, progress=report)
    total = pooled(by_rank)
    return {
        "success_rate": total.rate,
        "success_ci95": None if total.ci95 is None else list(total.ci95),
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
    words = {0: "farthest", NUM_OBJECTS - 1: "itself"}
    columns = ("n", *(words.get(rank, str(rank + 1)) for rank in range(NUM_OBJECTS)))
    cells = ("right", *("-" if share is None else f"{share:.3f}" for share in entry["by_rank"]))
    Table(title, columns, frozenset(columns[1:]), ((cells,),)).print()
    say("0.25 is reachable without relations; chance is 0.125")


def cli() -> None:
    """Run the script as a command."""
    run_script(main, NthFarthestConfig)


if __name__ == "__main__":
    cli()

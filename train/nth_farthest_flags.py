"""Flags of `python train/nth_farthest.py`, and what a resumed run may change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmc_agents.cli.config import MAX_PROCESSES, MAX_THREADS, Imports
from rmc_agents.cli.ineffective import note_on
from rmc_agents.cli.resume import (
    not_resumable,
    processes_of,
    require_same_folder,
    require_unchanged,
    settings,
)
from rmc_agents.errors import UsageError, shown
from rmc_agents.options import Options
from rmc_agents.runs.folder import read_config
from rmc_agents.supervised.objective import SupervisedConfig
from rmc_agents.supervised.trainer import SupervisedTrainer
from rmc_agents.training.trackers import TrackerName

NUM_OBJECTS, NUM_DIMS = 8, 16
"""Of the paper."""
LEVELS = {"ranks": (1, NUM_OBJECTS), "objects": (2, NUM_OBJECTS), "dims": (1, NUM_DIMS)}
"""Settings that may grow by level: the smallest value, and the paper's."""
SCALES = (1e-6, 1e4)
"""Range of the factor of the vectors; squares of much larger or smaller ones overflow or vanish."""
MAX_SAMPLES = 10_000_000


@dataclass(frozen=True)
class NetworkOptions:
    """Network and task."""

    core: str = "rmc"
    """Memory core: rmc, lstm, gru, rnn, dnc, gated_delta, mingru, lru, shm, gtrxl, delta_rmc, entity_delta,
    feedforward, or one that an --import registered."""
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


@dataclass(frozen=True)
class TrainingOptions:
    """Run: device, run folder, checkpoints, stopping."""

    target_accuracy: float | None = None
    """Stop once this share is right in a test of the task itself (--test-every); None uses the whole budget.
    The learning rate may still be high then; --average-updates compensates for most of that."""
    seed: int = 0
    """Fixes weights and questions."""
    device: str = "auto"
    """auto (cuda if there is a GPU), cpu, cuda, cuda:1, ..."""
    threads: int = 1
    """CPU threads of torch, in each process; 0 leaves the choice to torch."""
    processes: int = 0
    """Processes that train together, each on its share of every batch. 0 chooses by cores and sizes. A seed
    gives the same run for the same number only. torchrun sets it by itself."""
    imports: Imports = ()
    """Module that registers user-defined cores; one flag per module. The run folder remembers them."""
    run_dir: Path | None = None
    """Run folder; runs/nth-farthest-CORE-SEED if not given."""
    resume: Path | None = None
    """Run folder to resume; other settings are read from it, except --device, --threads, --processes,
    --checkpoint-seconds, --total-samples, --minutes and --target-accuracy."""
    auto_resume: bool = False
    """Resume --run-dir if it holds a run, else start one there: a job that may be stopped at any time can be
    restarted with the same command."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; a final checkpoint is always saved."""
    track: TrackerName = "none"
    """Send hyperparameters and figures to wandb (Weights & Biases) or mlflow. Their environment variables
    decide the rest: WANDB_PROJECT, WANDB_MODE=offline, MLFLOW_TRACKING_URI, ..."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Evaluation: after training, or of trained networks."""

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
    output: Path | None = None
    """Folder for evaluation.json, one for each run if there are several. Without this it is the run folder
    or, if that is the trained RMC of the repository or cannot be written, evaluations/NAME."""


@dataclass(frozen=True)
class NthFarthestConfig:
    """Train a memory core on Nth Farthest, or evaluate trained ones."""

    network: NetworkOptions = field(default_factory=NetworkOptions)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    run: TrainingOptions = field(default_factory=TrainingOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)

    def __post_init__(self) -> None:
        bad = list(self._out_of_range())
        if bad:
            given = ", ".join(f"{name}={value}" for name, value, _ in bad)
            raise ValueError(f"{given}: expected {', '.join(dict.fromkeys(what for _, _, what in bad))}")
        for name, (least, whole) in LEVELS.items():
            levels = getattr(self.network, name)
            if not levels or levels[-1] != whole or not all(least <= level <= whole for level in levels):
                raise ValueError(
                    f"--{name} {' '.join(map(str, levels))}: expected levels from {least} to {whole}, the "
                    f"last of them {whole}, the whole task"
                )
        if self.evaluation.export is not None and len(self.evaluation.evaluate or ()) != 1:
            raise ValueError("--export needs --evaluate with one run")

    def _out_of_range(self) -> Iterator[tuple[str, float, str]]:
        """Yield the name and value of each number that does not fit, and what is expected."""
        network, run, evaluation = self.network, self.run, self.evaluation
        share = 1.0 if run.target_accuracy is None else run.target_accuracy
        low, high = SCALES
        checks = {
            "vector_scale": (network.vector_scale, low, high, f"a scale of {low:g} to {high:g}"),
            "target_accuracy": (share, 1e-9, 1, "a share above 0 and up to 1"),
            "seed": (run.seed, 0, 2**63 - 1, "a seed from 0 to 2^63 - 1"),
            "test_seed": (evaluation.test_seed, 0, 2**63 - 1, "a seed from 0 to 2^63 - 1"),
            "test_samples": (evaluation.test_samples, 1, MAX_SAMPLES, f"1 to {MAX_SAMPLES:,} samples"),
            "threads": (run.threads, 0, MAX_THREADS, f"0 to {MAX_THREADS} threads"),
            "processes": (run.processes, 0, MAX_PROCESSES, f"0 to {MAX_PROCESSES} processes"),
            "checkpoint_seconds": (run.checkpoint_seconds, 0, 1e9, "0 to 1e9 seconds"),
        }
        for name, (value, least, most, expected) in checks.items():
            if not least <= value <= most:
                yield name, value, expected


MAY_CHANGE = {
    *("total_samples", "minutes", "orthogonalization", "target_accuracy", "checkpoint_seconds"),
    *("device", "threads", "processes", "imports", "run_dir", "resume", "auto_resume", "track"),
    *("evaluate", "export", "test_samples", "test_seed", "output"),
}
"""Settings that may change on resume."""


def described(config: NthFarthestConfig) -> dict[str, Any]:
    """Return what defines a run besides `supervised`, for its config.json."""
    return {**vars(config.network), "seed": config.run.seed}


def resumed(run_dir: Path) -> NthFarthestConfig:
    """Return the configuration that a run was started with.

    Raises:
        UsageError: no run of this script.
    """
    saved = read_config(run_dir)
    try:
        network = dict(saved["nth_farthest"])
        network |= {name: tuple(network[name]) for name in LEVELS}
        run = TrainingOptions(
            seed=network.pop("seed"),
            target_accuracy=saved["target_accuracy"],
            imports=tuple(saved.get("imports", ())),
            processes=processes_of(saved),
            track=saved.get("track", TrainingOptions.track),
            resume=run_dir,
        )
        supervised = SupervisedConfig(**saved["supervised"])
        return NthFarthestConfig(NetworkOptions(**network), supervised, run)
    except (KeyError, TypeError, ValueError) as error:
        raise not_resumable(run_dir, error) from error


def require_same(saved: NthFarthestConfig, asked: NthFarthestConfig) -> None:
    """Raise UsageError if flags change a setting that is fixed on resume."""
    require_unchanged(saved, asked, MAY_CHANGE)
    require_same_folder(asked.run.resume, asked.run.run_dir)


def ineffective(config: NthFarthestConfig, saved: NthFarthestConfig | None = None) -> list[str]:
    """Return a note on the flags that have no effect, or nothing.

    Args:
        config: the configuration.
        saved: that of the resumed run; the class's defaults count for a new run.
    """
    network, supervised = config.network, config.supervised
    one_level = max(len(getattr(network, name)) for name in LEVELS) == 1
    single = "there is one level only: see --ranks, --objects and --dims" if one_level else None
    auxiliary = (network.aux_targets and supervised.aux_coef) or supervised.extra_steps
    reasons = {
        "aux_coef": None if network.aux_targets else "needs --aux-targets",
        "aux_until": None if auxiliary else "there are neither auxiliary targets nor extra steps",
        "orthogonalization": None if supervised.muon_lr else "with --muon-lr 0, Adam learns all parameters",
        "promote_at": single,
        "levels_share": single,
    }
    return note_on(reasons, config, saved or NthFarthestConfig())


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
    plain, with_evaluation = NthFarthestConfig(), {"device", "threads", "imports"}
    given = [name for name, old, new in settings(plain.network, config.network) if old != new]
    given += ["supervised"] * (config.supervised != plain.supervised)
    given += [n for n, a, b in settings(plain.run, config.run) if a != b and n not in with_evaluation]
    if given:
        names = shown(", ".join(name.replace("_", "-") for name in given))
        raise UsageError(f"--evaluate uses the network as it is: leave out the flags for training ({names})")

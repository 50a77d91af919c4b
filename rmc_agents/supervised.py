"""Learning from examples: draw fresh sequences -> read -> loss -> step -> log -> checkpoint.

The run folder is that of `trainer` (config.json, checkpoints, TensorBoard, log.jsonl), and so is what becomes
of Ctrl-C, a full disk or a number that is not finite. A stopped run goes on bit for bit.

Axes: T time, B batch, D input size, K hints, C classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rmc_agents import checkpoint
from rmc_agents.classifier import SequenceClassifier
from rmc_agents.errors import Interrupted, TrainingError, UsageError
from rmc_agents.progress import Progress
from rmc_agents.runlog import RunLog
from rmc_agents.signals import Interruption
from rmc_agents.versions import versions

TEST_SEED = 2_000_000
"""Plus the run's: the seed of the questions that training looks at now and then."""


COLUMNS = {
    "steps": "{:,.0f}",
    "steps/s": "{:,.0f}",
    "level": "{:.0f}",
    "right": "{:.3f}",
    "test": "{:.3f}",
    "loss": "{:.4f}",
    "hint loss": "{:.4f}",
    "time left": "{}",
}
"""What is shown while training, and how; a step is a sequence."""


class Examples(NamedTuple):
    """A batch of sequences and what is to be said of them."""

    inputs: Tensor
    """[T, B, D]."""
    targets: Tensor
    """[T, B] int64 the right class at each step; the last one's is the answer that counts."""
    answerable: Tensor
    """[T, B] bool: there is a right class at that step. True at the last."""
    groups: Tensor
    """[B] int64 what kind of question it is, from 0; accuracy is told by group."""
    hints: Tensor
    """[T, B, K] numbers that a linear layer on the core's output shall tell while training; K may be 0."""
    hint_weights: Tensor
    """[T, B, K] how much each of them matters; 0 where there is nothing to tell."""


class Task(Protocol):
    """Where examples come from, at levels of which the last is the task itself."""

    num_levels: int
    num_groups: int

    def draw(self, batch_size: int, level: int, generator: torch.Generator) -> Examples: ...


@dataclass(frozen=True)
class SupervisedConfig:
    """How to learn from examples."""

    total_samples: int = 6_000_000
    """Sequences to learn from; fresh ones always."""
    minutes: float | None = None
    """Stop after that many minutes of training, if the samples are not used up by then. The learning rate
    follows whichever is nearer to its end; only runs without this limit are the same bit for bit."""
    batch_size: int = 256
    """Sequences an update."""
    muon_lr: float = 0.01
    """Learning rate of Muon, for the inner matrices; 0 gives them to Adam."""
    adam_lr: float = 1e-3
    """Learning rate of Adam, for all else."""
    warmup_updates: int = 100
    """Updates in which the learning rates grow from 0."""
    decay_share: float = 0.6
    """The last share of the budget, in which the learning rates fall to 0."""
    max_grad_norm: float = 0.0
    """Cut gradients to that norm; 0 leaves them."""
    extra_steps: int = 1
    """At how many steps beside the last an answer is asked, drawn anew for each batch."""
    hint_weight: float = 5.0
    """Weight of the hints in the loss; 0 for none."""
    aids_share: float = 0.85
    """Hints and extra steps end after that share of the budget: what follows is the task alone."""
    test_every: int = 100_000
    """Samples between two looks at the task itself, without aids and always on the same fresh questions."""
    promote_at: float = 0.6
    """The next level begins where that share of the last answers (in about 100 batches) is right."""

    def __post_init__(self) -> None:
        positive = {n: getattr(self, n) for n in ("total_samples", "batch_size", "test_every")}
        positive |= {"minutes": 1.0 if self.minutes is None else self.minutes}
        bad = [f"{name}={value}" for name, value in positive.items() if not value > 0]
        rates = ("muon_lr", "adam_lr", "warmup_updates", "max_grad_norm", "extra_steps", "hint_weight")
        bad += [f"{n}={getattr(self, n)}" for n in rates if not 0 <= getattr(self, n) < math.inf]
        shares = ("decay_share", "aids_share", "promote_at")
        bad += [f"{n}={getattr(self, n)}" for n in shares if not 0 <= getattr(self, n) <= 1]
        if bad:
            raise ValueError(
                f"{', '.join(bad)}: expected budgets above 0, rates of 0 or more, shares of 0 to 1"
            )

    def rate_at(self, progress: float, updates: int) -> float:
        """What the learning rates are multiplied with, when `progress` of the budget is used."""
        decay = min(1.0, (1 - progress) / self.decay_share) if self.decay_share else 1.0
        return max(decay, 0.0) * min(1.0, (updates + 1) / max(self.warmup_updates, 1))


class SupervisedTrainer:
    """Trains a classifier on a task, into a run folder.

    Args:
        model: on the device where the task draws its examples.
        task: where they come from.
        config: how to learn.
        run_dir: the run folder; must not hold a run already unless `restore` is called.
        seed: fixes the examples.
        description: what else to write into config.json.
        checkpoint_seconds: how often to save; the end is always saved.
        stop_at_accuracy: stop once that share of the latest answers is right, on the last level.
        log_every: updates between two lines of figures.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        task: Task,
        config: SupervisedConfig,
        run_dir: Path | str,
        *,
        seed: int = 0,
        description: Mapping[str, Any] | None = None,
        checkpoint_seconds: float = 60.0,
        stop_at_accuracy: float | None = None,
        log_every: int = 50,
    ) -> None:
        self.model, self.task, self.config = model, task, config
        self.run_dir, self.seed, self.description = Path(run_dir), seed, dict(description or {})
        self.checkpoint_seconds, self.stop_at_accuracy = checkpoint_seconds, stop_at_accuracy
        self.log_every = log_every
        # Denormal numbers appear as gates saturate, and make a CPU three times slower.
        torch.set_flush_denormal(True)
        self.generator = torch.Generator(model.device).manual_seed(seed)
        self.optimizers = make_optimizers(model, config)
        self.samples = self.updates = self.level = 0
        self.seconds = 0.0
        # Right answers and answers by group, the older the less they count.
        self.recent = torch.zeros(2, task.num_groups, device=model.device)
        self.since_promotion = 0
        self.restored = False

    @property
    def progress(self) -> float:
        """The share of the budget that is used: of samples or of minutes, whichever is more."""
        used = self.samples / self.config.total_samples
        return used if self.config.minutes is None else max(used, self.seconds / 60 / self.config.minutes)

    @property
    def accuracy(self) -> float:
        """Of about the latest 100 batches."""
        right, asked = self.recent.sum(1).tolist()
        return right / max(asked, 1)

    @property
    def done(self) -> bool:
        """Whether the budget is used up, or the mark reached."""
        return self.progress >= 1 or (
            self.stop_at_accuracy is not None
            and self.level == self.task.num_levels - 1
            and self.since_promotion >= 100
            and self.accuracy >= self.stop_at_accuracy
        )

    def update(self) -> dict[str, Tensor]:
        """One batch, one step of the optimizers; returns losses, on the device."""
        config, model = self.config, self.model
        progress = self.progress
        rate, aids = config.rate_at(progress, self.updates), progress < config.aids_share
        for optimizer, learning_rate in zip(self.optimizers, (config.adam_lr, config.muon_lr), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate
        examples = self.task.draw(config.batch_size, self.level, self.generator)
        losses, right = loss(model, examples, config, self.generator, aids)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        losses["loss"].backward()
        if config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.recent *= 0.99
        self.recent[0].index_add_(0, examples.groups, right)
        self.recent[1].index_add_(0, examples.groups, torch.ones_like(right))
        self.samples += len(right)
        self.updates += 1
        self.since_promotion += 1
        return {name: value.detach() for name, value in losses.items()}

    def iterate(self) -> dict[str, float]:
        """`log_every` updates; returns their figures.

        Raises:
            TrainingError: a loss that is not finite.
        """
        began, before = time.monotonic(), self.samples
        total: dict[str, Tensor] = {}
        first = self.updates
        for _ in range(self.log_every):
            losses = self.update()
            total = {name: total.get(name, 0) + value for name, value in losses.items()}
            if self.done:
                break
        batches = self.updates - first
        means = {name: value.item() / batches for name, value in total.items()}
        if not all(math.isfinite(value) for value in means.values()):
            raise TrainingError(
                f"the loss is not finite after {self.samples:,} samples: {means}; a lower --muon-lr or "
                "--adam-lr may help. Checkpoints are as they were"
            )
        seconds = time.monotonic() - began
        self.seconds += seconds
        shares = (self.recent[0] / self.recent[1].clamp(min=1)).tolist()
        return {
            "train/accuracy": self.accuracy,
            **{f"accuracy/group_{group}": share for group, share in enumerate(shares)},
            **{f"train/{name}": value for name, value in means.items()},
            "train/level": self.level,
            "train/learning_rate_factor": self.config.rate_at(self.progress, self.updates),
            "time/fps": (self.samples - before) / seconds,
            "time/total_seconds": self.seconds,
        }

    @torch.no_grad()
    def test(self, samples: int = 4000) -> dict[str, float]:
        """Accuracy on questions of the last level, other ones than training's."""
        generator = torch.Generator(self.model.device).manual_seed(self.seed + TEST_SEED)
        last = torch.tensor([-1], device=self.model.device)
        right = 0.0
        for size in [1000] * (samples // 1000):
            examples = self.task.draw(size, self.task.num_levels - 1, generator)
            answers = self.model(examples.inputs, last).logits[0].argmax(-1)
            right += (answers == examples.targets[-1]).sum().item()
        return {"test/accuracy": right / samples}

    def promote(self) -> str | None:
        """Begin the next level where this one is learned; returns what to say of it."""
        ready = self.since_promotion >= 100 and self.accuracy >= self.config.promote_at
        if not ready or self.level == self.task.num_levels - 1:
            return None
        self.level += 1
        self.since_promotion = 0
        return f"level {self.level + 1} of {self.task.num_levels} after {self.samples:,} samples"

    def run(self) -> None:
        """Train until the budget or the mark is reached.

        Raises:
            UsageError: the run folder holds another run, or cannot be written.
            TrainingError: a loss that is not finite, or the end could not be saved.
            Interrupted: by Ctrl-C or SIGTERM, after saving.
        """
        self._open_run_dir()
        saved = time.monotonic()
        title = f"{self.model.core_name}, {sum(p.numel() for p in self.model.parameters()):,} parameters"
        with (
            Interruption() as interruption,
            Progress(title, self.config.total_samples, columns=COLUMNS) as progress,
        ):
            log = RunLog(self.run_dir, self.samples, progress.note)
            try:
                while not self.done and interruption.signal is None:
                    before = self.samples // self.config.test_every
                    figures = self.iterate()
                    if self.samples // self.config.test_every > before or self.done:
                        figures |= self.test()
                    log.figures(self.samples, figures)
                    progress.show(_shown(self.samples, figures))
                    message = self.promote()
                    if message is not None:
                        progress.note(message)
                        log.message(self.samples, message)
                    if time.monotonic() - saved >= self.checkpoint_seconds:
                        self._save_or_warn(progress, log)
                        saved = time.monotonic()
                path = self._save_end()
            except Exception as error:
                log.message(self.samples, f"stopped: {error}")
                raise
            finally:
                log.close()
        if interruption.signal is not None and not self.done:
            raise Interrupted(f"stopped after {self.samples:,} samples, saved as {path}", interruption.signal)

    def save(self) -> Path:
        """Write a checkpoint from which `restore` goes on bit for bit.

        Raises:
            OSError: it could not be written. Earlier ones are as they were.
        """
        payload = {
            "agent": self.model.state_dict(),
            "optimizers": [optimizer.state_dict()["state"] for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "recent": self.recent,
            "counters": [self.samples, self.updates, self.level, self.since_promotion],
            "seconds": self.seconds,
        }
        return checkpoint.save_checkpoint(self.run_dir, self.samples, payload, keep=1)

    def restore(self) -> list[str]:
        """Go on from the newest whole checkpoint of the run folder; returns what the user should know.

        Raises:
            UsageError: no checkpoint, or one of another configuration.
        """
        path, payload, notes = checkpoint.read_newest(self.run_dir, self.model.device)
        checkpoint.load_agent(self.model, payload, path)
        try:
            states = payload["optimizers"]
            for optimizer, state in zip(self.optimizers, states, strict=True):
                optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
            self.generator.set_state(payload["generator"].cpu())
            self.recent.copy_(payload["recent"])
            self.samples, self.updates, self.level, self.since_promotion = payload["counters"]
            self.seconds = float(payload["seconds"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise UsageError(f"{path} belongs to a run of another configuration: {error}") from error
        self.restored = True
        return [f"skipped: {line}" for line in notes] + [f"going on from {path}"]

    def _open_run_dir(self) -> None:
        if not self.restored and checkpoint.checkpoints(self.run_dir):
            raise UsageError(
                f"{self.run_dir} already holds a run: go on with --resume {self.run_dir}, or choose "
                "another --run-dir"
            )
        described = {
            "agent": self.model.config(),
            "supervised": asdict(self.config),
            "seed": self.seed,
            **self.description,
            "versions": versions(),
        }
        try:
            checkpoint.write_json(self.run_dir / "config.json", described)
        except OSError as error:
            raise UsageError(
                f"cannot write to the run folder {self.run_dir}: {error.strerror or error}; make room, or "
                "choose another --run-dir"
            ) from error

    def _save_or_warn(self, progress: Progress, log: RunLog) -> None:
        try:
            self.save()
        except OSError as error:  # the disk may have room again later
            message = f"warning: could not save ({error.strerror or error}); training goes on"
            progress.note(message)
            log.message(self.samples, message)

    def _save_end(self) -> Path:
        try:
            return self.save()
        except OSError as error:
            raise TrainingError(
                f"the end could not be saved ({error.strerror or error}); make room and "
                f"--resume {self.run_dir}"
            ) from error


def make_optimizers(model: SequenceClassifier, config: SupervisedConfig) -> list[torch.optim.Optimizer]:
    """Adam, and Muon for the inner matrices if it has a learning rate."""
    matrices = model.matrices() if config.muon_lr else []
    ids = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in ids]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=config.adam_lr)]
    if matrices:
        # A class of torch from 2.9 on.
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"torch {torch.__version__} has no Muon: say --muon-lr 0, or install torch 2.9")
        optimizers.append(torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=0.1))
    return optimizers


def loss(
    model: SequenceClassifier,
    examples: Examples,
    config: SupervisedConfig,
    generator: torch.Generator,
    aids: bool,
) -> tuple[dict[str, Tensor], Tensor]:
    """What training makes small, and [B] 1 where the last answer is right, else 0.

    The cross-entropy of the last answer; with `aids` also that of answers at `extra_steps` other steps, and
    the squared error of the hints.
    """
    T, B = examples.targets.shape
    extra = min(config.extra_steps, T - 1) if aids else 0
    others = torch.randperm(T - 1, generator=generator, device=model.device)[:extra]
    steps = torch.cat([others, others.new_tensor([T - 1])])
    outputs, logits = model(examples.inputs, steps)
    targets, counted = examples.targets[steps], examples.answerable[steps]
    errors = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(-1, B) * counted
    losses = {"answer_loss": errors[-1].mean(), "loss": errors.sum(0).mean()}
    if aids and model.hint is not None and config.hint_weight:
        weights = examples.hint_weights
        wrong = ((model.hint(outputs) - examples.hints).square() * weights).sum() / weights.sum().clamp(min=1)
        losses["hint_loss"] = wrong
        losses["loss"] = losses["loss"] + config.hint_weight * wrong
    return losses, (logits[-1].argmax(-1) == targets[-1]).float()


def _shown(samples: int, figures: Mapping[str, float]) -> dict[str, float]:
    return {
        "steps": samples,
        "steps/s": figures["time/fps"],
        "right": figures["train/accuracy"],
        **({"test": figures["test/accuracy"]} if "test/accuracy" in figures else {}),
        "level": figures["train/level"],
        "loss": figures["train/answer_loss"],
        "hint loss": figures.get("train/hint_loss", 0.0),
    }

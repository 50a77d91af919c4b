"""Learning from examples: draw fresh sequences -> read -> loss -> step -> log -> checkpoint.

The run folder is that of `trainer` (config.json, checkpoints, TensorBoard, log.jsonl), and so is what becomes
of Ctrl-C, a full disk or a number that is not finite. A stopped run goes on bit for bit.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmc_agents import checkpoint
from rmc_agents.classifier import SequenceClassifier
from rmc_agents.errors import Interrupted, TrainingError, UsageError
from rmc_agents.examples import SupervisedConfig, Task, average, count_right, loss, make_optimizers, tally
from rmc_agents.generators import go_on
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
    "answer loss": "{:.4f}",
    "hint loss": "{:.4f}",
    "time left": "{}",
}
"""What is shown while training, and how; a step is a sequence."""


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
        stop_at_accuracy: stop once that share of the last level's questions is right where training looks at
            them; the learning rate need not have fallen by then.
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
        self.mean = copy.deepcopy(model).requires_grad_(False) if config.average_updates else None
        self.samples = self.updates = self.level = 0
        self.seconds = self.cpu_seconds = 0.0
        # Right answers and answers by group, the older the less they count.
        self.recent = torch.zeros(2, task.num_groups, device=model.device)
        self.since_promotion = 0
        self.tested = 0.0
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
    def judged(self) -> SequenceClassifier:
        """The network that is tested and kept: with the mean of the weights, where there is one."""
        return self.model if self.mean is None else self.mean

    @property
    def done(self) -> bool:
        """Whether the budget is used up, or the mark was reached at the latest look."""
        return self.progress >= 1 or (
            self.stop_at_accuracy is not None and self.tested >= self.stop_at_accuracy
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
        if self.mean is not None:
            average(self.mean, model, config.share_in_mean(self.updates))
        self.recent *= 0.99
        tally(self.recent, examples.groups, right)
        self.samples += len(right)
        self.updates += 1
        self.since_promotion += 1
        return {name: value.detach() for name, value in losses.items()}

    def iterate(self) -> dict[str, float]:
        """`log_every` updates; returns their figures.

        Raises:
            TrainingError: a loss that is not finite.
        """
        began, cpu_began, before = time.monotonic(), time.process_time(), self.samples
        total: dict[str, Tensor] = {}
        first = self.updates
        for _ in range(self.log_every):
            losses = self.update()
            total = {name: total.get(name, 0) + value for name, value in losses.items()}
            if self.progress >= 1:
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
        self.cpu_seconds += time.process_time() - cpu_began
        shares = (self.recent[0] / self.recent[1].clamp(min=1)).tolist()
        return {
            "train/accuracy": self.accuracy,
            **{f"accuracy/group_{group}": share for group, share in enumerate(shares)},
            **{f"train/{name}": value for name, value in means.items()},
            "train/level": self.level,
            "train/learning_rate_factor": self.config.rate_at(self.progress, self.updates),
            "time/fps": (self.samples - before) / seconds,
            "time/total_seconds": self.seconds,
            # Of all threads: what a run costs, whatever else the machine does.
            "time/total_cpu_seconds": self.cpu_seconds,
        }

    def test(self, samples: int = 4000) -> dict[str, float]:
        """Accuracy on questions of the last level, other ones than training's."""
        generator = torch.Generator(self.model.device).manual_seed(self.seed + TEST_SEED)
        right, asked = count_right(self.judged, self.task, samples, generator).sum(1).tolist()
        self.tested = right / asked
        return {"test/accuracy": self.tested}

    def promote(self) -> str | None:
        """Begin the next level where this one is learned, or in time the last; returns what to say of it."""
        last = self.task.num_levels - 1
        learned = self.since_promotion >= 100 and self.accuracy >= self.config.promote_at
        late = self.progress >= self.config.levels_share
        if self.level == last or self.progress >= 1 or not (learned or late):
            return None
        self.level = last if late else self.level + 1
        self.since_promotion = 0
        return f"level {self.level + 1} of {last + 1} after {self.samples:,} samples"

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
                    progress.show(self._shown(figures))
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
            "agent": self.judged.state_dict(),
            **({} if self.mean is None else {"newest": self.model.state_dict()}),
            "optimizers": [optimizer.state_dict()["state"] for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "recent": self.recent,
            "counters": [self.samples, self.updates, self.level, self.since_promotion],
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "tested": self.tested,
        }
        return checkpoint.save_checkpoint(self.run_dir, self.samples, payload, keep=1)

    def restore(self) -> list[str]:
        """Go on from the newest whole checkpoint of the run folder; returns what the user should know.

        Raises:
            UsageError: no checkpoint, or one of another configuration.
        """
        path, payload, skipped = checkpoint.read_newest(self.run_dir, self.model.device)
        if "optimizers" not in payload:
            raise UsageError(f"{path} holds a network alone, to judge: there is nothing in it to go on with")
        checkpoint.load_agent(self.judged, payload, path)
        try:
            if ("newest" in payload) != (self.mean is not None):
                raise ValueError("one of the two keeps a mean of the weights (average_updates)")
            if self.mean is not None:
                self.model.load_state_dict(payload["newest"])
            states = payload["optimizers"]
            for optimizer, state in zip(self.optimizers, states, strict=True):
                optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
            notes = go_on(self.generator, payload["generator"])
            self.recent.copy_(payload["recent"])
            self.samples, self.updates, self.level, self.since_promotion = payload["counters"]
            self.seconds = float(payload["seconds"])
            # Earlier checkpoints have neither.
            self.cpu_seconds = float(payload.get("cpu_seconds", math.nan))
            self.tested = float(payload.get("tested", 0.0))
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise UsageError(f"{path} belongs to a run of another configuration: {error}") from error
        self.restored = True
        return [f"skipped: {line}" for line in skipped] + [f"going on from {path}"] + notes

    def _open_run_dir(self) -> None:
        if not self.restored:
            checkpoint.require_no_run(self.run_dir)
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
            raise checkpoint.cannot_write(self.run_dir, error) from error

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

    def _shown(self, figures: Mapping[str, float]) -> dict[str, float]:
        minutes = self.config.minutes
        return {
            "steps": self.samples,
            "share": self.progress,
            **({} if minutes is None else {"time left": 60 * minutes - self.seconds}),
            "steps/s": figures["time/fps"],
            "right": figures["train/accuracy"],
            **({"test": figures["test/accuracy"]} if "test/accuracy" in figures else {}),
            "level": figures["train/level"],
            "answer loss": figures["train/answer_loss"],
            "hint loss": figures.get("train/hint_loss", 0.0),
        }

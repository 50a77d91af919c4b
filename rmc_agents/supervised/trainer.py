"""Supervised training loop: draw fresh sequences -> read -> loss -> step -> log -> checkpoint.

The run folder is that of `rl.trainer` (config.json, checkpoints, TensorBoard, log.jsonl), and the context
of the loop is the same `training.loop`. An interrupted run continues bit for bit.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmc_agents.agent.acceleration import bfloat16_is_slow
from rmc_agents.errors import TrainingError, UsageError
from rmc_agents.plugins import registering_modules
from rmc_agents.runs.checkpoint import NETWORKS, save_checkpoint
from rmc_agents.runs.weights import load_weights, non_finite, shorten
from rmc_agents.supervised.classifier import SequenceClassifier
from rmc_agents.supervised.objective import (
    SupervisedConfig,
    Task,
    accumulate,
    average,
    count_right,
    loss,
    make_optimizers,
)
from rmc_agents.training.arithmetic import arithmetic
from rmc_agents.training.callbacks import Callback, require_callbacks
from rmc_agents.training.loop import (
    require_run_arguments,
    training_loop,
    write_diagnostic,
)
from rmc_agents.training.parameters import require_same_parameters
from rmc_agents.training.processes import ALONE, Processes, share_of
from rmc_agents.training.resumable import Resumable
from rmc_agents.training.rng import resume_generator
from rmc_agents.training.snapshot import (
    require_count,
    require_moments,
)

TEST_SEED = 2_000_000
"""Seed of the questions for tests during training, added to the run's seed."""

COLUMNS = {
    "steps": "{:,.0f}",
    "steps/s": "{:,.0f}",
    "level": "{:.0f}",
    "right": "{:.3f}",
    "test": "{:.3f}",
    "answer loss": "{:.4f}",
    "aux loss": "{:.4f}",
    "time left": "{}",
}
"""Columns of the progress display, with their formats; a step is a sequence."""
METRICS = ("train/accuracy", "test/accuracy")
"""Tags of the figures by which TensorBoard compares hyperparameters."""


class SupervisedTrainer(Resumable):
    """Trainer of a classifier on a task, into a run folder.

    Args:
        model: on the device where the task draws its examples.
        task: the source of examples.
        config: the settings.
        run_dir: the run folder; it must not hold a run, unless `restore` is called.
        seed: fixes the examples.
        checkpoint_seconds: seconds between checkpoints; a final checkpoint is always saved.
        target_accuracy: stop once this share of the last level's questions is right in a test during
            training. The learning rate may still be high then; `average_updates` compensates for most
            of that.
        log_every: updates per iteration, which logs one line of figures.
        extra: further entries of config.json.
        processes: those that train together, on equal parts of each batch; all numbers of `config` are about
            all of them. Process r adds r * 2^20 to the seed.
        callbacks: called during `run`, in process 0.

    Raises:
        ValueError: a number is out of range, or batches cannot be divided among the processes.
    """

    own_parts = ("generator",)

    def __init__(
        self,
        model: SequenceClassifier,
        task: Task,
        config: SupervisedConfig,
        run_dir: Path | str,
        *,
        seed: int = 0,
        checkpoint_seconds: float = 60.0,
        target_accuracy: float | None = None,
        log_every: int = 50,
        extra: Mapping[str, Any] | None = None,
        processes: Processes = ALONE,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        require_run_arguments(seed, checkpoint_seconds, target_accuracy=target_accuracy)
        if type(log_every) is not int or log_every < 1:
            raise ValueError(f"log_every must be 1 or more, got {log_every!r}")
        self.model, self.task, self.config = model, task, config
        self.run_dir, self.seed, self.extra = Path(run_dir), seed, dict(extra or {})
        self.checkpoint_seconds, self.target_accuracy = checkpoint_seconds, target_accuracy
        self.log_every, self.processes = log_every, processes
        self.callbacks = require_callbacks(callbacks)
        self.batch_size = share_of(config.batch_size, processes.size, "batch_size")
        # Denormal numbers appear as gates saturate, and slow a CPU down threefold.
        torch.set_flush_denormal(True)
        self.generator = torch.Generator(model.device).manual_seed(processes.seed(seed))
        if processes.size > 1:
            model.load_state_dict(processes.broadcast(model.state_dict()))
        self.optimizers = make_optimizers(model, config)
        self.mean = copy.deepcopy(model).requires_grad_(False) if config.average_updates else None
        self.samples = self.updates = self.level = 0
        self.seconds = self.cpu_seconds = 0.0
        # [2, G] right answers and all answers, weighted by recency; of all processes between iterations.
        self.recent = torch.zeros(2, task.num_groups, device=model.device)
        self.updates_since_promotion = 0
        self.test_accuracy = 0.0
        self.restored = self.opened = False

    @property
    def count(self) -> int:
        """Samples so far."""
        return self.samples

    @property
    def device(self) -> torch.device:
        """Where the classifier is."""
        return self.model.device

    @property
    def progress(self) -> float:
        """Share of the budget that is used: of samples or of minutes, whichever is larger."""
        used = self.samples / self.config.total_samples
        return used if self.config.minutes is None else max(used, self.seconds / 60 / self.config.minutes)

    @property
    def accuracy(self) -> float:
        """Accuracy over the latest 100 batches or so."""
        right, asked = self.recent.sum(1).tolist()
        return right / max(asked, 1)

    @property
    def evaluated_model(self) -> SequenceClassifier:
        """The network that is tested and saved: the one with the mean weights, if there is one."""
        return self.model if self.mean is None else self.mean

    @property
    def done(self) -> bool:
        """Whether the budget is used up, or the target was reached in the latest test."""
        return self.progress >= 1 or (
            self.target_accuracy is not None and self.test_accuracy >= self.target_accuracy
        )

    def update(self) -> dict[str, Tensor]:
        """Learn from one batch; return this process's share of the losses, on the device."""
        config, model = self.config, self.model
        progress = self.progress
        rate, auxiliary = config.rate_at(progress, self.updates), progress < config.aux_until
        for optimizer, learning_rate in zip(self.optimizers, (config.adam_lr, config.muon_lr), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate
        examples = self.task.draw(self.batch_size, self.level, self.generator)
        losses, right = loss(model, examples, config, self.generator, auxiliary, self.processes)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        losses["loss"].backward()
        if self.processes.size > 1:
            _sum_gradients(model, self.processes)
        if config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.mean is not None:
            average(self.mean, model, config.share_in_mean(self.updates))
        self.recent *= 0.99
        accumulate(self.recent, examples.groups, right)
        self.samples += config.batch_size
        self.updates += 1
        self.updates_since_promotion += 1
        return {name: value.detach() for name, value in losses.items()}

    def iterate(self) -> dict[str, float]:
        """Make `log_every` updates; return their figures.

        Raises:
            TrainingError: a loss, weight or moment that is not finite.
        """
        started, cpu_started, before = time.monotonic(), time.process_time(), self.samples
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        require_same_parameters(self.model, [p for group in groups for p in group["params"]])
        if self.processes.rank:
            self.recent.zero_()  # the sums so far are in process 0
        total: dict[str, Tensor] = {}
        first = self.updates
        for _ in range(self.log_every):
            losses = self.update()
            total = {name: total.get(name, 0) + value for name, value in losses.items()}
            if self.progress >= 1:
                break
        batches = self.updates - first
        self.processes.sum(self.recent)
        sums = self.processes.sum(torch.stack([*total.values()])).tolist()
        means = {name: value / batches for name, value in zip(total, sums, strict=True)}
        if not all(math.isfinite(value) for value in means.values()):
            raise TrainingError(
                f"the loss is not finite after {self.samples:,} samples: {means}; a lower muon_lr or "
                "adam_lr may help. Earlier checkpoints are intact"
            )
        bad = non_finite({name: part for name, part in self._state().items() if name in NETWORKS})
        if bad:
            if self.processes.rank == 0:
                write_diagnostic(self.run_dir, {"not_finite": bad, "samples": self.samples, **means})
            raise TrainingError(
                f"not finite after {self.samples:,} samples are {shorten(bad)}; a lower muon_lr or adam_lr "
                "may help. Earlier checkpoints are intact"
            )
        seconds, cpu_seconds = self._times(time.monotonic() - started, time.process_time() - cpu_started)
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds
        shares = (self.recent[0] / self.recent[1].clamp(min=1)).tolist()
        return {
            "train/accuracy": self.accuracy,
            **{f"accuracy/group_{group}": share for group, share in enumerate(shares)},
            **{f"train/{name}": value for name, value in means.items()},
            "train/level": self.level,
            "train/learning_rate_factor": self.config.rate_at(self.progress, self.updates),
            "time/fps": (self.samples - before) / seconds,
            "time/total_seconds": self.seconds,
            # Of all threads and processes: the cost of a run, whatever else the machine does.
            "time/total_cpu_seconds": self.cpu_seconds,
        }

    def _times(self, seconds: float, cpu_seconds: float) -> list[float]:
        """Return the seconds of process 0, and the CPU seconds of all processes."""
        if self.processes.size == 1:
            return [seconds, cpu_seconds]
        mine = 0.0 if self.processes.rank else seconds
        return self.processes.sum(torch.tensor([mine, cpu_seconds], dtype=torch.float64)).tolist()

    def test(self, samples: int = 4000) -> dict[str, float]:
        """Return the accuracy on questions of the last level that training does not use."""
        seed, share = self.processes.seed(self.seed + TEST_SEED), -(-samples // self.processes.size)
        generator = torch.Generator(self.model.device).manual_seed(seed)
        counts = count_right(self.evaluated_model, self.task, share, generator)
        right, asked = self.processes.sum(counts).sum(1).tolist()
        self.test_accuracy = right / asked
        return {"test/accuracy": self.test_accuracy}

    def promote(self) -> str | None:
        """Start the next level if this one is learned, or the last if it is time; return a message."""
        last = self.task.num_levels - 1
        learned = self.updates_since_promotion >= 100 and self.accuracy >= self.config.promote_at
        late = self.progress >= self.config.levels_share
        if self.level == last or self.progress >= 1 or not (learned or late):
            return None
        self.level = last if late else self.level + 1
        self.updates_since_promotion = 0
        return f"level {self.level + 1} of {last + 1} after {self.samples:,} samples"

    def run(self) -> None:
        """Train until the budget is used up or the target reached.

        Raises:
            UsageError: the run folder holds another run, or cannot be written.
            TrainingError: the loss is not finite, or the final checkpoint could not be saved.
            Interrupted: by Ctrl-C or SIGTERM, after saving.
        """
        title = f"{self.model.core_name}, {sum(p.numel() for p in self.model.parameters()):,} parameters"
        budget = self.config.total_samples
        with training_loop(self, title, budget, COLUMNS, "samples", self.callbacks, METRICS) as loop:
            while loop.running:
                tests_before = self.samples // self.config.test_every
                figures = self.iterate()
                if self.samples // self.config.test_every > tests_before or self.done:
                    figures |= self.test()
                message = self.promote()
                loop.report(figures, self._shown(figures), [] if message is None else [message])

    def to_json(self) -> dict[str, Any]:
        """Describe the run for config.json."""
        imports = [*self.extra.get("imports", ()), *registering_modules(self.model.core, self.task)]
        return {
            "classifier": self.model.to_json(),
            "supervised": asdict(self.config),
            "seed": self.seed,
            "target_accuracy": self.target_accuracy,
            "processes": self.processes.size,
            **self.extra,
            "imports": list(dict.fromkeys(imports)),
        }

    def _state(self) -> dict[str, Any]:
        return {
            "agent": self.evaluated_model.state_dict(),
            **({} if self.mean is None else {"newest": self.model.state_dict()}),
            "optimizers": [optimizer.state_dict()["state"] for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "recent": self.recent,
            "counters": [self.samples, self.updates, self.level, self.updates_since_promotion],
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "tested": self.test_accuracy,
        }

    def _load(self, state: dict[str, Any], saved_by: int | None = None) -> list[str]:
        if "optimizers" not in state:
            raise UsageError("the checkpoint holds a network only, which can be evaluated but not resumed")
        if ("newest" in state) != (self.mean is not None):
            raise ValueError("average_updates is on in only one of run and trainer")
        counters, tested = state["counters"], state.get("tested", 0.0)
        if (
            not all(type(n) is int and 0 <= n < 2**62 for n in counters)
            or counters[2] >= self.task.num_levels
        ):
            raise ValueError(f"counters {counters!r:.200} for {self.task.num_levels} levels")
        # Older checkpoints have neither this nor an accuracy; it is NaN where it is not known.
        cpu_seconds = state.get("cpu_seconds", math.nan)
        if type(cpu_seconds) is not float or not math.isnan(cpu_seconds):
            require_count("cpu_seconds", cpu_seconds, most=1e12)
        seconds = float(require_count("seconds", state["seconds"], most=1e12))
        require_count("tested", tested, most=1)
        if non_finite(state["recent"]) or state["recent"].shape != self.recent.shape:
            raise ValueError("the recent answers are not those of this task")
        load_weights(self.evaluated_model, state, self.run_dir)
        if self.mean is not None:
            load_weights(self.model, {"agent": state["newest"]}, self.run_dir)
        for optimizer, moments in zip(self.optimizers, state["optimizers"], strict=True):
            moments = require_moments(optimizer, moments)
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        if saved_by in (None, self.processes.size):
            notes = resume_generator(self.generator, state["generator"])
        else:
            self.generator.manual_seed(self.processes.seed(self.seed + counters[0]))
            notes = [
                f"the run was saved by {saved_by} processes and continues in {self.processes.size}: its "
                "examples differ from here on"
            ]
        if self.config.orthogonalization == "bfloat16" and bfloat16_is_slow(self.model.device):
            notes.append("this run orthogonalizes in bfloat16, which is slow on this CPU: use float32")
        self.recent.copy_(state["recent"])
        self.samples, self.updates, self.level, self.updates_since_promotion = counters
        self.seconds, self.cpu_seconds, self.test_accuracy = seconds, float(cpu_seconds), float(tested)
        return notes

    def _write(self, payload: dict[str, Any]) -> Path:
        return save_checkpoint(self.run_dir, self.samples, payload, keep=1)

    def _arithmetic(self) -> dict[str, str]:
        return arithmetic(self.model.device, "float32")

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
            "aux loss": figures.get("train/aux_loss", 0.0),
        }


def _sum_gradients(model: SequenceClassifier, processes: Processes) -> None:
    """Replace the gradients of all parameters by their sums over all processes."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = processes.sum(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))

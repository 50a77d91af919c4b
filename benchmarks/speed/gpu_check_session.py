"""What the stages of `gpu_check` share: the device, the time that is left, and results as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import rmc_envs
from benchmarks.speed.device_checks import describe, synchronize
from rmc_agents import ActorCritic, PPOConfig, Trainer
from rmc_agents.cli.config import RunConfig
from rmc_agents.cli.presets import find_preset
from rmc_agents.cores.kernels import triton_common
from rmc_agents.training.graphs import WARM_UP_CALLS

MAZE = "MiniGrid-MemoryS13-v0"
RESULTS_FILE = "gpu_check.jsonl"


@dataclass(frozen=True)
class Session:
    """One stage in one process."""

    stage: str
    device: torch.device
    quick: bool
    """Tiny sizes, to see whether the stage runs."""
    folder: Path
    """Where the results are written."""
    seconds: float
    """Time limit of the stage."""
    started: float = field(default_factory=time.monotonic)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds until the stage is ended."""
        return self.seconds - (time.monotonic() - self.started)

    def note(self, what: str, **facts: Any) -> None:
        """Write a result as a line of JSON: numbers with four digits, and nothing that is None."""
        given = {key: x for key, x in facts.items() if x is not None}
        shown = {key: float(f"{x:.4g}") if isinstance(x, float) else x for key, x in given.items()}
        line = json.dumps({"stage": self.stage, "what": what, **shown})
        print(line, flush=True)
        with (self.folder / RESULTS_FILE).open("a") as file:
            file.write(line + "\n")

    def attempt(self, what: str, call: Callable[[], object], needs: float = 0.0, **facts: Any) -> None:
        """Call a function; if it raises, that is the result, and what follows is still measured.

        Args:
            what: name of the result.
            call: notes its results itself.
            needs: seconds; if fewer are left, it is not called.
            facts: added to the note of a failure.
        """
        if self.left < needs and not self.quick:
            self.note(what, **facts, skipped=f"{self.left:.0f} s are left")
            return
        try:
            call()
        except Exception as error:
            self.note(what, **facts, failed=describe(error))
            traceback.print_exc()

    def time(self, call: Callable[[], object], rounds: int = 5, warm_up: int = 2) -> float:
        """Return the median of the seconds that a call takes, the device's work included."""
        for _ in range(warm_up):
            call()
        measured = []
        for _ in range(1 if self.quick else rounds):
            synchronize(self.device)
            started = time.perf_counter()
            call()
            synchronize(self.device)
            measured.append(time.perf_counter() - started)
        return statistics.median(measured)


@dataclass(frozen=True)
class Sizes:
    """Sizes of an iteration of training."""

    num_envs: int
    num_steps: int
    bptt_length: int
    minibatch_size: int
    epochs: int = 4

    @property
    def transitions(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def facts(self) -> dict[str, int]:
        """The sizes by their names in results."""
        return {
            "envs": self.num_envs,
            "steps": self.num_steps,
            "L": self.bptt_length,
            "minibatch": self.minibatch_size,
        }


QUICK = Sizes(8, 16, 8, 32, epochs=1)
PRESET = Sizes(64, 128, 32, 512)


def make_trainer(
    session: Session,
    core: str,
    sizes: Sizes,
    *,
    task: str = MAZE,
    graphs: bool = False,
    curriculum: bool = False,
    folder: Path | None = None,
) -> Trainer:
    """Return a trainer of the preset of a task with other sizes; without a curriculum, without a KL limit.

    Args:
        session: the stage.
        core: name of the core.
        sizes: sizes of an iteration.
        task: id of a native task.
        graphs: use CUDA graphs.
        curriculum: train in the preset's mixture of mazes.
        folder: the run folder; nothing is written there before `save`.
    """
    preset = find_preset(task) or RunConfig()
    mazes = preset.environment.train_on if curriculum else None
    actions: dict[str, Any] = {"actions": 3} if task == MAZE else {}
    env = rmc_envs.make(mazes or task, sizes.num_envs, session.device, **actions)
    torch.manual_seed(0)
    options = dict(vars(preset.agent))
    own_core, core_options = options.pop("core"), options.pop("core_options")
    agent = ActorCritic(
        env.observation_space,
        env.action_space,
        core,
        core_options if core == own_core else {},
        aux_size=env.aux_size if preset.ppo.aux_coef else 0,
        **options,
    ).to(session.device)
    config = PPOConfig(
        **{
            **vars(preset.ppo),
            "total_steps": 10**9,
            "num_steps": sizes.num_steps,
            "bptt_length": sizes.bptt_length,
            "minibatch_size": sizes.minibatch_size,
            "epochs": sizes.epochs,
            "target_kl": preset.ppo.target_kl if curriculum else None,
        }
    )
    run_dir = folder or Path(tempfile.mkdtemp(prefix="gpu-check-"))
    return Trainer(agent, env, config, run_dir, curriculum=curriculum, graphs=graphs)


def make_trained(session: Session, core: str, sizes: Sizes, graphs: bool, task: str = MAZE) -> Trainer:
    """Return a trainer after some iterations, so many that graphs are replayed; see `make_trainer`."""
    trainer = make_trainer(session, core, sizes, task=task, graphs=graphs)
    for _ in range(WARM_UP_CALLS + 3):
        trainer.iterate()
    return trainer


def capture_failure(trainer: Trainer) -> str | None:
    """Return why a CUDA graph of the trainer could not be captured; None if none failed."""
    failures = {"rollout": trainer.collect.failure, "gradient step": trainer.updater.take_step.failure}
    return ", ".join(f"{name}: {why}" for name, why in failures.items() if why is not None) or None


@contextlib.contextmanager
def without_triton() -> Iterator[None]:
    """Let cores run in PyTorch on a GPU, too."""
    with mock.patch.object(triton_common, "DEVICE_TYPES", set()):
        yield

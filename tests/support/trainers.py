"""Small training runs, and what two of them must have in common to be the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import one_hot

import rmc_envs
from rmc_agents import PPOConfig, SequenceClassifier, SupervisedConfig, SupervisedTrainer, Trainer
from rmc_agents.runs.folder import write_config
from rmc_agents.supervised.objective import Examples
from rmc_agents.training.processes import ALONE, Processes
from rmc_agents.tree import leaves
from tests.conftest import small_options
from tests.support.agents import small_agent, small_env

QUICK = PPOConfig(total_steps=8 * 16 * 4, num_steps=16, bptt_length=8, minibatch_size=64, epochs=2)
"""Four iterations of eight environments."""


def ppo_trainer(
    run_dir: Path, core: str = "gru", env: rmc_envs.BatchedEnv | None = None, **options: Any
) -> Trainer:
    """Build a trainer of a small agent; by default four iterations of a recall task.

    Args:
        run_dir: the run folder.
        core: the agent's memory core.
        env: eight environments.
        options: of `Trainer`, also `config`.
    """
    torch.manual_seed(5)
    env = env or small_env(8)
    return Trainer(small_agent(core, env), env, options.pop("config", QUICK), run_dir, seed=5, **options)


def everything(trainer: Trainer) -> list[torch.Tensor]:
    """Return the tensors that the next iteration depends on."""
    moments = [x for state in trainer.optimizer.state.values() for x in state.values()]
    carried = [*leaves(trainer.carry), *leaves(trainer.running)]
    assert trainer.generator is not None
    return [*trainer.agent.parameters(), *moments, *carried, trainer.generator.get_state()]


def assert_identical(a: Trainer, b: Trainer) -> None:
    """Assert that two runs are at the same point, bit for bit."""
    assert (a.steps, a.iterations, list(a.recent)) == (b.steps, b.iterations, list(b.recent))
    for x, y in zip(everything(a), everything(b), strict=True):
        assert torch.equal(x, y)


def save_interrupted(trainer: Trainer | SupervisedTrainer) -> Path:
    """Save a run that was driven by `iterate`, as an interruption would; return the checkpoint."""
    write_config(trainer.run_dir, trainer.to_json())
    return trainer.save()


class FirstSymbol:
    """Supervised task: name the first of three symbols, one of four. At level 0 it is one of two."""

    num_levels, num_groups = 2, 4

    def draw(self, batch_size: int, level: int, generator: torch.Generator) -> Examples:
        symbols = torch.randint(4, (3, batch_size), generator=generator)
        symbols[0] %= 2 if level == 0 else 4
        inputs = one_hot(symbols, 4).float()
        targets = symbols[:1].expand(3, -1)
        aux_targets = inputs[:1].expand(3, -1, -1)
        return Examples(
            inputs,
            targets,
            torch.ones_like(targets, dtype=torch.bool),
            symbols[0],
            aux_targets,
            torch.ones_like(aux_targets),
        )


SUPERVISED: dict[str, Any] = {
    "levels_share": 1.0,
    "total_samples": 4096,
    "batch_size": 32,
    "warmup_updates": 10,
    "promote_at": 0.9,
}
"""Settings of `supervised_trainer`."""


def supervised_trainer(
    run_dir: Path,
    core: str = "gru",
    seed: int = 0,
    target_accuracy: float | None = None,
    processes: Processes = ALONE,
    **options: Any,
) -> SupervisedTrainer:
    """Build a trainer of a small classifier on `FirstSymbol`.

    Args:
        run_dir: the run folder.
        core: the classifier's memory core.
        seed: of weights and examples.
        target_accuracy, processes: as in `SupervisedTrainer`.
        options: of `SupervisedConfig`, over those of `SUPERVISED`.
    """
    torch.manual_seed(seed)
    model = SequenceClassifier(4, 4, core, small_options(core), hidden_size=16, hidden_layers=1, aux_size=4)
    config = SupervisedConfig(**{**SUPERVISED, **options})
    return SupervisedTrainer(
        model,
        FirstSymbol(),
        config,
        run_dir,
        seed=seed,
        target_accuracy=target_accuracy,
        log_every=16,
        processes=processes,
    )

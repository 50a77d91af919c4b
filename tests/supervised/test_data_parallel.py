"""Supervised training in several processes: equal parameters, gradients of the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rmc_agents import SupervisedTrainer
from rmc_agents.runs.folder import read_config
from rmc_agents.supervised.objective import loss
from rmc_agents.supervised.trainer import _sum_gradients
from rmc_agents.training.processes import ALONE, Processes
from rmc_agents.tree import map_tree
from tests.support.groups import in_processes
from tests.support.trainers import save_interrupted, supervised_trainer

OPTIONS: dict[str, Any] = {"muon_lr": 0.01, "max_grad_norm": 0.5, "average_updates": 4, "aux_until": 0.7}


def everything(run: SupervisedTrainer) -> list[torch.Tensor]:
    """Return what the next update depends on, and is equal in all processes."""
    moments = [x for opt in run.optimizers for s in opt.state.values() for x in s.values()]
    counters = torch.tensor([run.samples, run.updates, run.level, run.updates_since_promotion])
    networks = [*run.model.parameters(), *run.evaluated_model.parameters()]
    return [x.detach().clone() for x in (*networks, *moments, run.recent, counters)]


def trainer(group: Processes, run_dir: Path, **options: Any) -> SupervisedTrainer:
    return supervised_trainer(run_dir, processes=group, **{**OPTIONS, **options})


def iterate_and_resume(group: Processes, folder: Path) -> list[Any]:
    """Train for four iterations, once in one go and once resumed after two."""
    whole, first = trainer(group, folder / "whole"), trainer(group, folder / "parts")
    for _ in range(3):
        whole.iterate()
    figures = whole.iterate()
    for _ in range(2):
        first.iterate()
    first.save() if group.rank else save_interrupted(first)
    second = trainer(group, folder / "parts")
    notes = second.restore()
    for _ in range(2):
        second.iterate()
    assert all(torch.equal(a, b) for a, b in zip(everything(whole), everything(second), strict=True))
    assert torch.equal(whole.generator.get_state(), second.generator.get_state())
    times = ("time/fps", "time/total_seconds", "time/total_cpu_seconds")
    same = {tag: x for tag, x in figures.items() if tag not in times}
    return [everything(whole), same, whole.seconds, whole.test(), len(notes), whole.generator.get_state()]


def test_processes_stay_equal_and_resume_bit_for_bit(tmp_path: Path) -> None:
    first, second = in_processes(lambda group: iterate_and_resume(group, tmp_path))
    assert not isinstance(first, str), first
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert first[1:5] == second[1:5]
    assert not torch.equal(first[5], second[5]), "each process draws its own examples"
    assert int(first[0][-1][0]) == 4 * 16 * 32, "samples count those of both"
    assert read_config(tmp_path / "parts")["processes"] == 2
    alone = trainer(ALONE, tmp_path / "parts")
    assert "saved by 2 processes and continues in 1: its examples differ" in alone.restore()[1]
    assert alone.samples == 2 * 16 * 32
    alone.iterate()


def test_group_of_one_equals_a_process_alone(tmp_path: Path) -> None:
    def train(group: Processes) -> list[torch.Tensor]:
        run = trainer(group, tmp_path / "run")
        run.iterate()
        return everything(run)

    (grouped,) = in_processes(train, size=1)
    assert all(torch.equal(a, b) for a, b in zip(grouped, train(ALONE), strict=True))


def test_divided_batch_gives_the_gradient_of_the_whole(tmp_path: Path) -> None:
    def gradients(group: Processes) -> list[torch.Tensor]:
        run = supervised_trainer(tmp_path)
        examples = run.task.draw(32, 1, torch.Generator().manual_seed(1))
        weights = torch.rand(examples.aux_weights.shape, generator=torch.Generator().manual_seed(2))
        examples = examples._replace(aux_weights=weights)
        own = torch.arange(group.rank, 32, group.size)
        part = map_tree(lambda x: x.index_select(0 if x.ndim == 1 else 1, own), examples)
        losses, _ = loss(run.model, part, run.config, torch.Generator().manual_seed(3), True, group)
        losses["loss"].backward()
        _sum_gradients(run.model, group)
        losses = [group.sum(x.detach()) for x in losses.values()]
        return [*losses, *(p.grad for p in run.model.parameters() if p.grad is not None)]

    first, second = in_processes(gradients)
    assert not isinstance(first, str), first
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.testing.assert_close(first, gradients(ALONE), rtol=1e-4, atol=1e-5)


def test_batches_must_be_divisible(tmp_path: Path) -> None:
    class Three(type(ALONE)):
        size = 3

    with pytest.raises(ValueError, match="batch_size=32 cannot be divided among 3 processes"):
        trainer(Three(), tmp_path)

"""Evaluation of a classifier: counts per group, with intervals, on fresh examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmc_agents.evaluation.statistics import wilson
from rmc_agents.supervised.evaluate import Accuracy, evaluate_classifier, pooled
from tests.support.trainers import supervised_trainer


def test_accuracy_has_a_rate_and_an_interval() -> None:
    accuracy = Accuracy(3, 4)
    assert accuracy.rate == 0.75
    assert accuracy.ci95 == wilson(3, 4)
    assert (Accuracy(0, 0).rate, Accuracy(0, 0).ci95) == (None, None)
    assert pooled([Accuracy(1, 2), Accuracy(3, 4), Accuracy(0, 0)]) == Accuracy(4, 6)


def test_evaluation_depends_on_the_seed_alone(tmp_path: Path) -> None:
    trainer = supervised_trainer(tmp_path)
    first, again, other = (evaluate_classifier(trainer.model, trainer.task, 500, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == trainer.task.num_groups
    assert sum(group.asked for group in first) == 500


def test_evaluation_agrees_with_the_test_in_training(tmp_path: Path) -> None:
    trainer = supervised_trainer(tmp_path)
    trainer.run()
    accuracy = pooled(evaluate_classifier(trainer.model, trainer.task, 4000)).rate
    assert accuracy == pytest.approx(trainer.test()["test/accuracy"], abs=0.05)

"""Supervised objective: settings, schedules, the loss by hand, optimisers and counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rmc_agents.supervised import trainer as trainer_module
from rmc_agents.supervised.muon import Muon
from rmc_agents.supervised.objective import SupervisedConfig, count_right, loss
from rmc_agents.supervised.trainer import TEST_SEED
from tests.support.trainers import save_interrupted, supervised_trainer


def test_loss_matches_hand_computation(tmp_path: Path) -> None:
    trainer = supervised_trainer(tmp_path)
    generator = torch.Generator().manual_seed(0)
    examples = trainer.task.draw(6, 1, generator)
    answerable = examples.answerable.clone()
    answerable[:2, ::2] = False
    examples = examples._replace(answerable=answerable)
    outputs, logits = trainer.model(examples.inputs)
    log_probs = logits.log_softmax(-1).gather(-1, examples.targets.unsqueeze(-1)).squeeze(-1)
    config = SupervisedConfig(extra_steps=2, aux_coef=3.0)

    losses, right = loss(trainer.model, examples, config, generator, auxiliary=True)
    answer = -log_probs[-1].mean()
    others = -(log_probs * answerable)[:2].sum() / 6
    assert trainer.model.aux_head is not None
    auxiliary = (trainer.model.aux_head(outputs) - examples.aux_targets).square().mean()
    torch.testing.assert_close(losses["answer_loss"], answer)
    torch.testing.assert_close(losses["aux_loss"], auxiliary)
    torch.testing.assert_close(losses["loss"], answer + others + 3 * auxiliary)
    assert torch.equal(right, (logits[-1].argmax(-1) == examples.targets[-1]).float())

    alone, _ = loss(trainer.model, examples, config, generator, auxiliary=False)
    assert alone.keys() == {"answer_loss", "loss"}
    torch.testing.assert_close(alone["loss"], answer)


def test_learning_rates_grow_then_fall_to_zero() -> None:
    config = SupervisedConfig(warmup_updates=10, decay_share=0.5)
    assert config.rate_at(0.0, 0) == pytest.approx(0.1)
    assert config.rate_at(0.3, 50) == 1
    assert config.rate_at(0.75, 500) == pytest.approx(0.5)
    assert config.rate_at(1.0, 500) == 0


@pytest.mark.parametrize(
    "options", [{"total_samples": 0}, {"minutes": -1.0}, {"promote_at": 2.0}, {"adam_lr": float("nan")}]
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SupervisedConfig(**options)


def test_muon_gets_the_inner_matrices_and_adam_all_other_parameters(tmp_path: Path) -> None:
    trainer = supervised_trainer(tmp_path)
    adam, muon = ({id(p) for group in o.param_groups for p in group["params"]} for o in trainer.optimizers)
    assert muon == {id(p) for p in trainer.model.matrices()}
    assert muon
    assert adam | muon == {id(p) for p in trainer.model.parameters()}
    assert not adam & muon
    assert len(supervised_trainer(tmp_path, muon_lr=0.0).optimizers) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_muon_orthogonalizes_in_the_precision_of_the_settings(precision: Any, tmp_path: Path) -> None:
    muon = supervised_trainer(tmp_path, orthogonalization=precision).optimizers[1]
    assert isinstance(muon, Muon)
    assert muon.dtype == getattr(torch, precision)
    assert SupervisedConfig().orthogonalization == "float32"
    with pytest.raises(ValueError, match="orthogonalization must be one of"):
        SupervisedConfig(orthogonalization="float16")  # type: ignore[arg-type]


@pytest.mark.parametrize(("precision", "slow"), [("float32", True), ("bfloat16", True), ("bfloat16", False)])
def test_resume_says_that_bfloat16_is_slow(
    precision: Any, slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "bfloat16_is_slow", lambda _: slow)
    trainer = supervised_trainer(tmp_path, orthogonalization=precision)
    save_interrupted(trainer)
    notes = supervised_trainer(tmp_path, orthogonalization=precision).restore()
    assert any("bfloat16, which is slow on this CPU" in note for note in notes) == (
        precision == "bfloat16" and slow
    )


def test_right_answers_are_counted_on_the_last_level(tmp_path: Path) -> None:
    trainer = supervised_trainer(tmp_path)
    drawn = torch.Generator().manual_seed(TEST_SEED)  # the run's seed is 0
    parts = [trainer.task.draw(size, 1, drawn) for size in (2000, 500)]
    right = sum((trainer.model(x.inputs).logits[-1].argmax(-1) == x.targets[-1]).sum().item() for x in parts)
    assert trainer.test(2500) == {"test/accuracy": right / 2500}
    counts = count_right(trainer.model, trainer.task, 5, torch.Generator().manual_seed(1), batch_size=2)
    assert counts.shape == (2, 4)
    assert counts[1].sum() == 5
    counts = count_right(trainer.model, trainer.task, 1000, torch.Generator().manual_seed(1))
    assert (counts[1] > 200).all()  # level 0 has two of the four groups
    assert (counts[0] <= counts[1]).all()

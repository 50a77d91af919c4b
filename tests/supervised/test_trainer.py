"""Supervised training loop: a small task that needs memory, its levels, resuming bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rmc_agents.errors import TrainingError, UsageError
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import read_config
from rmc_agents.runs.migrations import CONFIG_FORMAT
from rmc_agents.supervised.classifier import export_classifier, load_classifier
from rmc_agents.supervised.muon import Muon
from rmc_agents.supervised.objective import loss
from rmc_agents.supervised.trainer import COLUMNS, TEST_SEED
from rmc_agents.training.progress import Progress
from rmc_agents.training.rng import OTHER_DEVICE
from tests.support.trainers import FirstSymbol, save_interrupted
from tests.support.trainers import supervised_trainer as trainer


@pytest.mark.parametrize("core", ["rmc", "gru", "feedforward"])
def test_core_with_memory_learns_and_one_without_guesses(core: str, tmp_path: Path) -> None:
    t = trainer(tmp_path, core, total_samples=16_000, promote_at=0.6)
    t.level = 1
    t.run()
    if core == "feedforward":
        assert t.accuracy < 0.4
    else:
        assert t.accuracy > 0.9
        shares = t.recent[0] / t.recent[1]
        assert (shares > 0.8).all()


def test_level_ends_when_it_is_learned(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=32_000)
    t.run()
    assert t.level == 1
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    notes = [line for line in lines if "note" in line]
    assert len(notes) == 1
    assert notes[0]["note"].startswith("level 2 of 2")
    before = [x for x in lines if "train/level" in x and x["step"] <= notes[0]["step"]]
    assert before[-1]["train/accuracy"] >= 0.9
    assert all(x["train/level"] == 0 for x in before)


def test_level_that_is_not_learned_ends_in_time_for_the_last(tmp_path: Path) -> None:
    t = trainer(tmp_path / "late", "feedforward", levels_share=1.0)
    t.run()
    assert t.level == 0  # no level starts after the end
    t = trainer(tmp_path, "feedforward", levels_share=0.75)
    t.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "note" in line] == [3072]
    assert t.level == 1


@pytest.mark.parametrize("average_updates", [0, 20])
def test_resumed_run_equals_uninterrupted(average_updates: int, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", average_updates=average_updates)
    whole.run()
    first = trainer(tmp_path / "parts", average_updates=average_updates)
    for _ in range(3):
        first.iterate()
        first.promote()
    save_interrupted(first)
    # Other weights and another generator, both replaced.
    second = trainer(tmp_path / "parts", seed=5, average_updates=average_updates)
    assert second.restore() == [f"resuming from {tmp_path}/parts/checkpoints/step_000000001536.pt"]
    second.run()
    assert second.samples == whole.samples == 4096
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    evaluated = (t.evaluated_model.state_dict().values() for t in (whole, second))
    for a, b in zip(*evaluated, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.recent, second.recent)


def test_run_resumed_at_a_later_level_equals_uninterrupted(tmp_path: Path) -> None:
    options: dict[str, Any] = {"total_samples": 8192, "promote_at": 0.0}
    whole = trainer(tmp_path / "whole", **options)
    whole.run()
    first = trainer(tmp_path / "parts", **options)
    for _ in range(8):
        first.iterate()
        first.promote()
    assert (first.level, first.updates_since_promotion) == (1, 16)
    save_interrupted(first)
    second = trainer(tmp_path / "parts", seed=5, **options)
    second.restore()
    assert (second.seconds, second.cpu_seconds) == (first.seconds, first.cpu_seconds)
    assert first.seconds > 0
    second.run()
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("average_updates", [0, 20])
def test_state_dict_continues_another_trainer_bit_for_bit(average_updates: int, tmp_path: Path) -> None:
    """Without a file between them."""
    first = trainer(tmp_path / "a", average_updates=average_updates)
    second = trainer(tmp_path / "b", seed=5, average_updates=average_updates)
    for _ in range(2):
        first.iterate()
    first.test()
    assert second.load_state_dict(first.state_dict()) == []
    assert second.test_accuracy == first.test_accuracy > 0
    assert second.count == first.count == first.samples == 1024
    assert (second.updates, second.updates_since_promotion) == (32, 32)
    for t in (first, second):
        t.iterate()
    states = [t.state_dict() for t in (first, second)]
    assert states[0].keys() == states[1].keys()
    for name in ("agent", "newest"):
        for a, b in zip(states[0].get(name, {}).values(), states[1].get(name, {}).values(), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(states[0]["generator"], states[1]["generator"])


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("optimizers", [{}, {0: {"momentum_buffer": torch.zeros(1)}}]),
        ("generator", "nonsense"),
        ("counters", ["1", 2, 0, 3]),
        ("counters", [1, 2, 9, 3]),
        ("recent", torch.zeros(7)),
        ("agent", {}),
    ],
)
def test_state_that_does_not_fit_leaves_the_trainer_as_it_was(part: str, value: Any, tmp_path: Path) -> None:
    other = trainer(tmp_path / "other")
    other.update()
    t = trainer(tmp_path / "t")
    before = t.state_dict()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever a part raises
        t.load_state_dict({**other.state_dict(), part: value})
    after = t.state_dict()
    assert after["counters"] == before["counters"]
    for name, weight in before["agent"].items():
        assert torch.equal(after["agent"][name], weight)
    assert torch.equal(after["generator"], before["generator"])


def test_config_json_describes_the_run(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=64, target_accuracy=0.9)
    t.extra = {"imports": ["math"], "note": "hand-written"}
    t.run()
    config = read_config(tmp_path)
    assert config["format"] == CONFIG_FORMAT
    assert config["classifier"] == t.model.to_json()
    assert config["supervised"]["total_samples"] == 64
    assert (config["seed"], config["target_accuracy"], config["note"]) == (0, 0.9, "hand-written")
    assert config["imports"] == ["math", FirstSymbol.__module__], "the task's module is remembered, too"


def test_mean_of_the_weights_matches_hand_computation(tmp_path: Path) -> None:
    t = trainer(tmp_path, average_updates=3)
    newest, mean = dict(t.model.named_parameters()), {n: w.clone() for n, w in t.model.named_parameters()}
    for updates in range(30):
        t.update()
        # Short at first: two updates after the first ten.
        memory = min(3, 1 + updates / 10)
        mean = {n: w + (newest[n].detach() - w) / memory for n, w in mean.items()}
    assert t.mean is not None
    for name, weights in t.mean.named_parameters():
        torch.testing.assert_close(weights, mean[name], msg=name)
        assert not torch.equal(weights, newest[name])


def test_mean_of_the_weights_does_not_change_training(tmp_path: Path) -> None:
    plain, averaged = trainer(tmp_path / "plain"), trainer(tmp_path / "averaged", average_updates=20)
    plain.run()
    averaged.run()
    for a, b in zip(plain.model.state_dict().values(), averaged.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_mean_of_the_weights_is_tested_and_saved(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=16_000, adam_lr=0.03, decay_share=0.0, average_updates=100)
    t.level = 1
    t.run()
    assert t.mean is not None
    assert t.evaluated_model is t.mean
    examples = FirstSymbol().draw(4000, 1, torch.Generator().manual_seed(TEST_SEED))
    aux_losses = [
        loss(model, examples, t.config, torch.Generator(), auxiliary=True)[0]["aux_loss"].item()
        for model in (t.mean, t.model)
    ]
    # With a constant learning rate the mean of the weights is nearer to where they would converge.
    assert aux_losses[0] < 0.5 * aux_losses[1]
    kept, _, _ = load_classifier(tmp_path)
    for a, b in zip(t.mean.state_dict().values(), kept.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    torch.nn.init.zeros_(t.model.logits.weight)
    assert t.test()["test/accuracy"] > 0.9


@pytest.mark.parametrize(("saved", "asked"), [(0, 20), (20, 0)])
def test_run_with_and_without_mean_cannot_resume_each_other(saved: int, asked: int, tmp_path: Path) -> None:
    trainer(tmp_path, total_samples=64, average_updates=saved).run()
    with pytest.raises(UsageError, match="average_updates"):
        trainer(tmp_path, average_updates=asked).restore()


def test_run_resumed_on_another_kind_of_device_draws_other_numbers(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    t.run()
    path, payload, _ = read_newest(tmp_path)
    # A state of another length than a CPU's, as a GPU gives.
    torch.save({**payload, "generator": torch.arange(16, dtype=torch.uint8)}, path)
    draws = []
    for _ in range(2):
        again = trainer(tmp_path, seed=3)
        assert again.restore() == [f"resuming from {path}", OTHER_DEVICE]
        draws.append(torch.rand(4, generator=again.generator))
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], torch.rand(4, generator=t.generator))


def test_exported_network_cannot_be_resumed(tmp_path: Path) -> None:
    trainer(tmp_path / "run", total_samples=64).run()
    export_classifier(tmp_path / "run", tmp_path / "alone")
    with pytest.raises(UsageError, match="holds a network only, which can be evaluated but not resumed"):
        trainer(tmp_path / "alone").restore()


def test_learning_rates_and_auxiliary_losses_follow_the_budget(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=3200, decay_share=0.5, aux_until=0.5, adam_lr=1e-3, muon_lr=1e-2)
    adam, muon = t.optimizers
    assert isinstance(adam, torch.optim.Adam)
    assert isinstance(muon, Muon)
    rates, with_auxiliary = [], []
    while t.progress < 1:
        with_auxiliary.append("aux_loss" in t.update())
        rates.append((adam.param_groups[0]["lr"], muon.param_groups[0]["lr"]))
    for update, factor in ((0, 0.1), (20, 1.0), (50, 1.0), (75, 0.5), (99, 0.02)):
        assert rates[update] == pytest.approx((1e-3 * factor, 1e-2 * factor))
    assert with_auxiliary == [True] * 50 + [False] * 50


def test_gradients_are_clipped_to_max_grad_norm(tmp_path: Path) -> None:
    lengths = []
    for limit in (0.0, 0.01):
        t = trainer(tmp_path, max_grad_norm=limit)
        t.update()
        gradients = [p.grad for p in t.model.parameters() if p.grad is not None]
        lengths.append(torch.cat([g.flatten() for g in gradients]).norm().item())
    assert lengths[0] > 0.1
    assert lengths[1] == pytest.approx(0.01, rel=1e-3)


def test_time_left_is_that_of_the_nearer_limit(tmp_path: Path) -> None:
    figures = {"time/fps": 10.0, "train/accuracy": 0.5, "train/level": 0, "train/answer_loss": 1.0}
    t = trainer(tmp_path, total_samples=1000)
    t.samples, t.seconds = 400, 30.0
    progress = Progress("", 1000, columns=COLUMNS)
    assert (progress._cells(t._shown(figures))["time left"], t._shown(figures)["share"]) == ("1:00", 0.4)
    t = trainer(tmp_path, total_samples=1000, minutes=1.0)
    t.samples, t.seconds = 400, 30.0
    assert (progress._cells(t._shown(figures))["time left"], t._shown(figures)["share"]) == ("0:30", 0.5)


def test_run_stops_at_target_accuracy(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=10**6, test_every=2048, target_accuracy=0.9)
    t.run()
    assert t.samples < 10**5
    assert t.test_accuracy == t.test()["test/accuracy"] >= 0.9
    assert t.level == 1
    again = trainer(tmp_path, total_samples=10**6, test_every=2048)
    again.restore()
    assert not again.done
    again.target_accuracy = 0.9
    assert again.done
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["test/accuracy"] >= 0.9 for line in lines if "test/accuracy" in line][-2:] == [False, True]


def test_run_stops_after_its_minutes(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=10**9, minutes=0.01)
    t.run()
    assert 0.6 <= t.seconds < 20
    assert t.progress >= 1


def test_non_finite_loss_stops_the_run(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    with torch.no_grad():
        next(t.model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        t.run()
    assert not list(tmp_path.glob("checkpoints/*.pt"))

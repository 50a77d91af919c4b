"""Learning from examples: a small task that needs memory, its levels, and going on bit for bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot

from rmc_agents.checkpoint import read_newest
from rmc_agents.classifier import SequenceClassifier, export_classifier, load_classifier
from rmc_agents.errors import Interrupted, TrainingError, UsageError
from rmc_agents.examples import Examples, SupervisedConfig, count_right, loss
from rmc_agents.generators import OTHER_DEVICE
from rmc_agents.progress import Progress
from rmc_agents.supervised import COLUMNS, TEST_SEED, SupervisedTrainer
from tests.conftest import small_options


class FirstSymbol:
    """Which of four symbols came first? At level 0 it is one of two."""

    num_levels, num_groups = 2, 4

    def draw(self, batch_size: int, level: int, generator: torch.Generator) -> Examples:
        symbols = torch.randint(4, (3, batch_size), generator=generator)
        symbols[0] %= 2 if level == 0 else 4
        inputs = one_hot(symbols, 4).float()
        targets = symbols[:1].expand(3, -1)
        hints = inputs[:1].expand(3, -1, -1)
        return Examples(
            inputs,
            targets,
            torch.ones_like(targets, dtype=torch.bool),
            symbols[0],
            hints,
            torch.ones_like(hints),
        )


CONFIG: dict[str, Any] = {
    "levels_share": 1.0,
    "total_samples": 4096,
    "batch_size": 32,
    "warmup_updates": 10,
    "promote_at": 0.9,
}


def trainer(run_dir: Path, core: str = "gru", seed: int = 0, **options: Any) -> SupervisedTrainer:
    torch.manual_seed(seed)
    model = SequenceClassifier(4, 4, core, small_options(core), hidden_size=16, hidden_layers=1, hint_size=4)
    return SupervisedTrainer(
        model, FirstSymbol(), SupervisedConfig(**{**CONFIG, **options}), run_dir, seed=seed, log_every=16
    )


@pytest.mark.parametrize("core", ["rmc", "gru", "feedforward"])
def test_who_remembers_learns_and_who_does_not_guesses(core: str, tmp_path: Path) -> None:
    t = trainer(tmp_path, core, total_samples=16_000, promote_at=0.6)
    t.level = 1
    t.run()
    if core == "feedforward":
        assert t.accuracy < 0.4
    else:
        assert t.accuracy > 0.9
        shares = t.recent[0] / t.recent[1]
        assert (shares > 0.8).all()


def test_a_level_is_left_when_it_is_learned(tmp_path: Path) -> None:
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


def test_a_level_not_learned_is_left_in_time_for_the_last(tmp_path: Path) -> None:
    t = trainer(tmp_path / "late", "feedforward", levels_share=1.0)
    t.run()
    assert t.level == 0  # there is nothing after the end
    t = trainer(tmp_path, "feedforward", levels_share=0.75)
    t.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "note" in line] == [3072]
    assert t.level == 1


@pytest.mark.parametrize("average_updates", [0, 20])
def test_a_stopped_run_goes_on_bit_for_bit(average_updates: int, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", average_updates=average_updates)
    whole.run()
    first = trainer(tmp_path / "parts", average_updates=average_updates)
    for _ in range(3):
        first.iterate()
        first.promote()
    first._open_run_dir()
    first.save()
    # Other weights and another generator, both replaced.
    second = trainer(tmp_path / "parts", seed=5, average_updates=average_updates)
    assert second.restore() == [f"going on from {tmp_path}/parts/checkpoints/step_000000001536.pt"]
    second.run()
    assert second.samples == whole.samples == 4096
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.judged.state_dict().values(), second.judged.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.recent, second.recent)


def test_a_run_goes_on_bit_for_bit_from_a_later_level(tmp_path: Path) -> None:
    options: dict[str, Any] = {"total_samples": 8192, "promote_at": 0.0}
    whole = trainer(tmp_path / "whole", **options)
    whole.run()
    first = trainer(tmp_path / "parts", **options)
    for _ in range(8):
        first.iterate()
        first.promote()
    assert (first.level, first.since_promotion) == (1, 16)
    first._open_run_dir()
    first.save()
    second = trainer(tmp_path / "parts", seed=5, **options)
    second.restore()
    assert (second.seconds, second.cpu_seconds) == (first.seconds, first.cpu_seconds)
    assert first.seconds > 0
    second.run()
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_mean_of_the_weights_by_hand(tmp_path: Path) -> None:
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


def test_the_mean_does_not_change_what_is_learned(tmp_path: Path) -> None:
    plain, averaged = trainer(tmp_path / "plain"), trainer(tmp_path / "averaged", average_updates=20)
    plain.run()
    averaged.run()
    for a, b in zip(plain.model.state_dict().values(), averaged.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_mean_is_what_is_tested_and_kept(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=16_000, adam_lr=0.03, decay_share=0.0, average_updates=100)
    t.level = 1
    t.run()
    assert t.mean is not None
    examples = FirstSymbol().draw(4000, 1, torch.Generator().manual_seed(TEST_SEED))
    hint_losses = [
        loss(model, examples, t.config, torch.Generator(), aids=True)[0]["hint_loss"].item()
        for model in (t.mean, t.model)
    ]
    # Steps that never grow smaller: their mean is nearer to where they would end.
    assert hint_losses[0] < 0.5 * hint_losses[1]
    kept, _, _ = load_classifier(tmp_path)
    for a, b in zip(t.mean.state_dict().values(), kept.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    torch.nn.init.zeros_(t.model.logits.weight)
    assert t.test()["test/accuracy"] > 0.9


@pytest.mark.parametrize(("saved", "asked"), [(0, 20), (20, 0)])
def test_a_mean_cannot_be_gone_on_with_as_if_there_were_none(saved: int, asked: int, tmp_path: Path) -> None:
    trainer(tmp_path, total_samples=64, average_updates=saved).run()
    with pytest.raises(UsageError, match="average_updates"):
        trainer(tmp_path, average_updates=asked).restore()


def test_a_run_goes_on_with_other_numbers_on_another_kind_of_device(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    t.run()
    path, payload, _ = read_newest(tmp_path)
    # A state of another length than a CPU's, such as a GPU gives.
    torch.save({**payload, "generator": torch.arange(16, dtype=torch.uint8)}, path)
    draws = []
    for _ in range(2):
        again = trainer(tmp_path, seed=3)
        assert again.restore() == [f"going on from {path}", OTHER_DEVICE]
        draws.append(torch.rand(4, generator=again.generator))
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], torch.rand(4, generator=t.generator))


def test_a_network_alone_cannot_be_gone_on_with(tmp_path: Path) -> None:
    trainer(tmp_path / "run", total_samples=64).run()
    export_classifier(tmp_path / "run", tmp_path / "alone")
    with pytest.raises(UsageError, match="holds a network alone"):
        trainer(tmp_path / "alone").restore()


def test_rates_and_aids_follow_the_budget(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=3200, decay_share=0.5, aids_share=0.5, adam_lr=1e-3, muon_lr=1e-2)
    adam, muon = t.optimizers
    assert isinstance(adam, torch.optim.Adam)
    assert isinstance(muon, torch.optim.Muon)
    rates, hints = [], []
    while t.progress < 1:
        hints.append("hint_loss" in t.update())
        rates.append((adam.param_groups[0]["lr"], muon.param_groups[0]["lr"]))
    for update, factor in ((0, 0.1), (20, 1.0), (50, 1.0), (75, 0.5), (99, 0.02)):
        assert rates[update] == pytest.approx((1e-3 * factor, 1e-2 * factor))
    assert hints == [True] * 50 + [False] * 50


def test_muon_has_the_inner_matrices_and_adam_all_else(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    adam, muon = ({id(p) for group in o.param_groups for p in group["params"]} for o in t.optimizers)
    assert muon == {id(p) for p in t.model.matrices()}
    assert muon
    assert adam | muon == {id(p) for p in t.model.parameters()}
    assert not adam & muon
    assert len(trainer(tmp_path, muon_lr=0.0).optimizers) == 1


def test_gradients_are_cut_to_their_limit(tmp_path: Path) -> None:
    lengths = []
    for limit in (0.0, 0.01):
        t = trainer(tmp_path, max_grad_norm=limit)
        t.update()
        gradients = [p.grad for p in t.model.parameters() if p.grad is not None]
        lengths.append(torch.cat([g.flatten() for g in gradients]).norm().item())
    assert lengths[0] > 0.1
    assert lengths[1] == pytest.approx(0.01, rel=1e-3)


def test_what_is_right_is_counted_on_the_last_level(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    drawn = torch.Generator().manual_seed(TEST_SEED)  # the run's seed is 0
    parts = [t.task.draw(size, 1, drawn) for size in (2000, 500)]
    right = sum((t.model(x.inputs).logits[-1].argmax(-1) == x.targets[-1]).sum().item() for x in parts)
    assert t.test(2500) == {"test/accuracy": right / 2500}
    counts = count_right(t.model, t.task, 5, torch.Generator().manual_seed(1), batch_size=2)
    assert counts.shape == (2, 4)
    assert counts[1].sum() == 5
    counts = count_right(t.model, t.task, 1000, torch.Generator().manual_seed(1))
    assert (counts[1] > 200).all()  # level 0 has two of the four groups
    assert (counts[0] <= counts[1]).all()


def test_time_left_is_that_of_the_nearer_limit(tmp_path: Path) -> None:
    figures = {"time/fps": 10.0, "train/accuracy": 0.5, "train/level": 0, "train/answer_loss": 1.0}
    t = trainer(tmp_path, total_samples=1000)
    t.samples, t.seconds = 400, 30.0
    progress = Progress("", 1000, columns=COLUMNS)
    assert (progress._cells(t._shown(figures))["time left"], t._shown(figures)["share"]) == ("1:00", 0.4)
    t = trainer(tmp_path, total_samples=1000, minutes=1.0)
    t.samples, t.seconds = 400, 30.0
    assert (progress._cells(t._shown(figures))["time left"], t._shown(figures)["share"]) == ("0:30", 0.5)


def test_sigterm_saves_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = trainer(tmp_path)
    iterate = t.iterate

    def interrupted() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return iterate()

    monkeypatch.setattr(t, "iterate", interrupted)
    with pytest.raises(Interrupted, match="stopped after 512 samples") as stop:
        t.run()
    assert stop.value.signal == signal.SIGTERM
    assert [p.name for p in (tmp_path / "checkpoints").glob("*.pt")] == ["step_000000000512.pt"]


def test_a_run_folder_in_use_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, total_samples=64).run()
    with pytest.raises(UsageError, match="already holds a run"):
        trainer(tmp_path).run()


def test_the_mark_ends_the_run(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=10**6, test_every=2048)
    t.stop_at_accuracy = 0.9
    t.run()
    assert t.samples < 10**5
    assert t.tested == t.test()["test/accuracy"] >= 0.9
    assert t.level == 1
    again = trainer(tmp_path, total_samples=10**6, test_every=2048)
    again.restore()
    assert not again.done
    again.stop_at_accuracy = 0.9
    assert again.done
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["test/accuracy"] >= 0.9 for line in lines if "test/accuracy" in line][-2:] == [False, True]


def test_minutes_end_the_run(tmp_path: Path) -> None:
    t = trainer(tmp_path, total_samples=10**9, minutes=0.01)
    t.run()
    assert 0.6 <= t.seconds < 20
    assert t.progress >= 1


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    with torch.no_grad():
        next(t.model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        t.run()
    assert not list(tmp_path.glob("checkpoints/*.pt"))


def test_the_loss_by_hand(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    generator = torch.Generator().manual_seed(0)
    examples = t.task.draw(6, 1, generator)
    answerable = examples.answerable.clone()
    answerable[:2, ::2] = False
    examples = examples._replace(answerable=answerable)
    outputs, logits = t.model(examples.inputs)
    log_probs = logits.log_softmax(-1).gather(-1, examples.targets.unsqueeze(-1)).squeeze(-1)
    config = SupervisedConfig(extra_steps=2, hint_weight=3.0)

    losses, right = loss(t.model, examples, config, generator, aids=True)
    answer = -log_probs[-1].mean()
    others = -(log_probs * answerable)[:2].sum() / 6
    assert t.model.hint is not None
    hint = (t.model.hint(outputs) - examples.hints).square().mean()
    torch.testing.assert_close(losses["answer_loss"], answer)
    torch.testing.assert_close(losses["hint_loss"], hint)
    torch.testing.assert_close(losses["loss"], answer + others + 3 * hint)
    assert torch.equal(right, (logits[-1].argmax(-1) == examples.targets[-1]).float())

    alone, _ = loss(t.model, examples, config, generator, aids=False)
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
def test_numbers_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SupervisedConfig(**options)

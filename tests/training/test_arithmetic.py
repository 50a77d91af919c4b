"""Arithmetic: a run that is resumed with another torch, processor or number of threads says so, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rmc_agents.agent.acceleration import Accelerated
from rmc_agents.training.arithmetic import arithmetic, compare_arithmetic
from tests.support.trainers import ppo_trainer, supervised_trainer

BUILDERS = {"ppo": ppo_trainer, "supervised": supervised_trainer}
OTHER = {
    "torch": "1.0.0",
    "device": "cuda",
    "networks": "compiled float32",
    "processor": "a 6502",
    "threads": "64",
    "native kernels": "avx9",
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_checkpoint_records_the_arithmetic(kind: str, tmp_path: Path) -> None:
    trainer = BUILDERS[kind](tmp_path)
    trainer.iterate()
    saved = torch.load(trainer.save(), weights_only=True)["arithmetic"]
    assert saved.keys() == OTHER.keys()
    assert (saved["torch"], saved["threads"], saved["device"]) == (torch.__version__, "1", "cpu")


@pytest.mark.parametrize("change", [[name] for name in OTHER] + [list(OTHER)], ids=" and ".join)
@pytest.mark.parametrize("kind", BUILDERS)
def test_other_arithmetic_is_one_note(kind: str, change: list[str], tmp_path: Path) -> None:
    trainer = BUILDERS[kind](tmp_path)
    trainer.iterate()
    path = trainer.save()
    payload = torch.load(path, weights_only=True)
    now = dict(payload["arithmetic"])
    payload["arithmetic"] |= {name: OTHER[name] for name in change}
    torch.save(payload, path)
    notes = BUILDERS[kind](tmp_path).restore()
    assert notes[0] == f"resuming from {path}"
    (note,) = notes[1:]
    assert note.startswith("this run was saved with other arithmetic (")
    assert all(f"{name} {OTHER[name]}, now {now[name]}" in note for name in change)
    assert note.count(", now ") == len(change)


def test_kernels_that_are_off_now_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmc_agents.training.arithmetic.active_kernels", lambda: "off (no compiler)")
    (note,) = compare_arithmetic({"native kernels": "avx2"}, {"device": "cpu"})
    assert "native kernels avx2, now off" in note


@pytest.mark.parametrize("saved", [None, 3, "x", [], {}, {"torch": torch.__version__}, {"unknown": "x"}])
def test_arithmetic_that_is_unknown_or_the_same_is_no_note(saved: Any) -> None:
    assert compare_arithmetic(saved, arithmetic(torch.device("cpu"), "float32")) == []


@pytest.mark.parametrize("value", [None, 3, [], {"x": 1}, "\x1b[2J", "x" * 10_000])
def test_forged_arithmetic_is_shown_in_one_short_line(value: Any) -> None:
    (note,) = compare_arithmetic({"torch": value}, {"torch": "2"})
    assert note.isprintable()
    assert len(note) < 300


@pytest.mark.parametrize(("compiled", "name"), [(False, "bf16"), (True, "compiled bf16")])
def test_networks_are_named_after_their_wrappers(compiled: bool, name: str, tmp_path: Path) -> None:
    agent = ppo_trainer(tmp_path).agent
    assert agent.networks == "float32"
    agent.wrap_networks(Accelerated("bf16", False, "cpu"))
    assert agent.networks == "bf16"
    assert Accelerated("bf16", compiled, "cpu").name == name

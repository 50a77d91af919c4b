"""Flags without effect: one note names those that were given, and no default causes one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmc_agents.cli.config import RunConfig
from rmc_agents.cli.flags import parse
from rmc_agents.cli.ineffective import ineffective
from rmc_agents.scripts import nth_farthest_flags  # pyright: ignore[reportMissingImports]
from rmc_agents.scripts.ppo import build, configure  # pyright: ignore[reportMissingImports]

SMALL = [
    *("--num-envs", "8", "--num-steps", "16", "--bptt-length", "16", "--minibatch-size", "128"),
    *("--core", "gru"),
]
PENDULUM = ["--env", "Pendulum-v1"]


def notes(words: list[str], folder: Path) -> list[str]:
    config = configure([*SMALL, "--run-dir", str(folder / "run"), *words])[0]
    trainer = build(config)
    trainer.env.close()
    if trainer.evaluation is not None:
        trainer.evaluation.close()
    return ineffective(config, trainer)


@pytest.mark.parametrize(
    ("flags", "words", "reason"),
    [
        ("--eval-episodes 20", [], "without --eval-every, there is no evaluation"),
        ("--env-timeout 5.0", [], "needs --vectorization async"),
        ("--target-kl 0.1", ["--epochs", "1"], "with --epochs 1, there are no epochs to skip"),
        ("--normalize-observations", [], "no part of the observation is read as numbers"),
        ("--scale-actions", [], "the actions are no Box"),
        ("--log-std-init -2.0", [], "the actions are no Box"),
        ("--scale-actions", ["--env", "MountainCarContinuous-v0"], "its bounds are -1 and 1 already"),
    ],
)
def test_flag_without_effect_is_named_with_the_reason(
    flags: str, words: list[str], reason: str, tmp_path: Path
) -> None:
    words = [*flags.split(), *words]
    assert notes(["--no-preset", *words], tmp_path) == [f"no effect in this run: {flags} ({reason})"]


def test_one_note_names_all_flags(tmp_path: Path) -> None:
    (note,) = notes(["--eval-episodes", "20", "--normalize-observations", "--scale-actions"], tmp_path)
    assert note.count("; --") == 2


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--eval-episodes", "2", "--eval-every", "1000"],
        [*PENDULUM, "--no-preset", "--normalize-observations", "--scale-actions", "--normalize-rewards"],
        ["--target-kl", "0.1"],
        [*PENDULUM, "--no-normalize-observations", "--no-scale-actions"],
    ],
    ids=str,
)
def test_flags_with_an_effect_and_defaults_cause_no_note(words: list[str], tmp_path: Path) -> None:
    assert notes(words, tmp_path) == []


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1", "rmc/MaskedPendulum-v0", "rmc/Recall-v0"])
def test_presets_set_nothing_without_effect(env: str, tmp_path: Path) -> None:
    config = configure(["--env", env, "--run-dir", str(tmp_path / "run")])[0]
    trainer = build(config)
    trainer.env.close()
    assert ineffective(config, trainer) == []


def test_resumed_run_names_flags_for_new_runs(tmp_path: Path) -> None:
    words = ["--no-preset", *SMALL, "--run-dir", str(tmp_path / "run")]
    config = configure(words)[0]
    trainer = build(config)
    asked = parse(RunConfig, config, ["--scale", "4", "--preset-file", "best.json"], "test")
    (note,) = ineffective(asked, trainer, config)
    assert "--scale 4 (a resumed run keeps its settings)" in note
    assert "--preset-file" in note
    again = parse(RunConfig, asked, ["--auto-resume"], "test")
    assert ineffective(again, trainer, config) == []


def test_resumed_run_keeps_its_standard_deviation(tmp_path: Path) -> None:
    config = configure(["--no-preset", *SMALL, *PENDULUM, "--run-dir", str(tmp_path / "run")])[0]
    trainer = build(config)
    trainer.env.close()
    (note,) = ineffective(parse(RunConfig, config, ["--log-std-init", "-2"], "test"), trainer, config)
    assert "--log-std-init -2.0 (a resumed run keeps its weights" in note


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["--no-aux-targets", "--aux-coef", "3"], "--aux-coef 3.0 (needs --aux-targets)"),
        (["--muon-lr", "0", "--orthogonalization", "bfloat16"], "--orthogonalization bfloat16 (with --muon"),
        (["--promote-at", "0.5"], "--promote-at 0.5 (there is one level only"),
        (["--aux-until", "0.5", "--no-aux-targets", "--extra-steps", "0"], "--aux-until 0.5 (there are n"),
        (["--promote-at", "0.5", "--ranks", "1", "8", "--aux-coef", "3"], None),
        ([], None),
    ],
    ids=str,
)
def test_supervised_flags_without_effect_are_named(words: list[str], note: str | None) -> None:
    flags = nth_farthest_flags
    found = flags.ineffective(parse(flags.NthFarthestConfig, None, words, "test"))
    assert [note in line for line in found] == ([] if note is None else [True])

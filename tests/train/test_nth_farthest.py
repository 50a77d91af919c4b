"""`python train/nth_farthest.py`, as a user types it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rmc_agents.checkpoint import checkpoints, read_newest
from rmc_agents.cli import run_script

ROOT = Path(__file__).parents[2]
TINY = ["--total-samples", "2048", "--batch-size", "32", "--test-samples", "500"]
SMALL = ["--core", "gru", "--core-options", "hidden_size=8"]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_nth_farthest", ROOT / "train" / "nth_farthest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nth_farthest(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """The script, in this process and an empty folder; exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train/nth_farthest.py", *words])
        code = 0
        try:
            run_script(script.main)
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("core", ["rmc", "lstm", "dnc"])
def test_train_and_judge(core: str, nth_farthest: Command) -> None:
    code, out, errors = nth_farthest("--core", core, *TINY)
    assert (code, errors) == (0, "")
    run = Path(f"runs/nth-farthest-{core}-s0")
    assert f"run folder: {run}" in out
    assert "trained on 2,048 samples" in out
    entry = json.loads((run / "evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert entry["samples"] == 500
    assert entry["training_samples"] == 2048
    low, high = entry["success_ci95"]
    assert 0 < low < entry["success_rate"] < high < 0.5
    assert len(entry["by_rank"]) == 8
    assert 550_000 < entry["parameters"]["all"] < 650_000
    assert list((run / "tensorboard").iterdir())
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2048
    assert "test/accuracy" in lines[-1]

    (run / "evaluation.json").unlink()
    code, again, _ = nth_farthest("--evaluate", str(run), "--test-samples", "500")
    assert code == 0
    second = json.loads((run / "evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert second["by_rank"] == entry["by_rank"]
    assert f"({core}, {entry['parameters']['all']:,} parameters)" in again


def test_levels_are_questions_with_less_in_them(script: ModuleType) -> None:
    task = script.NthFarthestTask((1, 4, 8), (2, 16), hints=True)
    assert task.num_levels == 3
    first = task.draw(200, 0, torch.Generator().manual_seed(0))
    assert first.inputs.shape == (8, 200, 40)
    assert first.hints.shape == first.hint_weights.shape == (8, 200, 264)
    assert set(first.groups.tolist()) == {0}
    assert (first.inputs[..., 2:16] == 0).all()
    assert (first.inputs[..., :2] != 0).all()
    assert (first.inputs[..., 16:].sum(-1) == 3).all()
    last = task.draw(200, 2, torch.Generator().manual_seed(0))
    assert set(last.groups.tolist()) == set(range(8))
    assert (last.inputs[..., :16] != 0).all()
    plain = script.NthFarthestTask((8,), (16,), hints=False).draw(5, 0, torch.Generator().manual_seed(0))
    assert plain.hints.numel() == 0


def test_a_killed_run_goes_on(nth_farthest: Command, tmp_path: Path) -> None:
    flags = [*SMALL, "--total-samples", "16000", "--batch-size", "32", "--run-dir"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train" / "nth_farthest.py"), *flags, str(parts), "--threads", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while not (parts / "log.jsonl").exists() or not (parts / "log.jsonl").stat().st_size:
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"go on with: python train/nth_farthest.py --resume {parts} --threads 1" in errors
    stopped = read_newest(parts)[1]["counters"][0]
    assert 0 < stopped < 16_000

    assert nth_farthest("--resume", str(parts), "--test-samples", "100")[0] == 0
    assert nth_farthest(*flags, str(whole), "--test-samples", "100")[0] == 0
    a, b = (read_newest(run)[1]["agent"] for run in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_resumed_run_is_the_same_run(nth_farthest: Command) -> None:
    assert nth_farthest(*SMALL, *TINY, "--run-dir", "run")[0] == 0
    assert nth_farthest(*SMALL, *TINY, "--run-dir", "run")[0] == 2
    for flags, message in [
        (["--seed", "3", "--hint-weight", "2"], "--seed was 0, asked for 3; --hint-weight was"),
        (["--run-dir", "other"], "--resume run goes on in that folder, not in --run-dir other"),
        (["--total-samples", "64"], "the run has learned from 2,048 already"),
    ]:
        before = Path("run/config.json").read_text()
        code, _, errors = nth_farthest("--resume", "run", *flags)
        assert code == 2
        assert message in errors
        assert Path("run/config.json").read_text() == before
    code, out, _ = nth_farthest("--resume", "run", "--total-samples", "4096", "--test-samples", "100")
    assert code == 0
    assert "going on from run/checkpoints/step_000000002048.pt" in out
    assert checkpoints(Path("run"))[0].name == "step_000000004096.pt"
    assert json.loads(Path("run/config.json").read_text())["supervised"]["total_samples"] == 4096


def test_a_job_begins_and_goes_on_with_the_same_command(nth_farthest: Command) -> None:
    command = [*SMALL, *TINY, "--run-dir", "job", "--auto-resume"]
    code, out, _ = nth_farthest(*command)
    assert code == 0
    assert "going on from" not in out
    code, out, _ = nth_farthest(*command)
    assert code == 0
    assert "going on from job/checkpoints/step_000000002048.pt" in out
    checkpoints(Path("job"))[0].unlink()  # as if it had been killed before it first saved
    code, out, _ = nth_farthest("--resume", "job", "--test-samples", "100")
    assert code == 0
    assert "trained on 2,048 samples" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--core", "lstn"], "Did you mean 'lstm'"),
        (["--ranks", "1", "4"], "the last levels must be the whole task"),
        (["--ranks", "9", "8"], "expected 1 to 8"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--resume", "nowhere"], "nowhere is not a run folder"),
        (["--evaluate", "nowhere"], "nowhere is not a run folder"),
        (["--resume", ""], "--resume goes on with a run: say which folder"),
        (["--auto-resume"], "say --run-dir too"),
        (["--evaluate", "--core", "lstm", "--ranks", "8"], "leave out what says how to train (core, ranks)"),
        (["--evaluate", "--total-samples", "5"], "leave out what says how to train (learning)"),
        (["--threads", "-1"], "--threads -1"),
        (["--seed", "-1", "--vector-scale", "0"], "--vector-scale 0.0, --seed -1"),
        (["--seed", "99999999999999999999999"], "a seed of 0 to 2^63 - 1"),
        (["--stop-at-accuracy", "95"], "--stop-at-accuracy 95.0: expected"),
        (["--checkpoint-seconds", "-1"], "--checkpoint-seconds -1.0"),
        (["--test-samples", "0"], "--test-samples 0"),
        (["--core", "dnc", "--core-options", "clip=abc"], "no dnc of --core-options"),
        (["--core", "lstm", "--core-options", "hidden_size=x"], "hidden_size"),
    ],
)
def test_mistakes_are_told_before_work_begins(
    flags: list[str], message: str, nth_farthest: Command, tmp_path: Path
) -> None:
    code, _, errors = nth_farthest(*flags)
    assert code == 2
    assert message in " ".join(errors.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_what_is_exported_can_be_judged(nth_farthest: Command) -> None:
    assert nth_farthest(*SMALL, *TINY, "--run-dir", "run")[0] == 0
    before = json.loads(Path("run/evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert nth_farthest("--evaluate", "run", "--export", "small", "--test-samples", "500")[0] == 0
    after = json.loads(Path("small/evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert after["success_rate"] == pytest.approx(before["success_rate"], abs=0.02)
    assert nth_farthest("--export", "other")[0] == 2


def test_the_rmc_that_comes_with_the_repository_reaches_what_is_said_of_it(
    script: ModuleType, nth_farthest: Command
) -> None:
    said = json.loads((script.KEPT / "evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert said["samples"] == 20_000
    model, _, _ = script.load_classifier(script.KEPT)
    found = script.test(model, 4000, seed=7)
    p = said["success_rate"]
    assert abs(found["success_rate"] - p) < 4 * (p * (1 - p) / 4000) ** 0.5
    code, out, _ = nth_farthest("--evaluate", "--test-samples", "2000")
    assert code == 0
    assert "nth-farthest-rmc (rmc," in out

"""`python train/nth_farthest.py`, as a user types it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import checkpoints
from rmc_agents.scripts.nth_farthest_flags import NetworkOptions, NthFarthestConfig
from rmc_agents.supervised.classifier import SequenceClassifier, load_classifier
from rmc_agents.supervised.objective import SupervisedConfig
from rmc_agents.supervised.trainer import SupervisedTrainer
from tests.conftest import CORES_WITH_MEMORY
from tests.support import fork_server
from tests.support.commands import Command, in_process, script_path
from train import nth_farthest as script

TINY = ["--total-samples", "2048", "--batch-size", "32", "--test-samples", "500"]
SMALL = ["--core", "gru", "--core-options", "hidden_size=8"]


@pytest.fixture
def nth_farthest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """The script, in this process and an empty folder."""
    monkeypatch.chdir(tmp_path)
    return in_process("nth_farthest", monkeypatch, capfd)


@pytest.mark.parametrize(
    "core", ["rmc", *(pytest.param(core, marks=pytest.mark.slow) for core in ("lstm", "dnc"))]
)
def test_command_trains_and_evaluates(core: str, nth_farthest: Command) -> None:
    code, out, errors = nth_farthest("--core", core, *TINY, "--total-samples", "512")
    assert (code, errors) == (0, "")
    run = Path(f"runs/nth-farthest-{core}-s0")
    assert f"run folder: {run}" in out
    assert "trained on 512 samples" in out
    entry = json.loads((run / "evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert entry["samples"] == 500
    assert entry["training_samples"] == 512
    low, high = entry["success_ci95"]
    assert 0 < low < entry["success_rate"] < high < 0.5
    assert len(entry["by_rank"]) == 8
    assert 605_000 < entry["parameters"]["all"] < 625_000
    assert list((run / "tensorboard").iterdir())
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 512
    assert "test/accuracy" in lines[-1]

    (run / "evaluation.json").unlink()
    code, again, _ = nth_farthest("--evaluate", str(run), "--test-samples", "500")
    assert code == 0
    second = json.loads((run / "evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert second["by_rank"] == entry["by_rank"]
    assert f"({core}, {entry['parameters']['all']:,} parameters)" in again


def test_levels_are_questions_with_fewer_ranks_objects_and_dimensions() -> None:
    task = script.NthFarthestTask((1, 4, 8), (3, 8), (2, 2, 16), aux_targets=True)
    assert task.levels == [(1, 3, 2), (4, 8, 2), (8, 8, 16)]
    assert task.num_levels == 3
    first = task.draw(200, 0, torch.Generator().manual_seed(0))
    assert first.inputs.shape == (3, 200, 40)
    assert first.aux_targets.shape == first.aux_weights.shape == (3, 200, 264)
    assert set(first.groups.tolist()) == {0}
    assert set(first.targets.flatten().tolist()) == set(range(8)), "any label, however few objects"
    assert (first.inputs[..., 2:16] == 0).all()
    assert (first.inputs[..., :2] != 0).all()
    assert (first.inputs[..., 16:].sum(-1) == 3).all()
    last = task.draw(200, 2, torch.Generator().manual_seed(0))
    assert last.inputs.shape == (8, 200, 40)
    assert set(last.groups.tolist()) == set(range(8))
    assert (last.inputs[..., :16] != 0).all()
    plain = script.NthFarthestTask(aux_targets=False)
    assert plain.levels == [(8, 8, 16)]
    assert plain.draw(5, 0, torch.Generator().manual_seed(0)).aux_targets.numel() == 0
    assert script.NthFarthestTask((8,), (2, 8), aux_targets=False).draw(300, 0, None).groups.max() == 1


@pytest.mark.slow
def test_training_passes_through_levels_of_every_kind(nth_farthest: Command) -> None:
    levels = ["--ranks", *"1248", "--objects", *"248", "--dims", "2", "16", "--promote-at", "0"]
    quick = ["--batch-size", "32", "--test-samples", "100", "--muon-lr", "0"]
    flags = [*SMALL, *levels, "--total-samples", "16000", *quick]
    code, _, errors = nth_farthest(*flags, "--run-dir", "run")
    assert (code, errors) == (0, "")
    lines = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert [line["note"][:12] for line in lines if "level" in str(line.get("note"))] == [
        f"level {i} of 4" for i in (2, 3, 4)
    ]
    config = json.loads(Path("run/config.json").read_text())["nth_farthest"]
    assert (config["objects"], config["dims"], config["ranks"]) == ([2, 4, 8], [2, 16], [1, 2, 4, 8])
    code, _, errors = nth_farthest("--resume", "run", "--objects", "8")
    assert code == 2
    assert "--objects was (2, 4, 8), now (8,)" in errors


@pytest.mark.slow
@pytest.mark.parametrize("core", ["rmc", "feedforward"])
def test_core_with_memory_learns_and_one_without_does_not(core: str, tmp_path: Path) -> None:
    """Three objects of two dimensions: .667 takes no relation, and is out of reach without memory."""
    options = {"rmc": {"num_slots": 4, "num_heads": 2, "head_size": 16}, "feedforward": {"hidden_size": 64}}
    model = SequenceClassifier(
        40,
        8,
        core,
        options[core],
        scaled_inputs=16,
        input_scale=4.0,
        hidden_size=64,
        hidden_layers=2,
        aux_size=264,
    )
    task = script.NthFarthestTask((8,), (3,), (2,), aux_targets=True)
    # So few samples need larger steps.
    config = SupervisedConfig(total_samples=150_000, batch_size=128, muon_lr=0.01, aux_coef=5.0)
    trainer = SupervisedTrainer(model, task, config, tmp_path)
    trainer.run()
    right = trainer.test()["test/accuracy"]  # rmc .82, feedforward .59, of 4,000
    assert right > 0.75 if core == "rmc" else right < 0.64


def test_every_core_has_about_the_same_number_of_parameters() -> None:
    for core in set(script.CORE_OPTIONS) | set(CORES_WITH_MEMORY):
        model = script.build(NthFarthestConfig(NetworkOptions(core=core, aux_targets=False))).model
        assert 605_000 < sum(p.numel() for p in model.parameters()) < 625_000, core


def test_finished_job_is_evaluated_again_by_the_same_command(nth_farthest: Command) -> None:
    """With a budget that is not a whole number of batches, too."""
    command = [*SMALL, *TINY, "--total-samples", "2050", "--run-dir", "job", "--auto-resume"]
    assert nth_farthest(*command)[0] == 0
    code, out, errors = nth_farthest(*command)
    assert (code, errors) == (0, "")
    assert "trained on 2,080 samples" in out


def test_job_whose_minutes_are_over_trains_no_more(nth_farthest: Command) -> None:
    command = [*SMALL, *TINY, "--minutes", "0.001", "--run-dir", "job", "--auto-resume"]
    assert nth_farthest(*command)[0] == 0
    samples = read_newest(Path("job"))[1]["counters"][0]
    code, _, errors = nth_farthest(*command)
    assert (code, errors) == (0, "")
    assert read_newest(Path("job"))[1]["counters"][0] == samples


@pytest.mark.slow
def test_interrupted_run_resumes_to_the_same_weights(nth_farthest: Command, tmp_path: Path) -> None:
    flags = [*SMALL, "--total-samples", "1200", "--batch-size", "8", "--run-dir"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = [script_path("nth_farthest"), *flags, str(parts), "--device", "cpu"]
    process = fork_server.start(words, tmp_path, keep_stdout=False)
    while not (parts / "log.jsonl").exists() or not (parts / "log.jsonl").stat().st_size:
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"resume with: python train/nth_farthest.py --resume {parts} --device cpu" in errors
    stopped = read_newest(parts)[1]["counters"][0]
    assert 0 < stopped < 1200

    assert nth_farthest("--resume", str(parts), "--test-samples", "100")[0] == 0
    assert nth_farthest(*flags, str(whole), "--test-samples", "100")[0] == 0
    a, b = (read_newest(run)[1]["agent"] for run in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_resumed_run_refuses_other_settings(nth_farthest: Command) -> None:
    assert nth_farthest(*SMALL, *TINY, "--run-dir", "run")[0] == 0
    assert nth_farthest(*SMALL, *TINY, "--run-dir", "run")[0] == 2
    for flags, message in [
        (["--seed", "3", "--aux-coef", "2"], "--aux-coef was 20.0, now 2.0; --seed was 0, now 3"),
        (["--run-dir", "other"], "--resume run continues in that folder, not in --run-dir other"),
        (["--total-samples", "64"], "the run has already learned from 2,048"),
        (
            ["--minutes", "1e-5", "--total-samples", "4096"],
            "--minutes 1e-05: the run has already trained for 0.",
        ),
    ]:
        before = Path("run/config.json").read_text()
        code, _, errors = nth_farthest("--resume", "run", *flags)
        assert code == 2
        assert message in errors
        assert Path("run/config.json").read_text() == before
    code, out, _ = nth_farthest("--resume", "run", "--total-samples", "4096", "--test-samples", "100")
    assert code == 0
    assert "resuming from run/checkpoints/step_000000002048.pt" in out
    assert checkpoints(Path("run"))[0].name == "step_000000004096.pt"
    assert json.loads(Path("run/config.json").read_text())["supervised"]["total_samples"] == 4096


@pytest.mark.slow
def test_auto_resume_starts_and_then_resumes_with_one_command(nth_farthest: Command) -> None:
    command = [*SMALL, *TINY, "--run-dir", "job", "--auto-resume"]
    code, out, _ = nth_farthest(*command)
    assert code == 0
    assert "resuming from" not in out
    code, out, _ = nth_farthest(*command)
    assert code == 0
    assert "resuming from job/checkpoints/step_000000002048.pt" in out
    checkpoints(Path("job"))[0].unlink()  # as if it had been killed before its first checkpoint
    code, out, _ = nth_farthest("--resume", "job", "--test-samples", "100")
    assert code == 0
    assert "trained on 2,048 samples" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--core", "lstn"], "Did you mean 'lstm'"),
        (["--import", "no_such_module"], "cannot import the module 'no_such_module'"),
        (
            ["--ranks", "1", "4"],
            "--ranks 1 4: expected levels from 1 to 8, the last of them 8, the whole task",
        ),
        (["--ranks", "9", "8"], "--ranks 9 8: expected levels from 1 to 8"),
        (["--objects", "1", "8"], "--objects 1 8: expected levels from 2 to 8"),
        (["--objects", "4"], "--objects 4: expected levels from 2 to 8, the last of them 8"),
        (["--dims", "17"], "--dims 17: expected levels from 1 to 16, the last of them 16"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--resume", "nowhere"], "nowhere is not a run folder"),
        (["--evaluate", "nowhere"], "nowhere is not a run folder"),
        (["--resume", ""], "--resume needs the run folder to resume"),
        (["--auto-resume"], "give --run-dir too"),
        (
            ["--evaluate", "--core", "lstm", "--ranks", "4", "8"],
            "leave out the flags for training (core, ranks)",
        ),
        (["--evaluate", "--total-samples", "5"], "leave out the flags for training (supervised)"),
        (["--export", "other"], "--export needs --evaluate with one run"),
        (["--threads", "-1"], "--threads -1"),
        (["--seed", "-1", "--vector-scale", "0"], "--vector-scale 0.0, --seed -1"),
        (["--seed", "99999999999999999999999"], "a seed from 0 to 2^63 - 1"),
        (["--target-accuracy", "95"], "--target-accuracy 95.0: expected"),
        (["--checkpoint-seconds", "-1"], "--checkpoint-seconds -1.0"),
        (["--test-samples", "0"], "--test-samples 0"),
        (["--core", "dnc", "--core-options", "clip=abc"], "clip must be a number, got 'abc'"),
        (["--core", "lstm", "--core-options", "hidden_size=x"], "hidden_size"),
    ],
)
def test_mistake_is_one_message_with_code_2_and_leaves_nothing(
    flags: list[str], message: str, nth_farthest: Command, tmp_path: Path
) -> None:
    code, _, errors = nth_farthest(*flags)
    assert code == 2
    assert message in " ".join(errors.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--hint-weight", "2"], ["--aux-coef", "2"]),
        (["--hint-coef=2"], ["--aux-coef=2"]),
        (["--aids-share", "0.5"], ["--aux-until", "0.5"]),
        (["--stop-at-accuracy", "0.9"], ["--target-accuracy", "0.9"]),
        (["--no-hints"], ["--no-aux-targets"]),
        (["--hints"], ["--aux-targets"]),
    ],
    ids=str,
)
def test_old_flags_are_hidden_aliases(old: list[str], new: list[str], nth_farthest: Command) -> None:
    quick = [*SMALL, "--total-samples", "64", "--batch-size", "32", "--test-samples", "50"]
    configs = []
    for run, flags in (("old", old), ("new", new)):
        code, _, errors = nth_farthest(*quick, *flags, "--run-dir", run)
        assert code == 0, errors
        configs.append(json.loads((Path(run) / "config.json").read_text()))
    assert configs[0] == configs[1]
    _, out, _ = nth_farthest("--help")
    assert new[0].partition("=")[0] in out
    assert old[0].partition("=")[0] not in out


def test_exported_network_is_evaluated(nth_farthest: Command) -> None:
    assert nth_farthest(*SMALL, *TINY, "--run-dir", "run")[0] == 0
    before = json.loads(Path("run/evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert nth_farthest("--evaluate", "run", "--export", "small", "--test-samples", "500")[0] == 0
    after = json.loads(Path("small/evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert after["success_rate"] == pytest.approx(before["success_rate"], abs=0.02)
    assert nth_farthest("--export", "other")[0] == 2


def test_bundled_rmc_reaches_the_accuracy_stated_for_it(nth_farthest: Command) -> None:
    stated = json.loads((script.BUNDLED_RUN / "evaluation.json").read_text())["rmc/NthFarthest-v0"]
    assert stated["samples"] == 20_000
    model, _, _ = load_classifier(script.BUNDLED_RUN)
    found = script.evaluate(model, 4000, seed=7)
    p = stated["success_rate"]
    assert abs(found["success_rate"] - p) < 4 * (p * (1 - p) / 4000) ** 0.5
    code, out, _ = nth_farthest("--evaluate", "--test-samples", "2000")
    assert code == 0
    assert "nth-farthest-rmc (rmc," in out

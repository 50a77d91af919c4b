"""Mistakes on the command line: every script exits with code 2 and one message, and leaves nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.commands import in_process
from tests.support.runs import saved_run

LONG = "x" * 5000
TRAIN = [
    *("--num-envs", "8", "--num-steps", "16", "--bptt-length", "8", "--minibatch-size", "64"),
    *("--epochs", "1", "--total-steps", "128", "--env", "rmc/Recall-v0", "--run-dir", "new"),
]
TUNE = TRAIN[: TRAIN.index("--run-dir")]
NTH = ["--total-samples", "64", "--batch-size", "32", "--test-samples", "50", "--run-dir", "new"]
EVERY = [
    ["--device", "meta"],
    ["--device", "cuda:99"],
    ["--device", "nonsense"],
    ["--device", ""],
    ["--import", "no_such_module"],
    ["--import", "a\nb"],
    ["--no-such-flag"],
]
SEEDS = [["--seed", seed] for seed in ("-1", str(2**64), "1e30", "nan", "1.5", "\x1b[31m")]
CORES = [
    *(["--core-options", f"num_slots={n}"] for n in ("0", "-1", "nan", "inf", "1e12", "x", "[1]", "2.5")),
    ["--core-options", "num_slots=10000000"],
    ["--core-options", "head_size=1000000"],
    ["--core-options", "forget_bias=1e39"],
    ["--core-options", "forget_bias=nan"],
    ["--core-options", "no_such_option=1"],
    ["--core", "gru", "--core-options", "hidden_size=-1"],
    ["--core", "gru", "--core-options", "hidden_size=99999999"],
    ["--core", "dnc", "--core-options", "clip=abc"],
    ["--core", "a\x1b[31mb"],
]
FOLDERS = [["--run-dir", path] for path in (LONG, "file", "file/x", "/proc/x", "")]
THREADS = [["--threads", n] for n in ("100000", "-1")]
RESUME = [
    ["--resume", "nowhere"],
    ["--resume", "file"],
    ["--resume", LONG],
    ["--resume", "run", "--auto-resume"],
    ["--auto-resume", "--run-dir", "file"],
    ["--checkpoint-seconds", "nan"],
    ["--checkpoint-seconds", "-1"],
]
MISTAKES: dict[str, list[list[str]]] = {
    "ppo": [
        [*TRAIN, *words]
        for words in [
            *(EVERY + SEEDS + CORES + FOLDERS + THREADS + RESUME),
            *(["--env-timeout", seconds] for seconds in ("inf", "nan", "-1")),
            *(["--env", env_id] for env_id in ("", ",", "MemoryS99999", "MiniGrid-MemoryS99999-v0")),
            *(["--hidden-size", size] for size in ("0", "-3", "2000000", "1e12")),
            *(["--features", size] for size in ("0", "1e12")),
            *(["--num-envs", number] for number in ("0", "1e12")),
            *(["--learning-rate", rate] for rate in ("1e38", "nan", "-1")),
            *(["--target-success-rate", rate] for rate in ("0", "nan", "2")),
            ["--adam-eps", "1e-39"],
            ["--keep-checkpoints", "0"],
            ["--may-change", "gamma"],
            *(["--preset-file", path] for path in ("nowhere", "file", ".", LONG)),
            ["--env", "gym\x1b[2J:X-v0"],
        ]
    ],
    "evaluate": [
        [],
        *([path] for path in ("nowhere", "file", "run/config.json", "run/checkpoints", LONG, "a\x1b[31m")),
        *(["run", *words] for words in EVERY + SEEDS),
        *(["run", "--episodes", number] for number in ("0", "-1", "1e18")),
        *(["run", "--env", env_id] for env_id in ("", "Nope-v0", "CartPole-v1", "\x1b[31mX-v0")),
        *(["run", "--memoryless", path] for path in ("nowhere", "file")),
        *(["run", "--output", path] for path in ("file", "file/x", "/proc/x/y", LONG)),
        ["run", "--seed", str(2**63 - 1), "--episodes", "1000"],
        ["run", "--suite", "x"],
    ],
    "probe": [
        [],
        *([path] for path in ("nowhere", "file", LONG)),
        *(["run", *words] for words in EVERY + SEEDS),
        *(["run", "--episodes", number] for number in ("1", "1e12")),
        *(["run", "--random-actions", share] for share in ("nan", "2", "-0.1")),
        *(["run", "--env", env_id] for env_id in ("", "CartPole-v1", "Nope-v0")),
        ["run", "--steps", "0"],
        ["run", "--swap-after", "0"],
        ["run", "--output", "file"],
    ],
    "play": [
        *(["--terminal", *words] for words in SEEDS),
        *(["--env", env_id] for env_id in ("CartPole-v1", "MemoryS99999")),
        *(["--terminal", "--env", f"MiniGrid-{maze}-v0"] for maze in ("MemoryS99999", "MemoryS8", "Nope")),
        *(["--terminal", "--view-size", size] for size in ("0", "-3", "4", "1e9")),
        ["--import", "no_such_module"],
    ],
    "tune": [
        [*TUNE, *words]
        for words in [
            *(EVERY + CORES),
            *(["--trials", number] for number in ("0", "nan", "1.5")),
            *(["--timeout", seconds] for seconds in ("0", "nan")),
            *(["--workers", number] for number in ("0", "1e12")),
            *(["--storage", path] for path in ("file", "file/x", "/proc/x/y", "a\x1b[31m://x", LONG)),
            *(["--study", name] for name in ("",)),
            *(
                ["--search", word]
                for word in ("x", "=", "\x1b[31m=1,2", "gamma=\x1b[31m", LONG, f"gamma={LONG}")
            ),
            *(["--env", env_id] for env_id in ("", "Nope-v0", "\x1b[31mX-v0")),
            *(["--preset-file", path] for path in ("nowhere", "file", ".", LONG)),
            ["--keep", "none"],
        ]
    ],
    "report": [[], ["nowhere"], ["file"], [LONG], ["run", "nowhere"], ["run", "--output", "file"]],
    "nth_farthest": [
        [*NTH, *words]
        for words in [
            *(EVERY + SEEDS + CORES + FOLDERS + THREADS + RESUME),
            *(["--vector-scale", scale] for scale in ("1e38", "nan", "-1", "0", "1e-45")),
            *(["--test-samples", number] for number in ("0", "1e12")),
            ["--test-seed", "-1"],
            ["--target-accuracy", "nan"],
            ["--batch-size", "1e12"],
            ["--muon-lr", "1e38"],
            ["--minutes", "nan"],
            ["--ranks", "0"],
        ]
    ]
    + [["--evaluate", "nowhere"], ["--evaluate", "file"], ["--evaluate", "run"], ["--export", "x"]],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and a file, which no mistake changes."""
    folder = tmp_path_factory.mktemp("mistakes")
    saved_run(folder / "run", core="gru", actions=3)
    (folder / "file").write_text("not a run")
    return folder


@pytest.mark.parametrize(
    ("script", "words"),
    [(script, words) for script, rows in MISTAKES.items() for words in rows],
    ids=lambda x: " ".join(x)[-60:] if isinstance(x, list) else x,
)
def test_mistake_is_one_message_with_code_2(
    script: str,
    words: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    code, _, errors = in_process(script, monkeypatch, capfd)(*words)
    try:
        assert code == 2, errors
        assert "Traceback" not in errors
        assert "\x1b" not in errors
        assert len(errors) < 3000
        framed = errors.startswith(("╭", "+", "|", "-"))  # how tyro shows a flag that it cannot read
        assert framed or (errors.startswith("error: ") and errors.count("\n") == 1)
        assert sorted(folder.rglob("*")) == before
    finally:
        for path in ("new", "runs", "evaluations"):
            shutil.rmtree(folder / path, ignore_errors=True)

"""The SB3 benchmark and the rl_zoo3 example run. tests/test_docs.py runs the examples of the guide."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed import sb3

ROOT = Path(__file__).parents[2]


def test_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sb3.py", "--quick", "--threads", "1", "--out", str(tmp_path)])
    sb3.main()
    results = json.loads((tmp_path / "sb3.json").read_text())
    ours, theirs = (results["Training"][i]["parameters"] for i in (1, 0))
    assert ours == pytest.approx(theirs, rel=0.02)
    assert len(results["Targets"]) == 2
    assert "| RMCPolicy | 1 |" in (tmp_path / "sb3.md").read_text()


def test_saved_results_reach_their_targets() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "sb3.json").read_text())
    assert [row["reached"] for row in results["Targets"]] == ["yes"] * 4


@pytest.mark.skipif(importlib.util.find_spec("rl_zoo3") is None, reason="rl_zoo3 is not installed")
def test_rl_zoo3_trains_the_example(tmp_path: Path) -> None:
    few = ["n_envs:2", "n_steps:16", "batch_size:32", "n_epochs:1"]
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", "ppo_lstm", "--env", "MiniGrid-MemoryS9-v0"]
    command += ["--gym-packages", "minigrid", "--conf-file", "examples/rl_zoo3_ppo_lstm.yml", "-params", *few]
    command += ["--n-timesteps", "64", "--eval-freq", "-1", "--log-folder", str(tmp_path), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("MiniGrid-MemoryS9-v0.zip"))

"""What docs/sb3.md, the benchmark and the example say, done."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sb3.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FEWER = [
    (r"\.learn\([\d_]+", ".learn(128"),
    (r"num_envs=\d+", "num_envs=2"),
    (r"n_steps=\d+", "n_steps=32"),
    (r"batch_size=\d+", "batch_size=64"),
    (r"eval_freq=[\d_]+", "eval_freq=64"),
    (r"n_eval_episodes=\d+", "n_eval_episodes=1"),
]
"""What makes an example quick."""


def test_the_page_has_three_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("example", EXAMPLES, ids=["one word", "batched", "exchange"])
def test_an_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for pattern, fewer in FEWER:
        example = re.sub(pattern, fewer, example)
    exec(compile(example, "docs/sb3.md", "exec"), {"__name__": "example"})


def test_the_page_names_files_that_are_there() -> None:
    for link in re.findall(r"\]\((\.\./[^)]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


def test_the_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "argv", ["sb3.py", "--quick", "--threads", "1", "--out", str(tmp_path)])
    runpy.run_path(str(ROOT / "benchmarks" / "sb3.py"), run_name="__main__")
    results = json.loads((tmp_path / "sb3.json").read_text())
    ours, theirs = (results["Training"][i]["parameters"] for i in (1, 0))
    assert ours == pytest.approx(theirs, rel=0.02)
    assert len(results["Targets"]) == 2
    assert "| RMCPolicy | 1 |" in (tmp_path / "sb3.md").read_text()


def test_the_saved_results_reach_what_was_set_out() -> None:
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

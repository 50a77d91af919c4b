"""The README's examples, run in the order in which they stand; its links and its commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import envs
from rmc_agents.cli import parse
from rmc_agents.config import RunConfig
from rmc_agents.cores import CORES
from rmc_agents.presets import preset_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("python train/ppo.py")
]
FEWER = [
    (r"total_steps=[\d_]+", "total_steps=4096"),
    (r"total_samples=[\d_]+", "total_samples=1024"),
    (r"\.learn\([\d_]+", ".learn(128"),
    (r"4096", "64"),
    (r"total_steps=64", "total_steps=4096"),
]
"""What makes an example quick."""


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one folder, one after the other: a later one may load what an earlier one trained."""
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLES) == 7
    try:
        for example in EXAMPLES:
            for pattern, fewer in FEWER:
                example = re.sub(pattern, fewer, example)
            exec(compile(example, "README.md", "exec"), {"__name__": "example"})
        assert (tmp_path / "runs" / "s9" / "config.json").exists()
        assert "decay" in CORES
    finally:
        CORES.pop("decay", None)


def test_every_command_parses() -> None:
    assert len(COMMANDS) >= 5
    for _python, _script, *words in COMMANDS:
        if "--resume" in words:
            continue  # needs the run
        config = parse(RunConfig, preset_of(words), words, prog="train/ppo.py")
        assert config.core in CORES
        assert envs.make(config.env, 2, **config.env_options).num_envs == 2


def test_every_file_that_is_named_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
    for name in re.findall(r"`((?:rmc_agents|envs|train|benchmarks|tests)/[\w./]*)`", PAGE):
        assert (ROOT / name).exists(), name


def test_make_targets_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make (\w+)", PAGE, re.MULTILINE))
    assert named
    assert named <= targets

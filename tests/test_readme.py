"""The README's examples, run in the order in which they stand; its links, and its commands and the docs'."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import envs
from rmc_agents.cli import parse
from rmc_agents.config import RunConfig
from rmc_agents.cores import CORES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for block in re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python train/") and "--resume" not in line  # that needs the run
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


class Parsed(Exception):
    """Ends a script once its flags are parsed."""


def parsed(path: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a script of train/ makes of its flags."""
    spec = importlib.util.spec_from_file_location("script", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "script", script)  # dataclasses look their module up
    spec.loader.exec_module(script)

    def stop(*arguments: Any, **named: Any) -> None:
        raise Parsed(parse(*arguments, **named))

    monkeypatch.setattr(script, "parse", stop)
    with pytest.raises(Parsed) as stopped:
        script.main(words)
    return stopped.value.args[0]


@pytest.mark.parametrize("command", COMMANDS, ids=shlex.join)
def test_every_command_parses(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, *words = command
    config = parsed(path, words, monkeypatch)
    if isinstance(config, RunConfig):
        assert config.core in CORES
        assert envs.make(config.env, 2, **config.env_options).num_envs == 2


def test_commands_of_every_script_are_found() -> None:
    scripts = {path.stem for path in (ROOT / "train").glob("*.py")}
    assert {Path(path).stem for path, *_ in COMMANDS} == scripts - {"report"}


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

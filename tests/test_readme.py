"""The README's examples, run in the order in which they stand; links, commands and figures of it and docs."""

from __future__ import annotations

import importlib
import json
import re
import shlex
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
    script = importlib.import_module(f"train.{Path(path).stem}")

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
    assert len([path for path, *_ in COMMANDS if path == "train/ppo.py"]) >= 5


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


RESULTS = ROOT / "benchmarks" / "results"
RUNS = {path.stem: json.loads(path.read_text()) for path in (RESULTS / "nth_farthest").glob("*.json")}
WITH_PPO = [json.loads(path.read_text()) for path in (RESULTS / "nth_farthest_ppo").glob("*.json")]


def share(number: float, digits: int = 3) -> str:
    """.951"""
    return f"{number:.{digits}f}".removeprefix("0")


def with_interval(rate: float, interval: Sequence[float]) -> str:
    """.951 [.950, .952]"""
    return f"{share(rate)} [{', '.join(map(share, interval))}]"


def test_the_table_of_nth_farthest_is_what_was_kept() -> None:
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in PAGE.splitlines()]
    rows = [row for row in rows if row and row[0] in RUNS]
    assert len(rows) >= 10
    (first,) = re.findall(r"`FIRST` is\s`([^`]+)`", PAGE)
    for name, _core, samples, minutes, right, others, by_rank, flags in rows:
        kept = RUNS[name]
        assert samples == f"{kept['samples'] / 1e6:.1f} M", name
        assert minutes == f"{kept['cpu_seconds'] / 60:.0f}", name
        assert right == with_interval(kept["accuracy"], kept["ci95"]), name
        assert others == (share(kept["others"]["success_rate"]) if "others" in kept else ""), name
        assert by_rank == " ".join(share(right, 2) for right in kept["by_rank"]), name
        flags = flags.strip("`").replace("FIRST", first)
        assert f"python train/nth_farthest.py {flags}" == kept["commands"][-1], name


@pytest.mark.parametrize("page", ["README.md", "docs/nth_farthest.md"])
def test_every_share_of_nth_farthest_with_an_interval_was_measured(page: str) -> None:
    text = (ROOT / page).read_text().replace("*", "").replace("\n", " ")
    if page == "README.md":
        text = text[text.index('Nth Farthest ("what') : text.index("Speed ([what")]
    measured = {with_interval(run["accuracy"], run["ci95"]) for run in (*RUNS.values(), *WITH_PPO)}
    for run in RUNS.values():
        more = [run[key] for key in ("others", "unseen") if key in run]
        measured |= {with_interval(test["success_rate"], test["success_ci95"]) for test in more}
    said = set(re.findall(r"\.\d{3} \[\.\d{3}, \.\d{3}\]", text))
    assert len(said) >= 10
    assert said <= measured, said - measured

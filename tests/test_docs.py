"""The README and the pages of docs/: examples run, commands parse, links and named files exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import yaml

import rmc_envs
from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig
from rmc_agents.cli.flags import parse
from rmc_agents.cores import CORES
from rmc_agents.runs.files import write_json
from tests.support import documents
from tests.support.documents import DOCS, EVERYTHING, OTHERS, PAGES, README, RESULTS, ROOT, Command, label

SMALLER = [
    (r"total_steps=600_000", "total_steps=8192"),  # resumes a run of fewer steps
    (r"total_steps=\d[\d_]{4,}", "total_steps=4096"),
    (r"total_samples=200_000", "total_samples=2048"),
    (r"total_samples=\d[\d_]{5,}", "total_samples=1024"),
    (r"\.learn\([\d_]+", ".learn(128"),
    (r"num_envs=(4096|256)", "num_envs=64"),
    (r"\(4096,\)", "(64,)"),
    (r"samples=20_000", "samples=500"),
    (r"episodes=1000", "episodes=40"),
    (r", mazes\)\.success_rate", ", mazes, 40).success_rate"),
    (r"steps=20\b", "steps=6"),
    (r"eval_freq=[\d_]+", "eval_freq=64"),
    (r"n_eval_episodes=\d+", "n_eval_episodes=1"),
]
"""Smaller numbers, with which an example takes seconds."""
SMALLER_SB3 = [
    (r"num_envs=\d+", "num_envs=2"),
    (r"n_steps=\d+", "n_steps=32"),
    (r"batch_size=\d+", "batch_size=64"),
]
MAZE = "MiniGrid-MemoryS9-v0"
COMMANDS = [(path, command) for path in EVERYTHING for command in documents.script_commands(path)]


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Remove the cores and tasks that an example registered."""
    cores, tasks = set(CORES), set(rmc_envs.NATIVE)
    yield
    for name in set(CORES) - cores:
        del CORES[name]
    for env_id in set(rmc_envs.NATIVE) - tasks:
        del rmc_envs.NATIVE[env_id], gymnasium.registry[env_id]


def run_examples(path: Path) -> dict[str, Any]:
    """Run a page's examples in the current directory, one after the other; return their names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for example in documents.examples(path):
        for pattern, smaller in SMALLER + (SMALLER_SB3 if "sb3_contrib" in example else []):
            example = re.sub(pattern, smaller, example)
        exec(compile(example, label(path), "exec"), names)
    return names


# The examples of the tutorial depend on its commands: tests/test_tutorial.py runs both.
WITH_EXAMPLES = [path for path in EVERYTHING if documents.examples(path) and path.stem != "tutorial"]
LEAVES = {
    README: "runs/s9",
    DOCS / "guide" / "cores.md": "runs/decay",
    DOCS / "guide" / "training.md": "small",
}
"""Run folders that the examples of a page leave behind."""


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=label)
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one folder, one after the other: a later one may load what an earlier one trained."""
    monkeypatch.chdir(tmp_path)
    run_examples(path)
    if path in LEAVES:
        assert (tmp_path / LEAVES[path] / "config.json").exists()


def test_guides_have_examples() -> None:
    counts = {path.stem: len(documents.examples(path)) for path in PAGES if path.parent == DOCS / "guide"}
    assert {name for name, count in counts.items() if not count} == {"presets", "runs"}
    assert counts["sb3"] == 3
    assert README in WITH_EXAMPLES


def test_evaluation_example_draws_learning_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"format": 2, "agent": {"core": "rmc"}, "environment": {"env": MAZE}}
    write_json(tmp_path / "runs" / "rmc-1" / "config.json", config)
    lines = "".join(f'{{"step": {step}, "rollout/success_rate": 0.5}}\n' for step in (10, 20))
    (tmp_path / "runs" / "rmc-1" / "log.jsonl").write_text(lines)
    (example, *_) = documents.examples(DOCS / "guide" / "evaluation.md")
    exec(compile(example, "evaluation.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "figures" / f"{MAZE}.png").is_file()


class Parsed(Exception):
    """Ends a script once its flags are parsed."""


def parse_command(command: Command, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what a script of train/ makes of its flags."""
    name, words = command
    script = importlib.import_module(f"train.{name}")

    def stop(*arguments: Any, **options: Any) -> None:
        raise Parsed(parse(*arguments, **options))

    monkeypatch.setattr(script, "parse", stop)
    for other in ("import_modules", "run_to_resume"):  # neither modules nor runs of the examples exist
        monkeypatch.setattr(script, other, lambda *_: None, raising=False)
    monkeypatch.setattr(script, "saved_agent_config", lambda _: AgentConfig(), raising=False)
    with pytest.raises(Parsed) as stopped:
        script.main(words)
    return stopped.value.args[0]


@pytest.mark.parametrize(
    ("path", "command"),
    COMMANDS,
    ids=[f"{label(path)}: {script} {' '.join(words)}" for path, (script, words) in COMMANDS],
)
def test_command_parses(path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_command(command, monkeypatch)
    if isinstance(config, RunConfig) and not config.run.imports and ":" not in config.environment.env:
        environment = config.environment
        assert config.agent.core in CORES
        assert rmc_envs.make(environment.env, 2, **environment.env_options).num_envs == 2


def test_commands_of_every_script_are_found() -> None:
    scripts = {path.stem for path in (ROOT / "train").glob("*.py") if "\ndef cli(" in path.read_text()}
    assert {script for _, (script, _) in COMMANDS} == scripts
    assert len([script for _, (script, _) in COMMANDS if script == "ppo"]) >= 15


@pytest.mark.parametrize("path", EVERYTHING, ids=label)
def test_module_commands_and_make_targets_exist(path: Path) -> None:
    for module in documents.module_commands(path):
        assert importlib.util.find_spec(module) is not None, module
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert documents.make_targets(path) <= targets


def test_make_targets_are_found() -> None:
    assert documents.make_targets(README) >= {"train", "test", "docs"}


@pytest.mark.parametrize("path", EVERYTHING, ids=label)
def test_links_and_named_files_exist(path: Path) -> None:
    for link in documents.links(path):
        target = (path.parent / link).resolve()
        if target.parent == DOCS / "results" and target.suffix == ".png":
            target = RESULTS / target.name  # served beside the pages: docs/hooks.py
        assert target.exists(), link
    for name in documents.named_files(path):
        assert (ROOT / name).exists(), name


def test_navigation_lists_every_page() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def pages(entry: Any) -> Iterator[str]:
        for part in entry if isinstance(entry, list) else entry.values():
            yield from [part] if isinstance(part, str) else pages(part)

    listed = list(pages(config["nav"]))
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in PAGES)


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_included_tables_exist(path: Path) -> None:
    assert documents.read(path)


def test_api_pages_name_modules_that_exist() -> None:
    names = [n for path in PAGES for n in re.findall(r"^::: ([\w.]+)", path.read_text(), re.MULTILINE)]
    assert len(names) >= 20
    for name in names:
        assert importlib.util.find_spec(name) is not None, name


@pytest.mark.parametrize("path", [README, *PAGES, *OTHERS], ids=label)
def test_pages_use_the_field_s_words(path: Path) -> None:
    """Words that the project once used for auxiliary targets, evaluation and resuming."""
    text = path.read_text()
    if path.name in ("CHANGELOG.md", "runs.md"):
        return  # they list renamed flags
    for word in (r"\bhints?\b", r"\baids?\b", r"\bjudge", r"\bfor ever\b", r"\banew\b", r"\bdeal"):
        assert not re.search(word, text), word


def test_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]

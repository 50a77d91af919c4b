"""Parts of the README and of the pages in docs/: examples, commands, links, named files, included tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from rmc_agents.cli.start import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
EVERYTHING = [README, *PAGES, *OTHERS]

FOLDERS = "rmc_agents|envs|train|benchmarks|tests|examples|docs|trained"
"""Folders of the repository whose files pages name."""

Command = tuple[str, tuple[str, ...]]
"""A script of train/, without folder and ending, and its flags."""


def label(path: Path) -> str:
    """Return a page's name for test ids: its path in the repository."""
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> str:
    """Return a page with the tables that it includes from benchmarks/results/ in their places."""
    lines = []
    for line in path.read_text().splitlines():
        include = re.fullmatch(r'\s*--8<-- "([^":]+)(?::([^"]+))?"', line)
        lines.append(line if include is None else _included(*include.groups()))
    return "\n".join(lines) + "\n"


def _included(name: str, section: str | None) -> str:
    text = (RESULTS / name).read_text()
    if section is None:
        return text
    marker = r"<!-- --8<-- \[{}:" + re.escape(section) + r"\] -->\n"
    found = re.findall(f"{marker.format('start')}(.*?){marker.format('end')}", text, re.DOTALL)
    assert len(found) == 1, f"{name}: {len(found)} sections {section!r}"
    return found[0]


def examples(path: Path) -> list[str]:
    """Return the Python examples of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def command_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a page's code blocks without a language, and its inline code."""
    text = path.read_text()
    for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`]+)`", re.sub(r"\n(?!\n)", " ", prose))


def script_commands(path: Path) -> list[Command]:
    """Return the commands of a page that start a script of train/, as a path or as a console command."""
    installed = {command: script for script, command in COMMANDS.items()}
    start = rf"(?:python train/|(?<![\w-])(?:{'|'.join(installed)})(?![\w-]))"
    found = []
    for line in command_lines(path):
        for text in re.findall(rf"{start}[^&;]*", line):
            program, *words = shlex.split(text, comments=True)
            if program == "python":
                program, *words = words
                script = Path(program).stem
            else:
                script = installed[program]
            words = [re.sub(r"^\$\w+$", "1", word) for word in words]  # a variable of the shell
            placeholder = any(word.isupper() for word in words)  # such as --env ID
            if not placeholder and "--help" not in words:
                found.append((script, tuple(words)))
    return found


def module_commands(path: Path) -> list[str]:
    """Return the modules of this repository that a page starts with `python -m`."""
    return [
        name for line in command_lines(path) for name in re.findall(r"python -m (benchmarks[\w.]*)", line)
    ]


def make_targets(path: Path) -> set[str]:
    """Return the targets of `make` that a page names."""
    return {name for line in command_lines(path) for name in re.findall(r"^make (?:\w+=\S+ )?(\w+)", line)}


def links(path: Path) -> list[str]:
    """Return the links and images of a page that lead to files, without anchors."""
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    return [link for link in found if not link.startswith(("http:", "https:"))]


def named_files(path: Path) -> set[str]:
    """Return the files and folders of the repository that a page names in inline code."""
    names = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", read(path))
    return {name for name in names if not re.fullmatch(r"train/\w+", name)}  # tags of TensorBoard


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of every table row of a page, without emphasis."""
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" *") for cell in row] for row in rows]

"""Report of a run folder: evaluation.md, figures in media/, and report.html in one file.

Everything is read from the folder (config.json, evaluation.json, log.jsonl, probe.json, media/), so that a
report can be written again after something was added.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmc_agents.cli.start import command_name
from rmc_agents.errors import printable, shown
from rmc_agents.evaluation.curves import Curve, read_log
from rmc_agents.evaluation.results import PROBE, Result, core_of, read_results
from rmc_agents.report.tables import evaluation_table
from rmc_agents.report.text import encodable, markdown_code, markdown_text
from rmc_agents.runs.files import write_text
from rmc_agents.runs.folder import cannot_write_results, read_config

MAX_BYTES = 5_000_000
"""Largest report.html."""
MEDIA_TYPES = {".gif": "image/gif", ".png": "image/png", ".svg": "image/svg+xml"}
MAX_PROBE = 1_000_000
"""Characters of probe.json that a report shows."""
FIGURES = ("training", "success-by-hallway")
"""Names of the pictures that `draw_figures` makes."""

NOTES = (
    "Success rates have Wilson intervals; returns have bootstrap intervals over episodes.",
    "Episodes start in environments with seeds that training never used. Each episode counts once, whatever "
    "its length.",
    "*length / best*: 1 is the shortest path on which the cue is seen before the choice, averaged over "
    "starts. Episodes that end with the wrong choice count too, so the value can be below 1.",
    "*implementation*: which environments were used. farama: MiniGrid's own; batched: this package's tables, "
    "which give the same episodes bit for bit; gymnasium: any other environment; exact: computed, not "
    "sampled.",
)


@dataclass(frozen=True)
class Picture:
    """A picture that is embedded in the page."""

    name: str
    caption: str
    data: str
    """Data URI."""


@dataclass(frozen=True)
class Fact:
    """A number at the top of the page."""

    value: str
    text: str


def write_markdown(run_dir: Path, output: Path | None = None) -> Path:
    """Write evaluation.md, the contents of evaluation.json as a table.

    Args:
        run_dir: the run folder.
        output: where results are read and written, if it is not the run folder.

    Raises:
        UsageError: not a run folder, its evaluation.json is damaged, or it cannot be written.
    """
    path = (output or run_dir) / "evaluation.md"
    results = read_results(run_dir, output)
    text = f"# Evaluation of {markdown_text(run_dir.resolve().name)}\n\n{markdown(results)}"
    with writing(path.parent):
        write_text(path, encodable(text))
    return path


def markdown(results: Sequence[Result]) -> str:
    """Return the table of results with notes, and with the commands and versions that produced them."""
    commands = dict.fromkeys(
        f"- {markdown_code(r.entry.command)} ({markdown_text(r.entry.date or '')})"
        for r in results
        if r.entry.command is not None
    )
    versions = "; ".join(map(markdown_text, _versions(r.entry.versions for r in results)))
    parts = [
        evaluation_table(results).markdown(),
        "\n".join(f"- {note}" for note in notes(results)),
        "Commands:\n\n" + "\n".join(commands) if commands else "",
        f"Versions: {versions}" if versions else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def notes(results: Sequence[Result]) -> list[str]:
    """Return how to read the table of these results, in Markdown."""
    ways = {result.entry.deterministic is not False for result in results}
    if len(ways) > 1:
        actions = "Some agents took the most likely action, others drew their actions; see evaluation.json."
    elif True in ways:
        actions = "The most likely action is taken."
    else:
        actions = "Actions are drawn, as in training."
    return [*NOTES, actions]


def draw_figures(run_dir: Path, output: Path | None = None) -> list[Path]:
    """Draw what the run's data allow into media/: its training, and success by hallway length.

    Args:
        run_dir: the run folder.
        output: where results are read and figures are written, if it is not the run folder.

    Raises:
        UsageError: not a run folder, its evaluation.json is damaged, or it cannot be written.
    """
    from rmc_agents.plots import learning, style  # matplotlib takes a second to import

    results, folder = read_results(run_dir, output), output or run_dir
    drawn = learning.training_panels(read_log(run_dir)), learning.results_by_hallway(results)
    written = []
    with writing(folder):
        for name, figure in zip(FIGURES, drawn, strict=True):
            if figure is not None:
                written += style.save(figure, folder / "media" / name)
    return written


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write evaluation.md, the figures and report.html of a run.

    Args:
        run_dir: the run folder.
        output: where results are read and the report is written, if it is not the run folder.

    Returns:
        the path of report.html: one file of at most `MAX_BYTES` that needs no other file and no network.

    Raises:
        UsageError: not a run folder, its evaluation.json is damaged, or it cannot be written.
    """
    draw_figures(run_dir, output)
    if read_results(run_dir, output):
        write_markdown(run_dir, output)
    path = (output or run_dir) / "report.html"
    without_pictures = render(run_dir, 0, output)
    page = render(run_dir, MAX_BYTES - len(without_pictures.encode()), output)
    with writing(path.parent):
        write_text(path, page)
    return path


def render(run_dir: Path, room: int, output: Path | None = None) -> str:
    """Return the HTML page of a run, with at most `room` characters of pictures.

    Jinja escapes every value, so that no text from the run folder can become markup, and control characters
    are shown as escapes.
    """
    import jinja2

    config, results = read_config(run_dir), read_results(run_dir, output)
    folder = output or run_dir
    pictures, left_out = collect_pictures(folder / "media", room)
    probe = folder / PROBE
    template = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, finalize=_visible, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template)
    text = page.render(
        evaluate=command_name("evaluate"),
        name=printable(run_dir.resolve().name),
        core=shown(core_of(config)),
        env_id=shown(trained_in(config)),
        facts=_facts(config, results, read_log(run_dir)),
        table=evaluation_table(results) if results else None,
        notes=[note.replace("*", "") for note in notes(results)],
        figures={picture.name: picture for picture in pictures if picture.name in FIGURES},
        pictures=[picture for picture in pictures if picture.name not in FIGURES],
        left_out=left_out,
        probe=probe.read_text(encoding="utf-8", errors="replace")[:MAX_PROBE] if probe.is_file() else "",
        config=json.dumps(config, indent=2),
        commands=list(dict.fromkeys(r.entry.command for r in results if r.entry.command is not None)),
        versions=_versions([config.get("versions"), *(r.entry.versions for r in results)]),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return encodable(text)


def _visible(value: object) -> object:
    """Escape control characters in a value of the page, but for line breaks."""
    if type(value) is not str:  # numbers, and markup of the template's own macros
        return value
    return "\n".join(map(printable, value.split("\n")))


def collect_pictures(media: Path, room: int) -> tuple[list[Picture], list[str]]:
    """Return the pictures of a folder, and the names of those for which there is no room.

    Of a picture that exists as PNG and as SVG, the smaller file is taken. Small pictures are taken first.

    Args:
        media: the folder; it may be missing.
        room: characters that all pictures may take together, as data URIs in the page.
    """
    files = [path for path in sorted(media.glob("*")) if path.suffix in MEDIA_TYPES] if media.is_dir() else []
    smallest: dict[tuple[str, bool], Path] = {}
    for path in files:
        key = (path.stem, path.suffix == ".gif")
        if key not in smallest or path.stat().st_size < smallest[key].stat().st_size:
            smallest[key] = path
    pictures, left_out = [], []
    for path in sorted(smallest.values(), key=lambda path: path.stat().st_size):
        name = printable(path.stem)
        data = f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
        # The tags take less than 300 characters, and the caption, twice, up to 6 per character (&quot;).
        needed = len(data) + 300 + 12 * len(name)
        if needed > room:
            left_out.append(printable(path.name))
            continue
        room -= needed
        pictures.append(Picture(name, name.replace("_", " "), data))
    return sorted(pictures, key=lambda picture: picture.name), sorted(left_out)


def trained_in(config: Mapping[str, Any]) -> str:
    """Return the environment ids of training in a config.json, separated by commas; empty if it has none."""
    environment = config.get("environment")
    return str(environment.get("env") or "") if isinstance(environment, dict) else ""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a UsageError that names the folder."""
    try:
        yield
    except OSError as error:
        raise cannot_write_results(folder, error) from error


def _facts(config: Mapping[str, Any], results: Sequence[Result], log: Mapping[str, Curve]) -> list[Fact]:
    """Return the numbers that summarize the run."""
    facts = []
    env_id = trained_in(config)
    for result in results:
        rate, interval = result.entry.figures.success_rate, result.entry.figures.success_ci95
        if result.env_id == env_id and rate is not None and interval is not None:
            low, high = interval
            text = f"success in {env_id}, 95 % interval {low:.1%} to {high:.1%}"
            facts.append(Fact(f"{rate:.1%}", text))
    if "time/total_timesteps" in log:
        steps = log["time/total_timesteps"].values[-1]
        facts.append(Fact(f"{steps / 1e6:.2f} M", "environment steps of training"))
    if "time/total_seconds" in log:
        seconds = log["time/total_seconds"].values[-1]
        facts.append(Fact(f"{seconds / 60:.1f} min", "wall time of training"))
    if "seed" in config:
        facts.append(Fact(str(config["seed"]), "seed"))
    return facts


def _versions(sources: Iterable[object]) -> list[str]:
    """Return each different set of versions once, as text."""
    found = [versions for versions in sources if isinstance(versions, dict)]
    return list(dict.fromkeys(", ".join(f"{name} {x}" for name, x in versions.items()) for versions in found))

"""What a run folder holds, made readable: evaluation.md, plots in media/, and report.html in one file.

Everything is read from the folder (config.json, evaluation.json, log.jsonl, media/), so that a report can be
made anew whenever something was added.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmc_agents.checkpoint import read_config, write_atomically
from rmc_agents.curves import Curve, read_log
from rmc_agents.results import Result, read_results
from rmc_agents.tables import evaluation_table

SIZE_LIMIT = 5_000_000
"""Bytes of report.html."""
KINDS = {".gif": "image/gif", ".png": "image/png", ".svg": "image/svg+xml"}

NOTES = (
    "Success has Wilson's interval; the return a bootstrap interval over episodes.",
    "Episodes begin in environments of seeds that training has never used; each counts once, however long.",
    "*length / best*: 1 is the shortest way on which the cue is seen before the choice, averaged over "
    "starts; episodes that end with the wrong choice count too, so that it may be below 1.",
    "*by*: whose implementation. farama: MiniGrid's own environments; batched: this package's tables, the "
    "same episodes bit for bit; exact: computed, not sampled.",
)


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    name: str
    caption: str
    data: str
    """As a data URI."""


@dataclass(frozen=True)
class Fact:
    """A number to begin with."""

    value: str
    text: str


def write_markdown(run_dir: Path) -> Path:
    """evaluation.md beside evaluation.json, with everything that is in there.

    Raises:
        UsageError: no run folder, or its evaluation.json is damaged.
    """
    found = read_results(run_dir)
    path = run_dir / "evaluation.md"
    text = f"# What {run_dir.resolve().name} can do\n\n{markdown(found)}"
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def markdown(results: Sequence[Result]) -> str:
    """The table of these results, how they came about, and with what."""
    commands = dict.fromkeys(
        f"- `{r.entry['command']}` ({r.entry.get('date', '')})" for r in results if "command" in r.entry
    )
    parts = [
        evaluation_table(results).markdown(),
        "\n".join(f"- {note}" for note in notes(results)),
        "Commands:\n\n" + "\n".join(commands) if commands else "",
        "Versions: " + "; ".join(_versions(r.entry for r in results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def notes(results: Sequence[Result]) -> list[str]:
    """How to read the table."""
    ways = {r.entry.get("deterministic", True) for r in results}
    drawn = {True: "The most likely action is taken.", False: "Actions are drawn, as in training."}
    both = "Some took the most likely action, others drew their actions: evaluation.json says which."
    return [*NOTES, drawn[ways.pop()] if len(ways) == 1 else both]


def draw(run_dir: Path) -> list[Path]:
    """The plots that the run's figures allow, in media/: its training, and success against hallway length."""
    from rmc_agents import plots  # matplotlib takes a second

    written = []
    figure = plots.training(read_log(run_dir))
    if figure is not None:
        written += plots.save(figure, run_dir / "media" / "training")
    figure = plots.hallways(read_results(run_dir))
    if figure is not None:
        written += plots.save(figure, run_dir / "media" / "success-by-hallway")
    return written


def write_report(run_dir: Path) -> Path:
    """evaluation.md, the plots and report.html of a run.

    Returns:
        the path of report.html: one file of at most `SIZE_LIMIT` bytes that needs nothing else.

    Raises:
        UsageError: no run folder, or its evaluation.json is damaged.
    """
    draw(run_dir)
    if read_results(run_dir):
        write_markdown(run_dir)
    path = run_dir / "report.html"
    bare = render(run_dir, room=0)
    page = render(run_dir, room=SIZE_LIMIT - len(bare.encode()))
    write_atomically(path, lambda file: file.write(page.encode()))
    return path


def render(run_dir: Path, room: int) -> str:
    """The page of a run, with at most `room` characters of pictures."""
    import jinja2

    config, found = read_config(run_dir), read_results(run_dir)
    pictures, left_out = collect_pictures(run_dir / "media", room)
    own = {"training", "success-by-hallway"}
    probe = run_dir / "probe.json"
    template = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    return page.render(
        name=run_dir.resolve().name,
        core=config["agent"].get("core", ""),
        env_id=config.get("env", {}).get("id", ""),
        facts=_facts(config, found, read_log(run_dir)),
        table=evaluation_table(found) if found else None,
        notes=[note.replace("*", "") for note in notes(found)],
        plots={picture.name: picture for picture in pictures if picture.name in own},
        pictures=[picture for picture in pictures if picture.name not in own],
        left_out=left_out,
        probe=probe.read_text(encoding="utf-8") if probe.is_file() else "",
        config=json.dumps(config, indent=2),
        commands=list(dict.fromkeys(r.entry["command"] for r in found if "command" in r.entry)),
        versions=_versions([config, *(r.entry for r in found)]),
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def collect_pictures(media: Path, room: int) -> tuple[list[Picture], list[str]]:
    """The pictures of a folder as data URIs of at most `room` characters, and the names of those left out.

    Of a picture that comes as PNG and as SVG the smaller file is taken. Small pictures are taken first.
    """
    files = [path for path in sorted(media.glob("*")) if path.suffix in KINDS] if media.is_dir() else []
    chosen: dict[tuple[str, bool], Path] = {}
    for path in files:
        key = (path.stem, path.suffix == ".gif")
        if key not in chosen or path.stat().st_size < chosen[key].stat().st_size:
            chosen[key] = path
    pictures, left_out = [], []
    for path in sorted(chosen.values(), key=lambda path: path.stat().st_size):
        data = f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
        # Its caption stands there twice, among tags.
        needed = len(data) + 300 + 12 * len(path.stem)  # &quot; and the like
        if needed > room:
            left_out.append(path.name)
            continue
        room -= needed
        pictures.append(Picture(path.stem, path.stem.replace("_", " "), data))
    return sorted(pictures, key=lambda picture: picture.name), sorted(left_out)


def _facts(config: dict[str, Any], results: Sequence[Result], log: dict[str, Curve]) -> list[Fact]:
    """The few numbers that say how it went."""
    facts = []
    env_id = config.get("env", {}).get("id")
    for result in results:
        rate, interval = result.entry.get("success_rate"), result.entry.get("success_ci95")
        if result.env_id == env_id and rate is not None and interval:
            text = f"of {env_id} solved, 95 % interval {interval[0]:.1%} to {interval[1]:.1%}"
            facts.append(Fact(f"{rate:.1%}", text))
    if "time/total_timesteps" in log:
        facts.append(
            Fact(f"{log['time/total_timesteps'].values[-1] / 1e6:.2f} M", "environment steps of training")
        )
    if "time/total_seconds" in log:
        facts.append(Fact(f"{log['time/total_seconds'].values[-1] / 60:.1f} min", "of training, wall time"))
    if "seed" in config:
        facts.append(Fact(str(config["seed"]), "seed"))
    return facts


def _versions(sources: Iterable[dict[str, Any]]) -> list[str]:
    """Each set of versions once."""
    found = [source["versions"] for source in sources if isinstance(source.get("versions"), dict)]
    return list(dict.fromkeys(", ".join(f"{name} {version}" for name, version in v.items()) for v in found))

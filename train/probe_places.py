"""Probes of where a memory keeps objects: figures, a plot and an animation of one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rmc_agents.agent.saved import Run
from rmc_agents.cli.script import say
from rmc_agents.cli.waiting import waiting
from rmc_agents.environment import ObjectsEnv
from rmc_agents.evaluation.episodes import Policy
from rmc_agents.evaluation.results import PROBE, merge_entry
from rmc_agents.interpret.places import (
    PlacesProbe,
    PlacesRecording,
    decode,
    probe_places,
    record_places,
)
from rmc_agents.interpret.probe import Score
from rmc_agents.interpret.recording import WHOLE
from rmc_agents.report.tables import Table, value_cell
from rmc_agents.runs.files import portable_name
from rmc_agents.runs.versions import versions

DRAWN_STEPS = 150
"""Steps of the animation."""


def examine_places(
    run: Run,
    env_id: str,
    env: ObjectsEnv,
    new_policy: Callable[[], Policy],
    *,
    output: Path,
    seed: int,
    steps: int,
    command: str,
) -> None:
    """Probe where an agent's memory keeps the objects of a task; print and save the scores, and draw.

    Args:
        run: the agent.
        env_id: id of the task.
        env: the task, one episode in each environment.
        new_policy: builds the policy that plays.
        output: folder for the results.
        seed: of the episodes.
        steps: number of steps to record of an episode.
        command: that was given, to be saved with the figures.

    Raises:
        UsageError: too few samples.
        OSError: the results cannot be written.
    """
    name = f"{run.name} in {env_id}"
    with waiting(f"recorded steps of {name}", steps) as report:
        recording = record_places(new_policy(), env, seed=seed, steps=steps, progress=report)
    with waiting(f"probed parts of {name}", len(recording.parts)) as report:
        found = probe_places(recording, env.object_names, progress=report)
    show(run, env_id, found)
    entry = {
        "command": command,
        "versions": versions(),
        "checkpoint": str(run.path),
        "core": run.agent.core_name,
        "first_seed": seed,
        "places": found.to_json(),
    }
    say(f"figures: {merge_entry(output / PROBE, env_id, entry)}")
    media = output / "media"
    path = media / f"{portable_name(env_id)}-places.gif"
    draw_episode(recording, env, seed, path)
    say(f"pictures: {path}")


def show(run: Run, env_id: str, found: PlacesProbe) -> None:
    """Print how often each part of the memory places each object right, and for how long."""
    rows = [("chance", *("-" if share is None else f"{share:.3f}" for share in found.chance))]
    rows += [(part, *map(_cell, scores)) for part, scores in found.scores.items()]
    title = (
        f"{run.name} ({run.agent.core_name}) in {env_id}: {found.episodes:,} episodes of {found.steps:,} "
        f"steps, mean return {found.mean_return:.1f}; share of places that are right to one cell, of objects "
        "that have been in view and are no longer; 95 % intervals in brackets"
    )
    columns = ("part", *found.objects)
    Table(title, columns, frozenset(columns[1:]), (tuple(rows),)).print()
    rows = [(steps, f"{count:,}", _cell(score)) for steps, count, score in found.since]
    columns = ("steps since in view", "samples", "right to one cell")
    Table(f"{WHOLE}, all objects", columns, frozenset(columns[1:]), (tuple(rows),)).print()


def _cell(score: Score | None) -> str:
    return "-" if score is None else value_cell(score.value, (score.low, score.high))


def draw_episode(recording: PlacesRecording, env: ObjectsEnv, seed: int, path: Path) -> None:
    """Play the first episode again, and draw each step with the places that a probe finds."""
    from rmc_agents.plots.frames import LAST_SECONDS, STEP_SECONDS, Frame
    from rmc_agents.plots.video import save_gif

    first = recording.episode == 0
    decoded, known = decode(recording, WHOLE, include_in_view=True)[first], recording.known[first]
    decoded = np.where(known[..., None], decoded, np.nan)
    frames: list[Frame] = []
    env.reset(seed)
    for actions, places in zip(recording.actions[:DRAWN_STEPS], decoded, strict=False):
        picture: Any = env.render_places(0, places)
        frames.append((Image.fromarray(picture), STEP_SECONDS))
        env.step(actions)
    frames[-1] = (frames[-1][0], LAST_SECONDS)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_gif(path, frames)

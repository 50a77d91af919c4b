"""Pictures of episodes: GIF, MP4 and still."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gymnasium import Env

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.interpret.playthrough import Playthrough, play
from rmc_agents.plots import frames, still, style, video


def save_pictures(
    stem: Path,
    agent: ActorCritic,
    env: Env[Any, Any],
    seeds: Sequence[int],
    *,
    deterministic: bool = True,
    per_head: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Path], list[Playthrough]]:
    """Play one episode per seed and save pictures of them.

    Args:
        stem: path of the files without their endings; the folder is created.
        agent: the agent that plays.
        env: an environment made with `render_mode="rgb_array"`. In MiniGrid's Memory mazes the pictures show
            whether the cue is in view and, at the end, whether the agent remembered it.
        seeds: the seeds of the episodes.
        deterministic: take the most likely action instead of sampling one.
        per_head: draw the attention of each head instead of the mean of the heads.
        progress: called with the number of episodes that have been played.

    Returns:
        The files, and the episodes. `stem`.gif shows all episodes in sequence, and so does `stem`.mp4 if its
        encoder is installed (`video.can_encode_mp4`). `stem`-still.png and `stem`-still.svg show the first
        episode on one page.

    Raises:
        UsageError: the environment does not render to an image.
        EnvironmentFailed: the environment raised.
        OSError: a file cannot be written.
    """
    played = []
    for seed in seeds:
        played.append(play(agent, env, seed, deterministic))
        if progress is not None:
            progress(len(played))
    shown = [
        frame
        for number, episode in enumerate(played, start=1)
        for frame in frames.draw(episode, f"episode {number} of {len(played)}", per_head)
    ]
    gif, mp4 = (stem.with_name(f"{stem.name}.{kind}") for kind in ("gif", "mp4"))
    video.save_gif(gif, shown)
    paths = [gif]
    if video.can_encode_mp4():
        video.save_mp4(mp4, shown)
        paths.append(mp4)
    paths += style.save(still.draw(played[0], per_head), stem.with_name(f"{stem.name}-still"))
    return paths, played

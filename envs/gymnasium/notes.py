"""Notes about Gymnasium environments that the user should read before training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gymnasium import spaces

from rmc_agents.spaces.plain import is_read, key_of, parts_of

LARGE_PICTURE = 100 * 100
"""Number of pixels above which convolutions make training slow."""


def notes_about(env: Any, name: str) -> tuple[str, ...]:
    """Return notes about a vector environment: dropped texts, running statistics, large pictures.

    Args:
        env: a `gymnasium.vector.VectorEnv`.
        name: its id.
    """
    space = env.single_observation_space
    return (
        *text_notes(space, name),
        *statistics_notes(layers_with_statistics(env), name),
        *picture_notes(space, name),
    )


def text_notes(space: spaces.Space[Any], name: str) -> tuple[str, ...]:
    """Return a note if the observation has texts that may change; the agent does not see them."""
    texts = [f"'{key_of(path)}'" for path, part in parts_of(space) if _varies_as_text(part)]
    if not texts:
        return ()
    what = f"text {texts[0]}" if len(texts) == 1 else f"texts {', '.join(texts)}"
    return (
        f"warning: {name}: the agent does not see the {what} of the observation, whose words are not known: "
        "an rmc_agents.AnnotatedText as its space names them (for MiniGrid's mission, rmc_envs.read_mission)",
    )


def layers_with_statistics(env: Any) -> tuple[str, ...]:
    """Return the classes, in and around an environment, that keep running statistics.

    Gymnasium's are NormalizeObservation and NormalizeReward, for single and for vector environments.
    """
    found = []
    for layer in _layers(env):
        own = vars(layer) if hasattr(layer, "__dict__") else {}
        if any(name.endswith("_rms") or "RunningMean" in type(x).__name__ for name, x in own.items()):
            found.append(type(layer).__name__)
        found += getattr(layer, "statistics", ())  # of `Workers`, whose environments are elsewhere
    return tuple(dict.fromkeys(found))


def statistics_notes(layers: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Return a note about the layers with running statistics, if there are any."""
    if not layers:
        return ()
    return (
        f"warning: {name} contains {' and '.join(layers)}, with running statistics that are not saved with "
        "the agent: evaluation and a resumed run start their own, so their numbers differ from training's. "
        "Scale by fixed numbers instead, for example with gymnasium.wrappers.TransformObservation or "
        "TransformReward",
    )


def picture_notes(space: spaces.Space[Any], name: str) -> tuple[str, ...]:
    """Return a note about the largest picture of an observation, if it makes training slow."""
    sizes = [sorted(part.shape or ())[-2:] for _, part in parts_of(space) if _is_picture(part)]
    height, width = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    if height * width <= LARGE_PICTURE:
        return ()
    advice = (
        "the option preprocessing='atari' (--env-options preprocessing=atari) applies the usual preprocessing"
        if "ALE/" in name
        else "register the environment with gymnasium.wrappers.ResizeObservation around it, in a module of "
        "your own that --import names (Atari games have --env-options preprocessing=atari)"
    )
    return (
        f"warning: {name} shows pictures of {height}x{width} pixels, which make training slow. Reduce them "
        f"to about 84x84: {advice}; see docs/guide/tasks.md",
    )


def _layers(env: Any) -> Iterator[Any]:
    """Yield an environment, what it wraps, and the first environment of a batch in this process."""
    seen: set[int] = set()
    while env is not None and id(env) not in seen:
        seen.add(id(env))
        yield env
        inside = vars(env) if hasattr(env, "__dict__") else {}
        batch = inside.get("envs")
        env = batch[0] if isinstance(batch, list | tuple) and batch else inside.get("env")


def _varies_as_text(space: spaces.Space[Any]) -> bool:
    # MiniGrid's mission space without placeholders holds a single text, but for BabyAI's.
    one = getattr(space, "ordered_placeholders", "") is None and type(space).__name__ == "MissionSpace"
    return not is_read(space) and not one


def _is_picture(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) >= 2 and sorted(space.shape)[-2] >= 32

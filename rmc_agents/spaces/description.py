"""Description of how an agent reads its observations and chooses its actions, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rmc_agents.spaces.plain import Actions, Observations, vocabularies
from rmc_agents.spaces.reading import (
    Reading,
    bounds,
    category_sizes,
    named_parts,
    read,
    scaling,
    with_readings,
)

SCALE_ACTIONS = "gymnasium.wrappers.RescaleAction(env, -1, 1)"
UNKNOWN = "small grid of unknown meaning"
NOT_RECONSTRUCTED = "not reconstructed, because it has too many values"
MEANINGS = {"n": "frames", "h": "height", "w": "width", "c": "channels"}


def describe(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any] | None = None,
    read_as: Mapping[str, Any] | None = None,
) -> str:
    """Describe how an agent reads observations and, if given, how it chooses actions; one line for each part.

    Args:
        observation_space: any space of a Gymnasium environment.
        action_space: any action space.
        read_as: readings that override the decision, as in `AgentConfig`.

    Raises:
        ValueError: a space that no agent can read or act in; the message says what to do.
    """
    observations = Observations(observation_space)
    texts = vocabularies(observation_space)
    lines = [
        f"{key}: {_name(texts.get(key if observations.structured else '', part))}, read as "
        f"{_describe_reading(read(part), part)}"
        for key, part in named_parts(with_readings(observations.plain, read_as or {})).items()
    ]
    lines += [f"{key}: text, not read" for key in observations.texts]
    if action_space is not None:
        lines.append(f"action: {_name(action_space)}, chosen by {_describe_actions(Actions(action_space))}")
    return "\n".join(lines)


def needs_attention(line: str) -> bool:
    """Return whether a line of `describe` reports a guess, a gap, or actions that are hard to learn."""
    return any(text in line for text in (UNKNOWN, SCALE_ACTIONS, NOT_RECONSTRUCTED))


def _name(space: spaces.Space[Any]) -> str:
    """Return a space in one line."""
    text = " ".join(str(space).split())
    return text if len(text) <= 200 else f"{text[:196]} ..."


def _describe_reading(reading: Reading, space: spaces.Space[Any]) -> str:
    layout = " x ".join(MEANINGS[axis] for axis in reading.layout)
    if reading.kind == "categories":
        return f"categories ({sum(category_sizes(space)):,} values in all)"
    if reading.kind == "codes":
        return f"codes ({' x '.join(map(str, reading.sizes))} values a cell), by embeddings"
    if reading.kind == "picture":
        assert isinstance(space, spaces.Box)
        low, high = bounds(space)
        return f"picture ({layout}), scaled from {low:g}..{high:g} to 0..1, by convolutions"
    if reading.kind == "cells":
        return (
            f"cells ({layout}): a {UNKNOWN}, as brightness and as codes; set read_as to "
            "codes or picture if you know which"
        )
    if reading.kind == "numbers":
        assert isinstance(space, spaces.Box)
        return f"numbers, {_describe_scaling(space)}"
    if reading.kind == "words":
        assert isinstance(space, spaces.Box)
        return f"words in their order ({int(space.high.max()) - 1:,} known, all others as one unknown word)"
    return {"bits": "bits", "raw": "numbers, not scaled", "log": "numbers, on a logarithmic scale"}[
        reading.kind
    ]


def _describe_scaling(space: spaces.Box) -> str:
    shift, factor, large = scaling(space)
    scaled = (shift != 0) | (factor != 1)
    texts = []
    if scaled.any():
        texts.append("scaled by their bounds")
    if large.any():
        texts.append("on a logarithmic scale")
    if not (scaled | large).all():
        texts.append("not scaled")
    return " or ".join(texts)


def _describe_actions(actions: Actions) -> str:
    space = actions.plain
    if isinstance(space, spaces.Box):
        low, high = float(np.min(space.low)), float(np.max(space.high))
        text = "a normal distribution for each number, clipped to the bounds"
        if not (np.isfinite(low) and np.isfinite(high)):
            return text
        if high - low > 20 or high - low < 0.2 or low > 1 or high < -1:
            text += (
                " and not scaled; it starts at 0 with a standard deviation of 1, so wrap the environment in "
                f"{SCALE_ACTIONS}"
            )
        return text
    if isinstance(space, spaces.MultiBinary):
        return "a Bernoulli distribution for each bit"
    count = 1 if isinstance(space, spaces.Discrete) else int(np.prod(space.shape or ()))
    return "a softmax" if count == 1 else f"{count} independent softmaxes"

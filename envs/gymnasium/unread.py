"""Detection of words that an agent cannot read.

Axes: B environments, W words of the longest text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rmc_agents.errors import shown
from rmc_agents.spaces.plain import Path, key_of, leaf_at
from rmc_agents.spaces.text import PADDING, UNKNOWN, AnnotatedText


class UnreadWords:
    """Detector of words that are not in the vocabulary of their text, or behind its longest length.

    Args:
        leaves: the parts of an observation, with their paths.
    """

    def __init__(self, leaves: Iterable[tuple[Path, spaces.Space]]) -> None:
        self._texts = {path: space for path, space in leaves if isinstance(space, AnnotatedText)}

    def found_in(self, obs: Any, arrays: Mapping[str, NDArray]) -> list[str]:
        """Describe the texts with unread words, each part of the observation once.

        Args:
            obs: the batch of observations.
            arrays: the same as plain arrays; texts are [B, W].
        """
        found = []
        for path, space in list(self._texts.items()):
            ids = arrays[key_of(path)]
            suspects = (ids == UNKNOWN).any(axis=1) | (ids[:, -1] != PADDING)
            for row in np.flatnonzero(suspects).tolist():
                text = str(leaf_at(obs, path)[row])
                if words := space.unread_in(text):
                    del self._texts[path]
                    found.append(
                        f"returned {shown(repr(text), 100)} as observation {key_of(path)}".strip()
                        + f", of which the agent does not know {', '.join(map(repr, words[:5]))}: it reads "
                        f"{len(space.words)} words, and at most {space.length} in a text"
                    )
                    break
        return found

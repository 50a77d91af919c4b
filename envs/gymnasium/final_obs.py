"""Final observations of vector environments, and the mistake of overwriting them with the next reset.

Axes: B environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MANY_ENDS = 32
"""Ended episodes after which equal final and first observations are no coincidence."""


class Overwritten:
    """Detector of a vector environment that hands out one array each time.

    Its reset then overwrites the last observation of the episode that ended, which is lost for the learner.
    """

    def __init__(self) -> None:
        self._ends = 0
        self._decided = self._moves = self._starts_vary = False
        self._before: Mapping[str, NDArray] | None = None
        self._start: dict[str, NDArray] | None = None

    def detects(
        self, obs: Mapping[str, NDArray], final: Mapping[str, NDArray], ended: NDArray[np.bool_]
    ) -> bool:
        """Return, once, whether all final observations so far were those of the next episode.

        Args:
            obs: [B, ...] by key.
            final: [B, ...] by key.
            ended: [B] whether an episode ended in this step.
        """
        if self._decided:
            return False
        if self._before is not None and not self._moves:
            self._moves = any((obs[key][~ended] != self._before[key][~ended]).any() for key in obs)
        self._before = obs
        for row in np.flatnonzero(ended).tolist():
            first = {key: x[row] for key, x in obs.items()}
            if any(not np.array_equal(final[key][row], first[key]) for key in obs):
                self._decided, self._before = True, None
                return False
            self._ends += 1
            self._start = self._start or first
            self._starts_vary |= any(not np.array_equal(self._start[key], first[key]) for key in obs)
        self._decided = self._moves and self._starts_vary and self._ends >= MANY_ENDS
        return self._decided


def final_obs_of(infos: Mapping[str, Any]) -> Any:
    """Return the final observations of a step with SAME_STEP autoreset; None if there are none.

    Gymnasium 0.29 called them "final_observation".
    """
    return infos.get("final_obs", infos.get("final_observation"))

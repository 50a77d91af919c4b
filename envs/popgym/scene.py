"""What a picture shows of an episode: its state, and the actions and rewards so far.

Axes: B environments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from rmc_agents.environment import Transition

MAX_STEPS = 1000
"""Number of the latest steps that are recorded."""


class Scene(NamedTuple):
    """One environment of a batch."""

    state: Mapping[str, Any]
    """Of the batch, as in its `state_dict`."""
    i: int
    """Index of the environment."""
    actions: list[Any]
    """Actions of the episode so far, oldest first, as numbers or lists of numbers."""
    rewards: list[float]
    """Rewards of these actions."""

    @property
    def steps(self) -> list[tuple[Any, float]]:
        """Actions and their rewards."""
        return list(zip(self.actions, self.rewards, strict=True))

    @property
    def last(self) -> str:
        """A mark for the last answer: ✓ if it was rewarded, ✗ if it was punished, and empty otherwise."""
        reward = self.rewards[-1] if self.rewards else 0.0
        return "✓" if reward > 0 else "✗" if reward < 0 else ""


class Recording:
    """The latest steps of a batch, for pictures.

    Attributes:
        arrived: state before the latest autoreset; None before the first one.
    """

    def __init__(self) -> None:
        self.arrived: Mapping[str, Any] | None = None
        self._steps: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MAX_STEPS)

    def clear(self) -> None:
        """Forget all steps, since new episodes start."""
        self._steps.clear()
        self.arrived = None

    def add(self, actions: Tensor, step: Transition) -> None:
        """Record a step."""
        self._steps.append((actions.clone(), step.reward, step.done))

    def scene(self, state: Mapping[str, Any], i: int, final: bool) -> Scene:
        """Return what there is to draw of environment i.

        Args:
            state: of the batch, now.
            i: index of the environment.
            final: draw the state before the autoreset of the latest step.
        """
        ended = bool(self._steps) and bool(self._steps[-1][2][i])
        if final and ended and self.arrived is not None:
            state = self.arrived
        steps = list(self._steps)
        begin = len(steps) if ended and not final else len(steps) - (1 if ended else 0)
        while begin > 0 and not bool(steps[begin - 1][2][i]):
            begin -= 1
        own = steps[begin:]
        return Scene(state, i, [a[i].tolist() for a, _, _ in own], [float(r[i]) for _, r, _ in own])

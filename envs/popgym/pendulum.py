"""Base of the pendulum tasks: the physics of Gymnasium's Pendulum in batches.

The state is float64 and the torque float32, as in Gymnasium's `Pendulum-v1`. Axes: B environments, T steps.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ..numbers import require_whole
from .base import FixedLength
from .scene import Scene

GRAVITY = 10.0
MAX_SPEED = 8.0
MAX_TORQUE = 2.0
SECONDS = 0.05
"""Time between two states."""
HALF_RANGE = 16.2736044 / 2
"""Half of the range of Pendulum's rewards, which become -1 / T to 1 / T."""


def move(angle: Tensor, speed: Tensor, torque: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return angle, speed and cost after one step; the order of operations is Gymnasium's."""
    wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    cost = wrapped.square() + 0.1 * speed.square() + 0.001 * torque.square()
    speed = speed + (3 * GRAVITY / 2 * angle.sin() + 3.0 * torque) * SECONDS
    speed = speed.clamp(-MAX_SPEED, MAX_SPEED)
    return angle + speed * SECONDS, speed, cost


class Pendulum(FixedLength):
    """A pendulum that a torque swings up; a subclass says what is observed.

    Args:
        options: see `PopgymTask`; they hold `episode_length`.
        num_envs: B.
        device: any torch device, including `"meta"`.

    Raises:
        ValueError: a number out of range.
    """

    TRUNCATES = True

    def __init__(self, options: Mapping[str, Any], num_envs: int, device: str | torch.device) -> None:
        require_whole("episode_length", options["episode_length"], 1, 1_000_000)
        torque = spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)
        super().__init__(options, num_envs, device, direction_space(), torque)
        self.length = options["episode_length"]
        self._angle = self._speed = torch.empty(0, dtype=torch.float64)  # [B]
        self._seen = torch.empty(0, 0)  # [B, 2] the observations

    @abstractmethod
    def _look(self, angle: Tensor) -> Tensor:
        """Return the observations [B, 2] of pendulums."""

    def _draw(self) -> None:
        shape = (2, self.num_envs)
        uniform = torch.rand(shape, generator=self._generator, device=self.device, dtype=torch.float64)
        angle, speed = 2 * uniform - 1
        self._angle, self._speed = angle * math.pi, speed.clone()
        self._seen = self._look(self._angle)

    def _observe(self) -> Tensor:
        return self._seen

    def _reward(self, actions: Tensor) -> Tensor:
        torque = actions[:, 0].clamp(-MAX_TORQUE, MAX_TORQUE)
        self._angle, self._speed, cost = move(self._angle, self._speed, torque)
        self._seen = self._look(self._angle)
        return ((HALF_RANGE - cost) / HALF_RANGE / self.length).to(torch.float32)

    def _picture(self, scene: Scene, tile_size: int) -> NDArray[np.uint8]:
        from .pictures import draw_pendulum  # slow to import, and only needed here

        torque = scene.actions[-1][0] / MAX_TORQUE if scene.actions else 0.0
        angle = float(scene.state["angle"][scene.i])
        header = f"step {scene.state['time']} of {self.length}"
        return draw_pendulum(angle, max(min(torque, 1.0), -1.0), header, tile_size)

    def _save(self) -> dict[str, Any]:
        return {"angle": self._angle, "speed": self._speed, "seen": self._seen, "time": self._time}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["angle"]))
        self._angle, self._speed = self._take(state, "angle"), self._take(state, "speed")
        self._seen, self._time = self._take(state, "seen"), state["time"]
        return self._seen


def direction_space() -> spaces.Box:
    """Return the space of cosine and sine."""
    return spaces.Box(-1.0, 1.0, (2,), np.float32)


def directions(angle: Tensor) -> Tensor:
    """Return cosine and sine, [B, 2] float32; an upright pendulum has 1 and 0."""
    return torch.stack([angle.cos(), angle.sin()], dim=1).to(torch.float32)

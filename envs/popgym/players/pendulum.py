"""Players of the pendulum tasks. Axes: B environments, A angles, S speeds, U torques."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...players import Player
from ..pendulum import GRAVITY, MAX_SPEED, MAX_TORQUE, SECONDS, move

ANGLES, SPEEDS, TORQUES = 128, 97, 17
DISCOUNT = 0.99


class PendulumMemoryless(Player):
    """A torque that depends on the direction alone, the best one of a search."""

    WEIGHTS = (0.0, -12.0)
    """Of the cosine and the sine."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        cos, sin = self.WEIGHTS
        torque = cos * obs[:, :1] + sin * obs[:, 1:]
        return torque.clamp(-MAX_TORQUE, MAX_TORQUE)


class PendulumReference(Player):
    """Value iteration on a grid, with the speed from the last two directions."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.angle = torch.zeros(self.num_envs, dtype=torch.float64)
        self.table = best_torques()

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        angle = torch.atan2(obs[:, 1].double(), obs[:, 0].double())
        speed = wrapped(angle - self.angle) / SECONDS
        self.angle = angle
        return self.control(angle, torch.where(starts, 0.0, speed))

    def control(self, angle: Tensor, speed: Tensor) -> Tensor:
        """Return the torques [B, 1] for angles and speeds [B]."""
        return interpolated(self.table, angle, speed).float().unsqueeze(1)


class NoisyPendulumReference(PendulumReference):
    """Value iteration on a grid, with angle and speed from an extended Kalman filter."""

    MODEL_VARIANCE = 1e-5

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.speed, self.torque = torch.zeros_like(self.angle), torch.zeros(self.num_envs, 1)
        self.variance = torch.zeros(self.num_envs, 2, 2, dtype=torch.float64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        seen, noise = obs.double(), max(self.task.sigma, 1e-3) ** 2
        # Predict.
        slope = 1.5 * GRAVITY * self.angle.cos() * SECONDS  # change of the speed per angle
        angle, speed, _ = move(self.angle, self.speed, self.torque.squeeze(1).double())
        model = torch.eye(2, dtype=torch.float64).repeat(self.num_envs, 1, 1)
        model[:, 1, 0] = slope
        model[:, 0] += SECONDS * model[:, 1]
        model[:, 0, 1] = SECONDS
        variance = model @ self.variance @ model.transpose(1, 2)
        variance = variance + self.MODEL_VARIANCE * torch.eye(2, dtype=torch.float64)
        # At the start the angle is that of the first observation, and speeds are uniform in -1 to 1.
        angle = torch.where(starts, torch.atan2(seen[:, 1], seen[:, 0]), angle)
        speed = torch.where(starts, 0.0, speed)
        first = torch.diag(torch.tensor([noise, 1 / 3], dtype=torch.float64))
        # Correct by the part of the surprise that is across the direction: the angle's.
        across = seen[:, 1] * angle.cos() - seen[:, 0] * angle.sin()
        gain = variance[:, :, 0] / (variance[:, 0, 0] + noise).unsqueeze(1)
        gain = torch.where(starts.unsqueeze(1), 0.0, gain)
        self.angle, self.speed = angle + gain[:, 0] * across, speed + gain[:, 1] * across
        corrected = variance - gain.unsqueeze(2) * variance[:, :1]
        self.variance = torch.where(starts.view(-1, 1, 1), first, corrected)
        self.torque = self.control(self.angle, self.speed)
        return self.torque


def wrapped(angle: Tensor) -> Tensor:
    """Return the same angle between -pi and pi."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


@cache
def best_torques() -> Tensor:
    """Return the best torque [A, S] for a grid of angles and speeds, by value iteration."""
    angles = torch.arange(ANGLES, dtype=torch.float64) * 2 * math.pi / ANGLES - math.pi
    speeds = torch.linspace(-MAX_SPEED, MAX_SPEED, SPEEDS, dtype=torch.float64)
    torques = torch.linspace(-MAX_TORQUE, MAX_TORQUE, TORQUES, dtype=torch.float64)
    grid = torch.meshgrid(angles, speeds, torques, indexing="ij")
    angle, speed, cost = move(*grid)
    value = torch.zeros(ANGLES, SPEEDS, dtype=torch.float64)
    corners, weights = corners_of(angle.flatten(), speed.flatten())

    def costs_to_go() -> Tensor:  # [A, S, U]
        return cost + DISCOUNT * (value.flatten()[corners] * weights).sum(0).view(cost.shape)

    for _ in range(300):
        value = costs_to_go().amin(2)
    return torques[costs_to_go().argmin(2)]


def interpolated(table: Tensor, angle: Tensor, speed: Tensor) -> Tensor:
    """Return numbers [B] of a table [A, S] at angles and speeds, by bilinear interpolation."""
    corners, weights = corners_of(angle, speed)
    return (table.flatten()[corners] * weights).sum(0)


def corners_of(angle: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the four grid points around angles and speeds [n] as flat indices, and their weights, [4, n]."""
    row = torch.remainder(angle + math.pi, 2 * math.pi) * ANGLES / (2 * math.pi)
    column = (speed.clamp(-MAX_SPEED, MAX_SPEED) + MAX_SPEED) * (SPEEDS - 1) / (2 * MAX_SPEED)
    first_row, first_column = row.floor(), column.floor().clamp(max=SPEEDS - 2)
    down, right = row - first_row, column - first_column
    corners, weights = [], []
    for i, share_row in ((0, 1 - down), (1, down)):
        for j, share_column in ((0, 1 - right), (1, right)):
            corners.append((first_row.long() + i) % ANGLES * SPEEDS + first_column.long() + j)
            weights.append(share_row * share_column)
    return torch.stack(corners), torch.stack(weights)

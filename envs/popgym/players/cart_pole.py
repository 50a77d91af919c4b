"""Players of the cart-pole tasks. Axes: B environments, T steps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ...players import Player
from ..cart_pole import GRAVITY, HALF_LENGTH, POLE_MASS, SECONDS, TOTAL_MASS, Cart, move

POSITIONS = (0, 2)
"""Position and angle in the state x, x velocity, angle, angular velocity."""
START_VARIANCE = 0.1**2 / 12
"""Variance of each number of the first state, which is uniform in -0.05 to 0.05."""
MODEL_VARIANCE = 1e-7
"""Variance that each step adds, for what the linear model leaves out."""


class CartPoleMemoryless(Player):
    """Pushes to the side that a linear function of the observation names, the best one of a search.

    The weights are those of the position; those of the angle are 1.
    """

    WEIGHTS: ClassVar = {
        "PositionOnlyCartPole": -0.3,
        "NoisyPositionOnlyCartPole": 0.0,
        "VelocityOnlyCartPole": 0.09,
    }

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        return (self.WEIGHTS[self.task.FAMILY] * obs[:, 0] + obs[:, 1] > 0).long()


class CartPoleReference(Player):
    """A Kalman filter for the state, and a linear controller.

    The filter predicts with the equations of the task; its gains are those of the linear model near the
    upright position. The controller is the best one of a search with noise.
    """

    GAINS = (0.034, 0.019, 1.0, 0.123)
    """Of position, velocity, angle and angular velocity."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.gains = torch.tensor(self.GAINS, dtype=torch.float64)
        self.filter_gains = filter_gains(getattr(task, "sigma", 0.0) ** 2, task.max_steps + 1)
        self.state = torch.zeros(self.num_envs, 4, dtype=torch.float64)
        self.action = torch.zeros(self.num_envs, dtype=torch.int64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        predicted = torch.stack(move(Cart(*self.state.unbind(1)), self.action), dim=1)
        predicted = torch.where(starts.unsqueeze(1), 0.0, predicted)
        self.state = self.correct(predicted, obs.double(), starts)
        self.action = (self.state @ self.gains > 0).long()
        return self.action

    def correct(self, predicted: Tensor, obs: Tensor, starts: Tensor) -> Tensor:
        """Return the state [B, 4] after an observation [B, 2] of what the model predicted."""
        gains = self.filter_gains[self.step]  # [B, 4, 2]
        surprise = (obs - predicted[:, POSITIONS]).unsqueeze(2)
        return predicted + (gains @ surprise).squeeze(2)


class VelocityOnlyReference(CartPoleReference):
    """Sums up velocities from the first position, and controls as with positions."""

    def correct(self, predicted: Tensor, obs: Tensor, starts: Tensor) -> Tensor:
        velocities = predicted.clone()
        velocities[:, 1], velocities[:, 3] = obs[:, 0], obs[:, 1]
        if self.task.first_velocities:
            return velocities
        positions = torch.zeros_like(predicted)
        positions[:, 0], positions[:, 2] = obs[:, 0], obs[:, 1]
        return torch.where(starts.unsqueeze(1), positions, velocities)


def linear_model() -> Tensor:
    """Return A [4, 4]: without a force, the next state is A s near the upright position."""
    # From `cart_pole.move` with sin(a) = a, cos(a) = 1 and no centrifugal force.
    per_angle = GRAVITY / (HALF_LENGTH * (4 / 3 - POLE_MASS / TOTAL_MASS))
    model = torch.eye(4, dtype=torch.float64)
    model[0, 1] = model[2, 3] = SECONDS
    model[3, 2] = SECONDS * per_angle
    model[1, 2] = -SECONDS * POLE_MASS * HALF_LENGTH / TOTAL_MASS * per_angle
    return model


def filter_gains(noise: float, steps: int) -> Tensor:
    """Return the gains [T, 4, 2] of a Kalman filter that observes positions with a variance of `noise`."""
    model, observe = linear_model(), torch.zeros(2, 4, dtype=torch.float64)
    observe[0, 0] = observe[1, 2] = 1
    eye = torch.eye(4, dtype=torch.float64)
    variance, gains = START_VARIANCE * eye, []
    for _ in range(steps):
        seen = observe @ variance @ observe.t() + (noise + 1e-12) * torch.eye(2, dtype=torch.float64)
        gain = variance @ observe.t() @ torch.linalg.inv(seen)
        gains.append(gain)
        variance = model @ (eye - gain @ observe) @ variance @ model.t() + MODEL_VARIANCE * eye
    return torch.stack(gains)

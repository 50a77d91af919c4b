"""Base of the cart-pole tasks: the physics of Gymnasium's CartPole in batches.

Source: Barto, Sutton and Anderson (1983), with the equations of Florian (2007), as in Gymnasium's
`CartPole-v1`. The state is float64, as there. Axes: B environments.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import Transition

from ..numbers import require_whole
from .base import PopgymTask
from .scene import Scene

GRAVITY = 9.8
POLE_MASS = 0.1
TOTAL_MASS = 0.1 + 1.0
HALF_LENGTH = 0.5
FORCE = 10.0
SECONDS = 0.02
"""Time between two states."""
MAX_X = 2.4
MAX_ANGLE = 12 * 2 * math.pi / 360


class Cart(NamedTuple):
    """State of B carts, [B] float64 each."""

    x: Tensor
    x_velocity: Tensor
    angle: Tensor
    angle_velocity: Tensor


def move(cart: Cart, actions: Tensor) -> Cart:
    """Return the state after one Euler step; action 1 pushes to the right, every other to the left.

    The order of operations is Gymnasium's, so that the rounding is equal, too.
    """
    x, x_velocity, angle, angle_velocity = cart
    force = torch.where(actions == 1, FORCE, -FORCE)
    cos, sin = angle.cos(), angle.sin()
    temp = (force + POLE_MASS * HALF_LENGTH * angle_velocity.square() * sin) / TOTAL_MASS
    inertia = HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cos.square() / TOTAL_MASS)
    angle_acceleration = (GRAVITY * sin - cos * temp) / inertia
    acceleration = temp - POLE_MASS * HALF_LENGTH * angle_acceleration * cos / TOTAL_MASS
    return Cart(
        x + SECONDS * x_velocity,
        x_velocity + SECONDS * acceleration,
        angle + SECONDS * angle_velocity,
        angle_velocity + SECONDS * angle_acceleration,
    )


class CartPole(PopgymTask):
    """A pole on a cart that is pushed left or right; a subclass says what is observed.

    Args:
        options: see `PopgymTask`; they hold `episode_length`.
        num_envs: B.
        device: any torch device, including `"meta"`.
        observation_space: of one environment.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        num_envs: int,
        device: str | torch.device,
        observation_space: spaces.Space[Any],
    ) -> None:
        require_whole("episode_length", options["episode_length"], 1, 1_000_000)
        super().__init__(options, num_envs, device, observation_space, spaces.Discrete(2))
        self.max_steps: int = options["episode_length"]
        nothing = torch.zeros(num_envs, dtype=torch.float64, device=self.device)
        self._cart = Cart(nothing, nothing, nothing, nothing)
        self._time = self.task_of  # [B] number of steps
        self._seen = torch.empty(0, 0)  # [B, 2] the observations

    @abstractmethod
    def _look(self, cart: Cart) -> Tensor:
        """Return the observations [B, 2] of carts after a step."""

    def _look_first(self, cart: Cart) -> Tensor:
        """Return the observations [B, 2] of carts at the start of an episode."""
        return self._look(cart)

    def _draw(self, count: int) -> tuple[Tensor, ...]:
        """Draw carts and their first observations."""
        shape = (4, count)
        uniform = torch.rand(shape, generator=self._generator, device=self.device, dtype=torch.float64)
        cart = Cart(*(-0.05 + 0.1 * uniform))
        time = torch.zeros(count, dtype=torch.int64, device=self.device)
        return *(each.clone() for each in cart), time, self._look_first(cart)

    def _begin(self) -> Tensor:
        *cart, self._time, self._seen = self._draw(self.num_envs)
        self._cart = Cart(*cart)
        return self._seen

    def _advance(self, actions: Tensor) -> Transition:
        cart = self._cart = move(self._cart, actions)
        self._time = self._time + 1
        terminated = (cart.x.abs() > MAX_X) | (cart.angle.abs() > MAX_ANGLE)
        truncated = self._time >= self.max_steps
        final_obs = self._look(cart)
        reward = torch.full_like(final_obs[:, 0], 1 / self.max_steps)
        self._seen = self._restart((*cart, self._time), final_obs, terminated | truncated, self._draw)
        return Transition(self._seen, reward, terminated, truncated, final_obs)

    def _picture(self, scene: Scene, tile_size: int) -> NDArray[np.uint8]:
        from .pictures import draw_cart  # slow to import, and only needed here

        x, _, angle, _ = scene.state["cart"][:, scene.i].tolist()
        header = f"step {int(scene.state['time'][scene.i])} of {self.max_steps}"
        return draw_cart(x, angle, MAX_X, header, tile_size)

    def _save(self) -> dict[str, Any]:
        return {"cart": torch.stack(self._cart), "time": self._time, "seen": self._seen}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["time"]))
        self._cart = Cart(*self._take(state, "cart"))
        self._time, self._seen = self._take(state, "time"), self._take(state, "seen")
        return self._seen


def position_space() -> spaces.Box:
    """Return the space of position and angle: twice the bounds at which an episode ends."""
    high = torch.tensor([2 * MAX_X, 2 * MAX_ANGLE], dtype=torch.float32).numpy()
    return spaces.Box(-high, high)


def positions(cart: Cart) -> Tensor:
    """Return position and angle, [B, 2] float32."""
    return torch.stack([cart.x, cart.angle], dim=1).to(torch.float32)

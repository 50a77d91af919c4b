"""VelocityOnlyCartPole: balance a pole without seeing positions. Axes: B environments, T steps."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from gymnasium import spaces
from torch import Tensor

from ..numbers import require_flag
from .base import Levels
from .cart_pole import Cart, CartPole, positions


@final
class VelocityOnlyCartPole(CartPole):
    """Gymnasium's CartPole without position and angle, which an agent sums up from the velocities.

    ## Observation
    `Box(-inf, inf, (2,), float32)`: velocity of the cart and angular velocity of the pole. The first
    observation of an episode is **position and angle** instead, as in POPGym (see below).

    ## Actions
    `Discrete(2)`: push the cart to the left (0) or to the right (1).

    ## Reward and end of an episode
    1 / T in every step. An episode is terminated where the cart is more than 2.4 from the centre or the pole
    more than 12 degrees from upright, and truncated after T steps.

    ## Levels
    Easy T = 200, Medium T = 400, Hard T = 600. POPGym spells their ids `popgym-VelocityOnlyCartpoleEasy-v0`,
    with a small p.

    ## What a score means
    A score is the share of T for which the pole was balanced. **It is nearly solved without a memory**: a
    linear function of the velocities in view scores 1.00, 1.00 and .85, and summing them up scores 1.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Differences from POPGym
    None in the rules. POPGym's `reset` returns position and angle, most likely by mistake. Published scores
    contain that, so it is the default here; `first_velocities=True` shows velocities from the start. Starts
    are drawn by another generator.
    """

    FAMILY = "VelocityOnlyCartPole"
    LEVELS: ClassVar[Levels] = {
        "Easy": {},
        "Medium": {"episode_length": 400},
        "Hard": {"episode_length": 600},
    }

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        episode_length: int = 200,
        first_velocities: bool = False,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            episode_length: T, from 1 to 1,000,000.
            first_velocities: let the first observation hold velocities, as all others do.

        Raises:
            ValueError: an argument out of range.
        """
        require_flag("first_velocities", first_velocities)
        self.first_velocities = bool(first_velocities)
        options = {"episode_length": episode_length, "first_velocities": self.first_velocities}
        super().__init__(options, num_envs, device, spaces.Box(-math.inf, math.inf, (2,)))

    def _look(self, cart: Cart) -> Tensor:
        return torch.stack([cart.x_velocity, cart.angle_velocity], dim=1).to(torch.float32)

    def _look_first(self, cart: Cart) -> Tensor:
        return self._look(cart) if self.first_velocities else positions(cart)

"""PositionOnlyCartPole: balance a pole without seeing velocities. Axes: B environments, T steps."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from .base import Levels
from .cart_pole import Cart, CartPole, position_space, positions


@final
class PositionOnlyCartPole(CartPole):
    """Gymnasium's CartPole without the velocities, which an agent infers from successive positions.

    ## Observation
    `Box([-4.8, -0.42], [4.8, 0.42], float32)`: position of the cart and angle of the pole.

    ## Actions
    `Discrete(2)`: push the cart to the left (0) or to the right (1).

    ## Reward and end of an episode
    1 / T in every step. An episode is terminated where the cart is more than 2.4 from the centre or the pole
    more than 12 degrees from upright, and truncated after T steps.

    ## Levels
    Easy T = 200, Medium T = 400, Hard T = 600.

    ## What a score means
    A score is the share of T for which the pole was balanced. Pushing to the side to which the pole leans,
    without a memory, scores .22, .11 and .07. A linear controller with velocities from two positions scores
    1.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Differences from POPGym
    None in the rules. Starts are drawn by another generator.
    """

    FAMILY = "PositionOnlyCartPole"
    LEVELS: ClassVar[Levels] = {
        "Easy": {},
        "Medium": {"episode_length": 400},
        "Hard": {"episode_length": 600},
    }

    def __init__(
        self, num_envs: int = 1, device: str | torch.device = "cpu", episode_length: int = 200
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            episode_length: T, from 1 to 1,000,000.

        Raises:
            ValueError: a number out of range.
        """
        super().__init__({"episode_length": episode_length}, num_envs, device, position_space())

    def _look(self, cart: Cart) -> Tensor:
        return positions(cart)

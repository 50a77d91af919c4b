"""NoisyPositionOnlyCartPole: balance a pole from noisy positions. Axes: B environments, T steps."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from .base import Levels
from .cart_pole import Cart, CartPole, position_space, positions
from .noise import Noise, require_sigma


@final
class NoisyPositionOnlyCartPole(CartPole):
    """Gymnasium's CartPole without the velocities, and with noise on position and angle.

    ## Observation
    `Box([-4.8, -0.42], [4.8, 0.42], float32)`: position of the cart and angle of the pole, each with
    independent normal noise of standard deviation `sigma` in every step, clipped to the space. An episode
    ends at an angle of 0.21, so the noise is large.

    ## Actions
    `Discrete(2)`: push the cart to the left (0) or to the right (1).

    ## Reward and end of an episode
    1 / T in every step. An episode is terminated where the cart is more than 2.4 from the centre or the pole
    more than 12 degrees from upright, and truncated after T steps.

    ## Levels
    T = 200; Easy sigma .1, Medium .2, Hard .3.

    ## What a score means
    A score is the share of T for which the pole was balanced. Pushing to the side to which the pole seems to
    lean, without a memory, scores .25, .20 and .17; a Kalman filter with a linear controller 1.00, .63 and
    .37, which is about what the best published agents reach.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Differences from POPGym
    None in the rules. Starts and noise are drawn by another generator.
    """

    FAMILY = "NoisyPositionOnlyCartPole"
    LEVELS: ClassVar[Levels] = {"Easy": {}, "Medium": {"sigma": 0.2}, "Hard": {"sigma": 0.3}}

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        sigma: float = 0.1,
        episode_length: int = 200,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            sigma: standard deviation of the noise, from 0 to 1000.
            episode_length: T, from 1 to 1,000,000.

        Raises:
            ValueError: a number out of range.
        """
        require_sigma("sigma", sigma)
        space = position_space()
        super().__init__({"sigma": sigma, "episode_length": episode_length}, num_envs, device, space)
        self.sigma = sigma
        self._noise = Noise(sigma, space, self._generator, self.device)

    def _look(self, cart: Cart) -> Tensor:
        return self._noise.add(positions(cart))

"""NoisyPositionOnlyPendulum: swing a pendulum up from noisy positions. Axes: B environments, T steps."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from .base import Levels
from .noise import Noise, require_sigma
from .pendulum import Pendulum, direction_space, directions


@final
class NoisyPositionOnlyPendulum(Pendulum):
    """Gymnasium's Pendulum without the speed, and with noise on the direction.

    ## Observation
    `Box(-1, 1, (2,), float32)`: cosine and sine of the angle, each with independent normal noise of standard
    deviation `sigma` in every step, clipped to the space.

    ## Actions
    `Box(-2, 2, (1,), float32)`: the torque. Larger numbers are clipped.

    ## Reward and end of an episode
    (8.1368 + r) / 8.1368 / T, where r is Pendulum's reward, between -16.2736 and 0. So an episode's return
    lies between -1 and 1. Every episode is truncated after T steps.

    ## Levels
    T = 200; Easy sigma .1, Medium .2, Hard .3.

    ## What a score means
    Random torques score .25, the best torque known that depends on the direction alone .35, .33 and .32, and
    value iteration with an extended Kalman filter .90, .75 and .66.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from POPGym
    None in the rules. Starts and noise are drawn by another generator.
    """

    FAMILY = "NoisyPositionOnlyPendulum"
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
        super().__init__({"sigma": sigma, "episode_length": episode_length}, num_envs, device)
        self.sigma = sigma
        self._noise = Noise(sigma, direction_space(), self._generator, self.device)

    def _look(self, angle: Tensor) -> Tensor:
        return self._noise.add(directions(angle))

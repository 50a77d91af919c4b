"""PositionOnlyPendulum: swing a pendulum up without seeing its speed. Axes: B environments, T steps."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from .base import Levels
from .pendulum import Pendulum, directions


@final
class PositionOnlyPendulum(Pendulum):
    """Gymnasium's Pendulum without the speed, which an agent infers from successive positions.

    ## Observation
    `Box(-1, 1, (2,), float32)`: cosine and sine of the angle; 1 and 0 is upright.

    ## Actions
    `Box(-2, 2, (1,), float32)`: the torque. Larger numbers are clipped.

    ## Reward and end of an episode
    (8.1368 + r) / 8.1368 / T, where r is Pendulum's reward, between -16.2736 and 0. So an episode's return
    lies between -1 and 1. Every episode is truncated after T steps.

    ## Levels
    Easy T = 200, Medium T = 150, Hard T = 100: the fewer steps, the larger the share of the swing-up.

    ## What a score means
    Random torques score .25, the best torque known that depends on the direction alone .37, and value
    iteration with the speed from the last two directions .91, .88 and .83.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from POPGym
    None in the rules. Starts are drawn by another generator.
    """

    FAMILY = "PositionOnlyPendulum"
    LEVELS: ClassVar[Levels] = {
        "Easy": {},
        "Medium": {"episode_length": 150},
        "Hard": {"episode_length": 100},
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
        super().__init__({"episode_length": episode_length}, num_envs, device)

    def _look(self, angle: Tensor) -> Tensor:
        return directions(angle)

"""MultiarmedBandit: the agent finds the arm that pays most often.

Axes: B environments, A arms, T steps.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ..numbers import require_whole
from .base import FixedLength, Levels
from .scene import Scene

HEIGHT = 10
"""Cells in a column of a picture: a tenth of probability each."""


@final
class MultiarmedBandit(FixedLength):
    """Each of A arms pays with a probability of its own, uniform in [0, 1) and new in every episode.

    ## Observation
    `Discrete(2)`: 1 if the arm that was just pulled paid, else 0. The first observation is 0. The observation
    does not say which arm was pulled, so an agent needs its previous action as an input.

    ## Actions
    `Discrete(A)`: pull an arm. A number outside the space is an error on a CPU.

    ## Reward and end of an episode
    1 / T if the arm pays and -1 / T if not, so that an episode's return lies between -1 and 1. Every episode
    is truncated after T steps.

    ## Levels
    Easy 10 arms and 200 steps, Medium 20 and 400, Hard 30 and 600.

    ## What a score means
    Without a memory every arm is as good as any other: 0. Thompson sampling scores .64, .74 and .77.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from POPGym
    None in the rules. Probabilities and payouts are drawn by another generator.
    """

    FAMILY = "MultiarmedBandit"
    LEVELS: ClassVar[Levels] = {
        "Easy": {},
        "Medium": {"num_arms": 20, "episode_length": 400},
        "Hard": {"num_arms": 30, "episode_length": 600},
    }
    TRUNCATES = True

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        num_arms: int = 10,
        episode_length: int = 200,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_arms: A, from 1 to 10,000.
            episode_length: T, from 1 to 1,000,000.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("num_arms", num_arms, 1, 10_000)
        require_whole("episode_length", episode_length, 1, 1_000_000)
        options = {"num_arms": num_arms, "episode_length": episode_length}
        super().__init__(options, num_envs, device, spaces.Discrete(2), spaces.Discrete(num_arms))
        self.num_arms, self.length = num_arms, episode_length
        self._chances = torch.empty(0, 0)  # [B, A] probability that an arm pays
        self._paid = torch.zeros_like(self.task_of)  # [B] the observations

    def _draw(self) -> None:
        shape = (self.num_envs, self.num_arms)
        self._chances = torch.rand(shape, generator=self._generator, device=self.device)
        self._paid = torch.zeros_like(self.task_of)

    def _observe(self) -> Tensor:
        return self._paid

    def _reward(self, actions: Tensor) -> Tensor:
        luck = torch.rand(self.num_envs, generator=self._generator, device=self.device)
        paid = luck < self._chances.gather(1, actions.unsqueeze(1)).squeeze(1)
        self._paid = paid.long()
        return self._rewards(paid, 1 / self.length, -1 / self.length)

    def _save(self) -> dict[str, Any]:
        return {"chances": self._chances, "paid": self._paid, "time": self._time}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["paid"]))
        self._chances, self._paid = self._take(state, "chances"), self._take(state, "paid")
        self._time = state["time"]
        return self._observe()

    def _picture(self, scene: Scene, tile_size: int) -> NDArray[np.uint8]:
        from ..drawing import BLUE, FAINT, GREEN, SKY, Board  # slow to import, and only needed here

        chances = scene.state["chances"][scene.i].tolist()
        board = Board(HEIGHT + 1, self.num_arms, tile_size, lines=None)
        for arm, chance in enumerate(chances):
            pulls = [reward > 0 for pulled, reward in scene.steps if pulled == arm]
            for level in range(HEIGHT):
                row = HEIGHT - 1 - level
                board.fill(row, arm, FAINT if chance * HEIGHT > level + 0.5 else "#ffffff", inset=0.04)
                if pulls and sum(pulls) / len(pulls) * HEIGHT > level + 0.5:
                    board.fill(row, arm, BLUE if arm == scene.actions[-1] else SKY, inset=0.2)
            board.text(HEIGHT, arm, str(len(pulls)))
        best = max(range(self.num_arms), key=chances.__getitem__)
        board.outline(HEIGHT, best, GREEN)
        return board.image(f"share that paid, and pulls   step {scene.state['time']}   {scene.last}")

"""Recall: the smallest task that needs a memory. The agent sees a symbol, waits, and names it.

Axes: B environments, S symbols.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import Transition

from ..numbers import require_whole
from ..seeded import SeededTask


@final
class Recall(SeededTask):
    """The first step shows one of S symbols; after `delay` blank steps the agent must name it.

    ## Observation
    `Box(0, 1, (S + 1,), float32)`: the first S numbers are the one-hot symbol, at the first step only; the
    last number is the flag "answer now", set at the last step only. In between all numbers are 0.

    ## Actions
    `Discrete(S)`. The action at the flag is the answer; earlier actions do nothing. A number outside the
    space is a wrong answer.

    ## Reward and end of an episode
    The reward is 1 for the right answer, else 0. Every episode is terminated by its answer, after `delay + 2`
    steps; none is truncated. `success` means that the answer was right.

    ## Chance
    Symbols are equally likely, and only a memory connects the answer to the symbol. The best mean reward is
    **1 / S** without a memory and 1 with one.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.
    """

    reports_success = True
    capturable = True

    def __init__(
        self, num_envs: int = 1, device: str | torch.device = "cpu", num_symbols: int = 4, delay: int = 8
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_symbols: S, from 2 to 10,000.
            delay: number of blank steps between the symbol and the flag, from 0 to 1,000,000.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("num_symbols", num_symbols, 2, 10_000)
        require_whole("delay", delay, 0, 1_000_000)
        observation_space = spaces.Box(0.0, 1.0, (num_symbols + 1,), np.float32)
        super().__init__("rmc/Recall-v0", num_envs, device, observation_space, spaces.Discrete(num_symbols))
        self.num_symbols = num_symbols
        self.delay = delay
        # Observations: rows 0 to S - 1 are the symbols, row S is the flag, row S + 1 is blank.
        self._views = torch.eye(num_symbols + 2, num_symbols + 1).to(self.device)
        self._symbol = self._time = torch.zeros_like(self.task_of)  # [B]; number of steps in the episode
        self._before: tuple[Tensor, Tensor] | None = None  # symbols and times before the latest autoreset

    def _begin(self) -> Tensor:
        self._symbol = self._draw()
        self._time = torch.zeros_like(self._time)
        self._before = None
        return self._observe(self._symbol, self._time)

    def _advance(self, actions: Tensor) -> Transition:
        symbol = self._symbol
        answered = self._time == self.delay + 1
        right = answered & (actions == symbol)
        time = self._time + 1
        final_obs = self._observe(symbol, time)
        self._before = symbol, time
        self._symbol = torch.where(answered, self._draw(), symbol)
        self._time = torch.where(answered, 0, time)
        return Transition(
            obs=self._observe(self._symbol, self._time),
            reward=right.float(),
            terminated=answered,
            truncated=torch.zeros_like(answered),
            final_obs=final_obs,
            success=right,
        )

    def _draw(self) -> Tensor:
        """Draw a symbol [B] for every environment, whether or not it starts an episode now."""
        return torch.randint(
            self.num_symbols, (self.num_envs,), generator=self._generator, device=self.device
        )

    def _observe(self, symbol: Tensor, time: Tensor) -> Tensor:
        """Return the observations [B, S + 1] at `time` [B]."""
        later = torch.where(time == self.delay + 1, self.num_symbols, self.num_symbols + 1)
        return self._views.index_select(0, torch.where(time == 0, symbol, later))

    def _save(self) -> dict[str, Any]:
        return {"symbol": self._symbol, "time": self._time}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["symbol"]))
        self._symbol, self._time = state["symbol"].to(self.device), state["time"].to(self.device)
        self._before = None
        return self._observe(self._symbol, self._time)

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw one cell for each step."""
        from .pictures import draw_recall  # slow to import, and only needed here

        symbol, time = self._before if final and self._before is not None else (self._symbol, self._time)
        return draw_recall(int(symbol[i]), int(time[i]), self.delay, tile_size)

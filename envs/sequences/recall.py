"""Recall: the smallest task that needs a memory. The agent sees a symbol, waits, and names it.

Axes: B environments, S symbols.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.environment import BatchedEnv, Transition

from ..numbers import MAX_ENVS, require_whole


@final
class Recall(BatchedEnv):
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
        require_whole("num_envs", num_envs, 1, MAX_ENVS)
        require_whole("num_symbols", num_symbols, 2, 10_000)
        require_whole("delay", delay, 0, 1_000_000)
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.observation_space = spaces.Box(0.0, 1.0, (num_symbols + 1,), np.float32)
        self.action_space = spaces.Discrete(num_symbols)
        self.tasks = ("rmc/Recall-v0",)
        self.task_of = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.num_symbols = num_symbols
        self.delay = delay
        # Observations: rows 0 to S - 1 are the symbols, row S is the flag, row S + 1 is blank.
        self._views = torch.eye(num_symbols + 2, num_symbols + 1).to(self.device)
        self._symbol: Tensor | None = None  # [B] int64; None before the first reset
        self._time = torch.zeros_like(self.task_of)  # [B] number of steps taken in the episode
        self._generator = None
        if self.device.type != "meta":  # it has no generators
            self._generator = torch.Generator(self.device)
            self._generator.seed()

    def reset(self, seed: int | None = None) -> Tensor:
        if seed is not None and self._generator is not None:
            self._generator.manual_seed(seed)
        self._symbol = self._draw()
        self._time = torch.zeros_like(self._time)
        return self._observe(self._symbol, self._time)

    def step(self, actions: Tensor) -> Transition:
        symbol = self._symbol
        if symbol is None:
            raise RuntimeError("step before the first reset: call reset(seed) first")
        self.require_actions(actions)
        answered = self._time == self.delay + 1
        right = answered & (actions == symbol)
        time = self._time + 1
        final_obs = self._observe(symbol, time)
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

    def state_dict(self) -> dict[str, Any]:
        if self._symbol is None:
            raise RuntimeError("state_dict before the first reset: call reset(seed) first")
        generator = None if self._generator is None else self._generator.get_state()
        return {"symbol": self._symbol, "time": self._time, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        if len(state["symbol"]) != self.num_envs:
            raise ValueError(f"a state of {len(state['symbol'])} environments: expected {self.num_envs}")
        symbol = self._symbol = state["symbol"].to(self.device)
        self._time = state["time"].to(self.device)
        if self._generator is not None:
            self._generator.set_state(state["generator"].cpu())
        return self._observe(symbol, self._time)

"""MemoryChain of bsuite: bits are shown once, and one of them is asked for at the end.

Axes: B environments, L length of the memory, N bits.
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
class MemoryChain(SeededTask):
    """N bits are shown at the start; after L steps the agent has to name the one that is asked for.

    ## Observation
    `Box(float32)` of N + 2 numbers:

    - The time left, 1 - t / L.
    - At t = L - 1 the index of the bit that is asked for, from 0 to N - 1; 0 before.
    - At t = 0 the N bits, as -1 and 1; 0 after.

    As in bsuite, t = 0 is shown twice: in the first observation of an episode, and after the first action.

    ## Actions
    `Discrete(2)`: the bit, 0 (shown as -1) or 1. The action at the query is the answer; earlier ones do
    nothing. A number outside the space is a wrong answer.

    ## Reward and end of an episode
    1 for the right answer and -1 for the wrong one, which terminates the episode after L + 1 steps. `success`
    means that the answer was right.

    ## What a score means
    Bits and queries are uniform. Without a memory the mean return is **0** (1 if L = 1, where the bits are in
    view with the query), and with a perfect memory 1.

    ## Published
    bsuite's experiments are `memory_len` (N = 1, L from 1 to 100) and `memory_size` (L = 2, N from 1 to 40),
    10,000 episodes each. They score the regret, 2 for each wrong answer.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from the original
    None in the rules. Observations have the shape (N + 2,) instead of (1, N + 2), and bits are drawn by
    another generator.

    Source: I. Osband et al., "Behaviour Suite for Reinforcement Learning", 2020.
    """

    reports_success = True

    def __init__(
        self, num_envs: int = 1, device: str | torch.device = "cpu", length: int = 10, num_bits: int = 1
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            length: L, from 1 to 100,000.
            num_bits: N, from 1 to 1000.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("length", length, 1, 100_000)
        require_whole("num_bits", num_bits, 1, 1000)
        low, high = np.full(num_bits + 2, -1.0, np.float32), np.full(num_bits + 2, 1.0, np.float32)
        low[:2], high[1] = 0.0, max(num_bits - 1, 1)
        observation_space = spaces.Box(low, high)
        super().__init__("rmc/MemoryChain-v0", num_envs, device, observation_space, spaces.Discrete(2))
        self.length, self.num_bits = length, num_bits
        self._time = 0
        self._bits, self._query = self.task_of.unsqueeze(1), self.task_of  # [B, N]; [B]
        self._ended: tuple[Tensor, Tensor] | None = None  # the bits and the query of the latest end

    def _begin(self) -> Tensor:
        B, generator, device = self.num_envs, self._generator, self.device
        self._bits = torch.randint(2, (B, self.num_bits), generator=generator, device=device)
        self._query = torch.randint(self.num_bits, (B,), generator=generator, device=device)
        self._time, self._ended = 0, None
        return self._observe()

    def _observe(self) -> Tensor:
        """Return the observations after `_time` steps."""
        t = max(self._time - 1, 0)  # bsuite counts from the second observation
        obs = torch.zeros(self.num_envs, self.num_bits + 2, device=self.device)
        obs[:, 0] = 1 - t / self.length
        if t == self.length - 1:
            obs[:, 1] = self._query
        if t == 0:
            obs[:, 2:] = 2 * self._bits - 1
        return obs

    def _advance(self, actions: Tensor) -> Transition:
        never = self._none()
        self._time += 1
        obs = self._observe()
        if self._time <= self.length:
            return Transition(obs, torch.zeros(self.num_envs, device=self.device), never, never, obs, never)
        right = actions == self._bits.gather(1, self._query.unsqueeze(1)).squeeze(1)
        reward = 2 * right.to(torch.float32) - 1
        ended = (self._bits, self._query)
        first = self._begin()
        self._ended = ended
        return Transition(first, reward, ~never, never, obs, right)

    def _save(self) -> dict[str, Any]:
        return {"time": self._time, "bits": self._bits, "query": self._query}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["bits"]))
        self._time = state["time"]
        self._bits, self._query = state["bits"].to(self.device), state["query"].to(self.device)
        self._ended = None
        return self._observe()

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the bits, dimmed unless they are in view, and the query."""
        from ..drawing import BLUE, ORANGE, PAPER, SKY, Board

        over = self._ended if final and self._time == 0 else None
        bits, query = over or (self._bits, self._query)
        time = self.length + 1 if over else self._time
        columns = min(max(self.num_bits, 6), 10)
        rows = -(-self.num_bits // columns)
        board = Board(rows, columns, tile_size)
        for number, bit in enumerate(bits[i].tolist()):
            row, column = divmod(number, columns)
            board.fill(row, column, BLUE if bit else SKY, inset=0.06)
            board.text(row, column, str(bit), PAPER)
        hidden = np.full((rows, columns), time > 1)
        asks = time >= self.length
        if asks:
            board.dim(hidden)
            board.outline(*divmod(int(query[i]), columns), ORANGE)
            return board.image(f"name bit {int(query[i]) + 1}", ORANGE)
        board.dim(hidden)
        return board.image("remember" if time <= 1 else f"{self.length - time} steps to go")

"""Start states of the Memory mazes: from one generator on the device, or exactly those of Farama's mazes.

Axes: B environments, H hallways, K steps (see `tables.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from gymnasium.utils import seeding
from torch import Tensor

from rmc_agents.tree import upload

from .tables import MazeSpec, Tables

BLOCK_SIZE = 1 << 16
"""Number of start states drawn at once, with device seeding, so that single steps need no draw."""


class Starts(ABC):
    """A source of start states for a batch of mazes."""

    @abstractmethod
    def set_mazes(self, maze_of: Sequence[int]) -> None:
        """Set each environment's maze, [B]. Starts that were drawn for other mazes are discarded."""

    @abstractmethod
    def reset(self, seed: int | None) -> Tensor:
        """Seed the generators, unless `seed` is None, and return a start state [B] for every environment."""

    @abstractmethod
    def draw(self, state: Tensor, needed: Tensor) -> Tensor:
        """Return [B] states, which are new start states at least where `needed`.

        Args:
            state: [B] current states, returned if there is nothing to draw.
            needed: [B] bool.
        """

    def prepare(self, count: int) -> None:
        """Prepare the next `count` draws; see `BatchedEnv.prepare_steps`."""
        raise NotImplementedError("Farama's start states are drawn on the host: use seeding='device'")

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return `block`, `generator` and `numpy`, each empty where the other kind of seeding uses it."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the `state_dict` of starts of the same kind, after `set_mazes`."""


@final
class DeviceStarts(Starts):
    """Start states from one `torch.Generator` on the device, for many steps at once."""

    def __init__(self, tables: Tables, num_envs: int, device: torch.device) -> None:
        self._rows = max(1, BLOCK_SIZE // num_envs)  # that are drawn at once
        # [K, B] start states for K steps, used from the last on.
        block = np.zeros((self._rows, num_envs), dtype=np.int64)
        self._block = upload(block, device)
        self._left = 0  # start states that are left in the block, for as many steps
        self._reserved = False  # whether steps take theirs from `_cursor` on; see `prepare`
        self._cursor = torch.zeros(1, dtype=torch.int64, device=device)  # next row, if they are reserved
        self._hallways = tables.hallways
        self._first_start, self._num_starts = upload(tables.hallway_starts, device).unbind(1)  # [H] each
        self._starts = upload(tables.starts, device)
        self._first_hallway = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._num_hallways = torch.zeros_like(self._first_hallway)
        self._generator = None
        if device.type != "meta":
            self._generator = torch.Generator(device)
            self._generator.seed()

    def set_mazes(self, maze_of: Sequence[int]) -> None:
        first, number = upload(self._hallways[np.asarray(maze_of)], self._block.device).unbind(1)
        self._first_hallway.copy_(first)
        self._num_hallways.copy_(number)
        self._discard()

    def _discard(self) -> None:
        self._left = 0
        self._reserved = False

    def reset(self, seed: int | None) -> Tensor:
        if seed is not None:
            if self._generator is not None:
                self._generator.manual_seed(seed)
            self._discard()
        self._reserved = False
        return self._next()

    def draw(self, state: Tensor, needed: Tensor) -> Tensor:
        return self._next()

    def _next(self) -> Tensor:
        """Return a start state [B] for every environment, needed or not."""
        if self._reserved:
            starts = self._block.index_select(0, self._cursor).squeeze(0)
            self._cursor.sub_(1)
            return starts
        if not self._left:
            self._draw()
        self._left -= 1
        return self._block[self._left]

    def prepare(self, count: int) -> None:
        self._allocate(count - 1 + self._rows)
        while self._left < count:
            self._draw()
        self._cursor.fill_(self._left - 1)
        self._left -= count
        self._reserved = True

    def _allocate(self, rows: int) -> None:
        """Let the block have room for at least so many rows, keeping those that are left in it."""
        if len(self._block) < rows:
            left = self._block[: self._left]
            self._block = self._block.new_zeros(rows, self._block.shape[1])
            self._block[: self._left] = left

    def _draw(self) -> None:
        """Draw start states, which are used after those that are left."""
        # One integer serves for both draws: with 53 bits, remainders are uniform to one part in 10^12.
        shape = self._rows, self._block.shape[1]
        draw = torch.randint(1 << 53, shape, generator=self._generator, device=self._block.device)
        hallway = self._first_hallway + draw % self._num_hallways
        draw = torch.div(draw, self._num_hallways, rounding_mode="floor")
        start = self._first_start[hallway] + draw % self._num_starts[hallway]
        if self._left:
            self._block[self._rows : self._rows + self._left] = self._block[: self._left].clone()
        self._block[: self._rows] = self._starts[start]
        self._left += self._rows

    def state_dict(self) -> dict[str, Any]:
        return {
            "block": self._block[: self._left].clone() if self._left else None,
            "generator": None if self._generator is None else self._generator.get_state(),
            "numpy": [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["block"] is not None:
            self._left = len(state["block"])
            self._allocate(self._left)
            self._block[: self._left].copy_(state["block"])
        if self._generator is not None:
            self._generator.set_state(state["generator"].cpu())


@final
class FaramaStarts(Starts):
    """Farama's start states: environment i has the NumPy generator of Farama's environment of that seed."""

    def __init__(
        self, specs: Sequence[MazeSpec], tables: Tables, num_envs: int, device: torch.device
    ) -> None:
        self._random_length = [spec.random_length for spec in specs]
        self._tables, self._num_envs, self._device = tables, num_envs, device
        self._maze_of: Sequence[int] = ()
        self.generators: list[np.random.Generator] = []  # one for each environment; none before the reset

    def set_mazes(self, maze_of: Sequence[int]) -> None:
        self._maze_of = maze_of

    def reset(self, seed: int | None) -> Tensor:
        if seed is not None or not self.generators:
            seeds = [None if seed is None else seed + i for i in range(self._num_envs)]
            self.generators = [seeding.np_random(own)[0] for own in seeds]
        return upload([self._draw_one(i) for i in range(self._num_envs)], self._device)

    def draw(self, state: Tensor, needed: Tensor) -> Tensor:
        ended = np.flatnonzero(needed.cpu().numpy())
        if not len(ended):
            return state
        starts = [self._draw_one(i) for i in ended.tolist()]
        return state.index_put((upload(ended, self._device),), upload(starts, self._device))

    def _draw_one(self, i: int) -> int:
        """Draw a start state for environment i with the draws of Farama's environment, in its order."""
        rng, maze = self.generators[i], self._maze_of[i]
        hallway, num_hallways = self._tables.hallways[maze].tolist()
        if self._random_length[maze]:
            hallway += int(rng.integers(4, 4 + num_hallways)) - 4
        first, count = self._tables.hallway_starts[hallway].tolist()
        x = int(rng.integers(1, count // 4 + 1))
        cue, order = int(rng.integers(0, 2)), int(rng.integers(0, 2))
        return int(self._tables.starts[first + 4 * (x - 1) + 2 * cue + order])

    def state_dict(self) -> dict[str, Any]:
        states = [rng.bit_generator.state for rng in self.generators]
        return {"block": None, "generator": None, "numpy": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generators = []
        for saved in state["numpy"]:
            rng = np.random.Generator(np.random.PCG64())
            rng.bit_generator.state = saved
            self.generators.append(rng)

"""Battleship: the agent shoots at hidden ships and learns only whether it hit.

Axes: B environments, S rows and columns, P placements of a ship.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import Transition

from ..numbers import require_whole
from .base import Levels, PopgymTask
from .scene import Scene

SHIPS = (2, 3, 3, 4)
"""Lengths of POPGym's ships."""


def placements(board_size: int, length: int, device: torch.device) -> Tensor:
    """Return all placements [P, S * S] of a ship, 1 where it lies, as float32."""
    boards = []
    for row in range(board_size):
        for start in range(board_size - length + 1):
            board = torch.zeros(board_size, board_size)
            board[row, start : start + length] = 1
            boards += [board, board.t()]
    return torch.stack(boards).flatten(1).unique(dim=0).to(device)


def longest_certain(board_size: int, occupied: int) -> int:
    """Return the length of a ship for which there is room, wherever the occupied cells of a board lie."""
    in_row = (
        occupied // board_size
    )  # at most, in the row with the fewest; they split it into in_row + 1 parts
    return -(-(board_size - in_row) // (in_row + 1))


@final
class Battleship(PopgymTask):
    """Four ships of 2, 3, 3 and 4 cells lie on a board of S x S cells, in rows or columns, without overlap.

    They are placed one after the other, each uniformly among the placements that are still free. Ships may
    touch.

    ## Observation
    `Discrete(2)`: 1 if the last shot hit a cell of a ship that was not hit before, else 0. The first
    observation is 0. The observation does not say where the shot went, so an agent needs its previous action
    as an input.

    ## Actions
    `MultiDiscrete([S, S])`: row and column of the shot. A number outside the space is an error on a CPU.

    ## Reward and end of an episode
    A new hit is rewarded by 1 / 12, every other shot by -1 / (S^2 - 12), also one at a cell that was hit
    before. The last hit terminates the episode, and step S^2 truncates it. An episode that shoots at every
    cell once returns 0 or more.

    ## Levels
    Easy S = 8, Medium S = 10, Hard S = 12.

    ## What a score means
    Shots that never repeat a cell score .08 to .09 in random order, and .17 to .18 row by row. Shooting at
    the cell that the most placements of ships cover, given all hits and misses, scores .53, .57 and .60.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Differences from POPGym
    None in the rules. POPGym places a ship by rejection, which gives the same distribution.
    """

    FAMILY = "Battleship"
    LEVELS: ClassVar[Levels] = {"Easy": {"board_size": 8}, "Medium": {}, "Hard": {"board_size": 12}}

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        board_size: int = 10,
        ship_sizes: Sequence[int] = SHIPS,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            board_size: S, from 2 to 100.
            ship_sizes: length of each ship in the order in which they are placed. There must always be room
                for the next one, wherever those before it lie.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("board_size", board_size, 2, 100)
        if isinstance(ship_sizes, str) or not isinstance(ship_sizes, Sequence) or not ship_sizes:
            raise ValueError(f"ship_sizes={ship_sizes!r}: expected the length of each ship")
        ships = tuple(ship_sizes)
        for i, length in enumerate(ships):
            require_whole("ship_sizes", length, 1, board_size)
            if length > (most := longest_certain(board_size, sum(ships[:i]))):
                raise ValueError(
                    f"ship_sizes={list(ships)!r:.60}: expected at most {most} for ship {i + 1} with "
                    f"board_size={board_size}, since the ships before it may leave no more room"
                )
        if sum(ships) == board_size**2:
            raise ValueError(
                f"ship_sizes={list(ships)!r:.60}: expected a free cell with board_size={board_size}"
            )
        options = {"board_size": board_size, "ship_sizes": ships}
        board = spaces.MultiDiscrete([board_size] * 2)
        super().__init__(options, num_envs, device, spaces.Discrete(2), board)
        self.board_size, self.ship_sizes = board_size, ships
        self.num_ship_cells, self.max_steps = sum(ships), board_size**2
        self._placements = tuple(placements(board_size, length, self.device) for length in ships)
        self._targets = torch.empty(0, 0, 0)  # [B, S, S] bool: cells of ships that were not hit
        self._left = self._time = self._hit = self.task_of  # [B] cells to hit; steps; the observations
        self._rows = torch.arange(num_envs, device=self.device)

    def _draw(self, count: int) -> tuple[Tensor, ...]:
        board = torch.zeros(count, self.max_steps, device=self.device)
        for ship in self._placements:
            free = board @ ship.t() == 0  # [n, P]
            rank = torch.rand(count, len(ship), generator=self._generator, device=self.device)
            board = board + ship[torch.where(free, rank, -1.0).argmax(1)]
        left = torch.full((count,), self.num_ship_cells, dtype=torch.int64, device=self.device)
        targets = board.unflatten(1, (self.board_size, self.board_size)).bool()
        return targets, left, torch.zeros_like(left), torch.zeros_like(left)

    def _begin(self) -> Tensor:
        self._targets, self._left, self._time, self._hit = self._draw(self.num_envs)
        return self._hit

    def _advance(self, actions: Tensor) -> Transition:
        # Each component is checked against its own axis, so that no action reaches another board.
        cell = (self._rows, *actions.unbind(1))
        hit = self._targets[cell]
        self._targets.index_put_(cell, torch.zeros_like(hit))
        final_obs = hit.long()
        self._left = self._left - final_obs
        self._time = self._time + 1
        reward = self._rewards(hit, 1 / self.num_ship_cells, -1 / (self.max_steps - self.num_ship_cells))
        terminated, truncated = self._left == 0, self._time >= self.max_steps
        state = (self._targets, self._left, self._time)
        self._hit = self._restart(state, final_obs, terminated | truncated, self._draw)
        return Transition(self._hit, reward, terminated, truncated, final_obs)

    def _save(self) -> dict[str, Any]:
        return {
            "targets": self._targets.clone(),
            "left": self._left,
            "time": self._time,
            "hit": self._hit,
        }

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["time"]))
        self._targets, self._left = self._take(state, "targets"), self._take(state, "left")
        self._time, self._hit = self._take(state, "time"), self._take(state, "hit")
        return self._hit

    def _picture(self, scene: Scene, tile_size: int) -> NDArray[np.uint8]:
        from ..drawing import BLUE, GREY, VERMILLION, Board  # slow to import, and only needed here

        board = Board(self.board_size, self.board_size, tile_size)
        hidden = scene.state["targets"][scene.i].numpy(force=True)
        for row, column in np.argwhere(hidden).tolist():
            board.fill(row, column, GREY, inset=0.06)
        board.dim(hidden)
        hits: set[tuple[int, int]] = set()
        for (row, column), reward in scene.steps:
            hits |= {(row, column)} if reward > 0 else set()
            if (row, column) in hits:
                board.fill(row, column, VERMILLION, inset=0.06)
                board.shape(row, column, "cross", "#ffffff", inset=0.28)
            else:
                board.shape(row, column, "circle", BLUE, inset=0.36)
        if scene.actions:
            row, column = scene.actions[-1]
            board.outline(row, column, BLUE)
        left, time = (int(scene.state[name][scene.i]) for name in ("left", "time"))
        return board.image(f"to hit: {left}   shots: {time}")

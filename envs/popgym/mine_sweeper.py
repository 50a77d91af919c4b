"""MineSweeper: the agent opens the squares of a hidden board and avoids the mines.

Axes: B environments, S rows and columns.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from rmc_agents.environment import Transition

from ..numbers import require_whole
from .base import Levels, PopgymTask
from .scene import Scene


@final
class MineSweeper(PopgymTask):
    """M mines lie on a board of S x S squares, at places drawn uniformly. Open all other squares.

    ## Observation
    `Discrete(min(M + 1, 10))`: the number of mines in the 3 x 3 squares around the one that was just opened,
    itself included. The first observation is 0. The observation does not say which square was opened, so an
    agent needs its previous action as an input.

    ## Actions
    `MultiDiscrete([S, S])`: row and column of the square to open. A number outside the space is an error on a
    CPU.

    ## Reward and end of an episode
    With F = S^2 - M squares that are free of mines:

    - A new square without a mine: 1 / F.
    - A square that was opened before: -0.5 / (F - 2).
    - A mine: -0.5 - 1 / F, which terminates the episode.

    The last free square terminates the episode, and step F truncates it, unless it terminates it.

    ## Levels
    Easy S = 4 and M = 2, Medium S = 6 and M = 6, Hard S = 8 and M = 10.

    ## What a score means
    Random squares score -.22, -.40 and -.43. Opening the square with the smallest risk, estimated from all
    numbers seen so far, scores .77, .53 and .53.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Differences from POPGym
    None in the rules of POPGym 1.0.7; earlier versions allowed one step more. Boards are drawn by another
    generator.
    """

    FAMILY = "MineSweeper"
    LEVELS: ClassVar[Levels] = {
        "Easy": {},
        "Medium": {"board_size": 6, "num_mines": 6},
        "Hard": {"board_size": 8, "num_mines": 10},
    }

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        board_size: int = 4,
        num_mines: int = 2,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            board_size: S, from 2 to 100.
            num_mines: M, from 1 to S^2 - 3.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("board_size", board_size, 2, 100)
        require_whole("num_mines", num_mines, 1, board_size**2 - 3)
        options = {"board_size": board_size, "num_mines": num_mines}
        numbers, board = spaces.Discrete(min(num_mines + 1, 10)), spaces.MultiDiscrete([board_size] * 2)
        super().__init__(options, num_envs, device, numbers, board)
        self.board_size, self.num_mines = board_size, num_mines
        self.max_steps = board_size**2 - num_mines
        self._mines = self._opened = torch.empty(0, 0, 0)  # [B, S, S] bool
        self._numbers = torch.empty(0, 0, 0)  # [B, S, S] int64 mines around each square
        self._left = self._time = self._seen = self.task_of  # [B] squares to open; steps; the observations
        self._rows = torch.arange(num_envs, device=self.device)

    def _draw(self, count: int) -> tuple[Tensor, ...]:
        size = self.board_size
        rank = torch.rand(count, size**2, generator=self._generator, device=self.device)
        places = rank.topk(self.num_mines, dim=1, sorted=False).indices
        mines = torch.zeros_like(rank, dtype=torch.int64).scatter_(1, places, 1).unflatten(1, (size, size))
        wide = pad(mines, (1, 1, 1, 1))
        three = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
        numbers = three[:, :, :-2] + three[:, :, 1:-1] + three[:, :, 2:]
        left = torch.full((count,), self.max_steps, dtype=torch.int64, device=self.device)
        time = torch.zeros_like(left)
        mines = mines.bool()
        return mines, torch.zeros_like(mines), numbers, left, time, torch.zeros_like(left)

    def _begin(self) -> Tensor:
        drawn = self._draw(self.num_envs)
        self._mines, self._opened, self._numbers, self._left, self._time, self._seen = drawn
        return self._seen

    def _advance(self, actions: Tensor) -> Transition:
        # Each component is checked against its own axis, so that no action reaches another board.
        cell = (self._rows, *actions.unbind(1))
        mine, opened, final_obs = self._mines[cell], self._opened[cell], self._numbers[cell]
        self._opened.index_put_(cell, ~mine)
        new = 1 / self.max_steps
        safe = torch.where(opened, -0.5 / (self.max_steps - 2), new)
        reward = torch.where(mine, -0.5 - new, safe)
        self._left = self._left - (~(mine | opened)).long()
        self._time = self._time + 1
        terminated = mine | (self._left == 0)
        truncated = (self._time >= self.max_steps) & ~terminated
        state = (self._mines, self._opened, self._numbers, self._left, self._time)
        self._seen = self._restart(state, final_obs, terminated | truncated, self._draw)
        return Transition(self._seen, reward, terminated, truncated, final_obs)

    def _save(self) -> dict[str, Any]:
        return {
            "mines": self._mines.clone(),
            "opened": self._opened.clone(),
            "numbers": self._numbers.clone(),
            "left": self._left,
            "time": self._time,
            "seen": self._seen,
        }

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["time"]))
        self._mines, self._opened = self._take(state, "mines"), self._take(state, "opened")
        self._numbers, self._left = self._take(state, "numbers"), self._take(state, "left")
        self._time, self._seen = self._take(state, "time"), self._take(state, "seen")
        return self._seen

    def _picture(self, scene: Scene, tile_size: int) -> NDArray[np.uint8]:
        from ..drawing import (  # slow to import, and only needed here
            BLUE,
            FAINT,
            GREY,
            INK,
            VERMILLION,
            Board,
        )

        mines, opened, numbers = (
            scene.state[name][scene.i].numpy(force=True) for name in ("mines", "opened", "numbers")
        )
        board = Board(self.board_size, self.board_size, tile_size)
        for row, column in np.ndindex(mines.shape):
            board.fill(row, column, FAINT if opened[row, column] else GREY, inset=0.05)
            if mines[row, column]:
                board.shape(row, column, "circle", INK, inset=0.28)
        board.dim(mines)
        for row, column in np.argwhere(opened).tolist():
            board.text(row, column, str(numbers[row, column]))
        if scene.actions:
            row, column = scene.actions[-1]
            if mines[row, column]:
                board.fill(row, column, VERMILLION, inset=0.05)
                board.shape(row, column, "circle", INK, inset=0.28)
            board.outline(row, column, BLUE)
        left, time = (int(scene.state[name][scene.i]) for name in ("left", "time"))
        return board.image(f"{left} left, step {time}")

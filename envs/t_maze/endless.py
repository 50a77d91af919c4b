"""Endless T-Maze: corridors in a row, each with a fresh cue that makes the one before worthless.

Axes: B environments, n corridors.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import Obs, ObservationIds, Transition

from ..numbers import require_flag, require_whole
from ..seeded import SeededTask

FORWARD, LEFT, RIGHT = range(3)
MOVE, GAIN, LOSS = -0.01, 1.0, -1.0


def observations(length: int, shows_position: bool, shows_junction: bool) -> tuple[Tensor, Tensor]:
    """Return all observations [n, 4], and the row of each view [2 (length + 1)].

    The views of cell 0 are numbers 0 (the cue is left) and 1 (right). Those of cell x are numbers 2 x, in the
    corridor, and 2 x + 1, at the junction.
    """
    views = [(0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0)]
    for x in range(1, length + 1):
        position = x / length if shows_position else 0.0
        views += [(position, 0.0, 0.0, 0.0), (position, 0.0, 0.0, float(shows_junction))]
    distinct = list(dict.fromkeys(views))
    return torch.tensor(distinct), torch.tensor([distinct.index(view) for view in views])


@final
class EndlessTMaze(SeededTask):
    """n corridors in a row; each begins with a cue, left or right, and ends in a junction.

    ## Rules
    The cue is shown in the first cell of a corridor. The agent walks to the junction and turns in the
    direction of the cue, which takes it to the first cell of the next corridor, with the next cue. All cues
    before are worthless then.

    ## Observation
    `Box(0, 1, (4,), float32)`: the position in the corridor, as a share of `length`; the cue left; the cue
    right; the junction. `shows_position=False` and `shows_junction=False` leave numbers out (they are 0
    then). There are at most 2 `length` + 2 observations, in `observation_table`.

    ## Actions
    `Discrete(3)`: forward, left, right. Turning within a corridor does nothing. A number outside the space
    also does nothing in a corridor, and is a wrong turn at a junction.

    ## Reward and end of an episode
    At a junction the turn of the cue is rewarded by 1. Any other action there, forward included, is rewarded
    by -1 and terminates the episode. All other steps cost .01. The n-th right turn terminates the episode;
    step 6 n (`length` + 1) truncates it. `success` means that all n turns were right.

    ## Difficulty
    With `uniform` the length of each corridor is drawn from 1 to `length` cells; otherwise all have `length`.
    Without the junction in view, an agent in corridors of random lengths has to try the turn in each cell.
    Training with one n and evaluation with another one tests how well the rewriting generalises.

    ## What a score means
    Without a memory half of the turns are right: the success rate is at most **.5^n**, and the mean return
    -.10 with the default options. A perfect memory returns n - .01 per step: 2.84.

    ## Published
    PPO (Shchendrigin et al. 2026): with n = 1, success rates of 1.00 for LSTM, FFM and SHM, and about .5 for
    GTrXL; with more corridors the LSTM is the most robust.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Differences from the original
    The authors' code shows the position and the cue, and not the junction: `shows_junction=False`. There a
    wrong turn costs .01 and steps forward are free; here the rewards are those of the paper.

    Source: O. Shchendrigin et al., "Memory Retention Is Not Enough to Master Memory Tasks in Reinforcement
    Learning", 2026.
    """

    reports_success = True
    capturable = True

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        num_corridors: int = 3,
        length: int = 10,
        uniform: bool = True,
        shows_position: bool = True,
        shows_junction: bool = True,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_corridors: n, from 1 to 10,000.
            length: steps from the first cell of a corridor to its junction, from 1 to 1000.
            uniform: the length of each corridor is drawn uniformly from 1 to `length`.
            shows_position: the agent sees its position in the corridor.
            shows_junction: the agent sees whether it is at a junction.

        Raises:
            ValueError: an argument out of range.
        """
        require_whole("num_corridors", num_corridors, 1, 10_000)
        require_whole("length", length, 1, 1000)
        require_flag("uniform", uniform)
        require_flag("shows_position", shows_position)
        require_flag("shows_junction", shows_junction)
        observation_space = spaces.Box(0.0, 1.0, (4,), np.float32)
        super().__init__("rmc/EndlessTMaze-v0", num_envs, device, observation_space, spaces.Discrete(3))
        self.num_corridors, self.length, self.uniform = num_corridors, length, uniform
        self.shows_position, self.shows_junction = shows_position, shows_junction
        self.max_steps = 6 * num_corridors * (length + 1)
        self._shortest = 1 if uniform else length
        table, row_of_view = observations(length, shows_position, shows_junction)
        self._table, self._row_of_view = table.to(self.device), row_of_view.to(self.device)
        self._rewards = torch.tensor([MOVE, GAIN, LOSS], device=self.device)
        # [B] the cell; the number of its junction; the cue, 0 left and 1 right; corridors passed; steps
        self._x = self._end = self._cue = self._passed = self._time = self.task_of
        self._shown = self.task_of  # [B] the observations, as rows
        self._ended: tuple[Tensor, Tensor, Tensor, Tensor] | None = None  # x, end, cue, passed of the step

    def observation_table(self) -> Tensor:
        return self._table

    def _draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the cues and the lengths of `count` corridors for every environment, [count, B] each."""
        kinds = 2 * (self.length - self._shortest + 1)
        shape = (count, self.num_envs)
        drawn = torch.randint(kinds, shape, generator=self._generator, device=self.device)
        return drawn & 1, (drawn >> 1) + self._shortest

    def _begin(self) -> Obs:
        cues, ends = self._draw(1)
        self._cue, self._end = cues[0], ends[0]
        self._x = self._passed = self._time = torch.zeros_like(self._cue)
        self._shown = self._look(self._x, self._end, self._cue)
        self._ended = None
        return self._observe(self._shown)

    def _look(self, x: Tensor, end: Tensor, cue: Tensor) -> Tensor:
        """Return the observations, as rows of the table [B]."""
        return self._row_of_view[2 * x + torch.where(x == 0, cue, (x == end).long())]

    def _observe(self, rows: Tensor) -> Obs:
        return ObservationIds(rows) if self.observe_ids else self._table[rows]

    def _advance(self, actions: Tensor) -> Transition:
        at_junction = self._x == self._end
        right = at_junction & (actions == self._cue + LEFT)
        wrong = at_junction & ~right
        reward = self._rewards[right + 2 * wrong]
        passed, time = self._passed + right, self._time + 1
        success = passed == self.num_corridors
        terminated, truncated = wrong | success, time >= self.max_steps

        cues, ends = self._draw(2)  # of the next corridor, and of the next episode
        enters = right & ~success
        x = (self._x + ((actions == FORWARD) & ~at_junction)).masked_fill(enters, 0)
        end, cue = torch.where(enters, ends[0], self._end), torch.where(enters, cues[0], self._cue)
        last = self._look(x, end, cue)
        self._ended = (x, end, cue, passed)

        done = terminated | truncated
        self._x, self._passed, self._time = (value.masked_fill(done, 0) for value in (x, passed, time))
        self._end, self._cue = torch.where(done, ends[1], end), torch.where(done, cues[1], cue)
        self._shown = torch.where(done, self._row_of_view[self._cue], last)
        obs, final_obs = self._observe(self._shown), self._observe(last)
        return Transition(obs, reward, terminated, truncated, final_obs, success)

    def _save(self) -> dict[str, Any]:
        return {
            "x": self._x,
            "end": self._end,
            "cue": self._cue,
            "passed": self._passed,
            "time": self._time,
        }

    def _restore(self, state: dict[str, Any]) -> Obs:
        self._require_rows(len(state["x"]))
        self._x, self._end, self._cue, self._passed, self._time = (
            state[name].to(self.device) for name in ("x", "end", "cue", "passed", "time")
        )
        self._shown, self._ended = self._look(self._x, self._end, self._cue), None
        return self._observe(self._shown)

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the corridor, walked from left to right."""
        from .picture import Corridor, draw

        state = (self._x, self._end, self._cue, self._passed)
        if final and self._ended is not None:
            state = self._ended
        x, end, cue, passed = (int(value[i]) for value in state)
        side = (-1, 1)[cue]
        shown = side if x == 0 else 0
        columns, sides = self.length + 1, ("left", "right")
        scene = Corridor(junction=end, x=x, y=0, goal=side, cue=shown, columns=columns, sides=sides)
        number = min(passed + 1, self.num_corridors)
        return draw(scene, f"corridor {number} of {self.num_corridors}, {passed} correct", tile_size)

"""Color-Cubes: the agent has to find cubes that it has seen for one step only, and that change their places.

Axes: B environments, G cells per side of the grid, N cubes.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets, Transition

from ..numbers import require_flag, require_whole
from ..seeded import SeededTask, restart

UP, RIGHT, DOWN, LEFT = range(4)


class World(NamedTuple):
    """The state of B environments. Cells are numbered row by row from the upper left corner."""

    at: Tensor
    """[B] the agent's cell."""
    cubes: Tensor
    """[B, N] the cell of each cube."""
    target: Tensor
    """[B] the cube to find."""
    found: Tensor
    """[B] number of targets found."""
    time: Tensor
    """[B] number of steps."""


def next_cells(size: int) -> Tensor:
    """Return the cell after each move from each cell, [G^2, 4]; a move off the grid changes nothing."""
    cells = torch.arange(size * size).reshape(size, size)
    moves = torch.stack([cells] * 4, dim=2)
    moves[1:, :, UP], moves[:-1, :, DOWN] = cells[:-1], cells[1:]
    moves[:, 1:, LEFT], moves[:, :-1, RIGHT] = cells[:, :-1], cells[:, 1:]
    return moves.reshape(-1, 4)


@final
class ColorCubes(SeededTask):
    """A grid with N cubes of different colors, seen for one step at a time; the agent finds one by one.

    ## Rules
    At the start of an episode the agent sees all cubes, and a target color. From then on it sees only what
    is in its own cell. When it steps onto the target, the target moves to another cell, each other cube does
    so with the probability `teleport`, a new target is drawn, and the agent sees all cubes once more, for
    one step (with `hide_colors` only where they are). Cubes move to cells that were free before, and those
    that are not the target do not stop the agent.

    ## Observation
    `MultiDiscrete([N + 2] * G^2 + [G, G, N, N + 1])`:

    - Each cell: 0 nothing (or not shown), 1 to N a cube of this color, N + 1 a cube of an unknown color.
    - The agent's row and column.
    - The target, from 0.
    - The cube in the agent's cell: 0 none, or its color, 1 to N.

    ## Actions
    `Discrete(4)`: up, right, down, left. A move off the grid does nothing. Numbers outside the space are
    not checked, and may move the agent to any other cell.

    ## Reward and end of an episode
    Stepping onto the target is rewarded by 1. The last of `num_targets` targets terminates the episode, and
    step `max_steps` truncates it. `success` means that all targets were found.

    ## Auxiliary targets
    The row and the column of each cube, as standard scores. With `hide_colors` they count until the first
    target is found.

    ## Levels
    | level | options | asks for |
    | --- | --- | --- |
    | Trivial | `num_targets=1` | one place |
    | Easy | `teleport=0` | changing one place in memory at a time |
    | Medium | the default | changing several |
    | Extreme | `hide_colors=True` | inferring which cube moved where |

    ## What a score means
    An agent without a memory can sweep the grid, and finds about half of the targets of the default options
    in time. A perfect memory walks straight to each.

    ## Published
    PPO, success rates (Shchendrigin et al. 2026): Trivial LSTM .52, GTrXL, FFM and SHM 1.00; Medium and
    Extreme .00 for every model.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Differences from the original
    The code of the original is not public. The rules follow the paper's description; sizes, the step limit
    and the probability of the levels are our own, so that published figures are not comparable.

    Source: O. Shchendrigin et al., "Memory Retention Is Not Enough to Master Memory Tasks in Reinforcement
    Learning", 2026.
    """

    reports_success = True
    capturable = True

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        size: int = 6,
        num_cubes: int = 4,
        num_targets: int = 5,
        teleport: float = 0.3,
        hide_colors: bool = False,
        max_steps: int | None = None,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            size: G, from 2 to 30.
            num_cubes: N, from 1 to half of the cells.
            num_targets: targets of an episode, from 1 to 10,000.
            teleport: probability that a cube moves when another one was found, from 0 to 1.
            hide_colors: the agent sees colors at the start of an episode only, and in its own cell.
            max_steps: steps of an episode at most; None for 10 per target.

        Raises:
            ValueError: an argument out of range.
        """
        require_whole("size", size, 2, 30)
        require_whole("num_cubes", num_cubes, 1, size * size // 2)
        require_whole("num_targets", num_targets, 1, 10_000)
        if isinstance(teleport, bool) or not isinstance(teleport, int | float) or not 0 <= teleport <= 1:
            raise ValueError(f"teleport={teleport!r}: expected a probability from 0 to 1")
        require_flag("hide_colors", hide_colors)
        if max_steps is None:
            max_steps = 10 * num_targets
        require_whole("max_steps", max_steps, 1, 1_000_000)
        cells = size * size
        sizes = [num_cubes + 2] * cells + [size, size, num_cubes, num_cubes + 1]
        super().__init__(
            "rmc/ColorCubes-v0", num_envs, device, spaces.MultiDiscrete(sizes), spaces.Discrete(4)
        )
        self.size, self.num_cubes, self.num_targets = size, num_cubes, num_targets
        self.teleport, self.hide_colors, self.max_steps = float(teleport), hide_colors, max_steps
        self.aux_size = 2 * num_cubes
        self._next = next_cells(size).to(self.device).flatten()
        self._colors = torch.arange(1, num_cubes + 1, device=self.device)  # [N]
        self._unknown = torch.full_like(self._colors, num_cubes + 1)
        nothing = self.task_of
        self._world = World(nothing, nothing.unsqueeze(1), nothing, nothing, nothing)
        self._obs = nothing
        self._last: tuple[World, Tensor] | None = None  # after the latest step, before its autoreset

    def _scatter_places(self, count: int, taken: Tensor | None, number: int) -> Tensor:
        """Draw `number` different cells that are not taken, for each of `count` environments."""
        chances = torch.rand(count, self.size**2, generator=self._generator, device=self.device)
        if taken is not None:
            chances.scatter_(1, taken, -1.0)
        return chances.topk(number, dim=1).indices

    def _draw(self, count: int) -> tuple[Tensor, ...]:
        cells = self._scatter_places(count, None, self.num_cubes + 1)
        at, cubes = cells[:, 0].clone(), cells[:, 1:].clone()
        target = torch.randint(self.num_cubes, (count,), generator=self._generator, device=self.device)
        nothing = torch.zeros_like(at)
        world = World(at, cubes, target, nothing, nothing.clone())
        return (*world, self._observe(world, self._colors.expand(count, -1)))

    def _observe(self, world: World, shown: Tensor) -> Tensor:
        """Return the observations [B, G^2 + 4].

        Args:
            world: the state.
            shown: [B, N] how each cube is seen from afar: its color, N + 1, or 0 if it is not.
        """
        cells = torch.zeros(len(world.at), self.size**2, dtype=torch.int64, device=self.device)
        cells.scatter_(1, world.cubes, shown)
        here = ((world.cubes == world.at.unsqueeze(1)) * self._colors).sum(1)
        row = world.at // self.size
        rest = torch.stack([row, world.at - row * self.size, world.target, here], dim=1)
        return torch.cat([cells, rest], dim=1)

    def _begin(self) -> Tensor:
        *world, self._obs = self._draw(self.num_envs)
        self._world, self._last = World(*world), None
        return self._obs

    def _advance(self, actions: Tensor) -> Transition:
        before = self._world
        at = self._next[before.at * 4 + actions]
        touched = before.cubes.gather(1, before.target.unsqueeze(1)).squeeze(1) == at
        world = before._replace(at=at, found=before.found + touched.long(), time=before.time + 1)
        world = self._move_cubes(world, touched)
        seen = self._unknown if self.hide_colors else self._colors
        final_obs = self._observe(world, touched.unsqueeze(1) * seen)

        success = world.found == self.num_targets
        truncated = world.time >= self.max_steps
        self._last = (World(*(value.clone() for value in world)), touched)
        self._obs = restart(world, final_obs, success | truncated, self._draw)
        self._world = world
        return Transition(self._obs, touched.to(torch.float32), success, truncated, final_obs, success)

    def _move_cubes(self, world: World, touched: Tensor) -> World:
        """Move cubes and draw a new target where the target was touched [B]."""
        on_cpu = self.device.type == "cpu"
        rows = touched.nonzero().squeeze(1) if on_cpu else torch.arange(self.num_envs, device=self.device)
        count = len(rows)
        if not count:
            return world
        cubes, target = world.cubes[rows], world.target[rows]
        chances = torch.rand(count, self.num_cubes, generator=self._generator, device=self.device)
        moves = (chances < self.teleport) | (cubes == world.at[rows].unsqueeze(1))
        places = self._scatter_places(count, cubes, self.num_cubes)
        drawn = torch.randint(self.num_cubes, (count,), generator=self._generator, device=self.device)
        if not on_cpu:
            moves, drawn = moves & touched.unsqueeze(1), torch.where(touched, drawn, target)
        moved = torch.where(moves, places, cubes)
        return world._replace(
            cubes=world.cubes.index_copy(0, rows, moved), target=world.target.index_copy(0, rows, drawn)
        )

    def auxiliary_targets(self) -> AuxiliaryTargets:
        cubes = self._world.cubes
        row = cubes // self.size
        places = torch.cat([row, cubes - row * self.size], dim=1)
        # Mean and deviation of a uniform number from 0 to G - 1.
        scores = (places - (self.size - 1) / 2) / ((self.size**2 - 1) / 12) ** 0.5
        weights = torch.ones_like(scores)
        if self.hide_colors:
            weights = weights * (self._world.found == 0).unsqueeze(1)
        return AuxiliaryTargets(scores, weights)

    def _save(self) -> dict[str, Any]:
        world = {name: value.clone() for name, value in self._world._asdict().items()}
        touched = None if self._last is None else self._last[1]
        return {"world": world, "obs": self._obs, "pictures": touched}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["obs"]))
        saved = {name: value.to(self.device, copy=True) for name, value in state["world"].items()}
        self._world, touched = World(**saved), state.get("pictures")  # older states lack it
        self._last = None if touched is None else (self._world, touched.to(self.device))
        self._obs = state["obs"].to(self.device, copy=True)
        return self._obs

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the cubes; those that the agent does not see are dimmed."""
        from .picture import draw

        world, touched = self._world, bool(self._world.time[i] == 0)
        colors = True
        if self._last is not None and (final or not touched):
            world, events = self._last
            touched = bool(events[i])
            colors = not self.hide_colors
        header = f"found {int(world.found[i])} of {self.num_targets}"
        cubes = world.cubes[i].tolist()
        seen = None if not touched else "colors" if colors else "places"
        return draw(self.size, cubes, int(world.at[i]), int(world.target[i]), seen, header, tile_size)

"""BoxWorld: the agent opens boxes with keys from other boxes, until one of them holds the gem.

Axes: B environments, V cells on a side of the view, W cells on a side of the grid.
"""

from __future__ import annotations

from typing import Any, final, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets, Transition
from rmc_agents.spaces.annotated import AnnotatedBox, codes_reading

from ..numbers import require_whole
from ..seeded import SeededTask, restart
from .known import Known, Targets, count_targets, known_chain, known_places
from .levels import (
    DEAD_KEY,
    EMPTY,
    GEM,
    KEY,
    LOCK,
    MAX_PLACES,
    NUM_CODES,
    NUM_COLORS,
    SIDE,
    Design,
    draw_layouts,
    draw_levels,
    empty_room,
)
from .planning import IS_AGENT, IS_EMPTY, IS_GEM, IS_KEY, IS_LOCK, IS_WALL, UNKNOWN, Map

AGENT = NUM_CODES
"""Code of the agent's cell, in full views only."""
GEM_REWARD, RIGHT_REWARD, WRONG_REWARD = 10.0, 1.0, -1.0


def _looks() -> NDArray[np.uint8]:
    """Return kind and color [NUM_CODES + 1, 2] of each code."""
    colors = [(kind, color) for kind in (IS_KEY, IS_LOCK, IS_KEY) for color in range(1, NUM_COLORS + 1)]
    return np.array([(IS_EMPTY, 0), (IS_WALL, 0), (IS_GEM, 0), *colors, (IS_AGENT, 0)], np.uint8)


@final
class BoxWorld(SeededTask):
    """Boxes in a room hold keys of other boxes, and one of them holds a gem (Zambaldi et al. 2018).

    `rmc/BoxWorld-v0` shows the whole room. `rmc/BoxWorldViewport-v0` shows 5 x 5 cells around the agent and
    the key that it holds, as in Santoro et al. (2018), so that boxes have to be found and remembered.

    ## Rules
    The room has 12 x 12 cells inside its walls. A box is two neighbouring cells: its content on the left and
    its lock on the right. The agent walks up, down, left and right, and cannot walk into walls, locked boxes
    and locks. With the key of a lock's color it can walk onto the lock: the lock disappears, the key is used
    up, and the content, which now lies loose, is taken by walking onto it.

    One loose key lies in the room at the start. It opens the first box of the solution, whose content opens
    the second, and so on; the last box holds the gem. A distractor is a branch of boxes that leads away from
    the gem: its first box opens with the key of a randomly chosen step of the solution, and the key in its
    last box opens nothing. Keys differ in their colors, of which there are 20, so that each box is either
    part of the solution or of one distractor.

    ## Levels
    The number of boxes of the solution is drawn uniformly from `min_solution` to `max_solution`, and the
    number of distractors from `min_distractors` to `max_distractors`. Boxes and the loose key lie in one of
    16,384 layouts, in random order; they do not touch each other, not even diagonally. So no box blocks
    another, and every level can be solved. The agent starts in a random empty cell.

    ## Observation
    A `Dict` of

    - `image`: `Box(0, 255, (V, V, 2), uint8)`, kind and color of each cell, by row and column. Kinds are 0
      empty, 1 wall (also beyond it), 2 gem, 3 key, 4 lock and, in full view, 5 agent, which is otherwise in
      the middle. Colors are 1 to 20 for keys and locks, else 0.
    - `key`: `Discrete(21)`, the color of the key held; 0 for none.

    ## Auxiliary targets
    Through a viewport, what the reference player below would know; rows and columns are those to go, divided
    by 6. They are learned with `aux_coef`.

    - `targets="places"`, 82 numbers: rows and columns to the gem and to the key of each color, once they have
      been in view, and to the lock of each color that leads to the gem, once all boxes from there on have
      been.
    - `targets="chain"`, 5 + 22 numbers for each box of the longest solution: rows and columns gone since the
      episode began; rows and columns to the cell that the reference player wants to reach, and 1 if it knows
      of one, else -1; then, from the box with the gem backwards, the color of each box's lock, one-hot, and
      rows and columns to it, once it and all boxes from there on have been in view.

    ## Teacher
    Through a viewport, `teacher_actions` gives the actions of the reference player below, wherever the agent
    went: those that lead to its next goal, or to the nearest cell that it has not seen. They are learned with
    `teacher_coef`.

    ## Actions
    `Discrete(4)`: up, down, left, right. A larger number raises IndexError on a CPU; a negative one counts
    from the last one.

    ## Reward and end of an episode
    A box of the solution is opened: 1, also the box with the gem. The first box of a distractor is opened:
    -1, and the episode is terminated, since it cannot be solved any more. The gem is taken: 10, and the
    episode is terminated with `success`. Step `max_steps` truncates the episode. So a solved episode returns
    10 + the length of its solution.

    ## What a score means
    With the default options, in 240 steps through the viewport: random play solves about 1 %, play without a
    memory, which opens any box that fits, 29 %, and a perfect memory, which explores until it knows which
    box leads to the gem, 100 %, for returns of 0.1, 3.7 and 13; it takes 64 steps on average, and solves 99 %
    within 120 steps. In full view, opening the nearest box that fits solves 60 %, and looking ahead 100 %,
    in 37 steps on average. Santoro et al. (2018) report that RMC solves 98 % and a ConvLSTM 73 % of the
    levels with a viewport, after 1e9 steps.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it. The layouts are the same for all seeds.

    ## Choices where the papers leave something open
    - Both show pixels, in which a key and a lock of one color look alike; here they are of different kinds.
    - Distractors may be longer than one box (`distractor_length`). An episode ends with the first box of one
      either way, so a longer branch takes more boxes to see through.
    - The boxes of published implementations may touch, and may block each other; these do not touch.
    - Zambaldi et al. (2018) end episodes after 120 steps, as here in full view. Santoro et al. (2018) give no
      limit for the viewport, where the agent has to explore; it is 240 steps.
    - The key held is part of the observation; the original shows it as a pixel in a corner.
    """

    reports_success = True
    capturable = True

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        view_size: int | None = None,
        min_solution: int = 1,
        max_solution: int = 5,
        min_distractors: int = 0,
        max_distractors: int = 5,
        distractor_length: int = 1,
        max_steps: int | None = None,
        targets: Targets = "places",
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            view_size: V, an odd number from 3 to 11; None shows the whole room.
            min_solution: smallest number of boxes to open, the one with the gem included.
            max_solution: largest number of boxes to open, up to 10.
            min_distractors: smallest number of branches that lead away from the gem.
            max_distractors: largest number of them, up to 10.
            distractor_length: boxes of each branch.
            max_steps: steps after which an episode is truncated; None for 120 in full view, and 240 without.
            targets: auxiliary targets, "places" or "chain".

        Raises:
            ValueError: an argument out of range, or more boxes than there are colors.
        """
        if view_size is not None:
            require_whole("view_size", view_size, 3, 11)
            if view_size % 2 == 0:
                raise ValueError(
                    f"view_size={view_size}: expected an odd number, with the agent in the middle"
                )
        require_whole("max_solution", max_solution, 1, 10)
        require_whole("min_solution", min_solution, 1, max_solution)
        require_whole("max_distractors", max_distractors, 0, 10)
        require_whole("min_distractors", min_distractors, 0, max_distractors)
        require_whole("distractor_length", distractor_length, 1, 10)
        self.design = Design(min_solution, max_solution, min_distractors, max_distractors, distractor_length)
        if self.design.max_boxes > NUM_COLORS:
            raise ValueError(
                f"max_solution={max_solution} and max_distractors={max_distractors} of "
                f"distractor_length={distractor_length} need {self.design.max_boxes} colors of keys, "
                f"and there are {NUM_COLORS}"
            )
        self.view_size = view_size
        self.min_solution, self.max_solution = min_solution, max_solution
        self.min_distractors, self.max_distractors = min_distractors, max_distractors
        self.distractor_length = distractor_length
        self.max_steps = (120 if view_size is None else 240) if max_steps is None else max_steps
        require_whole("max_steps", self.max_steps, 1, 1_000_000)
        if targets not in get_args(Targets):
            raise ValueError(f"targets={targets!r}: expected one of {', '.join(get_args(Targets))}")
        self.targets = targets
        side = SIDE + 2 if view_size is None else view_size
        image = AnnotatedBox(
            spaces.Box(0, 255, (side, side, 2), np.uint8), codes_reading((IS_AGENT + 1, NUM_COLORS + 1))
        )
        super().__init__(
            "rmc/BoxWorld-v0" if view_size is None else "rmc/BoxWorldViewport-v0",
            num_envs,
            device,
            spaces.Dict([("image", image), ("key", spaces.Discrete(NUM_COLORS + 1))]),
            spaces.Discrete(4),
        )
        self.aux_size = 0 if view_size is None else count_targets(targets, max_solution)
        self.has_teacher = view_size is not None
        # As many rings of wall as a view shows of the outside.
        rings = 1 if view_size is None else view_size // 2
        self.width = SIDE + 2 * rings
        assert self.design.max_boxes + 1 <= MAX_PLACES
        self._layouts = draw_layouts(self.design.max_boxes + 1, rings).to(self.device)
        self._empty_room = torch.from_numpy(empty_room(rings)).to(self.device)
        # Pairs of bytes, which are looked up faster.
        self._looks = torch.from_numpy(_looks()).view(torch.int16).view(-1).to(self.device)
        w = self.width
        self._moves = torch.tensor([-w, w, -1, 1], device=self.device)  # up, down, left, right
        self._three = torch.tensor([-1, 0, 1], device=self.device)
        near = torch.arange(-rings, rings + 1, device=self.device)
        self._view = (near.view(-1, 1) * w + near).reshape(-1)
        self._grid = self._empty_room.repeat(num_envs, 1)  # [B, W * W]
        self._position = self._key = self._time = self._score = self._start = self.task_of  # [B]
        self._boxes = self._layouts[:1].expand(num_envs, -1)  # [B, P]
        self._looked = torch.zeros_like(self._grid, dtype=torch.bool)  # [B, W * W] cells that were in view
        self._last: tuple[Tensor, ...] | None = None  # the state before the last autoreset, for pictures

    def _draw(self, count: int) -> tuple[Tensor, ...]:
        levels = draw_levels(
            count, self.design, self._layouts, self._empty_room, self._generator, self.device
        )
        zeros = torch.zeros_like(levels.position)
        image = self._image(levels.grid, levels.position)
        looked = self._look(torch.zeros_like(levels.grid, dtype=torch.bool), levels.position)
        start = levels.position.clone()
        return levels.grid, levels.position, zeros, zeros, zeros, levels.boxes, looked, start, image

    def _look(self, looked: Tensor, position: Tensor) -> Tensor:
        """Return which cells [n, W * W] were in view, with those that are now."""
        if self.view_size is None:
            return looked
        return looked.scatter(1, position.unsqueeze(1) + self._view, True)

    def _image(self, grid: Tensor, position: Tensor) -> Tensor:
        """Return what is seen [n, V, V, 2] of grids [n, W * W]."""
        n, w = len(grid), self.width
        if self.view_size is None:
            codes = grid.scatter(1, position.unsqueeze(1), AGENT).int()
            side = w
        else:
            codes = grid.gather(1, position.unsqueeze(1) + self._view).int()
            side = self.view_size
        looks = self._looks.index_select(0, codes.view(-1)).view(torch.uint8)
        return looks.view(n, side, side, 2)

    def auxiliary_targets(self) -> AuxiliaryTargets | None:
        if not self.aux_size:
            return None
        seen = self._looked.gather(1, self._boxes) & self._looked.gather(1, self._boxes + 1)
        known = Known(
            self._grid, self._boxes, seen, self._position, self._start, self.width, self.max_solution
        )
        return known_places(known) if self.targets == "places" else known_chain(known, self._key)

    def teacher_actions(self) -> Tensor | None:
        if not self.has_teacher:
            return None
        looks = self._looks.index_select(0, self._grid.view(-1).int()).view(torch.uint8)
        kinds, colors = looks.view(*self._grid.shape, 2).long().unbind(-1)
        known = Map(torch.where(self._looked, kinds, UNKNOWN), colors * self._looked)
        best = known.best_actions(self._position.unsqueeze(1) + self._moves, self._key).float()
        return best / best.sum(1, keepdim=True).clamp(min=1)

    def _begin(self) -> dict[str, Tensor]:
        *state, image = self._draw(self.num_envs)
        # Copies, since steps change the state in place.
        for name, x in zip(self._STATE, state, strict=True):
            setattr(self, f"_{name}", x.clone())
        self._seen = {"image": image, "key": self._key.clone()}
        self._last = None
        return self._seen

    def _advance(self, actions: Tensor) -> Transition:
        target = self._position + self._moves[actions]
        left, code, right = self._grid.gather(1, target.unsqueeze(1) + self._three).long().unbind(1)
        opens = (code == self._key + LOCK) & (self._key > 0)
        # What lies left of a lock is in its box.
        takes = (code >= GEM) & ((code <= LOCK) | (code > DEAD_KEY)) & ((right <= LOCK) | (right > DEAD_KEY))
        walks = opens | takes | (code == EMPTY)
        gem, wrong = takes & (code == GEM), opens & (left > DEAD_KEY)
        reward = GEM_REWARD * gem + RIGHT_REWARD * opens + (WRONG_REWARD - RIGHT_REWARD) * wrong

        self._grid.scatter_(1, target.unsqueeze(1), (code * ~walks).to(torch.uint8).unsqueeze(1))
        self._position = torch.where(walks, target, self._position)
        self._key = torch.where(takes & ~gem, code - KEY, self._key * ~opens)
        self._time = self._time + 1
        self._score = self._score + reward.long()
        self._looked = self._look(self._looked, self._position)
        terminated, truncated = gem | wrong, self._time >= self.max_steps

        final_obs = {"image": self._image(self._grid, self._position), "key": self._key.clone()}
        state = (self._grid, self._position, self._key, self._time, self._score)
        self._last = tuple(x.clone() for x in state)
        state = (*state, self._boxes, self._looked, self._start)
        image = restart(state, final_obs["image"], terminated | truncated, self._draw)
        self._seen = {"image": image, "key": self._key.clone()}
        return Transition(self._seen, reward, terminated, truncated, final_obs, gem)

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the room, with what the agent sees highlighted."""
        from .picture import draw  # imports Matplotlib

        state = (self._grid, self._position, self._key, self._time, self._score)
        state = self._last if final and self._last is not None else state
        grid, position, key, time, score = (x[i].cpu().numpy() for x in state)
        w, rings = self.width, (self.width - SIDE) // 2
        row, column = divmod(int(position), w)
        view = np.full((w, w), self.view_size is None)
        view[row - rings : row + rings + 1, column - rings : column + rings + 1] = True
        inside = slice(rings - 1, w - rings + 1)  # the room with one ring of wall
        return draw(
            grid.reshape(w, w)[inside, inside],
            (row - rings + 1, column - rings + 1),
            view[inside, inside],
            int(key),
            int(score),
            f"{int(time)} of {self.max_steps}",
            tile_size,
        )

    _STATE = ("grid", "position", "key", "time", "score", "boxes", "looked", "start")

    def _save(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}").clone() for name in self._STATE}

    def _restore(self, state: dict[str, Any]) -> dict[str, Tensor]:
        self._require_rows(len(state["time"]))
        if missing := [name for name in self._STATE if name not in state]:
            raise ValueError(
                f"this state of {self.tasks[0]} is of an older version: it lacks {', '.join(missing)}"
            )
        for name in self._STATE:
            setattr(self, f"_{name}", state[name].to(self.device, copy=True))
        self._seen = {"image": self._image(self._grid, self._position), "key": self._key.clone()}
        self._last = None
        return self._seen

"""Mini PacMan: the agent eats food in a maze, flees from ghosts, and hunts them after eating a pill.

Axes: B environments, N = 138 cells of the maze, G ghosts, V cells on a side of the view.
"""

from __future__ import annotations

from typing import Any, final, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets, Transition
from rmc_agents.errors import shown
from rmc_agents.spaces.annotated import AnnotatedBox, codes_reading

from ..numbers import require_whole
from ..seeded import SeededTask, restart
from .ghosts import move_ghosts
from .maze import (
    COLUMNS,
    HEIGHT,
    IS_FOOD,
    IS_PILL,
    IS_PLAYER,
    IS_WALL,
    NOTHING,
    NOWHERE,
    NUM_CELLS,
    PLACES,
    ROWS,
    WALLS,
    WIDTH,
    Tables,
    tables,
    view_places,
)
from .modes import RULES, Mode

NUM_ITEMS = IS_PLAYER + 1
NUM_PILLS = 2
POWER = 20
"""Steps for which a pill lasts."""
MAX_GHOSTS = 8


@final
class MiniPacMan(SeededTask):
    """A maze full of food, two pills, and ghosts that chase the player (Weber et al. 2017).

    `rmc/MiniPacMan-v0` shows the whole maze. `rmc/MiniPacManViewport-v0` shows 5 x 5 cells around the player,
    as in Santoro et al. (2018), so that it has to remember where it has eaten.

    ## Rules
    The maze has 15 x 19 cells, of which 138 are free. At the start of a level, food lies in all of them,
    pills in two of them; player and ghosts are placed at random, the ghosts at least 5 rows or columns away
    from the player. Level n has 1 + floor((n - 1) / 2) ghosts, at most 8.

    Each step, the player moves and eats what lies in its cell. Then each ghost moves with probability
    0.4 + 0.1 n, half as often while the player is powered. A ghost walks on along corridors and around
    corners. At a junction it does not turn back; it takes the direction that points most towards the player,
    or a random one with probability 0.05, and the one that points most away from a powered player. A pill
    powers the player for 20 steps. A ghost that meets a powered player is eaten, at most one in a step, and
    stays away for the rest of the level; otherwise the ghost ends the episode. When all food is eaten, the
    next level begins.

    ## Observation
    `Box(0, 255, (V, V, 2), uint8)`, or (15, 19, 2) in full view, by row and column: what lies in a cell, 0
    nothing, 1 wall (also beyond the maze), 2 food, 3 pill, 4 the player; and which ghost is there, 0 none, 1
    a dangerous one, or 1 + the steps for which it can still be eaten, up to 21.

    ## Auxiliary targets
    Through a viewport, whether food is left in each of the 138 cells (1, else -1): what a player that knows
    the maze, and where it is, could know. They are learned with `aux_coef`.

    ## Actions
    `Discrete(5)`: stay, right, up, left, down. A larger number raises IndexError on a CPU; a negative one
    counts from the last one.

    ## Reward and end of an episode
    | mode | step | food | pill | ghost eaten | death | a level ends |
    | --- | --: | --: | --: | --: | --: | --- |
    | regular | 0 | 1 | 2 | 5 | 0 | without food |
    | avoid | 0.1 | -0.1 | -5 | -10 | -20 | after 128 steps, or without food |
    | hunt | 0 | 0 | 1 | 10 | -20 | without ghosts |
    | ambush | 0 | -0.1 | 0 | 10 | -20 | without ghosts |
    | rush | 0 | -0.1 | 10 | 0 | 0 | without pills |

    Death terminates the episode, and step `max_steps` truncates it, over all levels. There is no `success`.

    ## What a score means
    In the regular mode random play scores 9. In full view, a player that looks 2 steps ahead for ghosts
    scores 580, and one that looks 12 steps ahead 1000. Through the viewport the same player scores 450 if it
    forgets what it saw, and 550 if it remembers where food is left. Santoro et al. (2018) report 677 for RMC
    and 550 for an LSTM with a viewport, and 1159 and 598 in full view. They do not say after how many frames
    episodes end, so these figures show an order of magnitude.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Choices where the papers leave something open
    Maze, rewards and the moves of ghosts are those of the code by one of the authors of Weber et al. (2017),
    also the limit of 3000 steps. The differences:

    - The two pills never lie in the same cell.
    - Ghosts begin at least 5 rows or columns away in every direction (there: 6 upwards and to the left).
    - The food, pill or ghost that ends a level ends the turn too: the ghosts of the next level do not move
      yet.
    - There are at most 8 ghosts, which levels from 15 on have.
    - The color of a ghost there fades with the power that is left; here it is a number.
    """

    reports_success = False
    capturable = True

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        view_size: int | None = None,
        mode: Mode = "regular",
        max_steps: int = 3000,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            view_size: V, an odd number from 3 to 13; None shows the whole maze.
            mode: rewards and ends of levels: regular, avoid, hunt, ambush or rush.
            max_steps: steps after which an episode is truncated, over all of its levels.

        Raises:
            ValueError: an argument out of range.
        """
        if view_size is not None:
            require_whole("view_size", view_size, 3, 13)
            if view_size % 2 == 0:
                raise ValueError(
                    f"view_size={view_size}: expected an odd number, with the agent in the middle"
                )
        if mode not in get_args(Mode):
            raise ValueError(f"mode={shown(repr(mode), 60)}: expected one of {', '.join(get_args(Mode))}")
        require_whole("max_steps", max_steps, 1, 1_000_000)
        self.view_size, self.mode, self.max_steps = view_size, mode, max_steps
        self.rules = rules = RULES[mode]
        self.height, self.width = (HEIGHT, WIDTH) if view_size is None else (view_size, view_size)
        super().__init__(
            "rmc/MiniPacMan-v0" if view_size is None else "rmc/MiniPacManViewport-v0",
            num_envs,
            device,
            AnnotatedBox(
                spaces.Box(0, 255, (self.height, self.width, 2), np.uint8),
                codes_reading((NUM_ITEMS, POWER + 2)),
            ),
            spaces.Discrete(5),
        )
        self._rewards = torch.tensor(
            [rules.food, rules.pill, rules.ghost, rules.death], dtype=torch.float32, device=self.device
        )
        self._tables = Tables(*(table.to(self.device) for table in tables()))
        self.aux_size = 0 if view_size is None else NUM_CELLS
        self._view = None if view_size is None else view_places(view_size).to(self.device)
        self._places = torch.from_numpy(PLACES).to(self.device)
        full = np.where(WALLS.reshape(-1), IS_WALL, IS_FOOD).astype(np.int16)
        self._full = torch.from_numpy(full).to(self.device)  # a maze with food in every cell
        self._items = self._full.repeat(num_envs, 1)  # [B, 15 * 19] there is food below a pill
        self._ghosts = torch.empty(0, 0)  # [B, G] poses: 4 * cell + direction
        # [B] the player's cell; food and pills that are left; steps that a pill still lasts; steps since the
        # start of the level and of the episode.
        self._player = self._food = self._pills = self._power = self._timer = self._time = self.task_of
        self._level, self._score = self.task_of, self.task_of.float()
        self._last: tuple[Tensor, ...] | None = None  # the state before the last autoreset, for pictures

    def auxiliary_targets(self) -> AuxiliaryTargets | None:
        if not self.aux_size:
            return None
        items = self._items.index_select(1, self._places[:NUM_CELLS])
        values = torch.where(items == NOTHING, -1.0, 1.0)
        return AuxiliaryTargets(values, torch.ones_like(values))

    def whereabouts(self) -> tuple[Tensor, Tensor]:
        """Return the player's cell and the level, [B] each: for players that stand in for an agent."""
        return self._player.clone(), self._level.clone()

    def _draw_first(self, count: int) -> tuple[Tensor, ...]:
        return self._draw(torch.ones(count, dtype=torch.int64, device=self.device))

    def _draw(self, levels: Tensor) -> tuple[Tensor, ...]:
        """Draw the start of levels [n]: items, ghosts, player, food, pills, power, timer, observation."""
        n = len(levels)

        def integers(below: int, *shape: int) -> Tensor:
            return torch.randint(below, (n, *shape), generator=self._generator, device=self.device)

        player, first = integers(NUM_CELLS), integers(NUM_CELLS, 1)
        second = (first + 1 + integers(NUM_CELLS - 1, 1)) % NUM_CELLS
        items = self._full.repeat(n, 1).scatter_(1, self._places[torch.cat([first, second], dim=1)], IS_PILL)
        index = torch.rand(n, MAX_GHOSTS, generator=self._generator, device=self.device)
        index = (index * self._tables.num_first_cells[player].unsqueeze(1)).long()
        ghosts = 4 * self._tables.first_cells[player].gather(1, index) + integers(4, MAX_GHOSTS)
        exists = torch.arange(MAX_GHOSTS, device=self.device) < (levels + 1).unsqueeze(1) // 2
        ghosts = torch.where(exists, ghosts, 4 * NOWHERE)
        zeros = torch.zeros_like(player)
        image = self._image(items, ghosts, player, zeros)
        return items, ghosts, player, zeros + NUM_CELLS, zeros + NUM_PILLS, zeros, zeros, image

    def _image(self, items: Tensor, ghosts: Tensor, player: Tensor, power: Tensor) -> Tensor:
        """Return what is seen [n, V, V, 2]."""
        # The two bytes of a number are what lies in a cell, and the ghost that is there.
        codes = items.scatter(1, self._places[player].unsqueeze(1), IS_PLAYER)
        places = self._places[ghosts // 4]
        here = codes.gather(1, places) + (256 * (1 + power)).unsqueeze(1).to(torch.int16)
        codes.scatter_(1, places, here)
        codes[:, 0] = IS_WALL  # the place of ghosts that are nowhere
        if self._view is not None:
            codes = codes.gather(1, self._view.index_select(0, player))
        return codes.view(torch.uint8).view(len(items), self.height, self.width, 2)

    def _begin(self) -> Tensor:
        *state, self._seen = (x.clone() for x in self._draw_first(self.num_envs))
        self._items, self._ghosts, self._player, self._food, self._pills, self._power, self._timer = state
        self._level, self._time = torch.ones_like(self.task_of), torch.zeros_like(self.task_of)
        self._score = torch.zeros_like(self._score)
        self._last = None
        return self._seen

    def _advance(self, actions: Tensor) -> Transition:
        rules = self.rules
        self._time, self._timer = self._time + 1, self._timer + 1
        self._player = self._tables.player_step[self._player, actions]
        here = self._places[self._player].unsqueeze(1)
        item = self._items.gather(1, here).squeeze(1)
        self._items.scatter_(1, here, NOTHING)
        eats, pill = item != NOTHING, item == IS_PILL
        self._food, self._pills = self._food - eats.long(), self._pills - pill.long()
        self._power = torch.where(pill, POWER, (self._power - 1).clamp(min=0))
        cleared = (self._pills if rules.level_ends == "pills" else self._food) == 0
        if rules.level_ends == "ghosts":
            cleared = torch.zeros_like(cleared)
        chances = torch.rand(self._ghosts.shape, generator=self._generator, device=self.device)
        turn = move_ghosts(
            self._ghosts, self._player, self._power, self._level, ~cleared, chances, self._tables
        )
        self._ghosts, eaten, dead = turn
        if rules.level_ends == "ghosts":
            cleared = eaten & (self._ghosts >= 4 * NOWHERE).all(1)
        if rules.level_steps is not None:
            cleared = cleared | (self._timer >= rules.level_steps)
        events = torch.stack([eats, pill, eaten, dead], dim=1).float()
        reward = events @ self._rewards + rules.step
        self._score = self._score + reward
        return self._transition(reward, cleared, dead)

    def _transition(self, reward: Tensor, cleared: Tensor, dead: Tensor) -> Transition:
        """Begin new levels and episodes, and return the transition."""
        truncated = self._time >= self.max_steps
        done = dead | truncated
        cleared = cleared & ~done
        self._level = self._level + cleared.long()
        state = (
            self._items, self._ghosts, self._player, self._food, self._pills, self._power, self._timer
        )  # fmt: skip

        def draw(count: int) -> tuple[Tensor, ...]:
            level = self._level if count == self.num_envs else self._level[cleared]
            return self._draw(level)

        last = self._image(self._items, self._ghosts, self._player, self._power)
        final_obs = restart(state, last, cleared, draw)
        self._last = tuple(x.clone() for x in self._shown_state())
        self._level = torch.where(done, 1, self._level)
        self._time = self._time * ~done
        self._score = self._score * ~done
        self._seen = restart(state, final_obs, done, self._draw_first)
        return Transition(self._seen, reward, dead, truncated, final_obs)

    def _shown_state(self) -> tuple[Tensor, ...]:
        return (
            self._items, self._ghosts, self._player, self._power, self._level, self._time, self._score
        )  # fmt: skip

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the maze, with what the agent sees highlighted."""
        from .picture import draw  # imports Matplotlib

        state = self._last if final and self._last is not None else self._shown_state()
        items, ghosts, player, power, level, time, score = (x[i].cpu().numpy() for x in state)
        cells = ghosts[ghosts < 4 * NOWHERE] // 4
        row, column = int(ROWS[player]), int(COLUMNS[player])
        view = np.full((HEIGHT, WIDTH), self.view_size is None)
        radius = (self.view_size or 1) // 2
        view[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1] = True
        return draw(
            items.reshape(HEIGHT, WIDTH),
            (row, column),
            [(int(ROWS[cell]), int(COLUMNS[cell])) for cell in cells],
            view,
            int(power),
            f"level {int(level)}     score {float(score):g}     step {int(time)} of {self.max_steps}",
            tile_size,
        )

    _STATE = ("items", "ghosts", "player", "food", "pills", "power", "timer", "time", "level", "score")

    def _save(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}").clone() for name in self._STATE}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["time"]))
        for name in self._STATE:
            setattr(self, f"_{name}", state[name].to(self.device, copy=True))
        self._last = None
        self._seen = self._image(self._items, self._ghosts, self._player, self._power)
        return self._seen

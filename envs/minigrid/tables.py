"""The Memory mazes as tables: the state that each action leads to, the view of each pose, the start states.

Only the agent moves in these mazes, so a maze is a finite state machine. A **state** is a layout (hallway
length, cue, order of the choices) together with a pose (cell, direction). The tables of several mazes are
concatenated, so that a batch may mix them and a step is still one look-up.

Axes: N states, A actions, V cells per side of the view. Directions: 0 right, 1 down, 2 left, 3 up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rmc_agents.errors import shown

from ..numbers import require_flag, require_whole

# Contents of a cell, and MiniGrid's (object, color, state) code of each.
EMPTY, WALL, KEY, BALL = range(4)
CODES = np.array([[1, 0, 0], [2, 5, 0], [5, 1, 0], [6, 1, 0]], dtype=np.uint8)
DIRECTIONS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
MAX_SIZE = 999
"""Largest maze, in cells per side."""
MAX_VIEW_SIZE = 99
"""Largest view, in cells per side."""
MAX_TABLE_BYTES = 10**9
"""Largest size of the table of views of one maze."""
NAME = re.compile(r"MiniGrid-MemoryS(?P<size>\d+)(?:(?P<random>Random)|Hallway(?P<hallway>\d+))?-v0")


@dataclass(frozen=True)
class MazeSpec:
    """One Memory maze.

    Raises:
        ValueError: an even size or view size, a size too small for the rooms, or a hallway that does not fit.
    """

    size: int
    """Cells per side, border included: odd, 5 or more (7 or more with `random_length`), at most 999."""
    random_length: bool = False
    """Whether each episode draws the end of the hallway, uniformly from columns 4 to size - 3."""
    hallway: int | None = None
    """A fixed column for the end of the hallway. None is Farama's rule, size - 3. Farama's class cannot set
    it; a shorter hallway gives an easier maze for a curriculum."""
    view_size: int = 7
    """V, side of the square that the agent sees, in cells: odd, 3 to 99. MiniGrid's default is 7."""

    def __post_init__(self) -> None:
        require_flag("random_length", self.random_length)
        smallest = 7 if self.random_length else 5
        require_whole("size", self.size, 1, MAX_SIZE)
        require_whole("view_size", self.view_size, 1, MAX_VIEW_SIZE)
        if self.hallway is not None:
            require_whole("hallway", self.hallway, 1, MAX_SIZE)
        if self.size % 2 == 0 or self.size < smallest:
            raise ValueError(
                f"maze size {self.size} (random_length={self.random_length}): expected an odd number of "
                f"{smallest} or more; choose {max(self.size + 1 - self.size % 2, smallest)}"
            )
        if self.view_size % 2 == 0 or self.view_size < 3:
            raise ValueError(
                f"view_size {self.view_size}: expected an odd number of 3 or more, such as 3, 5 or 7"
            )
        if self.hallway is not None:
            if self.random_length:
                raise ValueError(f"hallway={self.hallway} with random_length=True: give one of them")
            if self.hallway != self.size - 3 and not 4 <= self.hallway <= self.size - 3:
                raise ValueError(
                    f"hallway {self.hallway} in a maze of size {self.size}: expected a column from 4 to "
                    f"{self.size - 3}"
                )
        if self.table_bytes > MAX_TABLE_BYTES:
            raise ValueError(
                f"{self.env_id} with view_size={self.view_size}: tables of {self.table_bytes / 1e9:.1f} GB, "
                f"more than {MAX_TABLE_BYTES / 1e9:g} GB; choose a smaller size"
            )

    @classmethod
    def from_id(cls, env_id: str, view_size: int = 7) -> MazeSpec | None:
        """Return the maze that an id such as `MiniGrid-MemoryS13Random-v0` names, or None if it names none.

        Raises:
            ValueError: the id names a maze that cannot exist.
        """
        match = NAME.fullmatch(env_id)
        if match is None:
            return None
        hallway = match["hallway"]
        return cls(int(match["size"]), bool(match["random"]), int(hallway) if hallway else None, view_size)

    @property
    def env_id(self) -> str:
        """The id of this maze; it does not contain the view size."""
        end = "Random" if self.random_length else "" if self.hallway is None else f"Hallway{self.hallway}"
        return f"MiniGrid-MemoryS{self.size}{end}-v0"

    @property
    def table_bytes(self) -> int:
        """Size of the table of views: 4 layouts with 4 directions in each cell, for each hallway."""
        cells = sum(end + 9 for end in self.hallways)
        return 16 * cells * 3 * self.view_size**2

    @property
    def max_steps(self) -> int:
        """Number of steps after which an episode is truncated."""
        return 5 * self.size**2

    @property
    def hallway_length(self) -> int | None:
        """Number of cells between the cue's room and the junction; None if each episode draws it."""
        return None if self.random_length else self.hallways[0] - 3

    @property
    def hallways(self) -> tuple[int, ...]:
        """Columns at which the hallway may end, all equally likely."""
        if self.random_length:
            return tuple(range(4, self.size - 2))
        return (self.size - 3 if self.hallway is None else self.hallway,)


def require_actions(actions: object) -> None:
    """Raise ValueError unless `actions` is a size of an action space."""
    if type(actions) is not int or actions not in (3, 7):
        found = shown(repr(actions), 60)
        raise ValueError(f"actions={found}: expected 3 (turn, turn, forward) or 7 (MiniGrid's)")


@dataclass(frozen=True)
class Tables:
    """All states of one or more mazes, in the order ordinary, failed, solved.

    Axes: M mazes; H hallways and P start states, both counted over all mazes.
    """

    next_state: NDArray[np.int64]
    """[N, A] state that an action leads to."""
    image: NDArray[np.uint8]
    """[N, V, V, 3] MiniGrid's symbolic view."""
    direction: NDArray[np.int64]
    """[N] direction of the agent, 0 to 3."""
    observation: NDArray[np.int64]
    """[N] number of the state's observation (image and direction), counted from 0; equal observations have
    equal numbers."""
    shows: NDArray[np.int64]
    """[n] for each of the n distinct observations, a state that shows it."""
    cue_seen: NDArray[np.bool_]
    """[N] whether the cue is in the view."""
    place: NDArray[np.int64]
    """[N, 6] meaning of the state: maze, end of the hallway, cue, order, x, y."""
    first_failed: int
    """First state that ends the episode; all later ones do, too."""
    first_solved: int
    """First state that ends the episode with success; all later ones do, too."""
    hallways: NDArray[np.int64]
    """[M, 2] index of the maze's first hallway, and number of its hallways."""
    hallway_starts: NDArray[np.int64]
    """[H, 2] index of the hallway's first row in `starts`, and number of its rows."""
    starts: NDArray[np.int64]
    """[P] start states. Those of a hallway are sorted by x, cue and order, and are equally likely."""


def maze_cells(size: int, end: int, cue: int, order: int) -> NDArray[np.int64]:
    """Return the contents of the cells, [size, size] indexed [x, y], built in the same order as Farama's.

    Args:
        size: cells per side.
        end: column at which the hallway ends.
        cue: 0 key, 1 ball.
        order: 0 ball above and key below, 1 key above and ball below.
    """
    middle = size // 2
    cells = np.full((size, size), EMPTY)
    cells[[0, -1], :] = cells[:, [0, -1]] = WALL
    cells[1:5, [middle - 2, middle + 2]] = WALL
    cells[4, [middle - 1, middle + 1]] = WALL
    cells[5:end, [middle - 1, middle + 1]] = WALL
    cells[end, np.arange(size) != middle] = WALL
    cells[end + 2, :] = WALL
    cells[1, middle - 1] = (KEY, BALL)[cue]
    cells[end + 1, [middle - 2, middle + 2]] = ((BALL, KEY), (KEY, BALL))[order]
    return cells


def visible(opaque: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Apply MiniGrid's `Grid.process_vis` to many views at once.

    Light spreads from the agent at (V // 2, V - 1) row by row: along a row in both directions, and from each
    lit cell that is not opaque to the three cells ahead of it.

    Args:
        opaque: [N, V, V] indexed [lateral, depth]; the agent's own row has depth V - 1.

    Returns:
        [N, V, V] bool: the cells that the agent sees.
    """
    size = opaque.shape[1]
    seen = np.zeros_like(opaque)
    seen[:, size // 2, size - 1] = True
    for j in range(size - 1, -1, -1):
        for columns, side in ((range(size - 1), 1), (range(size - 1, 0, -1), -1)):
            for i in columns:
                lit = seen[:, i, j] & ~opaque[:, i, j]
                seen[:, i + side, j] |= lit
                if j > 0:
                    seen[:, i + side, j - 1] |= lit
                    seen[:, i, j - 1] |= lit
    return seen


def _views(
    cells: NDArray[np.int64], poses: NDArray[np.int64], cue_at: tuple[int, int], view_size: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the images [n, V, V, 3] and the visibility of the cue [n] for poses [n, 3] (x, y, direction)."""
    lateral, depth = np.meshgrid(np.arange(view_size), np.arange(view_size), indexing="ij")
    forward = DIRECTIONS[poses[:, 2]][:, None, None]  # [n, 1, 1, 2]
    right = np.stack([-forward[..., 1], forward[..., 0]], axis=-1)
    ahead, aside = (view_size - 1 - depth)[..., None], (lateral - view_size // 2)[..., None]
    at = poses[:, None, None, :2] + forward * ahead + right * aside  # [n, V, V, 2]
    # Beyond the border everything is wall.
    padded = np.pad(cells, view_size, constant_values=WALL)
    shown = padded[at[..., 0] + view_size, at[..., 1] + view_size]  # [n, V, V]
    seen = visible(shown == WALL)
    images = np.where(seen[..., None], CODES[shown], 0).astype(np.uint8)
    return images, (seen & (at == cue_at).all(axis=-1)).any(axis=(1, 2))


def _reachable(spec: MazeSpec, end: int) -> list[tuple[int, int]]:
    """Return the cells on which the agent can stand: room, hallway, and the junction with its two ends."""
    middle = spec.size // 2
    room = [(x, y) for x in range(1, min(4, end)) for y in range(middle - 1, middle + 2) if y != middle]
    room.remove((1, middle - 1))  # the cue stands there
    return room + [(x, middle) for x in range(1, end + 2)] + [(end + 1, middle - 1), (end + 1, middle + 1)]


@lru_cache(maxsize=16)
def build_tables(specs: tuple[MazeSpec, ...], actions: Literal[3, 7]) -> Tables:
    """Build the tables of these mazes, one after the other.

    Args:
        specs: mazes with the same view size.
        actions: 7 is MiniGrid's action space; 3 leaves out the four actions that do nothing here.

    Raises:
        ValueError: the view sizes differ.
    """
    if len({spec.view_size for spec in specs}) != 1:
        raise ValueError(
            f"view sizes {sorted({spec.view_size for spec in specs})} in one batch: expected one for "
            "all mazes, since a batch has one observation space"
        )
    parts: dict[str, list[NDArray]] = {
        name: [] for name in ("next", "image", "direction", "cue_seen", "place", "kind", "starts")
    }
    hallways, hallway_starts, size, num_starts = [], [], 0, 0
    for maze, spec in enumerate(specs):
        hallways.append((len(hallway_starts), len(spec.hallways)))
        for end in spec.hallways:
            cells_free = _reachable(spec, end)
            cell_index = {cell: index for index, cell in enumerate(cells_free)}
            n, middle = 4 * len(cells_free), spec.size // 2
            poses = np.array([(x, y, d) for x, y in cells_free for d in range(4)])
            ahead = poses[:, :2] + DIRECTIONS[poses[:, 2]]
            own = np.arange(n)
            cell_ahead = np.array([cell_index.get((x, y), -1) for x, y in ahead.tolist()])
            moves = np.stack(
                [
                    own - poses[:, 2] + (poses[:, 2] - 1) % 4,
                    own - poses[:, 2] + (poses[:, 2] + 1) % 4,
                    np.where(cell_ahead >= 0, 4 * cell_ahead + poses[:, 2], own),
                    # pick up (which these mazes treat as toggle), drop, toggle and done change nothing
                    *[own] * (actions - 3),
                ],
                axis=1,
            )
            hallway_starts.append((num_starts, 4 * end))
            num_starts += 4 * end
            start_poses = np.array([4 * cell_index[x, middle] for x in range(1, end + 1)])
            layouts = [(cue, order) for cue in range(2) for order in range(2)]
            parts["starts"].append((start_poses[:, None] + size + n * np.arange(4)).ravel())
            for cue, order in layouts:
                images, cue_seen = _views(
                    maze_cells(spec.size, end, cue, order), poses, (1, middle - 1), spec.view_size
                )
                # The upper choice matches the cue if order is 0 (ball above) and the cue is 1 (ball), or
                # order is 1 (key above) and the cue is 0 (key).
                above = (poses[:, :2] == (end + 1, middle - 1)).all(axis=1)
                below = (poses[:, :2] == (end + 1, middle + 1)).all(axis=1)
                right, wrong = (above, below) if cue != order else (below, above)
                parts["next"].append(moves + size)
                parts["image"].append(images)
                parts["direction"].append(poses[:, 2])
                parts["cue_seen"].append(cue_seen)
                parts["kind"].append(1 * wrong + 2 * right)
                layout = np.broadcast_to((maze, end, cue, order), (n, 4))
                parts["place"].append(np.concatenate([layout, poses[:, :2]], axis=1))
                size += n
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    sort = np.argsort(joined["kind"], kind="stable")
    rank = np.argsort(sort)  # old index -> new index
    shows, observation = _distinct(joined["image"][sort], joined["direction"][sort])
    return Tables(
        next_state=rank[joined["next"]][sort],
        image=joined["image"][sort],
        direction=joined["direction"][sort],
        observation=observation,
        shows=shows,
        cue_seen=joined["cue_seen"][sort],
        place=joined["place"][sort],
        first_failed=int((joined["kind"] < 1).sum()),
        first_solved=int((joined["kind"] < 2).sum()),
        hallways=np.array(hallways),
        hallway_starts=np.array(hallway_starts),
        starts=rank[joined["starts"]],
    )


def _distinct(
    image: NDArray[np.uint8], direction: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `shows` and `observation` of `Tables`."""
    rows = np.column_stack([image.reshape(len(image), -1), direction.astype(np.uint8)])
    whole = rows.view(np.dtype((np.void, rows.shape[1]))).ravel()  # a row as one value
    _, shows, observation = np.unique(whole, return_index=True, return_inverse=True)
    return shows, observation


def reward_table(specs: Sequence[MazeSpec]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the reward for success after each number of steps, the mazes one after the other.

    Returns:
        rewards: [sum of (max_steps + 1)] float32, `1 - 0.9 * (steps / max_steps)`, computed in float64 and
            then rounded, as Farama's are.
        first_row: [M] row of each maze's step 0.
    """
    rewards = [1 - 0.9 * (np.arange(spec.max_steps + 1) / spec.max_steps) for spec in specs]
    first = np.cumsum([0, *(len(reward) for reward in rewards[:-1])])
    return np.concatenate(rewards).astype(np.float32), first

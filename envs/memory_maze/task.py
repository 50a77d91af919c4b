"""Memory Maze on a grid: go to the object of the color that the prompt names, again and again.

Axes: B environments, K objects, V cells per side of the view, n cells per side of the maze with its border.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, final, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from rmc_agents.environment import AuxiliaryTargets, ObjectPlaces, Transition
from rmc_agents.errors import shown
from rmc_agents.spaces.annotated import minigrid_image
from rmc_agents.tree import upload

from ..numbers import MAX_SEED, require_flag, require_whole
from ..seeded import SeededTask
from .mazes import most_rooms
from .view import BALL, EMPTY, GREY, OBJECT_COLORS, STEPS, WALL, Lines, Viewer, packed
from .worlds import Redraw, World, Worlds

if TYPE_CHECKING:
    from .picture import Banner, Picture

MAX_STEPS = 1_000_000


class Scene(NamedTuple):
    """What changes during an episode."""

    pose: Tensor
    """[B] int64 where the agent is and looks; see `Viewer`."""
    prompt: Tensor
    """[B] int64 the object to go to."""
    known: Tensor
    """[B, K] bool: the object was in view in this episode."""
    score: Tensor
    """[B] int64 number of targets reached in this episode."""


@final
class MemoryMaze(SeededTask):
    """Go to the colored object that the prompt names; then the prompt names another one, and so on.

    The maze is new in each episode and stays the same during it, so an agent that remembers where it has seen
    the objects, and how the maze is laid out, reaches many more of them. It is the grid form of Memory Maze
    (Pasukonis, Lillicrap and Hafner 2022, arXiv 2210.13383; https://github.com/jurgisp/memory-maze).

    ## Rules
    K balls lie in K different rooms of a maze. The prompt names one of them, drawn uniformly. When the agent
    is on its cell, the reward is 1, and the prompt names one of the others, drawn uniformly. Reaching another
    ball does nothing. Balls do not block the way and never move. The agent starts in a random room, on a cell
    without a ball, in a random direction.

    | id | size | K | steps of an episode |
    |---|---|---|---|
    | `rmc/MemoryMaze-9x9-v0` | 9 x 9 | 3 | 1000 |
    | `rmc/MemoryMaze-11x11-v0` | 11 x 11 | 4 | 2000 |
    | `rmc/MemoryMaze-13x13-v0` | 13 x 13 | 5 | 3000 |
    | `rmc/MemoryMaze-15x15-v0` | 15 x 15 | 6 | 4000 |

    The size counts the cells inside the border. A maze has at most six rooms of 3 x 3, 3 x 5 or 5 x 3 cells,
    from size 15 on at most nine of 3 x 3, and at least K; corridors with loops connect them.

    ## Observation
    `Dict(image=Box(0, 255, (V, V, 3), uint8), direction=Discrete(4), prompt=Discrete(K))`. `image` is
    MiniGrid's partial view: `image[i, j]` is the cell i from the left and V - 1 - j ahead of the agent, as
    (object, color, state) code, and cells behind walls are unseen (0, 0, 0). The ball on the agent's own
    cell is hidden. The direction is 0 right, 1 down, 2 left, 3 up. The prompt is 0 red, 1 green, 2 blue,
    3 purple, 4 yellow, 5 grey.

    The default V is 5: with MiniGrid's 7, an agent in a small maze sees so much of it that it reaches nearly
    half of the possible targets without a memory.

    ## Actions
    `Discrete(3)`: 0 turn left, 1 turn right, 2 forward, which does nothing before a wall. An action above
    2 raises IndexError on a CPU (a device-side assertion on CUDA); a negative one counts from the last one.

    ## Reward and end of an episode
    1 for each target that is reached. An episode is truncated after `max_steps` steps, and never terminates.
    Success is not reported: the return, the number of targets reached, is the score.

    ## Auxiliary targets
    For each object, how many cells it lies ahead of the agent and to its right, divided by 0.4 times the
    size. They count from the step on at which the object is first in view.

    ## Chance and best play
    `rmc_envs.references.references` gives the mean returns of random actions, of the best play known without
    a memory, and of a perfect memory, which explores, remembers all that it has seen and walks the shortest
    known path. `python -m rmc_envs.memory_maze.measure` also measures a player that knows the maze and the
    places of all objects from the start.

    ## Differences from Memory Maze
    - The agent moves by cells and turns by 90 degrees, where the original is a rolling ball in 3-D at 4 Hz.
    - The agent sees V x V cells in front of it and its direction. The original gives a 64 x 64 picture, in
      which walls of different parts of the maze look different, so that an agent can recognise places.
    - The prompt is a number, not the color of the picture's border.
    - The rooms and corridors are drawn by the same method (labmaze), except that U-shaped corridors are not
      straightened.
    - The sixth color is grey instead of salmon.
    - Scores are therefore not comparable: here the way to a target takes fewer steps.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.
    """

    reports_success = False

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        size: int = 9,
        num_objects: int | None = None,
        max_steps: int | None = None,
        view_size: int = 5,
        see_through_walls: bool = False,
        redraw: Redraw = "maze",
        maze_seed: int = 0,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            size: cells per side inside the border, odd, from 7 to 31.
            num_objects: K, from 2 to 6, at most 4 up to size 9. None: 3 for size 9, 4 for 11, 5 for 13, 6
                from 15 on.
            max_steps: steps of an episode. None: 1000 for size 9, and 500 more for each cell more.
            view_size: V, odd, from 3 to 11.
            see_through_walls: walls do not hide what is behind them.
            redraw: what is new in each episode: "maze", with its objects; "objects", in one maze that all
                environments share; "nothing" but the start and the prompts.
            maze_seed: seed of the maze that is not redrawn.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("size", size, 7, 31)
        require_whole("view_size", view_size, 3, 11)
        for name, number in (("size", size), ("view_size", view_size)):
            if number % 2 == 0:
                raise ValueError(f"{name}={number}: expected an odd number")
        num_objects = min((size - 3) // 2, len(OBJECT_COLORS)) if num_objects is None else num_objects
        max_steps = max(500 * (size - 7), 500) if max_steps is None else max_steps
        require_whole("num_objects", num_objects, 2, min(most_rooms(size), len(OBJECT_COLORS)))
        require_whole("max_steps", max_steps, 1, MAX_STEPS)
        require_flag("see_through_walls", see_through_walls)
        require_whole("maze_seed", maze_seed, 0, MAX_SEED)
        if not isinstance(redraw, str) or redraw not in get_args(Redraw):
            expected = ", ".join(map(repr, get_args(Redraw)))
            raise ValueError(f"redraw={shown(repr(redraw), 60)}: expected one of {expected}")
        observation_space = spaces.Dict(
            {
                "image": minigrid_image(view_size),
                "direction": spaces.Discrete(4),
                "prompt": spaces.Discrete(num_objects),
            }
        )
        name = f"rmc/MemoryMaze-{size}x{size}-v0"
        super().__init__(name, num_envs, device, observation_space, spaces.Discrete(3))
        self.size, self.num_objects, self.max_steps = size, num_objects, max_steps
        self.view_size, self.see_through_walls = view_size, see_through_walls
        self.redraw, self.maze_seed = redraw, maze_seed
        self.aux_size = 2 * num_objects
        self.object_names = OBJECT_COLORS[:num_objects]
        self.viewer = Viewer(size + 2, view_size, see_through_walls, self.device)
        self._worlds = Worlds(num_envs, size, num_objects, redraw, maze_seed, self.device)
        self._next_pose = upload(_next_poses(self.viewer.width), self.device)
        balls = [packed(BALL, color) for color in range(num_objects)]
        self._balls = torch.tensor(balls, dtype=torch.int32, device=self.device)
        self._last: tuple[World, Scene] | None = None  # the end of the episodes before, to draw
        self._set_world(*self._draw())
        self._time = 0

    def _draw(self) -> tuple[World, Scene]:
        """Draw a maze, its objects, the start and the first prompt for every environment."""
        B, K = self.num_envs, self.num_objects
        world, starts = self._worlds.draw(self._generator)
        column, row, direction = starts.unbind(1)
        W, margin = self.viewer.width, self.viewer.margin
        pose = (direction * W + row + margin) * W + column + margin
        prompt = torch.randint(K, (B,), generator=self._generator, device=self.device)
        known = torch.zeros(B, K, dtype=torch.bool, device=self.device)
        return world, Scene(pose, prompt, known, torch.zeros_like(prompt))

    def _set_world(self, world: World, scene: Scene) -> None:
        self.world, self.scene = world, scene
        self._places = world.objects + self.viewer.margin  # [B, K, 2]
        self._object_cells = self._places[..., 1] * self.viewer.width + self._places[..., 0]  # [B, K]
        self._lines = self._prepare(world)

    def _prepare(self, world: World) -> Lines:
        """Prepare the views of any number of environments."""
        W, margin = self.viewer.width, self.viewer.margin
        walls = pad(world.walls, (margin,) * 4, value=True)
        cells = torch.where(walls, packed(WALL, GREY), packed(EMPTY)).to(torch.int32).flatten(1)
        column, row = (world.objects + margin).unbind(2)
        cells = cells.scatter(1, row * W + column, self._balls.expand(len(walls), -1))
        return self.viewer.prepare(cells.view_as(walls))

    def _begin(self) -> dict[str, Tensor]:
        self._last, self._time = None, 0
        self._set_world(*self._draw())
        return self._observe()

    def _advance(self, actions: Tensor) -> Transition:
        self._last = None
        pose, prompt, known, score = self.scene
        ahead = self._next_pose[pose, actions]
        cells = self.viewer.cell_of_pose[ahead].unsqueeze(1)
        blocked = self._lines.cells.gather(1, cells).squeeze(1) == packed(WALL, GREY)
        pose = torch.where(blocked, pose, ahead)
        here = self.viewer.cell_of_pose[pose]
        reached = self._object_cells.gather(1, prompt.unsqueeze(1)).squeeze(1) == here
        step = torch.randint(
            1, self.num_objects, (self.num_envs,), generator=self._generator, device=self.device
        )
        prompt = torch.where(reached, (prompt + step) % self.num_objects, prompt)
        self.scene = Scene(pose, prompt, known, score + reached)
        self._time += 1
        obs, never, reward = self._observe(), self._none(), reached.float()
        if self._time < self.max_steps:
            return Transition(obs, reward, never, never, obs)
        last = self.world, self.scene
        first = self._begin()
        self._last = last
        return Transition(first, reward, never, ~never, obs)

    def _observe(self) -> dict[str, Tensor]:
        """Return the observations, and keep which objects have been in view."""
        pose, prompt, known, score = self.scene
        seen_rows = self.viewer.seen_rows(self._lines, pose)
        image = self.viewer.image(self._lines, pose, seen_rows)
        self._relative = self.viewer.relative(pose, self._places)
        self._in_view = self.viewer.in_view(seen_rows, self._relative)
        self.scene = Scene(pose, prompt, known | self._in_view, score)
        return {"image": image, "direction": self.viewer.direction_of_pose[pose], "prompt": prompt.clone()}

    def auxiliary_targets(self) -> AuxiliaryTargets:
        values = self._relative.flatten(1) / (0.4 * self.size)
        return AuxiliaryTargets(values, self.scene.known.repeat_interleave(2, dim=1).float())

    def object_places(self) -> ObjectPlaces:
        return ObjectPlaces(self._relative, self.scene.known, self._in_view)

    def places(self, pose: Tensor | None = None) -> Tensor:
        """Return where the agent is, [B, 3] int64: column and row with the border, and direction.

        Args:
            pose: [B] poses of `Viewer`; None for the current ones.
        """
        pose = self.scene.pose if pose is None else pose
        W, margin = self.viewer.width, self.viewer.margin
        cell = self.viewer.cell_of_pose[pose]
        direction = self.viewer.direction_of_pose[pose]
        return torch.stack([cell % W - margin, cell // W - margin, direction], dim=1)

    def _save(self) -> dict[str, Any]:
        return {
            "world": list(self.world),
            "scene": list(self.scene),
            "time": self._time,
        }

    def _restore(self, state: dict[str, Any]) -> dict[str, Tensor]:
        world = World(*(x.to(self.device) for x in state["world"]))
        self._require_rows(len(world.walls))
        scene = Scene(*(x.to(self.device) for x in state["scene"]))
        self._last, self._time = None, state["time"]
        self._set_world(world, scene)
        return self._observe()

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the maze, with the agent's view highlighted."""
        from .picture import draw  # slow to import, and only needed here

        return draw(*self._shown(i, final), tile_size)

    def render_places(self, i: int, offset: NDArray[np.float64], tile_size: int = 32) -> NDArray[np.uint8]:
        """Draw the maze of environment i, and beside it where a probe of a memory finds the objects.

        Args:
            i: index of the environment.
            offset: [K, 2] cells ahead of the agent and to its right; NaN for none.
            tile_size: pixels per side of a cell.
        """
        from .picture import draw_decoded

        picture, banner = self._shown(i)
        column, row, direction = picture.agent
        axes = np.stack([STEPS[direction], STEPS[(direction + 1) % 4]])
        return draw_decoded(picture, banner, offset @ axes + [column, row], tile_size)

    def _shown(self, i: int, final: bool = False) -> tuple[Picture, Banner]:
        """Return what a picture of environment i shows."""
        self._require_reset("render")
        from .picture import Banner, Picture

        i = range(self.num_envs)[i]  # raises IndexError, and counts negative ones from the last
        ended = final and self._last is not None
        world, scene = self._last if ended and self._last is not None else (self.world, self.scene)
        world, scene = World(*(x[i : i + 1] for x in world)), Scene(*(x[i : i + 1] for x in scene))
        seen = self.viewer.seen_cells(self._prepare(world), scene.pose)
        margin = self.viewer.margin
        picture = Picture(
            world.walls[0].numpy(force=True),
            world.objects[0].tolist(),
            self.places(scene.pose)[0].tolist(),
            seen[0, margin:-margin, margin:-margin].numpy(force=True),
        )
        step = self.max_steps if ended else self._time
        return picture, Banner(int(scene.prompt), int(scene.score), step)

    def render_view(self, i: int = 0, tile_size: int = 32) -> NDArray[np.uint8]:
        """Draw what the agent of environment i sees, [height, width, 3]; see `render`."""
        self._require_reset("render_view")
        from .picture import Banner, draw_view

        one, pose = Lines(*(x[i : i + 1] for x in self._lines)), self.scene.pose[i : i + 1]
        image = self.viewer.image(one, pose, self.viewer.seen_rows(one, pose))[0].numpy(force=True)
        banner = Banner(int(self.scene.prompt[i]), int(self.scene.score[i]), self._time)
        return draw_view(image, banner, tile_size)

    def mission(self, i: int = 0) -> str:
        """Return what the agent of environment i is asked to do, in words."""
        prompt = int(self.scene.prompt[i])
        return f"go to the {OBJECT_COLORS[prompt]} ball ({prompt + 1})"


def _next_poses(width: int) -> NDArray[np.int64]:
    """Return the pose after each action, [P, 3], as if there were no walls."""
    direction, row, column = np.indices((4, width, width)).reshape(3, -1)
    step = STEPS[direction]
    ahead = (row + step[:, 1]).clip(0, width - 1) * width + (column + step[:, 0]).clip(0, width - 1)
    cell = row * width + column
    turned = [(direction + turn) % 4 * width**2 + cell for turn in (-1, 1)]
    return np.stack([*turned, direction * width**2 + ahead], axis=1)

"""MiniGrid's Memory mazes, batched: a step of all environments is a few table look-ups on any device.

B environments, V cells to a side of the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding as gymnasium_seeding
from numpy.typing import NDArray
from torch import Tensor

from envs import minigrid_tables
from envs.base import BatchedEnv, Transition
from envs.minigrid_tables import MazeSpec

Seeding = Literal["device", "farama"]

# Start states are drawn for this many environment steps at once, so that no single step pays for a draw.
BLOCK = 1 << 16


class Facts(NamedTuple):
    """What is so in every environment, whether or not the agent sees it: for probes of its memory."""

    cue: Tensor
    """[B] int64: 0 key, 1 ball."""
    cue_in_view: Tensor
    """[B] bool."""
    x: Tensor
    """[B] int64: the agent's column."""
    situation: Tensor
    """[B] int64: equal where all but the cue is: maze, hallway, choices, the agent's cell and direction."""


@final
class MemoryMazes(BatchedEnv):
    """Remember an object, walk down a hallway, and turn towards the object of the same kind.

    ## Rules
    The agent stands in the room at the hallway's left end or in the hallway, facing right, often
    already past the **cue**: a green key or ball in the room's upper left corner. The hallway ends in
    a junction with a key at one end and a ball at the other. Standing before the one that matches the
    cue is success; standing before the other ends the episode too, without reward. The walls and
    objects never move. Identical, bit for bit, with `minigrid.envs.MemoryEnv`
    (https://minigrid.farama.org/environments/minigrid/MemoryEnv/), minigrid 3.

    ## Observation
    `Dict(image=Box(0, 255, (V, V, 3), uint8), direction=Discrete(4))`: Farama's without the constant
    mission text. `image[i, j]` is the cell i from the left and V - 1 - j ahead of the agent, as MiniGrid's
    (object, colour, state) codes; direction is 0 right, 1 down, 2 left, 3 up.

    ## Actions
    0 turn left, 1 turn right, 2 forward. With `actions=7`, Farama's four others too; they do nothing
    here. An action outside the space raises IndexError on a CPU (a device-side assertion on CUDA);
    it never reads another environment's or state's row. (A negative one counts from the last action.)

    ## Reward and ends
    `1 - 0.9 * steps / max_steps` on success, else 0. Terminated at either choice; truncated after
    `max_steps = 5 * size**2` steps; both may be true at once. `success` is standing at the right choice.

    ## Mazes
    `MiniGrid-MemoryS{7,9,11,13}-v0` have a hallway of fixed length, `MiniGrid-MemoryS{13,17}Random-v0` draw
    it for each episode. Every odd size from 5 (7 with random length) works, and other hallways (`MazeSpec`).

    A **clean test of memory** is S11 and S13 at view size 7, and all six at view size 3: elsewhere single
    observations show the cue and a choice together. Guessing at the junction succeeds half the time, so
    success below about .5 says nothing of memory, and `best_possible(spec)` is what perfect memory gets.

    ## Seeding
    - `"device"` (default): one `torch.Generator` on the device draws the starts of many steps at once. No
      step waits for the host. A seed fixes every episode on a kind of device for a given `num_envs`.
    - `"farama"`: environment i has the numpy generator of Farama's environment seeded `seed + i`, and goes
      on with it at each autoreset: the very same episodes. Costs the CPU some 15 µs an episode,
      and a synchronisation a step on a GPU.

    Every step returns new tensors, which later steps leave alone.
    """

    def __init__(
        self,
        specs: MazeSpec | Sequence[MazeSpec],
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        actions: Literal[3, 7] = 7,
        seeding: Seeding = "device",
    ) -> None:
        """
        Args:
            specs: the maze; or several, dealt out in turn: environment i has `specs[i % len(specs)]`. A
                maze given twice has twice as many environments.
            num_envs: B, at least the number of `specs`.
            device: any torch device, `"meta"` included.
            actions: 7 is MiniGrid's action space, 3 leaves out the four that do nothing here.
            seeding: see the class.

        Raises:
            ValueError: numbers that do not fit, or mazes with different view sizes.
        """
        specs = (specs,) if isinstance(specs, MazeSpec) else tuple(specs)
        if not specs:
            raise ValueError("no mazes: give at least one MazeSpec")
        if num_envs < len(specs):
            raise ValueError(
                f"num_envs={num_envs} for {len(specs)} mazes: expected at least one environment each"
            )
        if actions not in (3, 7):
            raise ValueError(f"actions={actions}: expected 3 (turn, turn, forward) or 7 (MiniGrid's)")
        if seeding not in ("device", "farama"):
            raise ValueError(f"seeding={seeding!r}: expected 'device' or 'farama'")
        self.specs = specs
        self.num_envs = num_envs
        self.device = torch.device(device)
        if seeding == "farama" and self.device.type == "meta":
            raise ValueError(
                "seeding='farama' on the meta device, which holds no numbers: use seeding='device'"
            )
        self.seeding: Seeding = seeding
        self.tasks = tuple(dict.fromkeys(spec.env_id for spec in specs))
        maze_of = np.arange(num_envs) % len(specs)
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (specs[0].view_size, specs[0].view_size, 3), np.uint8),
                "direction": spaces.Discrete(4),
            }
        )
        self.action_space = spaces.Discrete(actions)

        tables = minigrid_tables.build(specs, actions)
        self.tables = tables
        self._next_state = self._tensor(tables.next_state)
        self._image = self._tensor(tables.image)
        self._direction = self._tensor(tables.direction)
        # Steps are counted in rows of the reward table, each maze's rows beginning at its own step 0.
        rewards, first_row = minigrid_tables.reward_table(specs)
        self._reward, self._first_row = self._tensor(rewards), first_row
        self._first_failed, self._first_solved = tables.first_failed, tables.first_solved

        self._state: Tensor | None = None  # [B] rows of the tables; None before the first reset
        self._arrived: Tensor | None = None  # [B] where the last step led, before any reset; for pictures
        self._facts: Facts | None = None  # by row of the tables; made when first asked for
        # device seeding
        self._first_start, self._num_starts = self._tensor(tables.hallway_starts).unbind(1)  # [H] each
        self._starts = self._tensor(tables.starts)
        self._generator = None
        if seeding == "device" and self.device.type != "meta":
            self._generator = torch.Generator(self.device)
            self._generator.seed()
        self._numpy: list[np.random.Generator] = []  # farama seeding
        self._set_mazes(maze_of)
        self._clock = self._clock_start  # [B] rows of the reward table

    def _set_mazes(self, maze_of: NDArray[np.int64]) -> None:
        """Whatever depends on which maze each environment has, [B] indices into `specs`."""
        self._maze_of: list[int] = maze_of.tolist()
        mazes = [self.specs[maze] for maze in self._maze_of]
        self.task_of = self._tensor([self.tasks.index(spec.env_id) for spec in mazes])
        self._clock_start = self._tensor(self._first_row[maze_of])
        self._clock_end = self._clock_start + self._tensor([spec.max_steps for spec in mazes])
        hallways = self._tensor(self.tables.hallways[maze_of])
        self._first_hallway, self._num_hallways = hallways.unbind(1)  # [B] each
        self._block: list[Tensor] = []  # start states [B] of the steps to come

    def assign(self, task_of: Sequence[int]) -> dict[str, Tensor]:
        """Give each environment a task of `tasks`; those whose task is another one begin a new episode.

        Returns:
            What all of them observe now.

        Raises:
            RuntimeError: before the first reset.
            ValueError: not one known task for each environment.
        """
        before = self._state
        if before is None:
            raise RuntimeError("assign before the first reset: call reset(seed) first")
        if len(task_of) != self.num_envs or not all(0 <= task < len(self.tasks) for task in task_of):
            raise ValueError(
                f"tasks {list(task_of)}: expected {self.num_envs} numbers below {len(self.tasks)}"
            )
        changed = self.task_of != self._tensor(list(task_of))
        ids = [spec.env_id for spec in self.specs]
        self._set_mazes(np.array([ids.index(self.tasks[task]) for task in task_of]))
        starts = self._next_starts() if self.seeding == "device" else self._starts_as_farama(before, changed)
        self._state = torch.where(changed, starts, before)
        self._clock = torch.where(changed, self._clock_start, self._clock)
        self._arrived = None
        return self._observe(self._state)

    def _tensor(self, values: NDArray | list[int]) -> Tensor:
        return torch.as_tensor(values).to(self.device)

    def reset(self, seed: int | None = None) -> dict[str, Tensor]:
        if self.seeding == "farama":
            if seed is not None or not self._numpy:
                seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
                self._numpy = [gymnasium_seeding.np_random(own)[0] for own in seeds]
            self._state = self._tensor([self._draw_as_farama(i) for i in range(self.num_envs)])
        else:
            if seed is not None:
                if self._generator is not None:
                    self._generator.manual_seed(seed)
                self._block = []
            self._state = self._next_starts()
        self._clock = self._clock_start
        self._arrived = None
        return self._observe(self._state)

    def step(self, actions: Tensor) -> Transition:
        state = self._state
        if state is None:
            raise RuntimeError("step before the first reset: call reset(seed) first")
        if actions.shape != state.shape:
            raise ValueError(
                f"actions of shape {tuple(actions.shape)}: expected ({self.num_envs},), one for each"
            )
        # Indexing with both checks each against its own axis, so no action reaches another state's row.
        state = self._arrived = self._next_state[state, actions]
        clock = self._clock + 1
        terminated = state >= self._first_failed
        success = state >= self._first_solved
        truncated = clock >= self._clock_end
        done = terminated | truncated
        reward = self._reward.index_select(0, clock).mul_(success)
        final_obs = self._observe(state)
        starts = self._next_starts() if self.seeding == "device" else self._starts_as_farama(state, done)
        self._state = torch.where(done, starts, state)
        self._clock = torch.where(done, self._clock_start, clock)
        return Transition(self._observe(self._state), reward, terminated, truncated, final_obs, success)

    def starts_now(self) -> Tensor:
        """[B] int64, right after a reset: environments of the same number go the same way under the same
        actions, up to the end of their first episode."""
        if self._state is None:
            raise RuntimeError("starts_now before the first reset: there is no episode yet")
        return self._state.clone()

    def facts(self) -> Facts:
        """What is so now, in the environments as the last `reset` or `step` left them."""
        if self._state is None:
            raise RuntimeError("facts before the first reset: there is no maze yet")
        if self._facts is None:
            place, seen = self.tables.place, self.tables.cue_seen
            but_cue = np.concatenate([np.delete(place, 2, axis=1), self.tables.direction[:, None]], axis=1)
            situation = np.unique(but_cue, axis=0, return_inverse=True)[1].reshape(-1)
            columns = (place[:, 2].copy(), seen, place[:, 4].copy(), situation)
            self._facts = Facts(*(torch.as_tensor(column).to(self.device) for column in columns))
        return Facts(*(column[self._state] for column in self._facts))

    def _observe(self, state: Tensor) -> dict[str, Tensor]:
        return {
            "image": self._image.index_select(0, state),
            "direction": self._direction.index_select(0, state),
        }

    def _next_starts(self) -> Tensor:
        """[B] a start state for each environment, from the device's generator, whether needed or not."""
        if not self._block:
            shape = (max(1, BLOCK // self.num_envs), self.num_envs)  # [K, B]
            # One integer holds both draws; at 53 bits its remainders are uniform to one part in 10^12.
            draw = torch.randint(1 << 53, shape, generator=self._generator, device=self.device)
            hallway = self._first_hallway + draw % self._num_hallways
            draw = torch.div(draw, self._num_hallways, rounding_mode="floor")
            start = self._first_start[hallway] + draw % self._num_starts[hallway]
            self._block = list(self._starts[start].unbind(0))
        return self._block.pop()

    def _starts_as_farama(self, state: Tensor, done: Tensor) -> Tensor:
        """[B] new start states where `done`, drawn as Farama's environments would; elsewhere `state`."""
        ended = np.flatnonzero(done.cpu().numpy())
        if not len(ended):
            return state
        starts = [self._draw_as_farama(i) for i in ended.tolist()]
        return state.index_put((self._tensor(ended),), self._tensor(starts))

    def _draw_as_farama(self, i: int) -> int:
        """A start state for environment i, by Farama's draws in Farama's order."""
        rng, maze = self._numpy[i], self._maze_of[i]
        hallway, num_hallways = self.tables.hallways[maze].tolist()
        if self.specs[maze].random_length:
            hallway += int(rng.integers(4, 4 + num_hallways)) - 4
        first, count = self.tables.hallway_starts[hallway].tolist()
        x = int(rng.integers(1, count // 4 + 1))
        cue, order = int(rng.integers(0, 2)), int(rng.integers(0, 2))
        return int(self.tables.starts[first + 4 * (x - 1) + 2 * cue + order])

    def state_dict(self) -> dict[str, Any]:
        if self._state is None:
            raise RuntimeError("state_dict before the first reset: there is no episode to save yet")
        return {
            "mazes": self._maze_of,
            "state": self._state,
            "clock": self._clock,
            "block": torch.stack(self._block) if self._block else None,
            "generator": None if self._generator is None else self._generator.get_state(),
            "numpy": [rng.bit_generator.state for rng in self._numpy],
        }

    def load_state_dict(self, state: dict[str, Any]) -> dict[str, Tensor]:
        """Go on from `state_dict` of the same mazes, number of environments, actions and seeding.

        Raises:
            ValueError: the state is of another number of environments or another seeding.
        """
        if len(state["state"]) != self.num_envs or bool(state["numpy"]) != (self.seeding == "farama"):
            raise ValueError(
                f"a state of {len(state['state'])} environments with "
                f"{'farama' if state['numpy'] else 'device'} seeding: expected {self.num_envs} with "
                f"{self.seeding}"
            )
        self._set_mazes(np.array(state["mazes"]))
        here = self._state = state["state"].to(self.device)
        self._clock = state["clock"].to(self.device)
        self._arrived = None
        self._block = [] if state["block"] is None else list(state["block"].to(self.device).unbind(0))
        if self._generator is not None:
            self._generator.set_state(state["generator"].cpu())
        self._numpy = []
        for saved in state["numpy"]:
            rng = np.random.Generator(np.random.PCG64())
            rng.bit_generator.state = saved
            self._numpy.append(rng)
        return self._observe(here)

    def render(self, i: int = 0, final: bool = False, tile_size: int = 32) -> NDArray[np.uint8]:
        """Environment i as MiniGrid draws it, [height, width, 3], the agent's view highlighted.

        With `final`, where the last step led: of an episode that ended there, its last picture
        (`final_obs`) rather than the next one's first (`obs`).
        """
        from minigrid.core.world_object import Ball, Key, Wall  # slow to import, and only pictures need it
        from minigrid.envs.memory import MemoryEnv

        if self._state is None:
            raise RuntimeError("render before the first reset: call reset(seed) first")
        shown = self._arrived if final and self._arrived is not None else self._state
        state = int(shown[i])
        maze, end, cue, order, x, y = self.tables.place[state].tolist()
        spec = self.specs[maze]
        env = MemoryEnv(size=spec.size, agent_view_size=spec.view_size)
        cells = minigrid_tables.maze_cells(spec.size, end, cue, order)
        objects = {minigrid_tables.WALL: Wall, minigrid_tables.KEY: Key, minigrid_tables.BALL: Ball}
        for column, row in np.argwhere(cells != minigrid_tables.EMPTY).tolist():
            kind = objects[int(cells[column, row])]
            env.grid.set(column, row, Wall() if kind is Wall else kind("green"))
        env.agent_pos, env.agent_dir = np.array((x, y)), int(self.tables.direction[state])
        return env.get_full_render(highlight=True, tile_size=tile_size)

"""MiniGrid's Memory mazes as a batch: a step of all environments is a few table look-ups on any device.

Axes: B environments, V cells per side of the view, M mazes, H hallways (see `tables.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, final, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import BatchedEnv, GroundTruth, Obs, ObservationIds, Transition
from rmc_agents.errors import shown
from rmc_agents.spaces.annotated import minigrid_image
from rmc_agents.tree import upload

from ..numbers import MAX_ENVS, require_whole, whole_seed
from ..saved_options import require_rows, require_same_options, saved_options
from . import tables as minigrid_tables
from .picture import draw_state
from .starts import DeviceStarts, FaramaStarts, Starts
from .tables import MazeSpec

Seeding = Literal["device", "farama"]


@final
class MemoryMazes(BatchedEnv):
    """Remember an object, walk down a hallway, and turn towards the object of the same kind.

    ## Rules
    The agent starts in the room at the left end of the hallway or in the hallway, facing right, and often
    already past the **cue**: a green key or ball in the upper left corner of the room. The hallway ends in a
    junction with a key at one end and a ball at the other. Reaching the cell before the object that matches
    the cue is a success; reaching the cell before the other one ends the episode without reward. Walls and
    objects never move. The dynamics equal those of `minigrid.envs.MemoryEnv`
    (https://minigrid.farama.org/environments/minigrid/MemoryEnv/), minigrid 3, bit for bit.

    ## Observation
    `Dict(image=Box(0, 255, (V, V, 3), uint8), direction=Discrete(4))`: Farama's observation without the
    constant mission text. `image[i, j]` is the cell i from the left and V - 1 - j ahead of the agent, as
    MiniGrid's (object, color, state) code. The direction is 0 right, 1 down, 2 left, 3 up. There is an
    `observation_table`; at view size 7 it has 121 rows for S13 and 347 for S13Random.

    ## Actions
    0 turn left, 1 turn right, 2 forward. With `actions=7` the space also has Farama's four other actions,
    which do nothing here. An action outside the space raises IndexError on a CPU (a device-side assertion on
    CUDA) and never reads the row of another environment or state. (A negative action counts from the last
    one.)

    ## Reward and end of an episode
    The reward is `1 - 0.9 * steps / max_steps` on success, else 0. An episode terminates at either choice and
    is truncated after `max_steps = 5 * size**2` steps; both may happen in one step. `success` means that the
    agent reached the right choice.

    ## Mazes
    `MiniGrid-MemoryS{7,9,11,13}-v0` have a hallway of fixed length, `MiniGrid-MemoryS{13,17}Random-v0` draw
    its length for each episode. Every odd size from 5 (7 with random length) works, as do other hallways
    (`MazeSpec`).

    A **clean test of memory** is S11 and S13 at view size 7, and all six at view size 3. In the others, some
    single observations show the cue and a choice together.

    ## Chance
    A guess at the junction succeeds half the time, so a success rate below about 50 % shows no memory.
    `best_possible(spec)` is the score of a perfect memory, `random_walk(spec)` that of random actions.

    ## Seeding
    - `"device"` (default): one `torch.Generator` on the device draws the starts of many steps at once, and no
      step waits for the host. A seed fixes every episode, for a given kind of device and `num_envs`.
    - `"farama"`: environment i has the NumPy generator that Farama's environment has when it is seeded with
      `seed + i`, and continues it at each autoreset, so its episodes are identical to Farama's. This costs
      about 15 µs of CPU time an episode, and one synchronisation a step on a GPU.
    """

    can_assign = True
    reports_success = True

    # [B] each, set by `_set_mazes`; the clock counts in rows of the reward table.
    _clock_start: Tensor
    _clock_end: Tensor

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
            specs: the maze, or several. Environment i gets `specs[i % len(specs)]`, so that a maze given
                twice has twice as many environments.
            num_envs: B, at least the number of `specs`.
            device: any torch device, including `"meta"`.
            actions: 7 is MiniGrid's action space; 3 leaves out the four actions that do nothing here.
            seeding: see the class.

        Raises:
            ValueError: a number out of range, or mazes with different view sizes.
        """
        specs = (specs,) if isinstance(specs, MazeSpec) else tuple(specs)
        if not specs:
            raise ValueError("no mazes: give at least one MazeSpec")
        require_whole("num_envs", num_envs, 1, MAX_ENVS)
        if num_envs < len(specs):
            raise ValueError(
                f"num_envs={num_envs} for {len(specs)} mazes: expected at least one environment for each"
            )
        minigrid_tables.require_actions(actions)
        if not isinstance(seeding, str) or seeding not in get_args(Seeding):
            raise ValueError(f"seeding={shown(repr(seeding), 60)}: expected 'device' or 'farama'")
        self.specs = specs
        self.num_envs = num_envs
        self.device = torch.device(device)
        if seeding == "farama" and self.device.type == "meta":
            raise ValueError(
                "seeding='farama' on the meta device, which holds no numbers: use seeding='device'"
            )
        self.seeding: Seeding = seeding
        self.capturable = seeding == "device"  # Farama's starts are drawn on the host
        self.tasks = tuple(dict.fromkeys(spec.env_id for spec in specs))
        maze_of = np.arange(num_envs) % len(specs)
        self.observation_space = spaces.Dict(
            {
                "image": minigrid_image(specs[0].view_size),
                "direction": spaces.Discrete(4),
            }
        )
        self.actions = actions
        self.action_space = spaces.Discrete(actions)

        tables = minigrid_tables.build_tables(specs, actions)
        self.tables = tables
        self._next_state = self._tensor(tables.next_state)
        self._observation = self._tensor(tables.observation)
        self._table = {
            "image": self._tensor(tables.image[tables.shows]),
            "direction": self._tensor(tables.direction[tables.shows]),
        }
        # The clock counts in rows of the reward table, in which each maze's rows begin at its step 0.
        rewards, first_row = minigrid_tables.reward_table(specs)
        self._reward, self._first_row = self._tensor(rewards), first_row
        self._first_failed, self._first_solved = tables.first_failed, tables.first_solved

        self._state: Tensor | None = None  # [B] rows of the tables; None before the first reset
        self._arrived: Tensor | None = None  # [B] state after the last step, before its autoreset; to draw
        self._ground_truth: GroundTruth | None = None  # [N] for each row of the tables; built when needed
        self._starts: Starts = (
            DeviceStarts(tables, num_envs, self.device)
            if seeding == "device"
            else FaramaStarts(specs, tables, num_envs, self.device)
        )
        self._set_mazes(maze_of)
        self._clock = self._clock_start.clone()  # [B] rows of the reward table

    def _set_mazes(self, maze_of: NDArray[np.int64]) -> None:
        """Set everything that depends on each environment's maze; `maze_of` is [B] indices into `specs`."""
        self._maze_of: list[int] = maze_of.tolist()
        mazes = [self.specs[maze] for maze in self._maze_of]
        self._keep("task_of", self._tensor([self.tasks.index(spec.env_id) for spec in mazes]))
        self._keep("_clock_start", self._tensor(self._first_row[maze_of]))
        self._keep("_clock_end", self._clock_start + self._tensor([spec.max_steps for spec in mazes]))
        self._starts.set_mazes(self._maze_of)

    def _keep(self, name: str, values: Tensor) -> None:
        """Store a tensor as an attribute, from the second time on at the address of the first."""
        stored = getattr(self, name, None)
        if stored is None or stored.shape != values.shape:
            setattr(self, name, values.clone(memory_format=torch.contiguous_format))
        else:
            stored.copy_(values)

    def assign(self, task_of: Sequence[int]) -> Obs:
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
        starts = self._starts.draw(before, changed)
        clock = torch.where(changed, self._clock_start, self._clock)
        self._arrived = None
        return self._observe(self._place(torch.where(changed, starts, before), clock))

    def _tensor(self, values: NDArray | list[int]) -> Tensor:
        return upload(values, self.device)

    def reset(self, seed: int | None = None) -> Obs:
        seed = whole_seed(seed)
        self._arrived = None
        return self._observe(self._place(self._starts.reset(seed), self._clock_start))

    def step(self, actions: Tensor) -> Transition:
        state = self._state
        if state is None:
            raise RuntimeError("step before the first reset: call reset(seed) first")
        self.require_actions(actions)
        # Indexing by both checks each against its own axis, so that no action reads another state's row.
        state = self._arrived = self._next_state[state, actions]
        clock = self._clock + 1
        terminated = state >= self._first_failed
        success = state >= self._first_solved
        truncated = clock >= self._clock_end
        done = terminated | truncated
        reward = self._reward.index_select(0, clock).mul_(success)
        final_obs = self._observe(state)
        starts = self._starts.draw(state, done)
        here = self._place(torch.where(done, starts, state), torch.where(done, self._clock_start, clock))
        return Transition(self._observe(here), reward, terminated, truncated, final_obs, success)

    def _place(self, state: Tensor, clock: Tensor) -> Tensor:
        """Store the state [B] and clock [B] of every environment; return the state."""
        self._keep("_state", state)
        self._keep("_clock", clock)
        assert self._state is not None
        return self._state

    def start_ids(self) -> Tensor:
        """Return [B] int64 right after a reset: the start state of each environment; see `KnownStarts`.

        Raises:
            RuntimeError: called before the first `reset`.
        """
        if self._state is None:
            raise RuntimeError("start_ids before the first reset: call reset(seed) first")
        return self._state.clone()

    def ground_truth(self) -> GroundTruth:
        """Return the state of the world as the latest `reset` or `step` left it; the cue is 0 key, 1 ball.

        Raises:
            RuntimeError: called before the first `reset`.
        """
        if self._state is None:
            raise RuntimeError("ground_truth before the first reset: call reset(seed) first")
        if self._ground_truth is None:
            place, seen = self.tables.place, self.tables.cue_seen
            without_cue = np.concatenate(
                [np.delete(place, 2, axis=1), self.tables.direction[:, None]], axis=1
            )
            state_id = np.unique(without_cue, axis=0, return_inverse=True)[1].reshape(-1)
            columns = (place[:, 2].copy(), seen, place[:, 4].copy(), state_id)
            self._ground_truth = GroundTruth(*(torch.as_tensor(column).to(self.device) for column in columns))
        return GroundTruth(*(column[self._state] for column in self._ground_truth))

    def observation_table(self) -> dict[str, Tensor]:
        return self._table

    def _observe(self, state: Tensor) -> Obs:
        ids = self._observation.index_select(0, state)
        if self.observe_ids:
            return ObservationIds(ids)
        return {name: part.index_select(0, ids) for name, part in self._table.items()}

    def prepare_steps(self, count: int) -> None:
        self._starts.prepare(count)

    def state_dict(self) -> dict[str, Any]:
        if self._state is None:
            raise RuntimeError("state_dict before the first reset: call reset(seed) first")
        return {
            "options": self._options(),
            "mazes": self._maze_of,
            "state": self._state.clone(),
            "clock": self._clock.clone(),
            **self._starts.state_dict(),
        }

    def _options(self) -> dict[str, Any]:
        """Return what a state holds of the options."""
        options = {
            "mazes": [spec.env_id for spec in self.specs],
            "view_size": self.specs[0].view_size,
            "actions": self.actions,
            "seeding": self.seeding,
        }
        return saved_options(self, options)

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        """Continue from the `state_dict` of an instance with the same mazes, actions and seeding.

        Raises:
            ValueError: the state belongs to another number of environments or to other options, which the
                message names. States of older versions lack the options, and are not compared.
        """
        require_same_options(state.get("options"), self._options())
        require_rows(len(state["state"]), self.num_envs)
        self._set_mazes(np.array(state["mazes"]))
        here = self._place(state["state"].to(self.device), state["clock"].to(self.device))
        self._arrived = None
        self._starts.load_state_dict(state)
        return self._observe(here)

    def render(self, i: int = 0, final: bool = False, tile_size: int = 32) -> NDArray[np.uint8]:
        """Draw environment i as MiniGrid does, [height, width, 3], with the agent's view highlighted.

        Args:
            i: index of the environment.
            final: draw the state after the last step, before its autoreset: if an episode ended in it, the
                last picture of that episode (`final_obs`) instead of the first of the next one (`obs`).
            tile_size: pixels per side of a cell.

        Raises:
            RuntimeError: called before the first `reset`.
        """
        if self._state is None:
            raise RuntimeError("render before the first reset: call reset(seed) first")
        shown = self._arrived if final and self._arrived is not None else self._state
        return draw_state(self.specs, self.tables, int(shown[i]), tile_size)

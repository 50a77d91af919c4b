"""The T-maze of Ni et al. (2023): a cue at one end of a corridor, and a choice at the other end.

Axes: B environments, L cells from the start to the junction, P places.
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

MAX_LENGTH = 10_000
NUM_ACTIONS = 4
RIGHT, UP, LEFT, DOWN = range(NUM_ACTIONS)
OBSERVATIONS = ((0, 0), (0, 1), (0, -1), (1, 0), (1, 1), (1, -1))
"""All observations: whether the agent is at the junction or in an arm, and the cue or the arm."""
CORRIDOR, CUE, JUNCTION, ARM = 0, 1, 3, 4
"""Rows of OBSERVATIONS; after CUE and ARM, the next row is that of the lower arm."""


def next_places(junction: int) -> list[list[int]]:
    """Return the place after each action in each place, [P, 4].

    Places are the columns 0 to `junction` of the corridor, then the upper arm and the lower one.
    """
    upper, lower = junction + 1, junction + 2
    moves = [[min(x + 1, junction), x, max(x - 1, 0), x] for x in range(junction + 1)]
    moves[junction][UP], moves[junction][DOWN] = upper, lower
    return [*moves, [upper, upper, upper, junction], [lower, junction, lower, lower]]


@final
class TMaze(SeededTask):
    """A corridor with a cue at its left end and a junction at its right end; the cue names the right arm.

    ## Rules
    In the passive maze the agent starts on the cue, L cells from the junction. In the active one (`active`)
    it starts one cell to the right of it, and has to fetch the cue first. The cue is shown the first time
    that the agent is there, and never again. The last step counts: the agent has to be in the arm that the
    cue named.

    ## Observation
    `Box(-1, 1, (2,), float32)`:

    - Is the agent at the junction or in an arm? 1 or 0.
    - In the corridor the cue, while it is shown: 1 up, -1 down, 0 nothing. In an arm 1 or -1.

    All cells of the corridor look the same. There are six observations, in `observation_table`.

    ## Actions
    `Discrete(4)`: right, up, left, down. A step into a wall does nothing. Numbers outside the space are not
    checked, and may move the agent to any other cell.

    ## Reward and end of an episode
    The last step is rewarded by 1 in the right arm and by 0 elsewhere. With `dense`, each earlier step costs
    1 / L if the agent is behind schedule: at step t to the left of column t (active: t - 1). The best return
    is 1.

    All episodes are terminated after L + 1 steps (active: L + 3), which is just enough. `success` means that
    the agent was in the right arm.

    ## What a score means
    Without a memory the best return is **.5**: walk right and guess. Uniformly random actions hardly ever
    reach an arm, and with `dense` return -.97 at L = 10.

    ## Published
    Transformers trained by deep Q-learning solve the passive maze with L up to 1500, with `dense` (Ni et al.
    2023).

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from the original
    None in the rules; `dense=False` is Bakker's (2001) version.

    Source: T. Ni et al., "When do Transformers Shine in RL? Decoupling Memory from Credit Assignment", 2023.
    """

    reports_success = True

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        length: int = 10,
        active: bool = False,
        dense: bool = True,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            length: L, from 1 to 10,000.
            active: the agent starts beside the cue and has to fetch it.
            dense: steps behind schedule cost 1 / L.

        Raises:
            ValueError: an argument out of range.
        """
        require_whole("length", length, 1, MAX_LENGTH)
        require_flag("active", active)
        require_flag("dense", dense)
        observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__("rmc/TMaze-v0", num_envs, device, observation_space, spaces.Discrete(NUM_ACTIONS))
        self.length, self.active, self.dense = length, active, dense
        self.start = 1 if active else 0
        self.junction = length + self.start
        self.max_steps = length + 1 + 2 * self.start
        self._penalty = -1.0 / length if dense else 0.0
        self._next = torch.tensor(next_places(self.junction), device=self.device).flatten()
        rows = [CORRIDOR] * self.junction + [JUNCTION, ARM, ARM + 1]
        self._rows = torch.tensor(rows, device=self.device)  # [P] the observation in each place
        self._table = torch.tensor(OBSERVATIONS, dtype=torch.float32, device=self.device)
        self._time = 0
        self._place = self._arm = self.task_of  # [B] the place; 0 if the upper arm is right, 1 if the lower
        self._unseen = self._none()  # [B] whether the cue has still to be shown
        self._shown = self.task_of  # [B] the observations, as rows
        self._ended: tuple[Tensor, Tensor, Tensor] | None = None  # place, arm and rows at the latest end

    def observation_table(self) -> Tensor:
        return self._table

    def _begin(self) -> Obs:
        B = self.num_envs
        self._time, self._ended = 0, None
        self._arm = torch.randint(2, (B,), generator=self._generator, device=self.device)
        self._place = torch.full((B,), self.start, device=self.device)
        self._unseen = torch.ones(B, dtype=torch.bool, device=self.device)
        return self._look()

    def _look(self) -> Obs:
        """Return the observations, and note where the cue is shown."""
        on_cue = self._place == 0
        self._shown = torch.where(on_cue & self._unseen, self._arm + CUE, self._rows[self._place])
        self._unseen = self._unseen & ~on_cue
        return self._observe()

    def _observe(self) -> Obs:
        return ObservationIds(self._shown) if self.observe_ids else self._table[self._shown]

    def _advance(self, actions: Tensor) -> Transition:
        self._place = self._next[self._place * NUM_ACTIONS + actions]
        self._time += 1
        obs, never = self._look(), self._none()
        if self._time < self.max_steps:
            is_late = self._place < self._time - self.start
            reward = is_late.to(torch.float32) * self._penalty
            return Transition(obs, reward, never, never, obs, never)
        success = self._place == self._arm + self.junction + 1
        ended = (self._place, self._arm, self._shown)
        first = self._begin()
        self._ended = ended
        return Transition(first, success.to(torch.float32), ~never, never, obs, success)

    def _save(self) -> dict[str, Any]:
        return {
            "time": self._time,
            "place": self._place,
            "arm": self._arm,
            "unseen": self._unseen,
            "shown": self._shown,
        }

    def _restore(self, state: dict[str, Any]) -> Obs:
        self._require_rows(len(state["place"]))
        self._time = state["time"]
        self._place, self._arm, self._unseen, self._shown = (
            state[name].to(self.device) for name in ("place", "arm", "unseen", "shown")
        )
        self._ended = None
        return self._observe()

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the corridor near the agent, and both arms."""
        from .picture import Corridor, draw

        over = self._ended if final and self._time == 0 else None
        place, arm, shown = over or (self._place, self._arm, self._shown)
        at, row = int(place[i]), int(shown[i])
        lower = at - self.junction if at > self.junction else 0  # 1 in the upper arm, 2 in the lower one
        scene = Corridor(
            junction=self.junction,
            x=min(at, self.junction),
            y=(0, -1, 1)[lower],
            goal=(-1, 1)[int(arm[i])],
            cue={CUE: -1, CUE + 1: 1}.get(row, 0),
        )
        time = self.max_steps if over else self._time
        return draw(scene, f"step {time} of {self.max_steps}", tile_size)

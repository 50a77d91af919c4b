"""CountRecall: the agent says how often a kind of card has been dealt so far.

Axes: B environments, N cards, K kinds.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ..numbers import require_whole
from .base import FixedLength, Levels
from .cards import DECK, MAX_DECKS, require_kind, shuffle
from .kinds import NUM_KINDS, Kind, symbol
from .scene import Scene


@final
class CountRecall(FixedLength):
    """Each step deals a card and asks about a kind: how many cards of that kind have been dealt so far?

    The N = 52 `num_decks` cards are dealt from one shuffled deck, and the kinds are asked in the order of
    another one, which is independent of it.

    ## Observation
    `MultiDiscrete([K, K])`: the kind of the card that is dealt now, and the kind that is asked for.

    ## Actions
    `Discrete(N / K + 1)`: the number of cards of that kind dealt so far, the one in view included. A number
    outside the space is a wrong answer.

    ## Reward and end of an episode
    Each answer is rewarded by 1 / (N - 1) if it is right and by -1 / (N - 1) if it is wrong, so that an
    episode's return lies between -1 and 1. The last card terminates the episode, after N - 1 steps.

    ## Levels
    | level | decks | kinds | K | actions | steps of an episode |
    | --- | --- | --- | --- | --- | --- |
    | Easy | 1 | colors | 2 | 27 | 51 |
    | Medium | 2 | suits | 4 | 27 | 103 |
    | Hard | 4 | ranks | 13 | 17 | 207 |

    ## What a score means
    The best answer that knows no more than the number of the step and the observation scores -.41, -.49 and
    -.41. K counters score 1.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from POPGym
    None in the rules of POPGym 1.0.6 and later; before, the action space lacked the largest count. Decks are
    drawn by another generator.
    """

    FAMILY = "CountRecall"
    LEVELS: ClassVar[Levels] = {
        "Easy": {},
        "Medium": {"num_decks": 2, "kind": "suits"},
        "Hard": {"num_decks": 4, "kind": "ranks"},
    }

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        num_decks: int = 1,
        kind: Kind = "colors",
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_decks: number of decks that are shuffled together, from 1 to 1000.
            kind: what is counted: colors, suits or ranks.

        Raises:
            ValueError: an argument out of range.
        """
        require_whole("num_decks", num_decks, 1, MAX_DECKS)
        require_kind("kind", kind)
        self.num_kinds = NUM_KINDS[kind]
        super().__init__(
            {"num_decks": num_decks, "kind": kind},
            num_envs,
            device,
            spaces.MultiDiscrete([self.num_kinds] * 2),
            spaces.Discrete(DECK * num_decks // self.num_kinds + 1),
        )
        self.num_decks, self.length = num_decks, DECK * num_decks - 1
        self.kind: Kind = kind
        self._shown = torch.empty(0, 0, 2)  # [N, B, 2] kinds dealt and asked for
        self._counts = torch.empty(0, 0)  # [B, K] number of cards dealt of each kind

    def _draw(self) -> None:
        arguments = (self.num_envs, self.num_decks, self.kind, self._generator, self.device)
        decks = [shuffle(*arguments) for _ in range(2)]
        self._shown = torch.stack(decks, dim=2).transpose(0, 1).contiguous()
        self._counts = torch.zeros(self.num_envs, self.num_kinds, dtype=torch.int64, device=self.device)
        self._count(0)

    def _count(self, time: int) -> None:
        """Count the cards that are dealt at a step."""
        dealt = self._shown[time, :, :1]
        self._counts.scatter_add_(1, dealt, torch.ones_like(dealt))

    def _observe(self) -> Tensor:
        return self._shown[self._time]

    def _reward(self, actions: Tensor) -> Tensor:
        right = self._counts.gather(1, self._shown[self._time, :, 1:]).squeeze(1) == actions
        self._count(self._time + 1)
        return self._rewards(right, 1 / self.length, -1 / self.length)

    def _save(self) -> dict[str, Any]:
        return {"shown": self._shown, "counts": self._counts.clone(), "time": self._time}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["counts"]))
        self._shown, self._counts = self._take(state, "shown"), self._take(state, "counts")
        self._time = state["time"]
        return self._observe()

    def _picture(self, scene: Scene, tile_size: int) -> NDArray[np.uint8]:
        from .pictures import draw_hand  # slow to import, and only needed here

        time, shown = scene.state["time"], scene.state["shown"][:, scene.i]
        kind = symbol(self.kind, int(shown[min(time, self.length), 1]))
        answer = f"   said {scene.actions[-1]} {scene.last}" if scene.last else ""
        header = f"how many {kind} so far?{answer}"
        return draw_hand(shown[:, 0].tolist(), time, self.kind, header, None, tile_size)

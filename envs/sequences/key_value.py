"""Key-value recall: the agent sees pairs of a key and a value, and then names the value of each key.

Axes: B environments, P pairs, K keys, V values, W steps that show something, T steps of an episode.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from rmc_agents.environment import Transition

from ..numbers import require_whole
from ..seeded import SeededTask


class Lists(NamedTuple):
    """The content of B episodes."""

    inputs: Tensor
    """[T, B, K + V + 2]: the observations."""
    answers: Tensor
    """[P, B] int64: the right value at each query."""


def draw_lists(
    batch_size: int,
    num_pairs: int,
    num_keys: int,
    num_values: int,
    num_rewrites: int,
    num_distractors: int,
    generator: torch.Generator | None,
    device: torch.device,
) -> Lists:
    """Draw episodes: P keys of K, their values, when they are shown, and the order of the queries."""
    B, P, K = batch_size, num_pairs, num_keys
    shown = P + num_rewrites + num_distractors

    def numbers(below: int, count: int) -> Tensor:
        return torch.randint(below, (B, count), generator=generator, device=device)

    def orders(count: int) -> Tensor:
        return torch.rand(B, count, generator=generator, device=device).argsort(1)

    keys = orders(K)[:, :P]  # those of the episode, [B, P]
    again = keys.gather(1, numbers(P, num_rewrites))
    written = torch.cat([keys, again, numbers(K, num_distractors)], dim=1)  # [B, W]
    order = orders(shown)
    written, values = written.gather(1, order), numbers(num_values, shown)
    ignored = order >= P + num_rewrites

    # The last time at which each key is written says which value is right.
    times = torch.arange(1, shown + 1, device=device).expand(B, shown).masked_fill(ignored, 0)
    last = torch.zeros(B, K, dtype=torch.int64, device=device).scatter_reduce(1, written, times, "amax")
    asked = keys.gather(1, orders(P))  # [B, P]
    answers = values.gather(1, last.gather(1, asked) - 1)

    flags = torch.stack([torch.zeros_like(ignored), ignored], dim=2)
    pairs = torch.cat([one_hot(written, K), one_hot(values, num_values), flags], dim=2)
    queries = torch.zeros(B, P, K + num_values + 2, dtype=pairs.dtype, device=device)
    queries[..., :K], queries[..., K + num_values] = one_hot(asked, K), 1
    inputs = torch.cat([pairs, queries], dim=1).transpose(0, 1).float().contiguous()
    return Lists(inputs, answers.t().contiguous())


@final
class KeyValue(SeededTask):
    """Associative recall: P pairs of a key and a value, one per step, then a query for each of the P keys.

    ## Observation
    `Box(0, 1, (K + V + 2,), float32)`: the one-hot key, the one-hot value (all 0 in a query), the flag of a
    query, and the flag of a distractor.

    ## Actions
    `Discrete(V)`: a value. The action at a query is its answer; earlier actions do nothing. A number outside
    the space is a wrong answer.

    ## Reward and end of an episode
    Each answer is rewarded by 1/P if it is right and by -1/P if it is wrong, so that an episode's return lies
    between -1 and 1, and the share of right answers is (1 + return) / 2. The last answer terminates the
    episode, after P + `num_rewrites` + `num_distractors` + P steps; none is truncated. `success` means that
    all answers of the episode were right.

    ## Difficulty
    A rewrite shows one of the P keys once more; of all values that a key is shown with, the last is right. A
    distractor has its flag set, shows any of the K keys with any value, and means nothing. All of them are in
    random order.

    ## Chance
    Values are uniform and independent of all else. Without a memory the best mean return is **2 / V - 1**:
    1 / V of the answers are right. An agent that remembers one of the P pairs answers 1/P + (1 - 1/P) / V of
    the queries right, and one with a perfect memory all of them, for a return of 1.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.
    """

    reports_success = True

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        num_pairs: int = 8,
        num_keys: int = 16,
        num_values: int = 8,
        num_rewrites: int = 0,
        num_distractors: int = 0,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_pairs: P, from 1 to `num_keys`.
            num_keys: K, from 1 to 1000.
            num_values: V, from 2 to 1000.
            num_rewrites: number of pairs that are shown for a key a second time or more, up to 10,000.
            num_distractors: number of pairs without meaning, up to 10,000.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("num_keys", num_keys, 1, 1000)
        require_whole("num_pairs", num_pairs, 1, num_keys)
        require_whole("num_values", num_values, 2, 1000)
        require_whole("num_rewrites", num_rewrites, 0, 10_000)
        require_whole("num_distractors", num_distractors, 0, 10_000)
        observation_space = spaces.Box(0.0, 1.0, (num_keys + num_values + 2,), np.float32)
        super().__init__("rmc/KeyValue-v0", num_envs, device, observation_space, spaces.Discrete(num_values))
        self.num_pairs, self.num_keys, self.num_values = num_pairs, num_keys, num_values
        self.num_rewrites, self.num_distractors = num_rewrites, num_distractors
        self._start(self._draw())

    def _begin(self) -> Tensor:
        self._start(self._draw())
        return self._lists.inputs[0]

    def _advance(self, actions: Tensor) -> Transition:
        never = self._none()
        inputs, answers = self._lists
        query = self._time - (len(inputs) - self.num_pairs)
        reward = torch.zeros(self.num_envs, device=self.device)
        if query >= 0:
            right = actions == answers[query]
            self._all_right = self._all_right & right
            reward = (2 * right.float() - 1) / self.num_pairs
        self._time += 1
        self._ended = None
        if self._time < len(inputs):
            obs = inputs[self._time]
            return Transition(obs, reward, never, never, obs, never)
        success, ended = self._all_right, self._lists
        self._start(self._draw())
        self._ended = ended
        # The last step shows nothing new: the episode's last observation is the last query again.
        return Transition(self._lists.inputs[0], reward, ~never, never, inputs[-1], success)

    def _start(self, lists: Lists, time: int = 0, all_right: Tensor | None = None) -> None:
        # All episodes have the same length, so all environments are at the same step.
        self._lists, self._time = lists, time
        self._ended: Lists | None = None  # those of the episodes that ended in the latest step
        ones = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self._all_right = ones if all_right is None else all_right

    def _draw(self) -> Lists:
        return draw_lists(
            self.num_envs,
            self.num_pairs,
            self.num_keys,
            self.num_values,
            self.num_rewrites,
            self.num_distractors,
            self._generator,
            self.device,
        )

    def _save(self) -> dict[str, Any]:
        return {"lists": list(self._lists), "time": self._time, "all_right": self._all_right}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        saved = Lists(*(x.to(self.device) for x in state["lists"]))
        self._require_rows(saved.inputs.shape[1])
        self._start(saved, state["time"], state["all_right"].to(self.device))
        return self._lists.inputs[self._time]

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the pairs, and below them the queries with their answers."""
        from .pictures import draw_pairs  # slow to import, and only needed here

        ended = self._ended if final else None
        lists = ended or self._lists
        rows, K = lists.inputs[:, i], self.num_keys
        keys, values = rows[:, :K].argmax(1).tolist(), rows[:, K : K + self.num_values].argmax(1).tolist()
        shown = len(rows) - self.num_pairs
        pairs = list(zip(keys[:shown], values[:shown], rows[:shown, -1].bool().tolist(), strict=True))
        queries = list(zip(keys[shown:], lists.answers[:, i].tolist(), strict=True))
        return draw_pairs(pairs, queries, len(rows) - 1 if ended else self._time, tile_size)

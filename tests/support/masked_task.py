"""Tasks with action masks: a native one, and a Gymnasium environment that refuses what its mask forbids.

Axes: B environments, K components of an action.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.environment import BatchedEnv, Transition

CHOICES, LENGTH, BLANK = 4, 3, 2
"""Choices of each component, steps of an episode, and the observation after the first one."""


class Extreme(BatchedEnv):
    """Choose the lowest or the highest allowed action at the end, as the first observation says.

    Two random choices of each component are allowed in each step, and the observation does not show which: an
    agent needs its mask and its memory. A forbidden choice ends the episode without a reward.

    Args:
        num_envs: B.
        device: where tensors live.
        components: K; 1 for `Discrete` actions.
    """

    def __init__(
        self, num_envs: int = 1, device: str | torch.device = "cpu", components: int | None = None
    ) -> None:
        self.num_envs, self.device = num_envs, torch.device(device)
        self.observation_space = spaces.Discrete(BLANK + 1)
        self.action_space = (
            spaces.Discrete(CHOICES) if components is None else spaces.MultiDiscrete([CHOICES] * components)
        )
        self.components = components or 1
        self.tasks = ("test/Extreme-v0",)
        self.task_of = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.generator = None if self.device.type == "meta" else torch.Generator(self.device)
        self.cue: Tensor | None = None  # [B] 0 for the lowest, 1 for the highest
        self.time = torch.zeros_like(self.task_of)
        self.allowed = torch.ones(num_envs, self.components, CHOICES, dtype=torch.bool, device=self.device)

    def reset(self, seed: int | None = None) -> Tensor:
        if seed is not None and self.generator is not None:
            self.generator.manual_seed(seed)
        self.cue, self.time = self._draw_cue(), torch.zeros_like(self.time)
        self.allowed = self._draw_allowed()
        return self._observe()

    def step(self, actions: Tensor) -> Transition:
        if self.cue is None:
            raise RuntimeError("step before the first reset")
        self.require_actions(actions)
        numbers = actions.view(self.num_envs, self.components, 1)
        legal = self.allowed.gather(2, numbers).flatten(1).all(1)
        lowest = self.allowed.byte().argmax(2)
        highest = CHOICES - 1 - self.allowed.flip(2).byte().argmax(2)
        wanted = torch.where(self.cue.unsqueeze(1) == 0, lowest, highest)
        right = (numbers.squeeze(2) == wanted).all(1)
        self.time = self.time + 1
        over = self.time == LENGTH
        success, done = legal & over & right, over | ~legal
        final = self._observe()
        self.cue = torch.where(done, self._draw_cue(), self.cue)
        self.time = torch.where(done, 0, self.time)
        self.allowed = self._draw_allowed()
        return Transition(self._observe(), success.float(), done, torch.zeros_like(done), final, success)

    def action_masks(self) -> Tensor | None:
        return self.allowed.flatten(1)

    def state_dict(self) -> dict[str, Any] | None:
        if self.cue is None or self.generator is None:
            raise RuntimeError("call reset first")
        state = {"cue": self.cue, "time": self.time, "allowed": self.allowed}
        return {**state, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        if len(state["cue"]) != self.num_envs:
            raise ValueError("a state of another number of environments")
        assert self.generator is not None
        self.cue, self.time, self.allowed = state["cue"], state["time"], state["allowed"]
        self.generator.set_state(state["generator"])
        return self._observe()

    def _draw_cue(self) -> Tensor:
        return torch.randint(2, (self.num_envs,), generator=self.generator, device=self.device)

    def _draw_allowed(self) -> Tensor:
        """Return [B, K, C] with two choices allowed."""
        shape = self.num_envs, self.components, CHOICES
        order = torch.rand(shape, generator=self.generator, device=self.device).argsort(2)
        return order < 2

    def _observe(self) -> Tensor:
        assert self.cue is not None
        return torch.where(self.time == 0, self.cue, BLANK)


class Strict(gymnasium.Env[Any, Any]):
    """Raise at a forbidden action. Each step allows some random actions; an episode has `length` steps.

    Args:
        action_space: of choices.
        form: how the mask is given: "info", "method" (`action_masks`), "tuple" of components in the info, or
            "none", which allows everything.
        length: steps of an episode.
    """

    def __init__(
        self, action_space: spaces.Space[Any] | None = None, form: str = "info", length: int = 5
    ) -> None:
        self.action_space = action_space or spaces.Discrete(CHOICES, start=1)
        self.observation_space = spaces.Box(0, 1, (2,), np.float32)
        self.form, self.length, self.time = form, length, 0
        bits = isinstance(self.action_space, spaces.MultiBinary)
        nvec = [2] * self.action_space.n if bits else getattr(self.action_space, "nvec", [CHOICES])
        self.sizes = [int(n) for n in nvec]
        if form == "method":
            self.action_masks = lambda: np.concatenate(self.masks)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._answer()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        numbers = np.atleast_1d(action - getattr(self.action_space, "start", 0))
        if self.form != "none" and not all(
            mask[number] for mask, number in zip(self.masks, numbers, strict=True)
        ):
            raise RuntimeError(f"{action} is forbidden")
        self.time += 1
        obs, info = self._answer()
        if self.time == self.length:  # nothing is allowed after the end
            info = {key: np.zeros_like(x) for key, x in info.items() if self.form == "info"}
        return obs, float(np.sum(numbers)), self.time == self.length, False, info

    def _answer(self) -> tuple[Any, dict[str, Any]]:
        self.masks = [self.np_random.permutation(size) < (size + 1) // 2 for size in self.sizes]
        obs = self.np_random.random(2, dtype=np.float32)
        if self.form == "info":
            return obs, {"action_mask": np.concatenate(self.masks).astype(np.int8)}
        return obs, {"action_mask": tuple(self.masks)} if self.form == "tuple" else {}

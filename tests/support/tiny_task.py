"""A small task that follows every rule of the contract, and uses all of its options."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets, BatchedEnv, FullObs, Obs, ObservationIds, Transition

DIGITS, LENGTH = 5, 3


class Tiny(BatchedEnv):
    """Repeat a digit after three steps. In task "twice" the answer is the digit's double."""

    can_assign = True
    aux_size = 1

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        self.num_envs, self.device = num_envs, torch.device(device)
        self.observation_space: spaces.Space = spaces.Dict(
            {"digit": spaces.Discrete(DIGITS), "time": spaces.Box(0.0, 1.0, (1,), np.float32)}
        )
        self.action_space = spaces.Discrete(2 * DIGITS)
        self.tasks = ("once", "twice")
        self.task_of = torch.arange(num_envs, device=self.device) % 2
        self.generator = None if self.device.type == "meta" else torch.Generator(self.device)
        self.digit: Tensor | None = None  # [B]
        self.time = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    def reset(self, seed: int | None = None) -> Obs:
        if seed is not None and self.generator is not None:
            self.generator.manual_seed(seed)
        self.digit, self.time = self.draw(), torch.zeros_like(self.time)
        return self.observe()

    def step(self, actions: Tensor) -> Transition:
        if self.digit is None:
            raise RuntimeError("call reset first")
        self.require_actions(actions)
        self.time = self.time + 1
        done = self.time == LENGTH
        success = done & (actions == self.digit * (1 + self.task_of))
        final_obs = self.observe()
        self.digit = torch.where(done, self.draw(), self.digit)
        self.time = torch.where(done, 0, self.time)
        return Transition(self.observe(), success.float(), done, torch.zeros_like(done), final_obs, success)

    def draw(self) -> Tensor:
        return torch.randint(DIGITS, (self.num_envs,), generator=self.generator, device=self.device)

    def observe(self) -> Obs:
        assert self.digit is not None
        digit = torch.where(self.time == 0, self.digit, 0)
        return {"digit": digit, "time": (self.time / LENGTH).unsqueeze(1)}

    def auxiliary_targets(self) -> AuxiliaryTargets | None:
        assert self.digit is not None
        return AuxiliaryTargets(
            self.digit.float().unsqueeze(1), torch.ones(self.num_envs, 1, device=self.device)
        )

    def assign(self, task_of: Any) -> Obs:
        if self.digit is None:
            raise RuntimeError("call reset first")
        if len(task_of) != self.num_envs or not all(0 <= task < 2 for task in task_of):
            raise ValueError("expected a task for each environment")
        new = torch.tensor(task_of, device=self.device)
        self.digit = torch.where(new != self.task_of, self.draw(), self.digit)
        self.time = torch.where(new != self.task_of, 0, self.time)
        self.task_of = new
        return self.observe()

    def state_dict(self) -> dict[str, Any] | None:
        if self.digit is None or self.generator is None:
            raise RuntimeError("call reset first")
        state = {"digit": self.digit, "time": self.time, "task_of": self.task_of}
        return {**state, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        if len(state["digit"]) != self.num_envs:
            raise ValueError("a state of another number of environments")
        assert self.generator is not None
        self.digit, self.time, self.task_of = state["digit"], state["time"], state["task_of"]
        self.generator.set_state(state["generator"])
        return self.observe()


class ListedTiny(Tiny):
    """The same task with a table of its observations: each digit at the start, then a row for each step."""

    def observation_table(self) -> FullObs | None:
        rows = torch.arange(DIGITS + LENGTH, device=self.device)
        time = (rows - DIGITS + 1).clamp_min(0) / LENGTH
        return {"digit": torch.where(rows < DIGITS, rows, 0), "time": time.unsqueeze(1)}

    def observe(self) -> Obs:
        assert self.digit is not None
        ids = torch.where(self.time == 0, self.digit, DIGITS - 1 + self.time)
        return ObservationIds(ids) if self.observe_ids else super().observe()

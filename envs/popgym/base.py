"""What POPGym's tasks share: names of levels, episodes of a fixed length, and new episodes for some rows.

Axes: B environments, T steps of an episode.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import FullObs, Obs, Transition
from rmc_agents.tree import clone

from ..seeded import SeededTask, restart
from .scene import Recording, Scene

Levels = Mapping[str, Mapping[str, Any]]
"""Options of a family by level: Easy, Medium and Hard."""


class PopgymTask(SeededTask):
    """A family of POPGym's tasks. Its constructor takes `num_envs`, `device` and options with defaults.

    Args:
        options: those of the constructor, by name; they decide the name of the task.
        num_envs: B.
        device: any torch device, including `"meta"`.
        observation_space: of one environment.
        action_space: of one environment.
    """

    FAMILY: ClassVar[str]
    """POPGym's name of the family, such as `RepeatPrevious`."""
    LEVELS: ClassVar[Levels]

    reports_success = False
    capturable = True

    def __init__(
        self,
        options: Mapping[str, Any],
        num_envs: int,
        device: str | torch.device,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> None:
        super().__init__(self._name(options), num_envs, device, observation_space, action_space)
        self._recording: Recording | None = None
        self._given = options

    def _options(self) -> Mapping[str, Any]:
        return self._given

    @classmethod
    def _name(cls, options: Mapping[str, Any]) -> str:
        """Return POPGym's id if the options are those of a level, and the name of the family otherwise."""
        own = {name: value.default for name, value in inspect.signature(cls).parameters.items()}
        for level, changed in cls.LEVELS.items():
            if all(options[name] == changed.get(name, own[name]) for name in options):
                return cls.popgym_id(level)
        return f"rmc/{cls.FAMILY}-v0"

    @classmethod
    def popgym_id(cls, level: str) -> str:
        """Return POPGym's id of a level, such as `popgym-RepeatPreviousEasy-v0`."""
        # POPGym spells three of its ids differently from their class.
        family = "VelocityOnlyCartpole" if cls.FAMILY == "VelocityOnlyCartPole" else cls.FAMILY
        return f"popgym-{family}{level}-v0"

    @abstractmethod
    def _picture(self, scene: Scene, tile_size: int) -> NDArray[np.uint8]:
        """Return a picture [height, width, 3] of one environment."""

    def reset(self, seed: int | None = None) -> Obs:
        obs = super().reset(seed)
        if self._recording is not None:
            self._recording.clear()
        return obs

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        obs = super().load_state_dict(state)
        if self._recording is not None:
            self._recording.clear()
        return obs

    def step(self, actions: Tensor) -> Transition:
        transition = super().step(actions)
        if self._recording is not None:
            self._recording.add(actions, transition)
        return transition

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw what `_picture` draws, from the steps that are recorded since the first picture.

        A state does not hold the recorded steps: after `load_state_dict`, pictures of the running episode
        lack its earlier actions and rewards, such as the mark of the latest answer.
        """
        if self._recording is None:
            self._recording = Recording()
            if final:
                raise RuntimeError("render(final=True) before any other picture: call render() at the start")
        return self._picture(self._recording.scene(self._save(), i, final), tile_size)

    def _restart(
        self, state: Sequence[Tensor], obs: Tensor, done: Tensor, draw: Callable[[int], Sequence[Tensor]]
    ) -> Tensor:
        """Start new episodes where one ended; see `restart`."""
        self._record_end()
        return restart(state, obs, done, draw)

    def _record_end(self) -> None:
        """Record the state for pictures, before new episodes start."""
        if self._recording is not None:
            self._recording.arrived = clone(self._save())

    def _rewards(self, chosen: Tensor, yes: float, no: float) -> Tensor:
        """Return one number where flags [B] are true and another one elsewhere, as float32."""
        return torch.where(chosen, yes, no).to(torch.float32)

    def _take(self, state: Mapping[str, Any], name: str) -> Tensor:
        """Return a copy of a tensor [B, ...] or [T, B, ...] of a saved state, on the device."""
        return state[name].to(self.device, copy=True)


class FixedLength(PopgymTask):
    """A task whose episodes all have the same length, so that all environments are at the same step.

    A subclass sets `length` and implements `_draw`, `_observe` and `_reward`.
    """

    capturable = False  # the host counts the steps

    TRUNCATES: ClassVar[bool] = False
    """Whether the last step truncates the episode; it terminates it otherwise."""

    length: int
    """T, the number of steps of an episode."""
    _time = 0

    @abstractmethod
    def _draw(self) -> None:
        """Draw the content of an episode for every environment."""

    @abstractmethod
    def _observe(self) -> FullObs:
        """Return the observations [B, ...] after `_time` steps of the episode."""

    @abstractmethod
    def _reward(self, actions: Tensor) -> Tensor:
        """Return the rewards [B] of the actions after `_time` steps; change the state, if there is one."""

    def _begin(self) -> FullObs:
        self._time = 0
        self._draw()
        return self._observe()

    def _advance(self, actions: Tensor) -> Transition:
        reward = self._reward(actions)
        self._time += 1
        obs, never = self._observe(), self._none()
        if self._time < self.length:
            return Transition(obs, reward, never, never, obs)
        self._record_end()
        ends = (never, ~never) if self.TRUNCATES else (~never, never)
        return Transition(self._begin(), reward, *ends, obs)

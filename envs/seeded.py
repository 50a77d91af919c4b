"""Base of native tasks: one random generator on the device, what all of them check, and new episodes for
some rows."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import BatchedEnv, Obs, Transition
from rmc_agents.errors import shown
from rmc_agents.tree import clone

from .fixed_addresses import FixedAddresses
from .numbers import MAX_ENVS, require_whole, whole_seed
from .saved_options import require_rows, require_same_options, saved_options


class SeededTask(BatchedEnv):
    """A task with one `torch.Generator` on its device.

    A subclass implements `_begin`, `_advance`, `_save`, `_restore` and `_render`. This class seeds the
    generator, refuses a step or a picture before the first reset and actions of the wrong shape, saves the
    generator, and refuses states of a task with other options: the arguments of its constructor that are
    attributes of the same name, or what `_options` returns. A subclass replaces a None that stands for a
    number by that number. A subclass whose steps change nothing but tensors, which are attributes or in
    dictionaries and tuples that are, says `capturable = True`: then a CUDA graph can record its steps.

    Args:
        task: name of the task.
        num_envs: B.
        device: any torch device, including `"meta"`.
        observation_space: of one environment.
        action_space: of one environment.

    Raises:
        ValueError: `num_envs` is out of range.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        device: str | torch.device,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> None:
        require_whole("num_envs", num_envs, 1, MAX_ENVS)
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.observation_space, self.action_space = observation_space, action_space
        self.tasks = (task,)
        self.task_of = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._generator = None
        if self.device.type != "meta":  # it has no generators
            self._generator = torch.Generator(self.device)
            self._generator.seed()
            self.generators = (self._generator,)
        self._addresses = FixedAddresses(self)
        self._recorded_options: dict[str, Any] | None = None
        self._was_reset = False

    @abstractmethod
    def _begin(self) -> Obs:
        """Start a new episode in every environment, and return the first observations."""

    @abstractmethod
    def _advance(self, actions: Tensor) -> Transition:
        """Move every environment by one action of the right shape."""

    @abstractmethod
    def _save(self) -> dict[str, Any]:
        """Return everything that the next step depends on but the generator and the options."""

    @abstractmethod
    def _restore(self, state: dict[str, Any]) -> Obs:
        """Continue from what `_save` returned in a task with the same options; return its observations.

        Raises:
            ValueError: the state belongs to another number of environments.
        """

    @abstractmethod
    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw environment i for `render`, after a reset."""

    def reset(self, seed: int | None = None) -> Obs:
        """Start a new episode in every environment, and return the observations.

        Args:
            seed: of the generator, from 0 to 2**63 - 1; None continues its sequence.

        Raises:
            ValueError: a seed that is no such number.
        """
        seed = whole_seed(seed)
        if seed is not None and self._generator is not None:
            self._generator.manual_seed(seed)
        self._was_reset = True
        return self._begin()

    def step(self, actions: Tensor) -> Transition:
        self._require_reset("step")
        self.require_actions(actions)
        return self._advance(actions)

    def prepare_steps(self, count: int) -> None:
        if not self.capturable:
            super().prepare_steps(count)
        options = dict(self._options())
        if self._recorded_options not in (None, options):
            raise RuntimeError(
                f"{self.tasks[0]}: an option was changed, which a CUDA graph of earlier steps would not see: "
                "make a new task, or train with graphs=False"
            )
        self._recorded_options = options
        self._addresses.prepare()

    def recorded_steps(self) -> AbstractContextManager[None]:
        return self._addresses.steps() if self.capturable else super().recorded_steps()

    def state_dict(self) -> dict[str, Any]:
        self._require_reset("state_dict")
        generator = None if self._generator is None else self._generator.get_state()
        # Copies, since recorded steps change the state in place.
        options = saved_options(self, self._options())
        return {**clone(self._save()), "generator": generator, "options": options}

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        """Continue from a state of a task with the same options, and return its observations.

        Raises:
            ValueError: the state belongs to another number of environments, or to a task of another class or
                with other options, which the message names. States of older versions lack the options, and
                are not compared.
        """
        if not isinstance(state, dict) or "generator" not in state:
            raise ValueError(
                f"{shown(repr(state), 60)} is no state of {self.tasks[0]}: expected a state_dict"
            )
        require_same_options(state.get("options"), saved_options(self, self._options()))
        obs = self._restore(state)
        self._was_reset = True
        if self._generator is not None:
            self._generator.set_state(state["generator"].cpu())
        return obs

    def render(self, i: int = 0, final: bool = False, tile_size: int = 32) -> NDArray[np.uint8]:
        """Draw environment i, [height, width, 3], with what the agent does not see faded.

        Args:
            i: index of the environment.
            final: draw the state after the last step, before its autoreset: if an episode ended in it, the
                last picture of that episode (`final_obs`) instead of the first of the next one (`obs`).
            tile_size: pixels per side of a cell.

        Raises:
            RuntimeError: called before the first `reset`, or `final` before any other picture of a task that
                records what its pictures need from the first call on (POPGym's tasks).
        """
        self._require_reset("render")
        return self._render(i, final, tile_size)

    def _require_reset(self, what: str) -> None:
        """Raise RuntimeError before the first `reset`."""
        if not self._was_reset:
            raise RuntimeError(f"{what} before the first reset: call reset(seed) first")

    def _options(self) -> Mapping[str, Any]:
        """Return the options that decide the rules, by name."""
        return {
            name: getattr(self, name)
            for kind in type(self).__mro__[::-1]
            if issubclass(kind, SeededTask) and kind is not SeededTask
            for name in inspect.signature(kind).parameters
            if name not in ("num_envs", "device") and hasattr(self, name)
        }

    def _require_rows(self, count: int) -> None:
        """Raise ValueError unless a state is of as many environments as this batch."""
        require_rows(count, self.num_envs)

    def _none(self) -> Tensor:
        """Return [B] flags that are false, in a new tensor."""
        return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)


def restart(
    state: Sequence[Tensor], obs: Tensor, done: Tensor, draw: Callable[[int], Sequence[Tensor]]
) -> Tensor:
    """Start new episodes where one ended, and return the observations to act on next.

    On a CPU only the rows that are needed are drawn. On other devices the host would have to wait until it
    knew how many there are, so rows are drawn for all environments.

    Args:
        state: tensors [B, ...], whose rows are replaced in place.
        obs: [B, ...] the last observations, which stay as they are.
        done: [B] bool, where an episode ended.
        draw: draws n new episodes: the rows of the state, and the first observations, [n, ...] each.
    """
    if done.device.type == "cpu":
        rows = done.nonzero().squeeze(1)
        if not len(rows):
            return obs
        obs = obs.clone()
        for tensor, new in zip((*state, obs), draw(len(rows)), strict=True):
            tensor.index_copy_(0, rows, new)
        return obs
    return restart_without_waiting(state, obs, done, draw)


def restart_without_waiting(
    state: Sequence[Tensor], obs: Tensor, done: Tensor, draw: Callable[[int], Sequence[Tensor]]
) -> Tensor:
    """Do as `restart`, with rows drawn for all environments."""
    obs = obs.clone()
    for tensor, new in zip((*state, obs), draw(len(done)), strict=True):
        tensor.copy_(torch.where(done.view(-1, *[1] * (tensor.ndim - 1)), new, tensor))
    return obs

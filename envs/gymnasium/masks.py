"""Action masks from the infos of Gymnasium environments.

Axes: B environments, P choices of all components of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from rmc_agents.environment import EnvironmentFailed
from rmc_agents.spaces.masks import INFO_KEY, MASKS_ARE_FOR, METHOD, ActionMasks, method_of

from .failures import described

UNREADABLE = "unreadable_action_mask"
"""Name under which `CheckedEnv` says what is wrong with a mask."""


class OwnMasks:
    """The masks of a single environment, as entries of its infos.

    A mask that cannot be read becomes a message, since the agent may not use masks.

    Args:
        env: the environment.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        try:
            masks = ActionMasks(env.action_space)
        except ValueError:  # `GymnasiumEnvs` reports the unsupported space
            masks = None
        self._masks = masks if masks is not None and masks.supported else None
        self._method: Callable[[], Any] | None = None
        if self._masks is not None:
            try:
                self._method = method_of(env)
            except Exception:  # an environment that forbids this before its first reset has no method
                self._method = None

    def entry(self, info: Mapping[str, Any], when: str) -> dict[str, Any]:
        """Return the entry for the infos of a batch: empty without a mask.

        Args:
            info: of the environment's latest `reset` or `step`.
            when: says which one, for the message.
        """
        if self._method is None and INFO_KEY not in info:
            return {}
        if self._masks is None:
            return {UNREADABLE: "gave an action mask for another action space"}
        try:
            value = info[INFO_KEY] if self._method is None else self._method()
        except Exception as error:
            return {UNREADABLE: f"raised {described(error)} in `{METHOD}` {when}"}
        try:
            return {INFO_KEY: self._masks.read(value).copy()}
        except ValueError as error:
            return {UNREADABLE: f"gave {error}, {when}"}


class BatchMasks:
    """The masks of a vector environment.

    Args:
        env: the vector environment.
        name: its id, for messages.
    """

    def __init__(self, env: VectorEnv, name: str) -> None:
        self.name, self.num_envs = name, env.num_envs
        self._masks = ActionMasks(env.single_action_space)
        self._ask = _asked(env)
        self._infos: Mapping[str, Any] = {}
        self._fillers: NDArray[np.bool_] | None = None
        self._given = False
        self._when = ""
        self._told = False

    def start(self, infos: Mapping[str, Any]) -> None:
        """Take the infos of a reset, which decide whether there are masks."""
        self._infos, self._fillers, self._when = infos, None, "reset"
        self._given |= bool(infos.keys() & {INFO_KEY, UNREADABLE}) or self._ask is not None

    def advance(self, infos: Mapping[str, Any], fillers: NDArray[np.bool_] | None, steps: int) -> None:
        """Take the infos of a step.

        Args:
            infos: the infos.
            fillers: [B] the environments that ignore their next action; None if none do.
            steps: number of steps since the reset.
        """
        self._infos, self._fillers, self._when = infos, fillers, f"step {steps} of the batch"

    def messages(self) -> list[str]:
        """Return, once, a warning about masks that are not read."""
        if self._told or not self._infos.keys() & {INFO_KEY, UNREADABLE}:
            return []
        if not self._masks.supported:
            why = f"{MASKS_ARE_FOR}, not {self._masks.space}"
        elif not self._given:
            why = f"an environment has to give one in the info of `reset`, too, or have a method `{METHOD}`"
        else:
            return []
        self._told = True
        return [f"warning: the action masks of {self.name} are not used: {why}"]

    def read(self) -> NDArray[np.bool_] | None:
        """Return new masks [B, P]; None if the environments give none.

        Raises:
            EnvironmentFailed: one gave no mask, or one that cannot be read.
        """
        if not (self._given and self._masks.supported):
            return None
        values = self._infos.get(INFO_KEY) if self._ask is None else self._ask()
        problems = self._infos.get(UNREADABLE)
        if problems is not None:
            row = int(np.flatnonzero(self._infos[f"_{UNREADABLE}"])[0])
            raise EnvironmentFailed(f"environment {row} ({self.name}) {problems[row]}")
        there = self._infos.get(f"_{INFO_KEY}") if self._ask is None else None
        if self._fillers is None and isinstance(values, np.ndarray) and (there is None or there.all()):
            try:
                return self._masks.read(values, self.num_envs).copy()
            except ValueError:
                pass  # the message names the environment
        return np.stack([self._row(values, there, row) for row in range(self.num_envs)])

    def _row(self, values: Any, there: Any, row: int) -> NDArray[np.bool_]:
        if self._fillers is not None and self._fillers[row]:
            return np.ones(sum(self._masks.sizes), dtype=bool)
        if values is None or (there is not None and not there[row]):
            raise self._failed(row, "no action mask, but gave one before")
        try:
            return self._masks.read(values[row])
        except (LookupError, TypeError, ValueError) as error:
            raise self._failed(row, str(error)) from error

    def _failed(self, row: int, what: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"environment {row} ({self.name}) gave {what}, at {self._when}")


def _asked(env: VectorEnv) -> Callable[[], Any] | None:
    """Return what calls the method of each environment of an `AsyncVectorEnv`; None if they have none.

    In other vector environments, `CheckedEnv` calls it.
    """
    inner = env
    while isinstance(inner, VectorWrapper):
        inner = inner.env
    if not isinstance(inner, AsyncVectorEnv):
        return None
    try:
        if not all(inner.call("has_wrapper_attr", METHOD)):
            return None
    except Exception:
        return None
    return lambda: inner.call(METHOD)

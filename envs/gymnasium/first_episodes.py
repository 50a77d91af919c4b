"""Single Gymnasium environments that play one episode each: for evaluation in waves of equal size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array, iterate

from rmc_agents.spaces.masks import INFO_KEY

from ..numbers import whole_seed


@final
class FirstEpisodes(VectorEnv):
    """Environments that play one episode after each reset and are not stepped after its end.

    With an autoreset, environments with short episodes would start further ones, which are not counted, until
    the longest episode of the wave has ended. Here the row of an environment whose episode has ended repeats
    its last observation, with a reward of 0, and allows every action.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 - as Gymnasium's

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env]]) -> None:
        """
        Args:
            makers: a function for each environment that builds it; all with the same spaces.
        """
        self.envs: list[gymnasium.Env] = []
        try:
            for make in makers:
                self.envs.append(make())
        except BaseException:
            self.close_extras()
            raise
        self.num_envs = len(self.envs)
        self.spec = self.envs[0].spec
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._rows: Any = _with_lists(create_empty_array(self.single_observation_space, self.num_envs))
        self._running: list[int] = []
        self._unrestricted: dict[str, Any] = {}  # info of environments whose episode has ended

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if isinstance(seed, list):
            seeds = [whole_seed(own) for own in seed]
        else:
            first = whole_seed(seed)
            seeds = [None if first is None else first + i for i in range(self.num_envs)]
        infos: dict[str, Any] = {}
        for i, env in enumerate(self.envs):
            obs, info = env.reset(seed=seeds[i], options=options)
            _write_row(self._rows, i, obs)
            infos = self._add_info(infos, info, i)
        self._unrestricted = (
            {INFO_KEY: np.ones_like(infos[INFO_KEY][0], dtype=bool)} if INFO_KEY in infos else {}
        )
        self._running = list(range(self.num_envs))
        return self._rows, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        infos: dict[str, Any] = {}
        single_actions = list(iterate(self.action_space, actions))
        for i in self._running:
            obs, reward, terminated[i], truncated[i], info = self.envs[i].step(single_actions[i])
            rewards[i] = reward
            _write_row(self._rows, i, obs)
            if terminated[i] or truncated[i]:
                infos = self._add_info(infos, {"final_obs": obs, "final_info": info}, i)
            else:
                infos = self._add_info(infos, info, i)
        self._running = [i for i in self._running if not (terminated[i] or truncated[i])]
        if self._unrestricted:
            for i in set(range(self.num_envs)) - set(self._running):
                infos = self._add_info(infos, self._unrestricted, i)
        return self._rows, rewards, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()


def _write_row(rows: Any, i: int, obs: Any) -> None:
    """Write one environment's observation into row i of a batch, in which texts are lists."""
    if isinstance(rows, list):
        rows[i] = obs
    elif isinstance(rows, dict):
        for key, part in rows.items():
            _write_row(part, i, obs[key])
    elif isinstance(rows, tuple) and isinstance(obs, tuple):
        for part, one in zip(rows, obs, strict=True):
            _write_row(part, i, one)
    elif isinstance(rows, np.ndarray):
        rows[i] = obs


def _with_lists(rows: Any) -> Any:
    """Return an empty batch with lists in the place of tuples of texts, whose rows cannot be replaced."""
    if isinstance(rows, dict):
        return {key: _with_lists(part) for key, part in rows.items()}
    if isinstance(rows, tuple):
        return list(rows) if all(isinstance(part, str) for part in rows) else tuple(map(_with_lists, rows))
    return rows

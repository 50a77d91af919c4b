"""Environments to be judged in: suites of ids, whose implementation, and episodes that are played once.

B environments.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array, iterate

from envs.base import BatchedEnv
from envs.gymnasium_adapter import GymnasiumEnvs
from envs.minigrid_tables import MazeSpec
from envs.registry import MEMORY_MAZES, farama, native

Implementation = Literal["farama", "batched", "gymnasium"]
"""farama: MiniGrid's own environments, one by one; batched: ours, as tensors; gymnasium: any other id."""

Suite = Literal["memory-mazes"]

LONGER_MAZES = tuple(f"MiniGrid-MemoryS{size}-v0" for size in (17, 25, 33, 65))
"""Mazes of fixed length beyond those that MiniGrid registers."""
SUITES: dict[Suite, tuple[str, ...]] = {"memory-mazes": (*MEMORY_MAZES, *LONGER_MAZES)}
assert set(SUITES) == set(get_args(Suite))

GRIDS = ("MiniGrid-", "BabyAI-")
LARGEST_WAVE: dict[Implementation, int] = {"farama": 500, "batched": 4096, "gymnasium": 32}
"""Environments stepped together; those that we do not know may be large."""


def choose_implementation(
    env_id: str, asked: Literal["auto", "farama", "batched"] = "auto"
) -> Implementation:
    """Whose environments to judge in: by themselves MiniGrid's own for the ids that it registers.

    A maze of a size that MiniGrid does not register is built by Farama's class too where that is asked for,
    but not by itself: an episode that is never solved takes 5 size^2 steps, one by one.

    Raises:
        ValueError: this environment does not come in the implementation asked for.
    """
    ours = native(env_id) is not None
    if asked == "batched" and not ours:
        raise ValueError(f"{env_id} has no batched implementation; leave out --implementation")
    if asked == "farama" and not env_id.startswith(GRIDS):
        raise ValueError(f"{env_id} is not one of Farama's MiniGrid; leave out --implementation")
    if asked != "auto":
        return asked
    registered = env_id in MEMORY_MAZES or (env_id.startswith(GRIDS) and MazeSpec.from_id(env_id) is None)
    if registered:
        return "farama"
    return "batched" if ours else "gymnasium"


def trials(
    env_id: str,
    kind: Implementation,
    episodes: int,
    device: str | torch.device = "cpu",
    options: dict[str, Any] | None = None,
) -> BatchedEnv:
    """Environments for waves of equal size, environment i of a batch having a generator of its own.

    Args:
        env_id: what to build.
        kind: whose; see `choose_implementation`.
        episodes: how many will be played; decides B.
        device: of the tensors.
        options: of the environment, as in `envs.make`.
    """
    options = options or {}
    num_envs = math.ceil(episodes / math.ceil(episodes / LARGEST_WAVE[kind]))
    build = native(env_id)
    if kind == "batched" and build is not None:
        if "seeding" in inspect.signature(build).parameters:
            options = {**options, "seeding": "farama"}
        return build(num_envs=num_envs, device=device, **options)
    vector = FirstEpisodes([farama(env_id, **options)] * num_envs)
    return GymnasiumEnvs(vector, device, name=env_id, reward_is_success=env_id.startswith(GRIDS))


class FirstEpisodes(VectorEnv):
    """Single environments that each play one episode after a reset, and then cost nothing.

    An autoreset would go on to play episodes that nobody counts while the longest of a wave is finished.
    After its end an environment's row repeats its last observation with a reward of 0.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 - as Gymnasium's

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env]]) -> None:
        self.envs = [make() for make in makers]
        self.num_envs = len(self.envs)
        self.spec = self.envs[0].spec
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._rows: Any = create_empty_array(self.single_observation_space, self.num_envs)
        self._running: list[int] = []

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        infos: dict[str, Any] = {}
        for i, env in enumerate(self.envs):
            own = seed[i] if isinstance(seed, list) else None if seed is None else seed + i
            obs, info = env.reset(seed=own, options=options)
            _put(self._rows, i, obs)
            infos = self._add_info(infos, info, i)
        self._running = list(range(self.num_envs))
        return self._rows, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        infos: dict[str, Any] = {}
        each = list(iterate(self.action_space, actions))
        for i in self._running:
            obs, reward, terminated[i], truncated[i], info = self.envs[i].step(each[i])
            rewards[i] = reward
            _put(self._rows, i, obs)
            if terminated[i] or truncated[i]:
                infos = self._add_info(infos, {"final_obs": obs, "final_info": info}, i)
        self._running = [i for i in self._running if not (terminated[i] or truncated[i])]
        return self._rows, rewards, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()


def _put(rows: Any, i: int, obs: Any) -> None:
    """Write one environment's observation into its row of a batch; texts have no rows and are left out."""
    if isinstance(rows, dict):
        for key, part in rows.items():
            _put(part, i, obs[key])
    elif isinstance(rows, tuple) and isinstance(obs, tuple):
        for part, one in zip(rows, obs, strict=True):
            _put(part, i, one)
    elif isinstance(rows, np.ndarray):
        rows[i] = obs

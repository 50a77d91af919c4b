"""Environments for evaluation: suites of ids, the choice of an implementation, and batches of episodes."""

from __future__ import annotations

import inspect
import math
from typing import Any, Literal, get_args

import torch

from rmc_agents.environment import BatchedEnv

from .building import adapted, batched_by_itself, checked_makers, require_options
from .gymnasium.failures import building
from .gymnasium.first_episodes import FirstEpisodes
from .minigrid.reference import is_minigrid
from .popgym.levels import ids_of
from .registry import MEMORY_MAZES, native, resolve

Implementation = Literal["farama", "batched", "gymnasium"]
"""farama: MiniGrid's own environments, one by one; batched: a native task; gymnasium: any other id."""

Suite = Literal["memory-mazes", "popgym-easy", "popgym-medium", "popgym-hard"]

LONGER_MAZES = tuple(f"MiniGrid-MemoryS{size}-v0" for size in (17, 25, 33, 65))
"""Mazes of fixed length beyond those that MiniGrid registers."""
SUITES: dict[Suite, tuple[str, ...]] = {
    "memory-mazes": (*MEMORY_MAZES, *LONGER_MAZES),
    "popgym-easy": ids_of("Easy"),
    "popgym-medium": ids_of("Medium"),
    "popgym-hard": ids_of("Hard"),
}
OWN_TASK_ONLY: tuple[Suite, ...] = ("popgym-easy", "popgym-medium", "popgym-hard")
"""Suites whose tasks have different spaces: an agent is evaluated in the one that it was trained in."""
assert set(SUITES) == set(get_args(Suite))

MAX_WAVE_SIZE: dict[Implementation, int] = {"farama": 500, "batched": 4096, "gymnasium": 32}
"""Number of environments stepped together; 32 of an unknown kind, which may be large."""


def choose_implementation(
    env_id: str, asked: Literal["auto", "farama", "batched"] = "auto"
) -> Implementation:
    """Return whose environments to evaluate in; with "auto", MiniGrid's own for the ids that it registers.

    Farama's class can also build mazes of other sizes, but "auto" uses the batched ones for them, because an
    unsolved episode takes 5 size^2 steps, one by one.

    Raises:
        ValueError: this environment does not have the implementation asked for.
    """
    name = resolve(env_id)
    is_native = native(env_id) is not None
    if asked == "batched" and not is_native:
        raise ValueError(f"{env_id} has no batched implementation: choose 'auto'")
    if asked == "farama" and not is_minigrid(name):
        raise ValueError(f"{env_id} is not one of Farama's MiniGrid: choose 'auto'")
    if asked != "auto":
        return asked
    if name in MEMORY_MAZES or (is_minigrid(name) and not is_native):
        return "farama"
    return "batched" if is_native else "gymnasium"


def trials(
    env_id: str,
    kind: Implementation,
    episodes: int,
    device: str | torch.device = "cpu",
    options: dict[str, Any] | None = None,
) -> BatchedEnv:
    """Build environments to play `episodes` episodes in waves of equal size, each environment with its own
    seed.

    Args:
        env_id: as in `rmc_envs.make`.
        kind: whose implementation; see `choose_implementation`.
        episodes: number of episodes to play; it determines B.
        device: of the tensors.
        options: of the environment, as in `rmc_envs.make`.

    Raises:
        ValueError: an unknown id, or an option that the environment does not have.
    """
    options = options or {}
    num_envs = math.ceil(episodes / math.ceil(episodes / MAX_WAVE_SIZE[kind]))
    builder = native(env_id)
    if kind == "batched" and builder is not None:
        if "seeding" in inspect.signature(builder).parameters:
            options = {**options, "seeding": "farama"}
        require_options(env_id, builder, options)
        with building(env_id, options):
            return builder(num_envs=num_envs, device=device, **options)
    vector = batched_by_itself(env_id, num_envs, options)
    if vector is None:
        vector = FirstEpisodes(checked_makers(env_id, num_envs, options))
    return adapted(vector, env_id, options, device)

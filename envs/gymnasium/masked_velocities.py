"""Control tasks with a part of the state hidden: `rmc/MaskedPendulum-v0` and others.

An observation of Gymnasium's control tasks holds positions and velocities. Without the velocities an agent
has to estimate them from the positions that it remembers (Ni et al. 2022), and without the positions it has
to integrate the velocities.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rmc_agents.errors import UsageError

Hidden = Literal["velocities", "positions"]
ENTRY_POINT = "rmc_envs.gymnasium.masked_velocities:make_masked"


@dataclass(frozen=True)
class Indices:
    """Indices of an observation by their meaning; numbers that are neither stay visible."""

    positions: tuple[int, ...]
    velocities: tuple[int, ...]


SOURCES = {
    "rmc/MaskedCartPole-v0": "CartPole-v1",
    "rmc/MaskedPendulum-v0": "Pendulum-v1",
    "rmc/MaskedHopper-v0": "Hopper-v5",
    "rmc/MaskedHalfCheetah-v0": "HalfCheetah-v5",
    "rmc/MaskedWalker2d-v0": "Walker2d-v5",
    "rmc/MaskedAnt-v0": "Ant-v5",
}
"""Id of each masked task: the id of Gymnasium's task."""
CLASSIC = {
    "CartPole-v1": Indices(positions=(0, 2), velocities=(1, 3)),
    "Pendulum-v1": Indices(positions=(0, 1), velocities=(2,)),
}
"""Indices of the tasks that do not name them; those of MuJoCo do, since their options change them."""
OWN_OPTIONS: dict[str, dict[str, Any]] = {
    # Contact forces are neither positions nor velocities, and reveal the latter.
    "Ant-v5": {"include_cfrc_ext_in_observation": False},
}
"""Options that differ from those of Gymnasium's task."""


class HiddenNumbers(gymnasium.ObservationWrapper):
    """An environment with some numbers of its observation left out.

    Args:
        env: an environment whose observations are vectors.
        hidden: indices of the numbers.
    """

    def __init__(self, env: gymnasium.Env, hidden: tuple[int, ...]) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Box)
        self._visible = np.setdiff1d(np.arange(space.shape[0]), hidden)
        low, high = space.low[self._visible], space.high[self._visible]
        self.observation_space = spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr]

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        return observation[self._visible]


def make_masked(task: str, hide: Hidden = "velocities", **options: Any) -> gymnasium.Env:
    """Build one of Gymnasium's control tasks without the velocities in its observations.

    Dynamics, rewards and ends of episodes are those of Gymnasium's task. The time limit is up to the caller.

    Args:
        task: id of the masked task, a key of `SOURCES`.
        hide: the numbers that are left out: "velocities" or "positions".
        options: of Gymnasium's task.

    Raises:
        ValueError: another `hide`, or MuJoCo is not installed.
    """
    source = SOURCES[task]
    if hide not in ("velocities", "positions"):
        raise ValueError(f"hide={hide!r}: expected 'velocities' or 'positions'")
    if source not in CLASSIC:
        _require_mujoco(task)
    options = {**OWN_OPTIONS.get(source, {}), **options}
    # The registered masked task has the time limit and Gymnasium's checker.
    env = gymnasium.make(source, max_episode_steps=-1, disable_env_checker=True, **options)
    return HiddenNumbers(env, getattr(indices_of(env), hide))


def indices_of(env: gymnasium.Env) -> Indices:
    """Return what the numbers of an observation are, of a task in `SOURCES`."""
    assert env.spec is not None
    if env.spec.id in CLASSIC:
        return CLASSIC[env.spec.id]
    sizes = env.get_wrapper_attr("observation_structure")
    end = sizes["qpos"] + sizes["qvel"]
    return Indices(tuple(range(sizes["qpos"])), tuple(range(sizes["qpos"], end)))


def register_masked() -> None:
    """Register the masked tasks with Gymnasium."""
    for task, source in SOURCES.items():
        spec = gymnasium.spec(source)
        gymnasium.register(
            task,
            entry_point=ENTRY_POINT,
            reward_threshold=spec.reward_threshold,
            max_episode_steps=spec.max_episode_steps,
            kwargs={"task": task},
        )


def _require_mujoco(task: str) -> None:
    if importlib.util.find_spec("mujoco") is None or importlib.util.find_spec("imageio") is None:
        raise UsageError(f"{task} needs MuJoCo: pip install 'rmc-agents[mujoco]'")

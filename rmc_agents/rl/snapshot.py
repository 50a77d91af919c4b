"""Parts of a PPO checkpoint, validated before a trainer continues from them.

A checkpoint may belong to another configuration, or be forged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from gymnasium import spaces

from rmc_agents.environment import BatchedEnv, observing_ids
from rmc_agents.rl.curriculum import Curriculum
from rmc_agents.rl.episode_stats import EpisodeAccumulator, EpisodeWindow
from rmc_agents.rl.optimizer import FlatAdam
from rmc_agents.rl.rollout import Carry
from rmc_agents.rl.seen_rewards import PART as SEEN_REWARDS
from rmc_agents.rl.seen_rewards import SeenRewards, read_seen_rewards
from rmc_agents.runs.weights import non_finite
from rmc_agents.training.rng import convert_state
from rmc_agents.training.snapshot import require_count, require_moments, require_same_form
from rmc_agents.tree import leaves, unflatten

OWN_PARTS = ("generator", "env", "carry", "running")
"""Parts of a state that each process has for itself; all others are equal in all processes."""
_NEWER = ("options", "pictures")
"""Parts of an environments' state that checkpoints of older versions lack; it checks them itself."""


class Episodes(NamedTuple):
    """State in the middle of episodes."""

    running: EpisodeAccumulator
    carry: Carry
    """Saved without the observation."""
    env: dict[str, Any] | None
    """None for environments that cannot save their state."""


class Snapshot(NamedTuple):
    """What a checkpoint holds besides the weights."""

    steps: int
    iterations: int
    seconds: float
    recent: EpisodeWindow
    seen: SeenRewards
    curriculum: Curriculum | None
    moments: dict[int, Any]
    """Of the optimizer, by parameter."""
    episodes: Episodes | None


def read_snapshot(
    state: Mapping[str, Any],
    *,
    own: Episodes | None,
    actions: spaces.Space[Any],
    num_tasks: int | None,
    optimizer: FlatAdam,
) -> Snapshot:
    """Return the parts of a checkpoint, if they fit the trainer's own.

    Args:
        state: the checkpoint.
        own: the trainer's own episodes; None if those of the checkpoint are not read.
        optimizer: the trainer's own.
        actions: the action space.
        num_tasks: tasks of its curriculum; None for no curriculum.

    Raises:
        KeyError, TypeError, ValueError: a part is missing, or of another form.
    """
    if not isinstance(state["optimizer"], dict):
        raise ValueError("the optimizer's moments are not those of an optimizer")
    steps, iterations = (state[name] for name in ("steps", "iterations"))
    if not (type(steps) is type(iterations) is int and min(steps, iterations) >= 0):
        raise ValueError(f"saved after {steps!r:.60} steps, {iterations!r:.60} iterations")
    return Snapshot(
        require_count("steps", steps),
        require_count("iterations", iterations),
        float(require_count("seconds", state["seconds"], most=1e12)),
        _recent(state["recent"]),
        read_seen_rewards(state.get(SEEN_REWARDS)),
        None if num_tasks is None else _curriculum(state["curriculum"], num_tasks),
        require_moments(optimizer, state["optimizer"]["state"]),
        None if own is None else _episodes(state, own, actions),
    )


def resume_envs(env: BatchedEnv, state: dict[str, Any], carry: Carry, ids: bool) -> Carry:
    """Continue environments from a saved state; return what is carried, with their observations.

    Args:
        env: the environments.
        state: what they saved.
        carry: as saved, without observations.
        ids: whether they return ids of observations.
    """
    if isinstance(state.get("generator"), torch.Tensor):
        state = {**state, "generator": convert_state(state["generator"], env.device)}
    with observing_ids(env, ids):
        return carry._replace(obs=env.load_state_dict(state))


def _episodes(state: Mapping[str, Any], own: Episodes, actions: spaces.Space[Any]) -> Episodes:
    env = state["env"]
    if (env is None) != (own.env is None):
        raise ValueError("the environments were of another kind")
    if env is not None and own.env is not None:
        expected = {name: part for name, part in own.env.items() if name not in _NEWER}
        given = {name: env[name] for name in expected if name in env}  # an older one may hold more
        require_same_form("the environments' state", expected, given)
    return Episodes(
        _running(unflatten(own.running, state["running"])), _carry(own.carry, state["carry"], actions), env
    )


def _recent(rows: Any) -> EpisodeWindow:
    numbers = [(float(n), float(solved), float(returns)) for n, solved, returns in rows]
    for n, solved, returns in numbers:
        if not (1 <= n <= 2**62 and 0 <= solved <= n and math.isfinite(returns)):
            raise ValueError(f"{solved:g} of {n:g} recent episodes solved, with returns of {returns:g}")
    return EpisodeWindow(numbers)


def _curriculum(saved: Any, num_tasks: int) -> Curriculum:
    if saved is None:  # the run had none until now
        return Curriculum(num_tasks)
    curriculum = Curriculum(**saved)
    if curriculum.num_tasks != num_tasks:
        raise ValueError(f"a curriculum of {curriculum.num_tasks} tasks, expected {num_tasks}")
    for count in (*curriculum.episodes, *curriculum.solved):
        require_count("a task's number of episodes", count)
    return curriculum


def _running(saved: EpisodeAccumulator) -> EpisodeAccumulator:
    if not bool(saved.returns.isfinite().all()) or bool((saved.lengths < 0).any()):
        raise ValueError("the sums over unfinished episodes are not those of episodes")
    return saved


def _carry(own: Carry, tensors: Any, actions: spaces.Space[Any]) -> Carry:
    # The environments give the observation. Older checkpoints hold it, too, before the rest.
    rest = own._replace(obs=None)
    older = len(tensors) - len(list(leaves(rest)))
    carry = unflatten(rest, tensors[max(older, 0) :])
    if non_finite(list(leaves(carry.state))):
        raise ValueError("the memories hold numbers that are not finite")
    action = carry.state.action
    if isinstance(actions, spaces.Discrete | spaces.MultiDiscrete):
        sizes = actions.n if isinstance(actions, spaces.Discrete) else actions.nvec
        limit = torch.as_tensor(sizes, device=action.device)
        if not bool(((action >= 0) & (action < limit)).all()):
            raise ValueError("the latest actions are not actions of this task")
    return carry

"""What a checkpoint holds of a training under way, and how the training goes on from it, bit for bit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rmc_agents import checkpoint, episodes
from rmc_agents.actor_critic import ActorCritic
from rmc_agents.curriculum import Curriculum
from rmc_agents.errors import UsageError
from rmc_agents.generators import go_on, state_here
from rmc_agents.rollout import BatchedEnv, Carry, first_carry
from rmc_agents.tree import leaves, unflatten


class Counters(NamedTuple):
    """Numbers of a training, and where its episodes stand."""

    carry: Carry
    running: episodes.Running
    recent: episodes.Recent
    curriculum: Curriculum | None
    steps: int
    iterations: int
    seconds: float


def pack(
    agent: ActorCritic,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    env: BatchedEnv,
    counters: Counters,
) -> dict[str, Any]:
    """Everything that the next iteration depends on: tensors, numbers, and containers of them."""
    return {
        "agent": agent.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
        "env": _env_state(env),
        "carry": [x.clone() for x in leaves(counters.carry)],
        "running": list(counters.running),
        "recent": [list(numbers) for numbers in counters.recent],
        "curriculum": None if counters.curriculum is None else asdict(counters.curriculum),
        "steps": counters.steps,
        "iterations": counters.iterations,
        "seconds": counters.seconds,
    }


def unpack(
    payload: dict[str, Any],
    path: Path,
    agent: ActorCritic,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    env: BatchedEnv,
    carry: Carry,
    curriculum: Curriculum | None,
    seed: int,
) -> tuple[Counters, list[str]]:
    """Put a checkpoint into agent, optimizer, generator and environments; the rest is returned.

    Args:
        payload: what `pack` gave.
        path: where it was read, for messages.
        agent, optimizer, generator, env: of the same configuration; changed in place.
        carry: of the same shapes.
        curriculum: of as many tasks; None if the run has none.
        seed: with which the environments begin anew where they cannot save their state.

    Returns:
        the counters, and what the user should know.

    Raises:
        UsageError: it belongs to another configuration.
    """
    try:
        return _unpack(payload, path, agent, optimizer, generator, env, carry, curriculum, seed)
    except UsageError:
        raise
    except Exception as error:  # whatever a part raises that is given another's numbers
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).split("\n")[0][:200]
        raise UsageError(f"{path} belongs to a run of another configuration: {reason}") from error


def _unpack(
    payload: dict[str, Any],
    path: Path,
    agent: ActorCritic,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    env: BatchedEnv,
    carry: Carry,
    curriculum: Curriculum | None,
    seed: int,
) -> tuple[Counters, list[str]]:
    steps, iterations, seconds = (payload[name] for name in ("steps", "iterations", "seconds"))
    if not (type(steps) is type(iterations) is int and steps >= 0 and float(seconds) >= 0):
        raise ValueError(f"it was saved after {steps!r} steps, {iterations!r} iterations, {seconds!r} s")
    recent = episodes.Recent((float(n), float(s), float(r)) for n, s, r in payload["recent"])
    if curriculum is not None:
        saved = Curriculum(**payload["curriculum"])
        if saved.num_tasks != curriculum.num_tasks:
            raise ValueError(f"a curriculum of {saved.num_tasks} tasks, expected {curriculum.num_tasks}")
        curriculum = saved
    running = unflatten(episodes.fresh_running(env.num_envs, agent.device), payload["running"])
    carry = unflatten(carry, payload["carry"])
    moments = _moments(optimizer, payload["optimizer"]["state"])
    saved_env, own_env = payload["env"], _env_state(env)
    if (saved_env is None) != (own_env is None):
        raise ValueError("its environments were of another kind")
    _require_form("the environments' state", own_env, saved_env)

    checkpoint.load_agent(agent, payload, path)
    # The settings of the groups (learning rate, epsilon) come from the configuration.
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    notes = go_on(generator, payload["generator"])
    if saved_env is not None:
        if isinstance(saved_env.get("generator"), torch.Tensor):
            saved_env = {**saved_env, "generator": state_here(saved_env["generator"], env.device)}
        carry = carry._replace(obs=env.load_state_dict(saved_env))
    else:
        carry = first_carry(agent, env, seed + steps)
        running = episodes.fresh_running(env.num_envs, agent.device)
        notes.append(
            "this environment cannot save its state: its episodes begin afresh, seeded with "
            f"{seed + steps} (--seed plus the steps so far)"
        )
    return Counters(carry, running, recent, curriculum, steps, iterations, float(seconds)), notes


def _env_state(env: BatchedEnv) -> dict[str, Any] | None:
    try:
        return env.state_dict()
    except Exception as error:
        if (
            type(error).__name__ != "StateNotSaved"
        ):  # environments know nothing of this package, nor it of them
            raise
        return None


def _moments(optimizer: torch.optim.Optimizer, state: dict[int, Any]) -> dict[int, Any]:
    """Adam's averages, if they are those of the optimizer's parameters (it does not look itself)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if state and list(state) != list(range(len(parameters))):
        raise ValueError(f"moments of {len(state)} parameters, expected {len(parameters)}")
    for index, moments in state.items():
        shapes = {name: tuple(x.shape) for name, x in moments.items()}
        shape = tuple(parameters[index].shape)
        expected = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
        if shapes != expected:
            raise ValueError(f"moments of shapes {shapes}, expected {expected}")
    return state


def _require_form(where: str, own: Any, given: Any) -> None:
    """Raise ValueError unless two trees have the same keys and types; sizes are the environment's matter."""
    if isinstance(own, torch.Tensor) and isinstance(given, torch.Tensor):
        same = own.ndim == given.ndim and own.dtype == given.dtype
    elif isinstance(own, dict) and isinstance(given, dict):
        same = own.keys() == given.keys()
    else:
        numbers = isinstance(own, int | float) and isinstance(given, int | float)
        same = numbers or own is None or given is None or type(own) is type(given)
    if not same:
        raise ValueError(f"{where} is of another form")
    if isinstance(own, dict) and isinstance(given, dict):
        for key in own:
            _require_form(f"{where} ({key})", own[key], given[key])

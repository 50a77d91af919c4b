"""Episodes with what the memory held at each step and what was so in the world, for probes.

Axes: T steps, B environments (one episode each), F numbers of a part of the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.cores import State
from rmc_agents.evaluation import Policy
from rmc_agents.rollout import Transition
from rmc_agents.tree import Tree, leaves, map_tree

WHOLE = "whole state"
OBSERVATION = "observation"

Edit = Callable[[int, State], State]
"""What is done to a memory after step t."""


class Facts(Protocol):
    """What is so in every environment, whether or not the agent sees it; each [B]."""

    @property
    def cue(self) -> Tensor:
        """What is to be remembered: 0 or 1."""
        ...

    @property
    def cue_in_view(self) -> Tensor: ...

    @property
    def x(self) -> Tensor:
        """The agent's column."""
        ...

    @property
    def situation(self) -> Tensor:
        """Equal where everything but the cue is."""
        ...


class CuedEnv(Protocol):
    """A batched task with a cue to remember, which tells what is so."""

    num_envs: int
    device: torch.device

    def reset(self, seed: int | None = None) -> Any: ...
    def step(self, actions: Tensor) -> Transition: ...
    def facts(self) -> Facts: ...


@dataclass(frozen=True)
class Recording:
    """The first episode of each environment, up to some number of steps.

    Step t is what the agent saw then, and its memory after it read that. What is beyond an episode's end
    belongs to no episode: see `running`.
    """

    memory: State
    """The core's state after each step, [T, B, ...]; None where it was not kept."""
    observation: NDArray[Any]
    """[T, B, F] the present observation, as a linear probe can read it."""
    running: NDArray[np.bool_]
    """[T, B] whether the episode had not ended before step t."""
    in_view: NDArray[np.bool_]
    """[T, B] whether the cue was in view."""
    x: NDArray[np.int64]
    """[T, B] the agent's column."""
    situation: NDArray[np.int64]
    """[T, B] equal where everything but the cue is."""
    history: NDArray[np.int64]
    """[T, B] equal where everything was the same from the first step to this one, the cue included."""
    cue: NDArray[np.int64]
    """[B] 0 or 1."""
    choice: NDArray[np.int64]
    """[B] the cue that the choice at the end would have been right for; -1: no choice within T steps."""

    @cached_property
    def parts(self) -> dict[str, NDArray[Any]]:
        """The memory's parts (`parts_of`) and, for comparison, the observation: [T, B, F] each."""
        parts = {name: part.numpy(force=True) for name, part in parts_of(self.memory, 2).items()}
        return {**parts, OBSERVATION: self.observation}

    @cached_property
    def since(self) -> NDArray[np.int64]:
        """[T, B] steps since the cue was last in view, 0 while it is; -1 where it has not been."""
        step = np.arange(len(self.in_view))[:, None]
        last = np.maximum.accumulate(np.where(self.in_view, step, -1), axis=0)
        return np.where(last >= 0, step - last, -1)

    @property
    def episodes(self) -> int:
        return len(self.cue)

    @property
    def success_rate(self) -> float:
        """Share of the episodes with the right choice within T steps."""
        return float((self.choice == self.cue).mean())


class Wandering:
    """A policy some of whose actions are drawn at random, so that no two episodes need be the same.

    Args:
        policy: it is told what was done (`action` in its state), as an agent is.
        share: of the steps that are random, 0 to 1.
        actions: how many there are.
        seed: of the draws.
    """

    def __init__(self, policy: Policy, share: float, actions: int, seed: int = 0) -> None:
        self.policy, self.share, self.actions = policy, share, actions
        self.generator = torch.Generator().manual_seed(seed)

    def initial_state(self, batch_size: int) -> Tree:
        return self.policy.initial_state(batch_size)

    def act(self, obs: Tree, starts: Tensor, reward: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        acted, state = self.policy.act(obs, starts, reward, state)
        drawn = torch.randint(self.actions, acted.shape, generator=self.generator).to(acted.device)
        random = torch.rand(acted.shape, generator=self.generator).to(acted.device) < self.share
        acted = torch.where(random, drawn, acted)
        return acted, state._replace(action=acted.to(state.action.device))


def parts_of(memory: State, axes: int = 1) -> dict[str, Tensor]:
    """The parts of a core's state by name: its slots, if it has a matrix of them, and the whole.

    Args:
        memory: tensors [B, ...], or [T, B, ...].
        axes: how many of the leading axes are kept; the others become one.
    """
    parts = {}
    slots = getattr(memory, "memory", None)
    if slots is not None and slots.ndim == axes + 2:
        parts = {f"slot {i + 1}": slot for i, slot in enumerate(slots.unbind(axes))}
    flat = [x.flatten(axes) for x in memory]
    return {**parts, WHOLE: torch.cat(flat, dim=axes) if len(flat) > 1 else flat[0]}


def with_part(memory: State, part: str, other: State) -> State:
    """A state with one of its parts (`parts_of`), or some (`"slots 1-3"`), taken from another."""
    if part == WHOLE:
        return other
    first, _, last = part.removeprefix("slots ").removeprefix("slot ").partition("-")
    which = slice(int(first) - 1, int(last or first))
    slots = memory.memory.clone()
    slots[:, which] = other.memory[:, which]
    return memory._replace(memory=slots)


@torch.no_grad()
def record(
    policy: Policy,
    env: CuedEnv,
    seed: int,
    steps: int,
    edit: Edit | None = None,
    only: NDArray[np.bool_] | None = None,
) -> Recording:
    """Play the first episode of every environment.

    The same arguments give the same episodes, and with an `edit` the same ones up to it: the policy's draws
    do not depend on what it did.

    Args:
        policy: its state has the core's state as `memory`, as an agent's has.
        env: the tasks.
        seed: of the episodes.
        steps: T at most; fewer are recorded where all episodes end before.
        edit: changes the memory after each step; None leaves it.
        only: [B] the episodes whose choice is of interest: it ends with them, and keeps no memory.
    """
    obs = env.reset(seed)
    rows, device = env.num_envs, env.device
    state: Any = policy.initial_state(rows)
    starts = torch.ones(rows, dtype=torch.bool, device=device)
    reward = torch.zeros(rows, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    wanted = running if only is None else torch.as_tensor(only, device=device)
    cue = env.facts().cue
    choice = torch.full_like(cue, -1)
    columns: list[tuple[Tensor, ...]] = []
    seen: list[Tensor] = []
    memories: list[State] = []
    for t in range(steps):
        facts = env.facts()
        actions, state = policy.act(obs, starts, reward, state)
        columns.append((running, facts.cue_in_view, facts.x, facts.situation, actions))
        if only is None:
            seen.append(torch.cat([x.reshape(rows, -1) for x in leaves(obs)], dim=1))
            memories.append(state.memory)
        if edit is not None:
            state = state._replace(memory=edit(t, state.memory))
        step = env.step(actions)
        assert step.success is not None
        chosen = torch.where(step.success, cue, 1 - cue)
        choice = torch.where(running & step.terminated, chosen, choice)
        starts = step.terminated | step.truncated
        running = running & ~starts
        obs, reward = step.obs, step.reward
        if not (running & wanted).any():
            break
    runs, in_view, x, situation, acted = (
        torch.stack(c).numpy(force=True) for c in zip(*columns, strict=True)
    )
    cues, choices = cue.numpy(force=True), choice.numpy(force=True)
    memory = map_tree(lambda *tensors: torch.stack(tensors), *memories) if memories else None
    observation = torch.stack(seen).numpy(force=True) if seen else np.zeros((*runs.shape, 0))
    history = _history(situation, acted, cues)
    return Recording(
        memory, _indicators(observation, runs), runs, in_view, x, situation, history, cues, choices
    )


def _history(situation: NDArray[Any], acted: NDArray[Any], cue: NDArray[Any]) -> NDArray[np.int64]:
    """[T, B] numbers of what has happened so far; those of different steps are different."""
    found = np.zeros_like(situation)
    before = cue
    for t, here in enumerate(situation):
        did = acted[t - 1] if t > 0 else np.zeros_like(here)
        before = np.unique(np.stack([before, did, here]), axis=1, return_inverse=True)[1].reshape(-1)
        found[t] = t * len(cue) + before
    return found


def _indicators(observations: NDArray[Any], running: NDArray[np.bool_]) -> NDArray[Any]:
    """Observations [T, B, C] as what a linear probe can read: of categories, which one it is."""
    if not np.issubdtype(observations.dtype, np.integer):
        return observations
    columns = []
    for column in np.moveaxis(observations, -1, 0):
        values = np.unique(column[running])
        columns += [column == value for value in values[: len(values) - 1]]  # the last is none of the others
    return np.stack(columns, axis=-1) if columns else np.zeros((*running.shape, 0), dtype=bool)

"""Recorded episodes for probes: the memory at each step, and the ground truth of the world.

Axes: T steps, B environments (one episode each), F numbers of a part of the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.cores import State
from rmc_agents.environment import CuedEnv
from rmc_agents.errors import UsageError
from rmc_agents.evaluation.episodes import Policy
from rmc_agents.spaces.masks import random_allowed
from rmc_agents.tree import Tree, leaves, map_tree

WHOLE = "whole state"
"""Name of the part that is the complete state of a core."""
OBSERVATION = "observation"
"""Name of the current observation, with which the parts of a memory are compared."""

Edit = Callable[[int, State], State]
"""Changes a core's state after step t: (t, state) -> state."""


@runtime_checkable
class SlotState(Protocol):
    """The state of a core whose memory is a matrix of slots."""

    @property
    def memory(self) -> Tensor:
        """[B, N, D] the slots."""
        ...


@dataclass(frozen=True)
class Recording:
    """The first episode of each environment, up to a number of steps.

    Step t is what the agent observed then, and its memory after it read that. Values beyond the end of an
    episode have no meaning: see `running`.
    """

    memory: State
    """The core's state after each step, [T, B, ...]; None if it was not kept."""
    observation: NDArray[Any]
    """[T, B, F] the current observation, as a linear probe can read it."""
    running: NDArray[np.bool_]
    """[T, B] the episode had not ended before step t."""
    in_view: NDArray[np.bool_]
    """[T, B] the cue was in view."""
    x: NDArray[np.int64]
    """[T, B] the agent's column."""
    state_id: NDArray[np.int64]
    """[T, B] equal where everything but the cue is equal."""
    history: NDArray[np.int64]
    """[T, B] equal where everything was equal from the first step to this one, the cue included."""
    cue: NDArray[np.int64]
    """[B] 0 or 1."""
    choice: NDArray[np.int64]
    """[B] the cue for which the final choice would have been right; -1 if there was no choice within T
    steps."""

    @cached_property
    def parts(self) -> dict[str, NDArray[Any]]:
        """The parts of the memory (see `parts_of`) and, for comparison, the observation: [T, B, F] each."""
        parts = {name: part.numpy(force=True) for name, part in parts_of(self.memory, 2).items()}
        return {**parts, OBSERVATION: self.observation}

    @cached_property
    def since(self) -> NDArray[np.int64]:
        """[T, B] steps since the cue was last in view: 0 while it is, -1 before it has been."""
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


class RandomActions(Policy):
    """A policy with some of its actions replaced by random ones, so that episodes differ from each other.

    If the policy uses action masks, the random actions are drawn from the allowed ones.

    Args:
        policy: the policy; the executed actions are stored as `action` in its state, as an agent's are.
        epsilon: probability that a step's action is random, 0 to 1.
        num_actions: number of actions of the `Discrete` action space.
        seed: of the draws.
    """

    def __init__(self, policy: Policy, epsilon: float, num_actions: int, seed: int = 0) -> None:
        self.policy, self.epsilon, self.num_actions = policy, epsilon, num_actions
        self.uses_action_masks = policy.uses_action_masks
        self.generator = torch.Generator().manual_seed(seed)

    def initial_state(self, batch_size: int) -> Tree:
        return self.policy.initial_state(batch_size)

    def act(
        self,
        obs: Tree,
        episode_starts: Tensor,
        reward: Tensor,
        state: Tree,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tree]:
        masks = () if action_masks is None else (action_masks,)
        acted, state = self.policy.act(obs, episode_starts, reward, state, *masks)
        if action_masks is None:
            drawn = torch.randint(self.num_actions, acted.shape, generator=self.generator)
        else:
            drawn = random_allowed(action_masks, spaces.Discrete(self.num_actions), self.generator)
        drawn = drawn.to(acted.device)
        random = torch.rand(acted.shape, generator=self.generator).to(acted.device) < self.epsilon
        acted = torch.where(random, drawn, acted)
        return acted, state._replace(action=acted.to(state.action.device))


def parts_of(state: State, axes: int = 1) -> dict[str, Tensor]:
    """Return the parts of a core's state by name: its slots, if it has any, and the whole.

    Args:
        state: tensors [B, ...], or [T, B, ...].
        axes: number of leading axes to keep; the others are flattened into one.
    """
    slots = state.memory if isinstance(state, SlotState) else None
    parts = {}
    if slots is not None and slots.ndim == axes + 2:
        parts = {f"slot {i + 1}": slot for i, slot in enumerate(slots.unbind(axes))}
    flat = [x.reshape(*x.shape[:axes], -1) for x in leaves(state)]
    return {**parts, WHOLE: torch.cat(flat, dim=axes) if len(flat) > 1 else flat[0]}


def with_part(state: State, part: str, other: State) -> State:
    """Return a state with one of its parts taken from another: a name of `parts_of`, or such as "slots
    1-3"."""
    if part == WHOLE:
        return other
    first, _, last = part.removeprefix("slots ").removeprefix("slot ").partition("-")
    which = slice(int(first) - 1, int(last or first))
    slots = state.memory.clone()
    slots[:, which] = other.memory[:, which]
    return state._replace(memory=slots)


@torch.no_grad()
def record(
    policy: Policy,
    env: CuedEnv,
    *,
    seed: int,
    steps: int,
    edit: Edit | None = None,
    only: NDArray[np.bool_] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """Play and record the first episode of every environment.

    The same arguments give the same episodes. With an `edit` they are the same up to it, and the policy's
    draws stay the same after it too: they do not depend on the policy's actions.

    Args:
        policy: its state has the core's state as `memory`, as an agent's has.
        env: a batched task with a cue.
        seed: of the episodes.
        steps: T at most; recording stops earlier if all episodes have ended.
        edit: changes the memory after each step; None leaves it as it is.
        only: [B] the episodes whose choice is of interest. Recording stops when they have ended, and keeps
            neither memory nor observations.
        progress: called after each step with the number of steps.

    Raises:
        UsageError: the task does not report success.
    """
    obs = env.reset(seed)
    num_envs, device = env.num_envs, env.device
    state: Any = policy.initial_state(num_envs)
    starts = torch.ones(num_envs, dtype=torch.bool, device=device)
    reward = torch.zeros(num_envs, device=device)
    running = torch.ones(num_envs, dtype=torch.bool, device=device)
    wanted = running if only is None else torch.as_tensor(only, device=device)
    cue = env.ground_truth().cue
    choice = torch.full_like(cue, -1)
    columns: list[tuple[Tensor, ...]] = []
    observations: list[Tensor] = []
    memories: list[State] = []
    for t in range(steps):
        truth = env.ground_truth()
        masks = env.action_masks() if policy.uses_action_masks else None
        actions, state = policy.act(obs, starts, reward, state, *(() if masks is None else (masks,)))
        columns.append((running, truth.cue_in_view, truth.x, truth.state_id, actions))
        if only is None:
            observations.append(torch.cat([x.reshape(num_envs, -1) for x in leaves(obs)], dim=1))
            memories.append(state.memory)
        if edit is not None:
            state = state._replace(memory=edit(t, state.memory))
        step = env.step(actions)
        if step.success is None:
            raise UsageError("recordings need an environment that reports success")
        chosen = torch.where(step.success, cue, 1 - cue)
        choice = torch.where(running & step.terminated, chosen, choice)
        obs, reward, starts = step.obs, step.reward, step.done
        running = running & ~starts
        if progress is not None:
            progress(t + 1)
        if not (running & wanted).any():
            break
    was_running, in_view, x, state_id, acted = (
        torch.stack(column).numpy(force=True) for column in zip(*columns, strict=True)
    )
    cues = cue.numpy(force=True)
    observation = (
        torch.stack(observations).numpy(force=True) if observations else np.zeros((*was_running.shape, 0))
    )
    return Recording(
        memory=map_tree(lambda *tensors: torch.stack(tensors), *memories) if memories else None,
        observation=_indicators(observation, was_running),
        running=was_running,
        in_view=in_view,
        x=x,
        state_id=state_id,
        history=_histories(state_id, acted, cues),
        cue=cues,
        choice=choice.numpy(force=True),
    )


def _histories(state_id: NDArray[Any], acted: NDArray[Any], cue: NDArray[Any]) -> NDArray[np.int64]:
    """Number the histories up to each step, [T, B]; different steps have different numbers."""
    found = np.zeros_like(state_id)
    before = cue
    for t, here in enumerate(state_id):
        did = acted[t - 1] if t > 0 else np.zeros_like(here)
        before = np.unique(np.stack([before, did, here]), axis=1, return_inverse=True)[1].reshape(-1)
        found[t] = t * len(cue) + before
    return found


def _indicators(observations: NDArray[Any], running: NDArray[np.bool_]) -> NDArray[Any]:
    """Encode observations [T, B, C] for a linear probe: integers become one indicator per category."""
    if not np.issubdtype(observations.dtype, np.integer):
        return observations
    columns = []
    for column in np.moveaxis(observations, -1, 0):
        values = np.unique(column[running])
        columns += [column == value for value in values[: len(values) - 1]]  # the others imply the last one
    return np.stack(columns, axis=-1) if columns else np.zeros((*running.shape, 0), dtype=bool)

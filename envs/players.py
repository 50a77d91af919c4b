"""Base of the players: policies that see observations, and remember what they like.

Axes: B environments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.environment import BatchedEnv, FullObs


class Player(ABC):
    """A policy for one batch. It reads the sizes of the task and its observations, and never its state.

    Args:
        task: the batch that is played.
        seed: of the player's random choices.
    """

    def __init__(self, task: Any, seed: int = 0) -> None:
        self.task, self.num_envs = task, task.num_envs
        self.generator = torch.Generator().manual_seed(seed)
        self.step = torch.zeros(self.num_envs, dtype=torch.int64)  # [B] steps since the start of the episode
        self.rows = torch.arange(self.num_envs)

    def act(self, obs: FullObs, starts: Tensor) -> Tensor:
        """Return actions [B, ...].

        Args:
            obs: [B, ...].
            starts: [B] bool, true where `obs` is the first observation of an episode.
        """
        self.step = torch.where(starts, 0, self.step + 1)
        return self.choose(obs, starts)

    @abstractmethod
    def choose(self, obs: Any, starts: Tensor) -> Tensor:
        """Return actions [B, ...], and remember what later steps need."""

    def uniform(self, *shape: int) -> Tensor:
        """Return random numbers from 0 to 1."""
        return torch.rand(shape, generator=self.generator)

    def integers(self, below: int) -> Tensor:
        """Return [B] random integers."""
        return torch.randint(below, (self.num_envs,), generator=self.generator)

    def random_of(self, allowed: Tensor) -> Tensor:
        """Return [B] places drawn uniformly among those that are allowed [B, n]; 0 where none is."""
        return torch.where(allowed, self.uniform(*allowed.shape), -1.0).argmax(1)


class RandomPlayer(Player):
    """Draws every action uniformly."""

    def choose(self, obs: Any, starts: Tensor) -> Tensor:
        space = self.task.action_space
        if isinstance(space, spaces.Discrete):
            return self.integers(int(space.n))
        if isinstance(space, spaces.MultiDiscrete):
            return torch.stack([self.integers(int(n)) for n in space.nvec], dim=1)
        low, high = (torch.from_numpy(bound) for bound in (space.low, space.high))
        return low + (high - low) * self.uniform(self.num_envs, *space.shape)


def play(task: BatchedEnv, player: Player, episodes: int, seed: int) -> Tensor:
    """Return the returns of the first episodes of all environments, again and again until there are enough.

    Args:
        task: the batch; it is reset.
        player: of the same batch.
        episodes: number of returns, at least.
        seed: of the batch.
    """
    returns = []
    obs = task.reset(seed)
    while len(returns) * task.num_envs < episodes:
        if returns:
            obs = task.reset()
        starts = torch.ones(task.num_envs, dtype=torch.bool)
        total, running = torch.zeros(task.num_envs, dtype=torch.float64), starts
        while bool(running.any()):
            step = task.step(player.act(obs, starts))  # type: ignore[arg-type]
            total = total + step.reward * running
            running, obs, starts = running & ~step.done, step.obs, step.done
        returns.append(total)
    return torch.cat(returns)

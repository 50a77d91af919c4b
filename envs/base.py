"""The contract of a batched environment: one `step` moves all environments at once, on one device.

B is the number of environments. Everything is a tensor with the batch axis first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

Obs = Tensor | dict[str, Tensor]
"""A batch of observations: one tensor [B, ...], or a tensor for each key of a `Dict` space."""


class Transition(NamedTuple):
    """What one step of all environments returned. Autoreset is SAME_STEP."""

    obs: Obs
    """[B, ...] what to act on next; where an episode has just ended, the first of the next one."""
    reward: Tensor
    """[B] float32."""
    terminated: Tensor
    """[B] bool: the task itself ended the episode, so nothing of value comes after it."""
    truncated: Tensor
    """[B] bool: a limit of time cut the episode, so its value goes on. Both may be true."""
    final_obs: Obs
    """[B, ...] the last observation of the episode that ended; where none ended, equal to `obs`."""
    success: Tensor | None = None
    """[B] bool: an episode ended here and was solved. None where the task does not say."""
    valid: Tensor | None = None
    """[B] bool: false marks the filler step of a NEXT_STEP environment, which no loss may see.
    None means that every row is real."""


class Hints(NamedTuple):
    """What is worth knowing, and where it can be known: an aid of training, which no policy reads."""

    values: Tensor
    """[..., K] numbers, each about as large as a normal number."""
    weights: Tensor
    """[..., K] how much each of them matters; 0 where it cannot be known from what has been shown."""


class BatchedEnv(ABC):
    """`num_envs` copies of a task that move together, as tensors on `device`.

    Attributes:
        observation_space: the space of **one** environment's observation.
        action_space: the space of **one** environment's action.
        num_envs: B.
        device: where every tensor of `reset` and `step` lives.
        tasks: the names of the tasks in the batch; more than one for a mixture.
        task_of: [B] int64, the index into `tasks` of each environment; only `assign` changes it, in
            environments that have it.
        hint_size: K, how many numbers `hints` tells; 0 for a task that has none.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    num_envs: int
    device: torch.device
    tasks: tuple[str, ...]
    task_of: Tensor
    hint_size: int = 0

    @abstractmethod
    def reset(self, seed: int | None = None) -> Obs:
        """Start a new episode in every environment.

        Args:
            seed: fixes every episode from here on (environment i is seeded `seed + i` where each
                has a generator of its own). None goes on with the generators as they are.

        Returns:
            The first observations, [B, ...].
        """

    @abstractmethod
    def step(self, actions: Tensor) -> Transition:
        """Move every environment by one action.

        Args:
            actions: [B] int64 for `Discrete`, [B, n] for `MultiDiscrete` (int64), `MultiBinary`
                and `Box` (float32), on `device`.
        """

    def hints(self) -> Hints | None:
        """[B, K] what a memory could know once it has read the latest observations; None without hints."""
        return None

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `step` depends on, so that `load_state_dict` continues bit for bit.

        Tensors, numbers, strings, lists and dictionaries only: it is saved with `torch.save` and
        read with `weights_only=True`.

        Raises:
            StateNotSaved: the environment cannot give its state (a Gymnasium environment, say).
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        """Go on from `state_dict`, and return the observations that belong to it."""

    def close(self) -> None:  # noqa: B027 - most environments hold nothing
        """Release what the environments hold (processes, windows)."""


class StateNotSaved(Exception):
    """This environment cannot give its state; after a resume its episodes start afresh."""


class EnvironmentFailed(RuntimeError):
    """An environment raised, or gave a number that is none; the message says which, when and what."""

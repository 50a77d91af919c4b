"""Normalisation of rewards for learning: they are divided by the deviation of the discounted return.

Axes: T steps of a rollout, B environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rmc_agents.agent.normalization import CLIP, RunningMoments, Total, of_this_process
from rmc_agents.rl.rollout import Rollout
from rmc_agents.runs.weights import non_finite

OWN_PART = "discounted_returns"
"""Key of what each process has for itself in a checkpoint."""
SHARED_PART = "return_moments"
"""Key of the statistics, which are equal in all processes."""


class RewardNormalizer:
    """Running standard deviation of the discounted return, as in Stable-Baselines3's `VecNormalize`.

        R_t = gamma R_{t-1} + r_t, from 0 in each episode;  r_t becomes r_t / std(R), clipped to +-10

    The mean is not subtracted, so that the sign of a reward stays. A rollout's returns count before its
    rewards are divided. Nothing but the learner sees the result: logged returns, and what an agent with
    `previous_reward` reads, are the environment's own numbers.

    Args:
        gamma: discount per step, that of the learner.
        num_envs: B, the environments of this process.
        device: where rollouts are.
    """

    def __init__(self, gamma: float, num_envs: int, device: torch.device | str = "cpu") -> None:
        self.gamma = gamma
        self.moments = RunningMoments(1).to(device)
        self.returns = torch.zeros(num_envs, dtype=torch.float64, device=device)  # [B] after the latest step

    @torch.no_grad()
    def normalize(self, rollout: Rollout, total: Total = of_this_process) -> Tensor:
        """Add a rollout to the statistics; return its normalised rewards [T, B]."""
        returns, current = [], self.returns
        rewards = torch.where(rollout.valid, rollout.rewards, 0.0).double()
        decay = self.gamma * rollout.starts.logical_not().double()
        for reward, factor in zip(rewards.unbind(0), decay.unbind(0), strict=True):
            current = torch.addcmul(reward, factor, current)
            returns.append(current)
        self.returns = current
        self.moments.update(torch.stack(returns).view(-1, 1), rollout.valid.flatten(), total)
        return (rollout.rewards * self.moments.scale()).clamp(-CLIP, CLIP).to(rollout.rewards.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next rollout depends on."""
        return {SHARED_PART: self.moments.state_dict(), OWN_PART: self.returns}

    def load_state_dict(self, state: Mapping[str, Any], restart: bool = False) -> list[str]:
        """Continue from a state; return notes for the user.

        The state of a run that did not normalise its rewards has no statistics: new ones begin.

        Args:
            state: as `state_dict` returns it, among other things.
            restart: whether only the statistics count, because new episodes start.

        Raises:
            KeyError, ValueError: it is not such a state; nothing has changed.
        """
        if SHARED_PART not in state and OWN_PART not in state:
            self.moments = RunningMoments(1).to(self.returns.device)
            self.returns = torch.zeros_like(self.returns)
            return ["rewards were not normalised before: their statistics start with the next rollout"]
        saved, returns = state[SHARED_PART], None if restart else state[OWN_PART]
        own = self.state_dict()
        given = saved if returns is None else {**saved, OWN_PART: returns}
        wanted = {**own[SHARED_PART], **({} if returns is None else {OWN_PART: own[OWN_PART]})}
        if {name: _form(x) for name, x in given.items()} != {name: _form(x) for name, x in wanted.items()}:
            raise ValueError("the statistics of rewards have another form")
        if bad := non_finite(given):
            raise ValueError(f"the statistics of rewards are not finite: {', '.join(bad)}")
        self.moments.require_loadable(saved)
        self.moments.load_state_dict(saved)
        self.returns = torch.zeros_like(self.returns) if returns is None else returns.clone()
        return []


def _form(x: Any) -> Any:
    return (x.dtype, tuple(x.shape)) if isinstance(x, Tensor) else type(x)

"""Evaluation during training, on episodes of which training sees none; it disturbs nothing in training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.environment import BatchedEnv
from rmc_agents.evaluation.episodes import evaluate
from rmc_agents.training.processes import ALONE, Processes
from rmc_agents.training.rng import keep_global_generators

VALIDATION_SEED = 2_000_000_000
"""Seed of the first episode. Training with a seed below 900 million stays below it, and `evaluate` starts at
1,000,000, so that final figures are of other episodes than those by which a checkpoint was chosen."""


class PeriodicEvaluation:
    """Evaluation of an agent every so many environment steps, always on the same episodes.

    Actions are the most likely ones, as in `train/evaluate.py`.

    Args:
        envs: environments for this alone, or several batches of different tasks.
        every: environment steps between evaluations; there is another one at the end of training.
        episodes: number of episodes in each of `envs`.
        seed: of the first episode.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        envs: BatchedEnv | Sequence[BatchedEnv],
        every: int,
        episodes: int = 100,
        seed: int = VALIDATION_SEED,
    ) -> None:
        for name, number in (("every", every), ("episodes", episodes)):
            if type(number) is not int or number < 1:
                raise ValueError(f"{name} must be 1 or more, got {number!r:.60}")
        self.envs = [envs] if isinstance(envs, BatchedEnv) else list(envs)
        self.every, self.episodes, self.seed = every, episodes, seed
        self._copy: ActorCritic | None = None

    def to_json(self) -> dict[str, int]:
        """Describe the evaluation for config.json."""
        return {"every": self.every, "episodes": self.episodes, "seed": self.seed}

    def require_fit(self, agent: ActorCritic) -> None:
        """Raise ValueError unless the agent can observe and act in the environments."""
        for env in self.envs:
            for name in ("observation_space", "action_space"):
                if getattr(agent, name) != getattr(env, name):
                    raise ValueError(
                        f"{name} of agent and environments of the evaluation differ: {getattr(agent, name)}, "
                        f"{getattr(env, name)}"
                    )

    def is_due(self, before: int, now: int) -> bool:
        """Return whether an evaluation is due after the iteration from step `before` to step `now`."""
        return now // self.every > before // self.every

    def run(
        self, agent: ActorCritic, processes: Processes = ALONE
    ) -> tuple[dict[str, float], tuple[float, float]]:
        """Evaluate an agent; several processes all call it, and each plays its share of the episodes.

        Returns:
            figures under SB3's TensorBoard names, and the score: success rate (0 where it is not reported)
            and mean return, over all episodes.

        Raises:
            UsageError: an episode does not end.
        """
        started = time.monotonic()
        with keep_global_generators():
            plain = self._copy_of(agent)
            rows = [self._play(plain, env, processes) for env in self.envs]
        sums = processes.sum(torch.tensor(rows, dtype=torch.float64, device=agent.device)).tolist()
        count, returns, lengths, solved, reported = (sum(column) for column in zip(*sums, strict=True))
        figures = {"eval/mean_reward": returns / count, "eval/mean_ep_length": lengths / count}
        if reported == count:
            figures["eval/success_rate"] = solved / count
        if len(self.envs) > 1:
            for env, (n, own_returns, _, own_solved, own_reported) in zip(self.envs, sums, strict=True):
                name = ", ".join(env.tasks)
                figures[f"eval/mean_reward/{name}"] = own_returns / n
                if own_reported == n:
                    figures[f"eval/success_rate/{name}"] = own_solved / n
        figures["time/eval_seconds"] = time.monotonic() - started
        return figures, (figures.get("eval/success_rate", 0.0), figures["eval/mean_reward"])

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def _play(self, agent: ActorCritic, env: BatchedEnv, processes: Processes) -> list[float]:
        """Play the episodes of this process; return their number, and sums over them."""
        share = -(-self.episodes // processes.size)
        first = processes.rank * share
        count = min(share, self.episodes - first)
        if count < 1:
            return [0.0] * 5
        played = evaluate(agent, env, count, seed=self.seed + first)
        success: Any = played.success
        solved, reported = (0, 0) if success is None else (success.sum(), count)
        return [count, played.returns.sum(), played.lengths.sum(), solved, reported]

    def _copy_of(self, agent: ActorCritic) -> ActorCritic:
        """Return the agent as `rmc_agents.load` would: in evaluation mode, and not compiled.

        Compiled networks would be compiled again for each number of unfinished episodes.
        """
        if self._copy is None:
            self._copy = ActorCritic.from_json(agent.to_json()).to(agent.device).eval()
        self._copy.load_state_dict(agent.state_dict())
        return self._copy

"""Learning from a rollout: rewards -> advantages -> epochs of gradient steps -> figures."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.environment import BatchedEnv
from rmc_agents.rl import diagnostics
from rmc_agents.rl.figures import update_figures
from rmc_agents.rl.normalization import RewardNormalizer
from rmc_agents.rl.optimizer import make_optimizer
from rmc_agents.rl.ppo import Metrics, PPOConfig, explained_variance, gae
from rmc_agents.rl.rollout import Rollout, final_values, split_into_chunks
from rmc_agents.rl.seen_rewards import SeenRewards
from rmc_agents.rl.update import Updater
from rmc_agents.training.processes import Processes


class Learner:
    """Learner of an agent, with its optimizer.

    Args:
        agent: changed in place.
        env: the environments of the rollouts, for explanations.
        config: PPO's settings.
        run_dir: the run folder, where non-finite numbers are explained.
        processes: those that train together.
        graphs: capture gradient steps in a CUDA graph.

    Raises:
        ValueError: minibatches cannot be divided among the processes.
    """

    def __init__(
        self,
        agent: ActorCritic,
        env: BatchedEnv,
        config: PPOConfig,
        run_dir: Path,
        processes: Processes,
        graphs: bool,
    ) -> None:
        self.agent, self.env, self.config = agent, env, config
        self.run_dir, self.processes = run_dir, processes
        self.optimizer = make_optimizer(agent, config)
        self.updater = Updater(agent, self.optimizer, config, processes, graphs)
        normalizes = config.normalize_rewards
        self.rewards = RewardNormalizer(config.gamma, env.num_envs, agent.device) if normalizes else None
        self.seen = SeenRewards()
        """Kept up to date while the policy waits for a signal."""

    @property
    def policy_waits(self) -> bool:
        """Whether the policy is taught nothing yet (see `PPOConfig.wait_for_signal`)."""
        return self.config.wait_for_signal and not self.seen.tell_actions_apart

    def learn(
        self,
        rollout: Rollout,
        truncated: int,
        steps: int,
        iterations: int,
        generator: torch.Generator | None,
    ) -> dict[str, float]:
        """Compute advantages, and make the epochs over a rollout; return the figures of the update.

        Args:
            rollout: of this process.
            truncated: number of truncated steps in it.
            steps: environment steps before the rollout.
            iterations: number of rollouts before this one.
            generator: draws the minibatches.

        Raises:
            TrainingError: the update produced a number that is not finite.
        """
        config, agent = self.config, self.agent
        rewards = rollout.rewards
        if self.rewards is not None:
            rewards = self.rewards.normalize(rollout, self.processes.sum)
        progress = steps / config.total_steps
        learning_rate, entropy_coef = config.learning_rate_at(progress), config.entropy_coef_at(progress)
        advantages = gae(
            rewards=rewards,
            values=rollout.values,
            terminated=rollout.terminated,
            truncated=rollout.truncated,
            final_values=final_values(agent, rollout, truncated),
            last_value=rollout.last_value,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
        )
        returns = advantages + rollout.values
        if self.policy_waits:
            self.seen = self.seen.with_rollout(rollout, self.processes)
        if self.policy_waits:
            advantages, entropy_coef = torch.zeros_like(advantages), 0.0
        chunks = split_into_chunks(rollout, advantages, returns, config.bptt_length)
        metrics = self.updater.update(chunks, learning_rate, entropy_coef, generator)
        explained = self.processes.sum(explained_variance(rollout.values, returns)) / self.processes.size
        intact = diagnostics.finite_network(self.optimizer)
        *numbers, explained_by_critic, healthy = torch.stack([*metrics, explained, intact]).tolist()
        train = dict(zip(Metrics._fields, numbers, strict=True))
        facts = None
        if not healthy:
            facts = {**diagnostics.explain_network(agent, self.optimizer), "learning_rate": learning_rate}
        elif not all(map(math.isfinite, numbers)):
            facts = diagnostics.explain_update(agent, self.env, chunks, config, entropy_coef)
            facts |= {"metrics": train, "learning_rate": learning_rate}
        if facts is not None:
            raise diagnostics.shared_error(self.run_dir, steps, facts, self.processes, self.env.num_envs)
        # Last, so that a rollout is collected and learned with the same statistics.
        agent.update_statistics(rollout.obs, rollout.valid, self.processes.sum)
        return {
            **update_figures(
                train,
                bool(config.aux_coef),
                bool(config.reconstruction_coef),
                bool(config.memory_change_coef),
                bool(config.teacher_coef),
            ),
            "train/explained_variance": explained_by_critic,
            "train/learning_rate": learning_rate,
            "train/entropy_coef": entropy_coef,
            "train/n_updates": (iterations + 1) * config.epochs,
        }

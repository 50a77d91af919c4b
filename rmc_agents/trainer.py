"""The loop: collect -> advantages -> update -> log -> checkpoint.

One iteration is one rollout of T steps in B environments and some epochs of minibatches over it. The device
is asked for numbers twice an iteration: whether the rollout is finite, and the metrics.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from rmc_agents import checkpoint, episodes
from rmc_agents.actor_critic import ActorCritic
from rmc_agents.errors import TrainingError, UsageError
from rmc_agents.ppo import Metrics, PPOConfig, explained_variance, gae, make_optimizer, update_epoch
from rmc_agents.progress import Progress
from rmc_agents.rollout import BatchedEnv, Rollout, collect, cut, final_values, first_carry
from rmc_agents.tree import leaves, unflatten
from rmc_agents.versions import versions

RECENT_EPISODES = 1000
"""The success rate that stops a run early is taken over at least this many of the latest episodes."""


class Trainer:
    """Trains an agent in batched environments by PPO, into a run folder.

    Args:
        agent: on the environments' device.
        env: the environments.
        config: how to learn.
        run_dir: the run folder; must not hold a run already unless `restore` is called.
        seed: fixes actions, minibatches and episodes.
        description: what else to write into config.json (how to build the environments, say).
        checkpoint_seconds: how often to save; the end is always saved.
        stop_at_success: stop once this share of the latest 1000 or more episodes was solved.

    Raises:
        ValueError: sizes that do not fit, or spaces of agent and environments that differ.
    """

    def __init__(
        self,
        agent: ActorCritic,
        env: BatchedEnv,
        config: PPOConfig,
        run_dir: Path | str,
        *,
        seed: int = 0,
        description: Mapping[str, Any] | None = None,
        checkpoint_seconds: float = 60.0,
        stop_at_success: float | None = None,
    ) -> None:
        config.check_num_envs(env.num_envs)
        for name in ("observation_space", "action_space"):
            if getattr(agent, name) != getattr(env, name):
                raise ValueError(
                    f"the agent was built for {name} {getattr(agent, name)}, the environment has "
                    f"{getattr(env, name)}"
                )
        self.agent, self.env, self.config = agent, env, config
        self.run_dir, self.seed, self.description = Path(run_dir), seed, dict(description or {})
        self.checkpoint_seconds, self.stop_at_success = checkpoint_seconds, stop_at_success
        # Denormal numbers appear as gates saturate, and make a CPU three times slower.
        torch.set_flush_denormal(True)
        self.generator = torch.Generator(agent.device).manual_seed(seed)
        self.optimizer = make_optimizer(agent, config)
        self.carry = first_carry(agent, env, seed)
        self.rollout = Rollout.allocate(agent, self.carry, config.num_steps)
        self.running = episodes.fresh_running(env.num_envs, agent.device)
        self.steps = 0
        self.iterations = 0
        self.seconds = 0.0
        self.recent: deque[tuple[float, float]] = deque()
        self.restored = False

    @property
    def done(self) -> bool:
        """Whether the budget is used up, or the mark reached."""
        return self.steps >= self.config.total_steps or self._reached_mark()

    def run(self) -> dict[str, float]:
        """Train until the budget or the mark is reached; returns the last figures logged.

        Raises:
            UsageError: the run folder holds another run.
            TrainingError: numbers that are not finite. Earlier checkpoints are left as they are.
        """
        from torch.utils.tensorboard import (
            SummaryWriter,  # half a second that `import rmc_agents` need not pay
        )

        self._open_run_dir()
        writer = SummaryWriter(
            self.run_dir / "tensorboard", purge_step=self.steps + 1 if self.restored else None
        )
        figures: dict[str, float] = {}
        saved = time.monotonic()
        title = f"{self.agent.core_name} on {', '.join(self.env.tasks)}"
        try:
            with Progress(title, self.config.total_steps) as progress:
                while not self.done:
                    figures = self.iterate()
                    for tag, value in figures.items():
                        writer.add_scalar(tag, value, self.steps)
                    progress.show(_shown(figures))
                    if time.monotonic() - saved >= self.checkpoint_seconds:
                        self.save()
                        saved = time.monotonic()
            self.save()
        finally:
            writer.close()
        return figures

    def iterate(self) -> dict[str, float]:
        """One rollout and the epochs over it; returns the figures under SB3's TensorBoard names."""
        began = time.monotonic()
        config, agent, rollout = self.config, self.agent, self.rollout
        progress = self.steps / config.total_steps
        learning_rate, entropy_coef = config.learning_rate_at(progress), config.entropy_coef_at(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

        self.carry = collect(agent, self.env, self.carry, rollout, self.generator)
        collected = time.monotonic()
        finite, truncated = self._look()
        if not finite:
            self._explain_not_finite()
        # Without a truncation nobody asks what the final observations were worth.
        final = final_values(agent, rollout) if truncated else rollout.values
        advantages = gae(
            rollout.rewards,
            rollout.values,
            rollout.terminated,
            rollout.truncated,
            final,
            rollout.last_value,
            config.gamma,
            config.gae_lambda,
        )
        returns = advantages + rollout.values
        chunks = cut(rollout, advantages, returns, config.bptt_length)
        epochs: list[Metrics] = []
        for _ in range(config.epochs):
            metrics = update_epoch(agent, self.optimizer, chunks, config, entropy_coef, self.generator)
            epochs.append(metrics)
            # The one look at the device inside an update, and only where a limit was asked for.
            if config.target_kl is not None and metrics.approx_kl.item() > 1.5 * config.target_kl:
                break

        stats, self.running = episodes.episode_stats(
            rollout, self.running, self.env.task_of, len(self.env.tasks)
        )
        self.steps += rollout.rewards.numel()
        self.iterations += 1
        learned = Metrics(*torch.stack([torch.stack(m) for m in epochs]).mean(0).unbind(0))
        scalars = torch.stack([*learned, explained_variance(rollout.values, returns)]).double()
        *numbers, explained = torch.cat([scalars, *stats]).tolist()[: len(scalars)]
        per_task = torch.stack(stats).tolist()  # 4 x tasks
        train = dict(zip(Metrics._fields, numbers, strict=True))
        if not all(map(_finite, numbers)):
            raise TrainingError(
                f"the update at step {self.steps} gave numbers that are not finite ({train}); "
                "try a smaller --learning-rate or --max-grad-norm"
            )
        now = time.monotonic()
        self.seconds += now - began
        return {
            **self._rollout_figures(per_task),
            "time/fps": rollout.rewards.numel() / (now - began),
            "time/collect_seconds": collected - began,
            "time/update_seconds": now - collected,
            "time/total_timesteps": self.steps,
            "time/total_seconds": self.seconds,
            "train/loss": train["loss"],
            "train/policy_gradient_loss": train["policy_loss"],
            "train/value_loss": train["value_loss"],
            "train/entropy_loss": -train["entropy"],
            "train/approx_kl": train["approx_kl"],
            "train/clip_fraction": train["clip_fraction"],
            "train/grad_norm": train["grad_norm"],
            "train/explained_variance": explained,
            "train/learning_rate": learning_rate,
            "train/entropy_coef": entropy_coef,
            "train/n_updates": self.iterations * config.epochs,
        }

    def save(self) -> Path:
        """Write a checkpoint from which `restore` goes on bit for bit."""
        try:
            env_state = self.env.state_dict()
        except Exception as error:
            if type(error).__name__ != "StateNotSaved":
                raise
            env_state = None
        payload = {
            "agent": self.agent.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "env": env_state,
            "carry": [x.clone() for x in leaves(self.carry)],
            "running": list(self.running),
            "recent": [list(pair) for pair in self.recent],
            "steps": self.steps,
            "iterations": self.iterations,
            "seconds": self.seconds,
        }
        return checkpoint.save_checkpoint(self.run_dir, self.steps, payload)

    def restore(self) -> list[str]:
        """Go on from the newest whole checkpoint of the run folder; returns what the user should know.

        Raises:
            UsageError: no checkpoint, or one of another configuration.
        """
        path, payload, notes = checkpoint.read_newest(self.run_dir, self.agent.device)
        checkpoint.load_agent(self.agent, payload, path)
        self.optimizer.load_state_dict(payload["optimizer"])
        self.generator.set_state(payload["generator"].cpu())
        try:
            self.carry = unflatten(self.carry, payload["carry"])
            self.running = unflatten(self.running, payload["running"])
        except ValueError as error:
            raise UsageError(f"{path} belongs to a run of another configuration: {error}") from error
        if payload["env"] is not None:
            obs = self.env.load_state_dict(payload["env"])
            self.carry = self.carry._replace(obs=obs)
        else:
            self.carry = first_carry(self.agent, self.env, self.seed + payload["steps"])
            self.running = episodes.fresh_running(self.env.num_envs, self.agent.device)
            notes.append("this environment cannot save its state: its episodes begin afresh")
        self.recent = deque((count, solved) for count, solved in payload["recent"])
        self.steps, self.iterations = payload["steps"], payload["iterations"]
        self.seconds = payload["seconds"]
        self.restored = True
        return notes

    def _open_run_dir(self) -> None:
        if self.restored:
            return
        if checkpoint.checkpoints(self.run_dir):
            raise UsageError(
                f"{self.run_dir} already holds a run: go on with --resume {self.run_dir}, or choose "
                "another --run-dir"
            )
        described = {
            "agent": self.agent.config(),
            "ppo": asdict(self.config),
            "seed": self.seed,
            **self.description,
            "versions": versions(),
        }
        checkpoint.write_json(self.run_dir / "config.json", described)

    def _look(self) -> tuple[bool, bool]:
        """Whether the rollout is finite, and whether an episode in it was truncated."""
        return tuple(torch.stack([self._finite().all(), self.rollout.truncated.any()]).tolist())

    def _finite(self) -> Tensor:
        """[T, B] bool. A NaN in an observation reaches the value and the action's probability."""
        rollout = self.rollout
        return rollout.rewards.isfinite() & rollout.values.isfinite() & rollout.log_probs.isfinite()

    def _explain_not_finite(self) -> NoReturn:
        rollout = self.rollout
        t, env = (~self._finite()).nonzero()[0].tolist()
        figures = {
            "observation": any(not leaf[t, env].isfinite().all() for leaf in leaves(rollout.obs)),
            "reward": not rollout.rewards[t, env].isfinite().item(),
        }
        culprit = next((name for name, bad in figures.items() if bad), "value or action probability")
        task = self.env.tasks[int(self.env.task_of[env])]
        raise TrainingError(
            f"the {culprit} of environment {env} ({task}) is not finite "
            f"at step {self.steps + t * self.env.num_envs}; training stopped before it could spoil the "
            f"agent, and the checkpoints in {self.run_dir / 'checkpoints'} are as they were"
        )

    def _rollout_figures(self, per_task: list[list[float]]) -> dict[str, float]:
        count, returns, lengths, solved = (sum(numbers) for numbers in per_task)
        if not count:
            return {}
        self.recent.append((count, solved))
        while sum(n for n, _ in self.recent) - self.recent[0][0] >= RECENT_EPISODES:
            self.recent.popleft()
        figures = {
            "rollout/ep_rew_mean": returns / count,
            "rollout/ep_len_mean": lengths / count,
            "rollout/success_rate": solved / count,
        }
        if len(self.env.tasks) > 1:
            for name, n, s in zip(self.env.tasks, per_task[0], per_task[3], strict=True):
                if n:
                    figures[f"rollout/success_rate/{name}"] = s / n
        return figures

    def _reached_mark(self) -> bool:
        count = sum(n for n, _ in self.recent)
        if self.stop_at_success is None or count < RECENT_EPISODES:
            return False
        return sum(solved for _, solved in self.recent) / count >= self.stop_at_success


def _finite(x: float) -> bool:
    return x - x == 0


def _shown(figures: Mapping[str, float]) -> dict[str, float]:
    names = {
        "steps": "time/total_timesteps",
        "steps/s": "time/fps",
        "success": "rollout/success_rate",
        "return": "rollout/ep_rew_mean",
        "length": "rollout/ep_len_mean",
        "kl": "train/approx_kl",
    }
    shown = {name: figures[tag] for name, tag in names.items() if tag in figures}
    return {**shown, "entropy": -figures["train/entropy_loss"]}

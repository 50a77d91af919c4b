"""The loop: collect -> advantages -> update -> log -> checkpoint.

One iteration is one rollout of T steps in B environments and some epochs of minibatches over it. The device
is asked for numbers twice an iteration, about the rollout and about the update; with a curriculum a third
time, for who plays what.

What may go wrong is elsewhere: `health` explains numbers that are not finite, `snapshot` is what a checkpoint
holds, `signals` lets an iteration end before Ctrl-C does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rmc_agents import checkpoint, episodes, health, snapshot
from rmc_agents.actor_critic import ActorCritic
from rmc_agents.curriculum import Curriculum
from rmc_agents.errors import Interrupted, TrainingError
from rmc_agents.ppo import Metrics, PPOConfig, explained_variance, gae, make_optimizer, update_epoch
from rmc_agents.progress import Progress
from rmc_agents.rollout import BatchedEnv, Rollout, collect, cut, final_values, first_carry
from rmc_agents.runlog import RunLog
from rmc_agents.signals import Interruption
from rmc_agents.versions import versions


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
        keep_checkpoints: how many of the newest to keep, beside the best one and those that were evaluated.
        stop_at_success: stop once this share of the latest 1000 or more episodes was solved.
        judged_by: the tasks whose episodes count for that and for the best checkpoint; all if not given.
        curriculum: most environments play the first task that is not solved yet (see `curriculum`); they
            must be able to change their tasks.

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
        keep_checkpoints: int = 3,
        stop_at_success: float | None = None,
        judged_by: Sequence[str] | None = None,
        curriculum: bool = False,
    ) -> None:
        config.check_num_envs(env.num_envs)
        if not checkpoint_seconds >= 0 or keep_checkpoints < 1:
            raise ValueError(
                f"checkpoint_seconds must be 0 or more and keep_checkpoints 1 or more, got "
                f"{checkpoint_seconds} and {keep_checkpoints}"
            )
        if stop_at_success is not None and not 0 < stop_at_success <= 1:
            raise ValueError(f"stop_at_success must be above 0 and at most 1, got {stop_at_success}")
        unknown = set(judged_by or ()) - set(env.tasks)
        if unknown:
            raise ValueError(f"judged_by names {', '.join(unknown)}; the tasks are {', '.join(env.tasks)}")
        for name in ("observation_space", "action_space"):
            if getattr(agent, name) != getattr(env, name):
                raise ValueError(
                    f"the agent was built for {name} {getattr(agent, name)}, the environment has "
                    f"{getattr(env, name)}"
                )
        if config.hint_coef and not agent.hint_size == env.hint_size > 0:
            raise ValueError(
                f"hint_coef={config.hint_coef} needs hints: the agent was built for hint_size="
                f"{agent.hint_size}, and {', '.join(env.tasks)} has {env.hint_size} numbers to tell"
            )
        self.agent, self.env, self.config = agent, env, config
        self.run_dir, self.seed, self.description = Path(run_dir), seed, dict(description or {})
        self.checkpoint_seconds, self.keep_checkpoints = checkpoint_seconds, keep_checkpoints
        self.stop_at_success = stop_at_success
        self.judged = [not judged_by or task in judged_by for task in env.tasks]
        # Denormal numbers appear as gates saturate, and make a CPU three times slower.
        torch.set_flush_denormal(True)
        self.generator = torch.Generator(agent.device).manual_seed(seed)
        self.optimizer = make_optimizer(agent, config)
        self.carry = first_carry(agent, env, seed)
        try:
            self.rollout = Rollout.allocate(agent, self.carry, config.num_steps)
        except (RuntimeError, MemoryError) as error:
            raise ValueError(
                f"a rollout of num_steps={config.num_steps} in num_envs={env.num_envs} does not fit into "
                f"memory: {str(error).splitlines()[0][:200]}"
            ) from error
        self.running = episodes.fresh_running(env.num_envs, agent.device)
        self.curriculum = _curriculum(env) if curriculum else None
        self.steps = 0
        self.iterations = 0
        self.seconds = 0.0
        self.recent = episodes.Recent()
        self.restored = False

    @property
    def done(self) -> bool:
        """Whether the budget is used up, or the mark reached."""
        return self.steps >= self.config.total_steps or self._reached_mark()

    def run(self) -> dict[str, float]:
        """Train until the budget or the mark is reached; returns the last figures logged.

        Ctrl-C and SIGTERM are heard at the end of an iteration (where this is the main thread).

        Raises:
            UsageError: the run folder holds another run, or cannot be written.
            TrainingError: numbers that are not finite, or the end could not be saved. Earlier checkpoints are
                as they were.
            Interrupted: by Ctrl-C or SIGTERM, after saving.
        """
        self._open_run_dir()
        figures: dict[str, float] = {}
        watch = health.Watch(self.agent.action_space)
        saved = time.monotonic()
        title = f"{self.agent.core_name} on {', '.join(self.env.tasks)}"
        with Interruption() as interruption, Progress(title, self.config.total_steps) as progress:
            log = self._open_log(progress)
            try:
                while not self.done and interruption.signal is None:
                    figures = self.iterate()
                    log.figures(self.steps, figures)
                    progress.show(_shown(figures))
                    messages = [*watch.warnings(figures), *self._news()]
                    if time.monotonic() - saved >= self.checkpoint_seconds:
                        messages += self._save_or_warn()
                        saved = time.monotonic()
                    for message in messages:
                        progress.note(message)
                        log.message(self.steps, message)
                path = self._save_end()
            except Exception as error:
                log.message(self.steps, f"stopped: {error}")
                if interruption.signal is not None and not isinstance(error, TrainingError):
                    # A signal to the whole group of processes ends those of the environments, too.
                    raise self._interrupted(interruption.signal) from error
                if not isinstance(error, TrainingError):
                    health.write_diagnostic(self.run_dir, {"error": repr(error), "steps": self.steps})
                raise
            finally:
                log.close()
        if interruption.signal is not None and not self.done:
            raise self._interrupted(interruption.signal, path)
        return figures

    def iterate(self) -> dict[str, float]:
        """One rollout and the epochs over it; returns the figures under SB3's TensorBoard names.

        Once the rollout reaches the mark nothing more is learned: the agent that is saved is the very one
        that reached it.
        """
        began = time.monotonic()
        self.carry = collect(self.agent, self.env, self.carry, self.rollout, self.generator)
        collected = time.monotonic()
        rolled, truncated = self._look()
        learned = {} if self._reached_mark() else self._learn(truncated)
        self.steps += self.rollout.rewards.numel()
        self.iterations += 1
        self._deal()
        now = time.monotonic()
        self.seconds += now - began
        return {
            **rolled,
            "time/fps": self.rollout.rewards.numel() / (now - began),
            "time/collect_seconds": collected - began,
            "time/update_seconds": now - collected,
            "time/total_timesteps": self.steps,
            "time/total_seconds": self.seconds,
            **learned,
        }

    def _look(self) -> tuple[dict[str, float], bool]:
        """What the device has to tell of a rollout: its episodes, and whether one was truncated.

        Raises:
            TrainingError: the rollout holds a number that is not finite.
        """
        rollout, tasks = self.rollout, len(self.env.tasks)
        stats, running = episodes.episode_stats(rollout, self.running, self.env.task_of, tasks)
        flags = torch.stack([health.finite(rollout).all(), rollout.truncated.any()])
        finite, truncated, *sums = torch.cat([flags.double(), *stats]).tolist()
        if not finite:
            facts = health.explain_rollout(self.agent, self.env, rollout, self.steps)
            raise health.stopped(self.run_dir, self.steps, facts)
        self.running = running
        return self._rollout_figures([sums[i : i + tasks] for i in range(0, 4 * tasks, tasks)]), bool(
            truncated
        )

    def _learn(self, truncated: bool) -> dict[str, float]:
        """Advantages, and the epochs over the rollout.

        Raises:
            TrainingError: the update gave a number that is not finite.
        """
        config, agent, rollout = self.config, self.agent, self.rollout
        progress = self.steps / config.total_steps
        learning_rate, entropy_coef = config.learning_rate_at(progress), config.entropy_coef_at(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        advantages = gae(
            rollout.rewards,
            rollout.values,
            rollout.terminated,
            rollout.truncated,
            # Without a truncation nobody asks what the final observations were worth.
            final_values(agent, rollout) if truncated else rollout.values,
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
        means = torch.stack([torch.stack(metrics) for metrics in epochs]).mean(0)
        explained_by_critic = explained_variance(rollout.values, returns)
        *numbers, explained = torch.cat([means, explained_by_critic.unsqueeze(0)]).tolist()
        train = dict(zip(Metrics._fields, numbers, strict=True))
        if not all(map(_finite, numbers)):
            facts = health.explain_update(agent, self.env, chunks, config, entropy_coef)
            facts |= {"metrics": train, "learning_rate": learning_rate}
            raise health.stopped(self.run_dir, self.steps, facts)
        return {
            "train/loss": train["loss"],
            "train/policy_gradient_loss": train["policy_loss"],
            "train/value_loss": train["value_loss"],
            "train/entropy_loss": -train["entropy"],
            "train/approx_kl": train["approx_kl"],
            "train/clip_fraction": train["clip_fraction"],
            **({"train/hint_loss": train["hint_loss"]} if config.hint_coef else {}),
            "train/grad_norm": train["grad_norm"],
            "train/explained_variance": explained,
            "train/learning_rate": learning_rate,
            "train/entropy_coef": entropy_coef,
            "train/n_updates": (self.iterations + 1) * config.epochs,
        }

    def _deal(self) -> None:
        """Let the environments play what the curriculum asks for; those that change begin an episode."""
        if self.curriculum is None:
            return
        before = self.env.task_of.tolist()
        dealt = self.curriculum.deal(before)
        if dealt == before:
            return
        obs = self.env.assign(dealt)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
        changed = torch.tensor([a != b for a, b in zip(before, dealt, strict=True)]).to(self.agent.device)
        self.carry = self.carry._replace(obs=obs, starts=self.carry.starts | changed)
        self.running = episodes.Running(*(x.masked_fill(changed, 0) for x in self.running))

    def save(self) -> Path:
        """Write a checkpoint from which `restore` goes on bit for bit.

        Raises:
            OSError: it could not be written. Earlier ones are as they were.
        """
        counters = snapshot.Counters(
            self.carry,
            self.running,
            self.recent,
            self.curriculum,
            self.steps,
            self.iterations,
            self.seconds,
        )
        payload = snapshot.pack(self.agent, self.optimizer, self.generator, self.env, counters)
        return checkpoint.save_checkpoint(
            self.run_dir, self.steps, payload, self.keep_checkpoints, self.recent.score()
        )

    def restore(self) -> list[str]:
        """Go on from the newest whole checkpoint of the run folder; returns what the user should know.

        Raises:
            UsageError: no checkpoint, or one of another configuration.
        """
        path, payload, notes = checkpoint.read_newest(self.run_dir, self.agent.device)
        counters, more = snapshot.unpack(
            payload,
            path,
            self.agent,
            self.optimizer,
            self.generator,
            self.env,
            self.carry,
            self.curriculum,
            self.seed,
        )
        self.carry, self.running, self.recent, self.curriculum = counters[:4]
        self.steps, self.iterations, self.seconds = counters[4:]
        self.restored = True
        return [f"skipped: {line}" for line in notes] + [f"going on from {path}"] + more

    def _open_run_dir(self) -> None:
        path = self.run_dir / "config.json"
        if not self.restored:
            checkpoint.require_no_run(self.run_dir)
        described = {
            "agent": self.agent.config(),
            "ppo": asdict(self.config),
            "seed": self.seed,
            **self.description,
            "versions": versions(),
        }
        try:
            if self.restored and path.exists():  # what may change (the total of steps) is written down
                described = {**checkpoint.read_config(self.run_dir), "ppo": asdict(self.config)}
            checkpoint.write_json(path, described)
        except OSError as error:
            raise checkpoint.cannot_write(self.run_dir, error) from error

    def _open_log(self, progress: Progress) -> RunLog:
        try:
            return RunLog(self.run_dir, self.steps, progress.note)
        except OSError as error:
            raise checkpoint.cannot_write(self.run_dir, error) from error

    def _save_or_warn(self) -> list[str]:
        try:
            self.save()
        except OSError as error:  # the disk may have room again later
            return [f"warning: {self._not_saved(error)}; training goes on"]
        return []

    def _save_end(self) -> Path:
        try:
            return self.save()
        except OSError as error:
            raise TrainingError(f"{self._not_saved(error)}; make room and --resume {self.run_dir}") from error

    def _not_saved(self, error: OSError) -> str:
        last = next(iter(checkpoint.checkpoints(self.run_dir)), None)
        kept = f"the last good checkpoint is {last}" if last else "nothing has been saved yet"
        return f"step {self.steps} could not be saved ({error.strerror or error}); {kept}"

    def _interrupted(self, number: int, path: Path | None = None) -> Interrupted:
        last = path or next(iter(checkpoint.checkpoints(self.run_dir)), None)
        return Interrupted(f"interrupted after {self.steps:,} steps; saved: {last or 'nothing yet'}", number)

    def _news(self) -> list[str]:
        """What the environments have to tell (one of them was started again, say)."""
        return list(self.env.news()) if hasattr(self.env, "news") else []  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]

    def _rollout_figures(self, per_task: list[list[float]]) -> dict[str, float]:
        count, returns, lengths, solved = (sum(numbers) for numbers in per_task)
        judged = [sum(n for n, counts in zip(x, self.judged, strict=True) if counts) for x in per_task]
        if judged[0]:
            self.recent.add(judged[0], judged[3], judged[1])
        figures = {}
        if self.curriculum is not None:
            self.curriculum.add(per_task[0], per_task[3])
            figures["rollout/frontier"] = float(self.curriculum.frontier)
        if not count:
            return figures
        figures |= {"rollout/ep_rew_mean": returns / count, "rollout/ep_len_mean": lengths / count}
        if not self.rollout.says_success:
            return figures
        figures["rollout/success_rate"] = solved / count
        if len(self.env.tasks) > 1:
            for name, n, s in zip(self.env.tasks, per_task[0], per_task[3], strict=True):
                if n:
                    figures[f"rollout/success_rate/{name}"] = s / n
        return figures

    def _reached_mark(self) -> bool:
        if self.stop_at_success is None:
            return False
        scores = self.recent.score(at_least=episodes.RECENT_EPISODES), self.recent.latest()
        return all(score is not None and score[0] >= self.stop_at_success for score in scores)


def _curriculum(env: BatchedEnv) -> Curriculum:
    if not hasattr(env, "assign"):
        raise ValueError(f"a curriculum needs environments that can change tasks; {env.tasks[0]} cannot")
    return Curriculum(len(env.tasks))


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
    if "train/entropy_loss" in figures:
        shown["entropy"] = -figures["train/entropy_loss"]
    return shown

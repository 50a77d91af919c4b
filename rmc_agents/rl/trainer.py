"""PPO training loop: collect -> advantages -> update -> log -> checkpoint.

An iteration is one rollout of T steps in B environments, and some epochs of minibatches over it. It reads
from the device twice: the rollout's figures, and the update's.

The context of the loop (run folder, log, interruption, checkpoints) is `training.loop`; `diagnostics`
explains non-finite numbers; `snapshot` checks a checkpoint before training continues from it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.capturable import why_not_captured
from rmc_agents.agent.saved import require_same_reading
from rmc_agents.cores.kernels.unchanged import has_registered_hooks
from rmc_agents.environment import BatchedEnv, EnvironmentFailed, observing_ids
from rmc_agents.evaluation.periodic import PeriodicEvaluation
from rmc_agents.plugins import registering_modules
from rmc_agents.rl import diagnostics
from rmc_agents.rl.episode_stats import (
    WINDOW_EPISODES,
    EpisodeAccumulator,
    EpisodeWindow,
    episode_stats,
    initial_accumulator,
)
from rmc_agents.rl.figures import (
    COLUMNS,
    METRICS,
    describe_evaluation,
    episode_figures,
    progress_figures,
)
from rmc_agents.rl.fit import (
    SuccessMonitor,
    environment_config,
    make_curriculum,
    require_advice,
    require_fit,
    use_masks,
)
from rmc_agents.rl.learner import Learner
from rmc_agents.rl.normalization import OWN_PART
from rmc_agents.rl.ppo import PPOConfig
from rmc_agents.rl.rollout import Carry, Rollout, collect, initial_carry
from rmc_agents.rl.seen_rewards import PART as SEEN_REWARDS
from rmc_agents.rl.snapshot import OWN_PARTS, Episodes, read_snapshot, resume_envs
from rmc_agents.runs.checkpoint import save_checkpoint
from rmc_agents.runs.weights import load_weights
from rmc_agents.spaces.description import needs_attention
from rmc_agents.training.arithmetic import arithmetic
from rmc_agents.training.callbacks import Callback, require_callbacks
from rmc_agents.training.graphs import Graph
from rmc_agents.training.loop import require_run_arguments, training_loop
from rmc_agents.training.parameters import require_same_parameters
from rmc_agents.training.processes import ALONE, Processes
from rmc_agents.training.resumable import Resumable
from rmc_agents.training.rng import make_generator, resume_generator
from rmc_agents.tree import leaves, upload


class Trainer(Resumable):
    """Trainer of an agent in batched environments, by PPO, into a run folder.

    Args:
        agent: on the environments' device.
        env: the environments; those made by `rmc_envs.make` let scripts evaluate and resume the run.
        config: PPO's settings.
        run_dir: the run folder; it must not hold a run, unless `restore` is called.
        seed: fixes actions, minibatches and episodes.
        checkpoint_seconds: seconds between checkpoints; a final checkpoint is always saved.
        keep_checkpoints: number of newest checkpoints to keep, besides the best one and those evaluated.
        target_success_rate: stop once this share of the latest 1000 or more episodes is solved.
        eval_tasks: the tasks whose episodes count for that and for the best checkpoint; all if not given.
        curriculum: half of the environments play the first task that is not solved yet (see `Curriculum`);
            they must be able to change their tasks (`env.can_assign`).
        extra: further entries of config.json, such as the precision.
        processes: those that train together. Each passes its share of the environments, an equal part; all
            numbers of `config` are about all of them. Process r adds r * 2^20 to the seed.
        graphs: on a GPU, record rollouts (of environments that are `capturable`) and gradient steps (of a
            single process) in CUDA graphs, if the cores are `capturable`. While modules have hooks, nothing
            is replayed.
        callbacks: called during `run`, in process 0.
        evaluation: evaluates the agent during `run`, which saves a checkpoint after each evaluation. The best
            checkpoint is then the one with the best evaluation.

    Raises:
        ValueError: sizes that do not fit, or the spaces of agent and environments differ.
    """

    def __init__(
        self,
        agent: ActorCritic,
        env: BatchedEnv,
        config: PPOConfig,
        run_dir: Path | str,
        *,
        seed: int = 0,
        checkpoint_seconds: float = 60.0,
        keep_checkpoints: int = 3,
        target_success_rate: float | None = None,
        eval_tasks: Sequence[str] | None = None,
        curriculum: bool = False,
        extra: Mapping[str, Any] | None = None,
        processes: Processes = ALONE,
        graphs: bool = True,
        callbacks: Sequence[Callback] = (),
        evaluation: PeriodicEvaluation | None = None,
    ) -> None:
        config.check_num_envs(env.num_envs * processes.size)
        require_run_arguments(seed, checkpoint_seconds, target_success_rate=target_success_rate)
        if type(keep_checkpoints) is not int or keep_checkpoints < 1:
            raise ValueError(f"keep_checkpoints must be 1 or more, got {keep_checkpoints!r}")
        require_fit(agent, env, config, eval_tasks or ())
        if evaluation is not None:
            evaluation.require_fit(agent)
        if env.own_spaces is not None:
            agent.use_spaces(*env.own_spaces)
        table = env.observation_table()
        agent.use_observation_table(table)
        self.table, self.ids = agent.encoder.table, table is not None
        self.agent, self.env, self.config = agent, env, config
        self.run_dir, self.seed, self.extra = Path(run_dir), seed, dict(extra or {})
        self.checkpoint_seconds, self.keep_checkpoints = checkpoint_seconds, keep_checkpoints
        self.target_success_rate = target_success_rate
        self.callbacks, self.evaluation = require_callbacks(callbacks), evaluation
        self.counted = [not eval_tasks or task in eval_tasks for task in env.tasks]
        # Denormal numbers appear as gates saturate, and slow a CPU down threefold.
        torch.set_flush_denormal(True)
        self.processes = processes
        self.generator = make_generator(agent.device, processes.seed(seed))
        self.learner = Learner(agent, env, config, self.run_dir, processes, graphs)
        self.optimizer, self.updater = self.learner.optimizer, self.learner.updater
        self.rewards = self.learner.rewards
        if processes.size > 1:
            agent.load_state_dict(processes.broadcast(agent.state_dict()))
        self.carry = initial_carry(agent, env, processes.seed(seed), self.ids)
        use_masks(agent, env)
        require_advice(env, config)
        try:
            self.rollout = Rollout.allocate(agent, self.carry, config.num_steps, config.teacher_coef > 0)
        except (RuntimeError, MemoryError) as error:
            raise ValueError(
                f"a rollout of num_steps={config.num_steps} in num_envs={env.num_envs} does not fit into "
                f"memory: {str(error).splitlines()[0][:200]}"
            ) from error
        refused = why_not_captured(agent)
        drawn_from = [generator for generator in (self.generator, *env.generators) if generator is not None]
        self.collect = Graph(self._collect, agent.device, graphs and env.capturable, drawn_from, refused)
        self.running = initial_accumulator(env.num_envs, agent.device)
        self.own_parts = (*OWN_PARTS, OWN_PART)
        self.curriculum = make_curriculum(env) if curriculum else None
        # The host's copy of `env.task_of`: reading that would make the host wait.
        self.task_of: list[int] = env.task_of.tolist() if curriculum else []
        self.steps = 0
        self.iterations = 0
        self.seconds = 0.0
        self.recent = EpisodeWindow()
        self.evaluated: tuple[int, tuple[float, float]] | None = None  # steps, and the score there
        self.restored = self.opened = False

    @property
    def count(self) -> int:
        """Environment steps so far."""
        return self.steps

    @property
    def device(self) -> torch.device:
        """Where the agent is."""
        return self.agent.device

    @property
    def done(self) -> bool:
        """Whether the budget is used up, or the target reached."""
        return self.steps >= self.config.total_steps or self.target_reached

    @property
    def target_reached(self) -> bool:
        """Whether the latest episodes reach `target_success_rate`, those of the last iteration included."""
        if self.target_success_rate is None:
            return False
        scores = self.recent.score(at_least=WINDOW_EPISODES), self.recent.latest()
        return all(score is not None and score[0] >= self.target_success_rate for score in scores)

    def run(self) -> dict[str, float]:
        """Train until the budget is used up or the target reached; return the last figures.

        Ctrl-C and SIGTERM take effect at the end of an iteration (in the main thread).

        Raises:
            UsageError: the run folder holds another run, or cannot be written.
            TrainingError: a number is not finite, or the final checkpoint could not be saved. Earlier
                checkpoints are intact.
            Interrupted: by Ctrl-C or SIGTERM, after saving.
        """
        figures: dict[str, float] = {}
        monitor = diagnostics.DivergenceMonitor(self.agent.action_space, self.rollout)
        learning = diagnostics.LearningMonitor.of_run(self.agent, self.config, self.steps)
        success = SuccessMonitor(self.env.tasks, self.target_success_rate)
        title = f"{self.agent.core_name} on {', '.join(self.env.tasks)}"
        budget = self.config.total_steps
        with training_loop(self, title, budget, COLUMNS, "steps", self.callbacks, METRICS) as loop:
            if not self.restored:  # the log says it once
                loop.tell(self.agent.describe().splitlines(), shown=needs_attention)
            loop.tell([*self.env.notes, *success.warnings(self.env.reports_success)])
            while loop.running:
                before, waited = self.steps, self.learner.policy_waits
                try:
                    figures = self.iterate()
                except EnvironmentFailed:
                    # The rollout is lost; the state of environments that save theirs is in the middle of it.
                    if self.steps and self.processes.size == 1 and self.env.state_dict() is None:
                        loop.save_after_failure()
                    raise
                try:
                    evaluation = self._evaluate(before)
                except Exception:
                    if self.processes.size == 1:
                        loop.save_after_failure()
                    raise
                messages = [*monitor.warnings(figures), *learning.warnings(figures)]
                reports = self.env.reports_success
                if reports is None and list(self.recent):  # an episode has ended
                    reports = self.rollout.reports_success
                messages += [*self.env.warnings(), *success.warnings(reports)]
                messages += self._signal_notes(waited, before)
                messages += [*self.collect.failure_note(), *self.updater.take_step.failure_note()]
                if evaluation:
                    figures |= evaluation
                    messages.append(describe_evaluation(self.steps, evaluation))
                loop.report(figures, progress_figures(figures), messages, save=bool(evaluation))
        return figures

    def _signal_notes(self, waited: bool, before: int) -> list[str]:
        """Say that the policy waits after the first rollout, at step 0, or that it no longer does."""
        waits = self.learner.policy_waits
        if waits and not before:
            return ["rewards do not tell actions apart yet: the policy waits for a signal"]
        if before and waited and not waits:
            return [f"rewards tell actions apart since step {before:,}: the policy learns"]
        return []

    def _evaluate(self, before: int) -> dict[str, float]:
        """Evaluate the agent if that is due after an iteration that began at step `before`."""
        if self.evaluation is None or not (self.done or self.evaluation.is_due(before, self.steps)):
            return {}
        figures, score = self.evaluation.run(self.agent, self.processes)
        self.evaluated = self.steps, score
        return figures

    def iterate(self) -> dict[str, float]:
        """Collect one rollout and learn from it; return the figures under SB3's TensorBoard names.

        If a rollout reaches the target, the update is skipped, so the saved agent is the one that reached it.
        """
        started = time.monotonic()
        require_same_parameters(self.agent, self.optimizer.parameters)
        self.optimizer.attach()
        self.agent.encoder.use_table(self.table)  # another trainer of the agent may have replaced it
        if self.agent.device.type == "cuda":
            hooks = has_registered_hooks(*self.agent.modules())
            self.collect.paused = self.updater.take_step.paused = hooks
        if self.collect.enabled:
            self.env.prepare_steps(self.config.num_steps)
        self.carry = self.collect(self.carry)
        episodes, truncated = self._read_rollout()
        collected = time.monotonic()  # `_read_rollout` has waited for the device
        update = {} if self.target_reached else self._learn(truncated)
        collected_steps = self.rollout.rewards.numel() * self.processes.size
        self.steps += collected_steps
        self.iterations += 1
        self._assign_tasks()
        now = time.monotonic()
        self.seconds += now - started
        # Without an update an iteration is several times faster than the run: then the mean of the run.
        steps, seconds = (collected_steps, now - started) if update else (self.steps, self.seconds)
        return {
            **episodes,
            "time/fps": steps / seconds,
            "time/collect_seconds": collected - started,
            "time/update_seconds": now - collected,
            "time/total_timesteps": self.steps,
            "time/total_seconds": self.seconds,
            **update,
        }

    def _collect(self, carry: Carry) -> Carry:
        with self.env.recorded_steps() if self.collect.enabled else contextlib.nullcontext():
            return collect(self.agent, self.env, carry, self.rollout, self.generator)

    def _read_rollout(self) -> tuple[dict[str, float], int]:
        """Read from the device the figures of all processes' episodes, and the number of own truncated steps.

        Raises:
            TrainingError: the rollout holds a number that is not finite.
        """
        rollout, tasks = self.rollout, len(self.env.tasks)
        stats, running = episode_stats(rollout, self.running, self.env.task_of, tasks)
        finite = diagnostics.finite(rollout).all()
        shared = self.processes.sum(torch.cat([finite.double().unsqueeze(0), *stats]))
        own = torch.stack([finite, rollout.truncated.sum()]).double()
        finite_here, truncated, num_finite, *sums = torch.cat([own, shared]).tolist()
        if num_finite < self.processes.size:
            explain = None if finite_here else diagnostics.explain_rollout
            facts = explain and explain(self.agent, self.env, rollout, self.steps)
            raise diagnostics.shared_error(self.run_dir, self.steps, facts, self.processes, self.env.num_envs)
        self.running = running
        per_task = [sums[i : i + tasks] for i in range(0, 4 * tasks, tasks)]
        self._count_episodes(per_task)
        figures = episode_figures(per_task, self.env.tasks, rollout.reports_success)
        if self.curriculum is not None:
            figures["rollout/frontier"] = float(self.curriculum.frontier)
        return figures, int(truncated)

    def _learn(self, truncated: int) -> dict[str, float]:
        """Learn from the rollout, in which so many steps are truncated; return the figures."""
        return self.learner.learn(self.rollout, truncated, self.steps, self.iterations, self.generator)

    def _assign_tasks(self) -> None:
        """Assign the tasks that the curriculum chooses; environments whose task changes start an episode."""
        if self.curriculum is None:
            return
        before = self.task_of
        self.task_of = self.curriculum.assign(before)
        if self.task_of == before:
            return
        with observing_ids(self.env, self.ids):
            obs = self.env.assign(self.task_of)
        changed = upload([a != b for a, b in zip(before, self.task_of, strict=True)], self.agent.device)
        self.carry = self.carry._replace(obs=obs, starts=self.carry.starts | changed)
        self.running = EpisodeAccumulator(*(x.masked_fill(changed, 0) for x in self.running))

    def to_json(self) -> dict[str, Any]:
        """Describe the run for config.json: what it takes to build agent and environments again."""
        curriculum = self.curriculum is not None
        environment = environment_config(self.env, self.counted, curriculum, self.processes.size)
        imports = [
            *self.extra.get("imports", ()),
            *registering_modules(self.agent.core, self.env),
            *self.env.modules,
        ]
        return {
            **self.agent.to_json(),
            **({} if environment is None else {"environment": asdict(environment)}),
            "ppo": asdict(self.config),
            "seed": self.seed,
            "target_success_rate": self.target_success_rate,
            "processes": self.processes.size,
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
            **self.extra,
            "imports": list(dict.fromkeys(imports)),
        }

    def _state(self) -> dict[str, Any]:
        return {
            "agent": self.agent.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": None if self.generator is None else self.generator.get_state(),
            "env": self.env.state_dict(),
            "carry": list(leaves(self.carry._replace(obs=None))),  # the environments know the obs
            "running": list(self.running),
            **({} if self.rewards is None else self.rewards.state_dict()),
            "recent": [list(numbers) for numbers in self.recent],
            SEEN_REWARDS: list(self.learner.seen),
            "curriculum": None if self.curriculum is None else asdict(self.curriculum),
            "steps": self.steps,
            "iterations": self.iterations,
            "seconds": self.seconds,
        }

    def _load(self, state: dict[str, Any], saved_by: int | None = None) -> list[str]:
        restart = saved_by not in (None, self.processes.size)
        running = initial_accumulator(self.env.num_envs, self.agent.device)
        saved = read_snapshot(
            state,
            own=None if restart else Episodes(running, self.carry, self.env.state_dict()),
            actions=self.agent.action_space,
            num_tasks=None if self.curriculum is None else self.curriculum.num_tasks,
            optimizer=self.optimizer,
        )
        load_weights(self.agent, state, self.run_dir)
        notes = [] if self.rewards is None else self.rewards.load_state_dict(state, restart)
        self.optimizer.load_state_dict({"state": saved.moments})
        notes += [] if restart else resume_generator(self.generator, state["generator"])
        episodes, seed = saved.episodes, self.seed + saved.steps
        if episodes is not None and episodes.env is not None:
            self.carry = resume_envs(self.env, episodes.env, episodes.carry, self.ids)
            self.running = episodes.running
        else:
            if restart and self.generator is not None:
                self.generator.manual_seed(self.processes.seed(seed))
            self.carry = initial_carry(self.agent, self.env, self.processes.seed(seed), self.ids)
            self.running = running
            why = (
                f"the run was saved by {saved_by} processes and continues in {self.processes.size}"
                if restart
                else "this environment cannot save its state"
            )
            notes.append(f"{why}: new episodes start, seeded with {seed} (the seed plus the steps so far)")
        self.recent, self.curriculum, self.learner.seen = saved.recent, saved.curriculum, saved.seen
        self.task_of = self.env.task_of.tolist() if self.curriculum is not None else []
        self.steps, self.iterations, self.seconds = saved.steps, saved.iterations, saved.seconds
        return notes

    def _write(self, payload: dict[str, Any]) -> Path:
        return save_checkpoint(self.run_dir, self.steps, payload, self.keep_checkpoints, *self._score())

    def _score(self) -> tuple[Sequence[float] | None, str]:
        """Return the score of the present weights, None if it is not known, and where scores come from."""
        if self.evaluation is None:
            return self.recent.score(), "training"
        steps, score = self.evaluated or (None, None)
        return score if steps == self.steps else None, "evaluation"

    def _require_same_run(self) -> None:
        require_same_reading(self.agent, self.run_dir)

    def _arithmetic(self) -> dict[str, str]:
        return arithmetic(self.agent.device, self.agent.networks)

    def _count_episodes(self, sums: list[list[float]]) -> None:
        """Add the episodes that ended, from the sums [4][K] of `episode_stats`, to window and curriculum."""
        counted = [sum(n for n, counts in zip(x, self.counted, strict=True) if counts) for x in sums]
        if counted[0]:
            self.recent.add(counted[0], counted[3], counted[1])
        if self.curriculum is not None:
            self.curriculum.add(sums[0], sums[3])

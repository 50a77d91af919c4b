"""Training diagnostics: the source of a non-finite value, exploding losses, collapsed entropy.

Axes: T steps of a rollout, B environments, L steps of a chunk, C chunks. The explanations read from the
device freely: they run once, after training has stopped.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.environment import BatchedEnv, ObservationIds
from rmc_agents.errors import TrainingError
from rmc_agents.rl.optimizer import FlatAdam
from rmc_agents.rl.ppo import PPOConfig, ppo_loss
from rmc_agents.rl.rollout import Chunks, Rollout
from rmc_agents.spaces.masks import choice_sizes
from rmc_agents.spaces.reading import named_parts, read
from rmc_agents.training.loop import write_diagnostic
from rmc_agents.training.processes import Processes
from rmc_agents.tree import Tree


def finite(rollout: Rollout) -> Tensor:
    """Return [T, B] bool: observations, rewards, values, log-probabilities and advice are finite."""
    good = rollout.rewards.isfinite() & rollout.values.isfinite() & rollout.log_probs.isfinite()
    for _, obs in _named(rollout.obs):
        if obs.is_floating_point():
            good = good & obs.isfinite().flatten(2).all(2) if obs.ndim > 2 else good & obs.isfinite()
    return good if rollout.advice is None else good & rollout.advice.isfinite().all(2)


def explain_rollout(agent: ActorCritic, env: BatchedEnv, rollout: Rollout, steps: int) -> dict[str, Any]:
    """Return facts about the first non-finite number of a rollout.

    Args:
        agent: the agent that acted.
        env: the environments.
        rollout: one for which `finite` is not true everywhere.
        steps: environment steps before the rollout.
    """
    t, row = (~finite(rollout)).nonzero()[0].tolist()
    found = [("reward", rollout.rewards)]
    found += [(f"observation {name}".strip(), obs) for name, obs in _named(rollout.obs)]
    found += [] if rollout.advice is None else [("teacher's advice", rollout.advice)]
    found += [("value", rollout.values), ("action's log-probability", rollout.log_probs)]
    what, tensor = next((name, x[t, row]) for name, x in found if not x[t, row].isfinite().all())
    return {
        "what": what,
        "environment": row,
        "task": env.tasks[int(env.task_of[row])],
        "step": steps + t * env.num_envs,
        "step_of_rollout": t,
        "numbers": _summary(tensor),
        "last_rewards": rollout.rewards[max(t - 15, 0) : t + 1, row].tolist(),
        "last_values": rollout.values[max(t - 15, 0) : t + 1, row].tolist(),
        "parameters_not_finite": _not_finite(agent),
    }


def of_process(facts: dict[str, Any], processes: Processes, num_envs: int) -> dict[str, Any]:
    """Return facts of one process with the numbers of environment and step among those of all processes."""
    if processes.size == 1:
        return facts
    facts = {**facts, "process": processes.rank}
    if "environment" in facts:
        facts["environment"] += processes.rank * num_envs
    if "step_of_rollout" in facts:
        facts["step"] += facts["step_of_rollout"] * num_envs * (processes.size - 1)
    return facts


def explain_update(
    agent: ActorCritic, env: BatchedEnv, chunks: Chunks, config: PPOConfig, entropy_coef: float
) -> dict[str, Any]:
    """Return facts about the first chunk of a rollout whose loss or gradient is not finite.

    It uses the current weights: updates with such a gradient were skipped.
    """
    facts: dict[str, Any] = {"parameters_not_finite": _not_finite(agent)}
    num_chunks = chunks.starts.shape[1]
    for chunk in range(num_chunks):
        one = chunks.select(torch.tensor([chunk], device=chunks.starts.device))
        agent.zero_grad(set_to_none=False)  # the optimizer holds the gradients
        loss, metrics = ppo_loss(agent, one, config, entropy_coef)
        loss.backward()
        gradients = [
            name for name, p in agent.named_parameters() if p.grad is not None and not p.grad.isfinite().all()
        ]
        losses = [name for name, x in metrics._asdict().items() if not x.isfinite()]
        if losses or gradients:
            row = chunk % env.num_envs
            inputs = ("advantages", "returns", "log_probs", "values", "rewards")
            facts |= {
                "what": f"loss ({losses[0]})" if losses else f"gradient of {gradients[0]}",
                "environment": row,
                "task": env.tasks[int(env.task_of[row])],
                "steps_of_rollout": [
                    chunk // env.num_envs * config.bptt_length,
                    (chunk // env.num_envs + 1) * config.bptt_length - 1,
                ],
                "losses_not_finite": losses,
                "gradients_not_finite": gradients,
                **{name: _summary(getattr(one, name)) for name in inputs},
            }
            break
    agent.zero_grad(set_to_none=False)
    return facts


def finite_network(optimizer: FlatAdam) -> Tensor:
    """Return whether all weights and moments are finite, as a scalar 1 or 0 on the device."""
    return torch.stack([x.isfinite().all() for x in optimizer.tensors]).all().float()


def explain_network(agent: ActorCritic, optimizer: FlatAdam) -> dict[str, Any]:
    """Return facts about weights and moments of which some are not finite after an update."""
    bad = {name: x for name, x in _network(agent, optimizer) if not x.isfinite().all()}
    return {
        "what": next(iter(bad)),
        "not_finite": list(bad),
        "numbers": _summary(next(iter(bad.values()))),
        "after_the_update": True,
    }


def _network(agent: ActorCritic, optimizer: FlatAdam) -> Iterator[tuple[str, Tensor]]:
    """Yield weights and moments with their names."""
    for name, x in agent.named_parameters():
        yield f"weight {name}", x
        for moment, values in optimizer.state.get(x, {}).items():
            if isinstance(values, Tensor) and values.is_floating_point():
                yield f"{moment} of {name}", values


def non_finite(run_dir: Path, steps: int, facts: dict[str, Any]) -> TrainingError:
    """Return the error for a non-finite number, and write the facts to diagnostic.json."""
    path = write_diagnostic(run_dir, {**facts, "steps": steps})
    what = facts.get("what", "loss or gradient of a minibatch")
    where = f" of environment {facts['environment']} ({facts['task']})" if "environment" in facts else ""
    advice = "" if "step" in facts else "; try a smaller learning_rate or max_grad_norm"
    # An update may have damaged the agent in memory, but not those on the disk.
    harm = "" if "after_the_update" in facts else " before it could damage the agent"
    return TrainingError(
        f"the {what}{where} is not finite at step {facts.get('step', steps)}; training stopped{harm}, and "
        f"the checkpoints in {run_dir / 'checkpoints'} are intact{advice}"
        + (f". Details: {path}" if path else "")
    )


def shared_error(
    run_dir: Path, steps: int, facts: dict[str, Any] | None, processes: Processes, num_envs: int
) -> TrainingError:
    """Return the error for a non-finite number; called in all processes, and explained by process 0.

    Args:
        run_dir: the run folder.
        steps: environment steps before the rollout.
        facts: what this process knows about it; None if its own numbers are finite.
        processes: of the run.
        num_envs: environments of this process.
    """
    known = processes.gather(facts and of_process(facts, processes, num_envs))
    if known is None:
        return TrainingError("a number is not finite; process 0 explains it")
    return non_finite(run_dir, steps, next((f for f in known if f and "what" in f), known[0] or {}))


class DivergenceMonitor:
    """Monitor that warns of an exploding value loss and a collapsed entropy. It changes nothing.

    Args:
        action_space: of the agent.
        rollout: the trainer's. Its action masks limit the entropy; None for no masks.
    """

    def __init__(self, action_space: spaces.Space[Any], rollout: Rollout | None = None) -> None:
        self.action_space, self.rollout = action_space, rollout
        largest = _largest_entropy(action_space)
        self.floor = None if largest is None else 0.01 * largest
        self.dims = math.prod(action_space.shape or ())
        self.value_losses: deque[float] = deque(maxlen=50)
        self.quiet = 0
        self.collapsed = False

    def warnings(self, figures: Mapping[str, float]) -> list[str]:
        """Return the warnings that an iteration's figures call for."""
        if "train/value_loss" not in figures:
            return []  # an iteration without an update
        return [message for message in (self._value(figures), self._entropy(figures)) if message]

    def _value(self, figures: Mapping[str, float]) -> str | None:
        loss, before = figures["train/value_loss"], self.value_losses
        usual = statistics.median(before) if len(before) >= 10 else math.inf
        self.value_losses.append(loss)
        self.quiet = max(self.quiet - 1, 0)
        if self.quiet or loss <= max(100 * usual, 1.0):
            return None
        self.quiet = 100
        return (
            f"warning: the value loss rose from {usual:.3g} to {loss:.3g}: check whether the rewards grew; "
            "if not, try a smaller learning_rate, or clip_range_value"
        )

    def _entropy(self, figures: Mapping[str, float]) -> str | None:
        entropy = -figures["train/entropy_loss"]
        if self.floor is None:  # a continuous policy: a hundredth of each initial standard deviation
            self.floor = entropy - math.log(100) * self.dims
        solved = figures.get("rollout/success_rate", 0.0) >= 0.9
        if self.collapsed or solved or entropy >= self.floor or entropy >= self._floor_with_masks():
            return None
        self.collapsed = True
        return (
            f"warning: the policy's entropy collapsed to {entropy:.3g} nats: it no longer explores; if it "
            "has not solved the task, raise entropy_coef"
        )

    def _floor_with_masks(self) -> float:
        """Return a hundredth of the entropy of the uniform policy over allowed actions."""
        masks, sizes = getattr(self.rollout, "action_masks", None), choice_sizes(self.action_space)
        if masks is None or sizes is None:
            return math.inf
        allowed = [part.sum(-1).double().log() for part in masks.split(sizes, dim=-1)]
        return 0.01 * float(torch.stack(allowed).sum(0).mean())


class LearningMonitor:
    """Monitor that warns once if returns have not risen since the first rollouts. It changes nothing.

    It compares the latest iterations with the first ones after 40 % of the budget, or 80 % if the task
    reports success: those are often sparse, and their returns may stay flat for long before they rise. A rise
    by two standard errors counts.

    Args:
        total_steps: the budget.
        steps: those before this run; a run that continues is not monitored, since its start is not known.
        hints: what to try, for the message.
        waits: whether the policy waits for a signal; if not, that is to be tried where all returns are equal.
    """

    FIRST, LATEST = 10, 50
    """Iterations with ended episodes that are averaged."""

    def __init__(
        self, total_steps: int, steps: int = 0, hints: Sequence[str] = (), waits: bool = False
    ) -> None:
        self.total_steps, self.waits = total_steps, waits
        self.hints = [*hints, "another learning_rate or entropy_coef"]
        self.first: list[float] = []
        self.latest: deque[float] = deque(maxlen=self.LATEST)
        self.decided = steps > 0

    @classmethod
    def of_run(cls, agent: ActorCritic, config: PPOConfig, steps: int) -> LearningMonitor:
        """Return the monitor of a run, whose hints are the kinds of normalisation that it does not use."""
        readings = {read(part).kind for part in named_parts(agent.observation_space).values()}
        hints = [] if config.normalize_rewards else ["normalize_rewards=True"]
        if readings & {"numbers", "raw", "log"} and not agent.config.normalize_observations:
            hints.append("normalize_observations=True (in a new run)")
        return cls(config.total_steps, steps, hints, config.wait_for_signal)

    def warnings(self, figures: Mapping[str, float]) -> list[str]:
        """Return the warning that an iteration's figures call for, if they do."""
        if self.decided or "rollout/ep_rew_mean" not in figures:
            return []
        (self.first if len(self.first) < self.FIRST else self.latest).append(figures["rollout/ep_rew_mean"])
        success = figures.get("rollout/success_rate")
        steps = figures["time/total_timesteps"]
        patience = 0.4 if success is None else 0.8
        if steps < patience * self.total_steps or len(self.latest) < self.FIRST:
            return []
        self.decided = True
        before, now = statistics.fmean(self.first), statistics.fmean(self.latest)
        errors = [statistics.variance(x) / len(x) for x in (self.first, self.latest)]
        if now > before + 2 * math.sqrt(sum(errors)) or (success or 0.0) >= 0.9:
            return []
        hints = self.hints
        if len({*self.first, *self.latest}) == 1:  # no episode has been better than another
            explore = "a higher action_persistence (in a new run)"
            hints = [explore] if self.waits else ["wait_for_signal=True (in a new run)", explore, *hints]
        return [
            f"warning: after {steps:,.0f} of {self.total_steps:,} steps the mean return of {now:.4g} is not "
            f"clearly above that of the first rollouts, {before:.4g}: the agent may learn nothing; try "
            f"{', '.join(hints[:-1])}{', or ' if hints[:-1] else ''}{hints[-1]}"
        ]


def _largest_entropy(space: spaces.Space[Any]) -> float | None:
    """Return the entropy of the uniform policy, in nats; None for spaces without one."""
    if isinstance(space, spaces.Discrete):
        return math.log(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return float(sum(math.log(n) for n in space.nvec.ravel().tolist()))
    if isinstance(space, spaces.MultiBinary):
        return math.log(2) * math.prod(space.shape)
    return None


def _named(tree: Tree) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of an observation with their names; none for ids, whose table is finite."""
    if not isinstance(tree, ObservationIds):
        yield from tree.items() if isinstance(tree, dict) else [("", tree)]


def _not_finite(agent: ActorCritic) -> list[str]:
    return [name for name, p in agent.named_parameters() if not p.isfinite().all()]


def _summary(x: Tensor) -> dict[str, Any]:
    """Summarise a tensor in a few numbers that JSON can hold."""
    x = x.detach().double()
    good = x[x.isfinite()]
    return {
        "shape": list(x.shape),
        "nan": int(x.isnan().sum()),
        "infinite": int(x.isinf().sum()),
        "smallest": float(good.min()) if good.numel() else None,
        "largest": float(good.max()) if good.numel() else None,
    }

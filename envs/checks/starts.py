"""Rules of the contract about the starts of episodes: autoreset, seeds, and the ids of start states.

Axes: B environments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rmc_agents.environment import BatchedEnv, CuedEnv, KnownStarts, Obs
from rmc_agents.tree import map_tree

from .play import Player, Run, difference
from .report import Report
from .values import check_tensor, parts_of

MANY_STARTS = 8
"""New first observations after which `final_obs` no longer equals `obs` by chance."""
SEED_STEPS = 200
"""Steps that are played with other seeds."""
SEEDS = 4
"""Runs that have to be equal before the checker warns."""


def check_final_obs(report: Report, run: Run) -> None:
    """Report `final_obs` that are always those of the next episode, or a flag without a reset.

    A single last observation may equal the next first one. The rule is broken if all of them do, although
    observations change within episodes and first observations change from one episode to the next.
    """
    rule, first, previous = "same-step autoreset", run.first, run.first
    if report.has(rule) or any(step.valid is not None for step in run.transitions):
        return
    moves, new_starts = False, 0
    for step in run.transitions:
        done = step.done
        if (done & ~_equal_rows(step.final_obs, step.obs)).any():
            return
        moves = moves or bool((~done & ~_equal_rows(step.obs, previous)).any())
        new_starts += int((done & ~_equal_rows(step.obs, first)).sum())
        first = map_tree(lambda new, old, done=done: _where(done, new, old), step.obs, first)
        previous = step.obs
    if moves and new_starts >= MANY_STARTS:
        report.add(
            rule,
            "`final_obs` equals `obs` at every end of an episode",
            "the last observation of the old episode in `final_obs`, the first of the next one in `obs`",
            "Keep the observation from before the reset as `final_obs`, and reset where an episode ended.",
        )


def check_seeds(report: Report, env: BatchedEnv, seed: int, actions: list[Tensor], run: Run) -> None:
    """Add a remark if the seed has no effect on random episodes, or a reset without a seed repeats them."""
    actions = actions[:SEED_STEPS]

    def play(seed: int | None) -> Run:
        name = "a reset without a seed" if seed is None else f"reset({seed})"
        return Player(report, env).play(name, lambda: env.reset(seed), actions).head(SEED_STEPS)

    def equal(a: Run, b: Run) -> bool:
        return difference(a, b, ignore_success=True) is None

    run = run.head(SEED_STEPS)
    unseeded = play(None)
    repeats = all(equal(unseeded, play(None)) for _ in range(1, SEEDS))
    ignores_seed = all(equal(run, play(seed + i)) for i in range(1, SEEDS))
    if repeats and ignores_seed and equal(run, unseeded):
        return  # not random at all
    if ignores_seed:
        report.remarks.append(
            f"reset({seed}) and reset({seed + 1}) give the same episodes, although those of reset(None) "
            "differ; use the seed in `reset`"
        )
    elif repeats:
        report.remarks.append(
            "reset(None) repeats the same episodes; continue with the generators as they are"
        )


def check_ground_truth(report: Report, env: BatchedEnv, seed: int, action: Tensor) -> None:
    """Check the tensors of `ground_truth` and `start_ids`, where the task has these methods."""

    def check(name: str, value: object, dtype: torch.dtype) -> None:
        advice = "Return one number for each environment."
        check_tensor(report, "ground truth", name, value, (env.num_envs,), dtype, env.device, advice)

    try:
        env.reset(seed)
        if isinstance(env, KnownStarts):
            check("`start_ids()`", env.start_ids(), torch.int64)
        if isinstance(env, CuedEnv):
            for moment in ("a reset", "a step"):
                truth = env.ground_truth()
                for field in ("cue", "cue_in_view", "x", "state_id"):
                    dtype = torch.bool if field == "cue_in_view" else torch.int64
                    check(f"`ground_truth().{field}` after {moment}", getattr(truth, field, None), dtype)
                env.step(action.clone())
    except Exception as error:
        found = f"`ground_truth` or `start_ids` raised {error!r}"
        report.add("ground truth", found, "no exception", "Correct the error.")


def _equal_rows(a: Obs, b: Obs) -> Tensor:
    """Return [B] bool: the observations of an environment are equal, with NaN equal to NaN."""
    pairs = [(x, parts_of(b)[key]) for key, x in parts_of(a).items()]
    rows = [((x == y) | ((x != x) & (y != y))).reshape(len(x), -1).all(1) for x, y in pairs]
    return torch.stack(rows).all(0)


def _where(done: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(done.reshape(-1, *[1] * (new.dim() - 1)), new, old)

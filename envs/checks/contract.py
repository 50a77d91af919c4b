"""Checker for the contract of batched environments, like Gymnasium's `check_env` for single ones."""

from __future__ import annotations

import contextlib
import warnings

from rmc_agents.environment import BatchedEnv

from .episodes import Builder, EpisodeChecks
from .play import StopCheck
from .report import ContractError, Report
from .values import check_attributes


def check(
    env: BatchedEnv, seed: int = 0, steps: int = 200, *, make: Builder | None = None, meta: bool = True
) -> None:
    """Check that a batched environment follows the contract, `rmc_agents.environment.BatchedEnv`.

        rmc_envs.check(Echo(num_envs=4))
        rmc_envs.check(rmc_envs.make("rmc/Recall-v0", num_envs=4))

    The rules, by their names in the message:

    - **attributes**, **spaces**: all attributes are there, with the right types and ranges.
    - **reset first**: `step`, `state_dict` and `assign` raise RuntimeError before the first reset.
    - **errors**: `reset`, `step` and the other methods raise no other exceptions.
    - **observations**, **transitions**, **rewards**, **flags**, **auxiliary targets**: structure, shape,
      dtype, device and range of everything that is returned.
    - **teacher**: [B, P] probabilities of each component's choices that sum to 1, or all of a row 0.
    - **action masks**: [B, P] bool that allow at least one choice of every component, always or never given.
    - **success**: true only where an episode ends, and reported in every step or never.
    - **same-step autoreset**: `final_obs` equals `obs` where no episode ended, and is not always that of the
      next episode where one ended.
    - **new tensors**: tensors that were returned do not change later.
    - **unchanged actions**, **action shape**: `step` does not write to `actions`, and raises ValueError for a
      wrong shape.
    - **seed**: the same seed gives the same episodes, also after a reset without a seed.
    - **own randomness**: the global generators of torch, NumPy and Python are left alone.
    - **saved state**: it can be written and read with `weights_only=True`, later steps do not change it, and
      the steps after `load_state_dict` equal those after `state_dict`, bit for bit. A state of None is
      allowed.
    - **assign**: it sets `task_of`, starts new episodes only where the task changes, and refuses wrong
      arguments.
    - **warnings**: `warnings` returns a list of strings.
    - **ground truth**: `ground_truth` and `start_ids`, where the task has them, return tensors [B].
    - **observation table**: with `observe_ids`, the ids name rows that equal the observations without it,
      where the task has a table.
    - **meta device**: the task runs on torch's meta device, so no step waits for the host.

    A wrong structure ends the check early, since rules about contents cannot be checked then.

    Args:
        env: the environments. They must not have been reset; afterwards they are in some episode.
        seed: of the episodes that are played.
        steps: number of steps to play with random actions (allowed ones, where there are masks); some
            episodes should end within them.
        make: builds the same task, from `num_envs` and `device` by name, for the rules that need another
            instance or the meta device. By default that is `rmc_envs.build(env.config)`, or the class of
            `env` if its constructor has no other arguments.
        meta: whether the task has to run on the meta device. False for one that uses the host by design.

    Raises:
        ContractError: the environment breaks a rule; the message lists all that were found.
        ValueError: `steps` is not positive.

    Warns:
        UserWarning: some rules could not be checked, the seed has no effect on random episodes, or a reset
            without a seed repeats its episodes.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: expected 1 or more")
    report = Report()
    if check_attributes(report, env):
        checks = EpisodeChecks(report, env, seed, steps, make)
        checks.check_reset_first()
        with contextlib.suppress(StopCheck):  # the violation is in the report
            checks.check_episodes()
        if meta:
            checks.check_meta()
    name = type(env).__name__
    if report.violations:
        raise ContractError(name, report.violations)
    for remark in report.remarks:
        warnings.warn(f"rmc_envs.check({name}): {remark}", stacklevel=2)
    if report.unchecked:
        warnings.warn(f"rmc_envs.check({name}): not checked: {'; '.join(report.unchecked)}", stacklevel=2)

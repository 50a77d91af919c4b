"""Rules of the contract about ids of observations: the rows of the table equal what the task shows.

Axes: B environments, n rows of the table.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from rmc_agents.environment import BatchedEnv, FullObs, Obs, ObservationIds, Transition
from rmc_agents.tree import leaves, map_tree

from .play import Player, Run, StopCheck, difference
from .report import Report
from .state import read_state
from .values import check_observation, check_tensor, parts_of, same

RULE = "observation table"
ADVICE = (
    "Where `observe_ids` is set, return ObservationIds(row) of each observation, and change nothing else."
)


class _ReadBack:
    """Environments with `observe_ids` whose ids are turned back into observations; for `Player`."""

    def __init__(self, report: Report, env: BatchedEnv, table: FullObs) -> None:
        self.report, self.env, self.table = report, env, table

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, seed: int | None = None) -> Obs:
        return self.read("reset", self.env.reset(seed))

    def step(self, actions: Tensor) -> Transition:
        step = self.env.step(actions)
        obs, final_obs = self.read("step", step.obs), self.read("step", step.final_obs, "`final_obs`")
        return step._replace(obs=obs, final_obs=final_obs)

    def assign(self, task_of: list[int]) -> Obs:
        return self.read("assign", self.env.assign(task_of))

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        return self.read("load_state_dict", self.env.load_state_dict(state))

    def read(self, source: str, obs: Any, what: str = "the observation") -> Obs:
        """Return the rows that ids name.

        Raises:
            StopCheck: they are no ids of rows; it was reported.
        """
        if not check_ids(self.report, self.env, f"{what} of `{source}`", obs):
            raise StopCheck
        rows = next(leaves(self.table)).shape[0]
        outside = obs.ids[(obs.ids < 0) | (obs.ids >= rows)]
        if len(outside):
            found = f"with `observe_ids`, {what} of `{source}` has the id {int(outside[0])}"
            self.report.add(RULE, found, f"ids from 0 to {rows - 1}, the rows of the table", ADVICE)
            raise StopCheck
        return map_tree(lambda part: part.index_select(0, obs.ids), self.table)


def check_ids(report: Report, env: BatchedEnv, name: str, obs: Any) -> bool:
    """Report what is not ObservationIds [B]; return whether it is."""
    name = f"with `observe_ids`, {name}"
    if not isinstance(obs, ObservationIds):
        report.add(RULE, f"{name} is of type {type(obs).__name__}", "ObservationIds", ADVICE)
        return False
    return check_tensor(report, RULE, name, obs.ids, (env.num_envs,), torch.int64, env.device, ADVICE)


def check_table(
    report: Report,
    env: BatchedEnv,
    seed: int,
    actions: list[Tensor],
    run: Run,
    saved: tuple[bytes, Run] | None,
) -> None:
    """Check the table of a task that has one, and that ids stand for what the task shows without them.

    Args:
        report: of the check.
        env: the environments.
        seed: of `run`.
        actions: of `run`.
        run: what the environments returned after a reset.
        saved: a state, and what the environments returned after it; None if there is no state.

    Raises:
        StopCheck: a violation that makes further checks meaningless.
    """
    table = env.observation_table()
    if table is None:
        return
    if not _check_rows(report, env, table):
        raise StopCheck
    face = cast(BatchedEnv, _ReadBack(report, env, table))
    player = Player(report, face)

    def compare(name: str, expected: Run, found: Run) -> None:
        first = difference(expected, found)
        if first is not None:
            differs = f"after {name} with `observe_ids`, {first}"
            report.add(RULE, differs, "rows of the table that equal the observations", ADVICE)

    assigned = [_assign(env, env, seed, actions[0])]
    env.observe_ids = True
    try:
        compare("reset", run, player.play("reset", lambda: face.reset(seed), actions))
        if saved is not None:
            state, rest = read_state(saved[0]), saved[1]
            later = actions[len(actions) - len(rest.transitions) :]
            play = player.play("load_state_dict", lambda: face.load_state_dict(state), later)
            compare("load_state_dict", rest, play)
        assigned.append(_assign(env, face, seed, actions[0]))
    finally:
        env.observe_ids = False
    if not all(same(part, parts_of(assigned[1])[key]) for key, part in parts_of(assigned[0]).items()):
        found = "after assign with `observe_ids`, the observation differs"
        report.add(RULE, found, "rows of the table that equal the observations", ADVICE)


def check_ids_on_meta(report: Report, env: BatchedEnv, action: Tensor) -> None:
    """Check that a task with a table returns ids on the meta device."""
    if env.observation_table() is None:
        return
    env.observe_ids = True
    if check_ids(report, env, "the observation of `reset`", env.reset()):
        step = env.step(action.to("meta"))
        check_ids(report, env, "`obs` of `step`", step.obs)
        check_ids(report, env, "`final_obs` of `step`", step.final_obs)


def _check_rows(report: Report, env: BatchedEnv, table: Any) -> bool:
    """Report rows that are equal or no observations of the space; return whether their structure is right."""
    first = next(leaves(table), None)
    rows = len(first) if first is not None and first.ndim else 0
    if not rows:
        report.add(
            RULE, "`observation_table()` has no rows", "at least one row", "Return None without a table."
        )
        return False
    like = SimpleNamespace(
        num_envs=rows, observation_space=env.observation_space, device=env.device
    )  # as many environments as rows
    inner = Report()
    ok = check_observation(inner, cast(BatchedEnv, like), "`observation_table()`", table, "a row")
    for violation in inner.violations:
        report.add(RULE, violation.found, violation.expected, violation.advice)
    if not ok:
        return False
    numbers = torch.cat([part.reshape(rows, -1).double() for part in parts_of(table).values()], dim=1)
    distinct = len(torch.unique(numbers, dim=0))
    if distinct < rows:
        found = f"`observation_table()` has {rows} rows, of which {distinct} are distinct"
        report.add(RULE, found, "distinct rows", "Leave equal rows out; torch.unique finds them.")
    return True


def _assign(env: BatchedEnv, face: BatchedEnv, seed: int, action: Tensor) -> Obs:
    """Return the observation after half of the environments got another task, or after a step if none can."""
    env.reset(seed)
    obs = face.step(action.clone()).obs
    if not env.can_assign:
        return obs
    old, tasks, half = env.task_of.tolist(), len(env.tasks), env.num_envs // 2
    try:
        return face.assign([(task + 1) % tasks for task in old[:half]] + old[half:])
    finally:
        env.reset(seed)
        env.assign(old)

"""Recorded runs of a batched environment with random actions, and their comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets, BatchedEnv, Obs, Transition
from rmc_agents.spaces.masks import allowed_actions
from rmc_agents.tree import leaves, map_tree

from .report import Report
from .values import (
    check_advice,
    check_masks,
    check_observation,
    check_targets,
    check_transition,
    same,
)


class StopCheck(Exception):
    """A violation was reported that makes further checks meaningless."""


@dataclass
class Run:
    """Copies of everything that the environments returned from a start on."""

    first: Obs
    targets: list[AuxiliaryTargets | None]
    """After the start and after each step."""
    masks: list[Tensor | None]
    """Action masks after the start and after each step."""
    advice: list[Tensor | None]
    """The teacher's probabilities after the start and after each step."""
    transitions: list[Transition]
    last: Obs
    """Observations of a reset without a seed, after the last step."""

    def part(self, start: int) -> Run:
        """Return the run from a later step on."""
        first = self.transitions[start - 1].obs if start else self.first
        kept = self.targets[start:], self.masks[start:], self.advice[start:], self.transitions[start:]
        return Run(first, *kept, self.last)

    def head(self, steps: int) -> Run:
        """Return the run up to a number of steps, without the reset after the last one."""
        return Run(
            self.first,
            self.targets[: steps + 1],
            self.masks[: steps + 1],
            self.advice[: steps + 1],
            self.transitions[:steps],
            self.first,
        )


DRAWS = "Draw random numbers in `reset` and `step` only."
"""Advice on methods whose results differ between two calls."""


class Player:
    """Player of runs that reports the violations it sees on the way."""

    def __init__(self, report: Report, env: BatchedEnv) -> None:
        self.report, self.env = report, env
        self._returned: list[tuple[str, Any, Any]] = []  # name, value, copy of the value

    def play(
        self,
        name: str,
        start: Callable[[], Obs],
        actions: list[Tensor],
        before_step: Callable[[int], None] = lambda t: None,
    ) -> Run:
        """Start episodes, step through them, and reset without a seed.

        Args:
            name: of `start`, for messages.
            start: returns the first observations.
            actions: one batch for each step; where a mask forbids one, an allowed one is taken.
            before_step: called with the index of each step.

        Raises:
            StopCheck: an exception, or a value with the wrong structure; it was reported.
        """
        first = self._observe(name, start)
        run = Run(first, [self._targets(name)], [self._masks(name)], [self._advice(name)], [], first)
        self._check_allowed(run, name)
        for t, action in enumerate(actions):
            before_step(t)
            masks = run.masks[-1]
            if masks is not None:
                action = allowed_actions(action, masks, self.env.action_space)
            run.transitions.append(self._step(f"step {t}", action))
            run.targets.append(self._targets(f"step {t}"))
            run.masks.append(self._masks(f"step {t}"))
            run.advice.append(self._advice(f"step {t}"))
            self._check_allowed(run, f"step {t}")
        run.last = self._observe("a reset without a seed", self.env.reset)
        self._check_new_tensors()
        self._check_warnings()
        return run

    def _call(self, name: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except StopCheck:
            raise
        except Exception as error:
            advice = "Correct the error; every action of `action_space` must be allowed."
            self.report.add("errors", f"{name} raised {error!r}", "no exception", advice)
            raise StopCheck from error

    def _keep(self, name: str, value: Any) -> Any:
        """Return a copy of a value, and remember the value for `_check_new_tensors`."""
        copy = map_tree(torch.clone, value)
        self._returned.append((name, value, copy))
        return copy

    def _observe(self, name: str, function: Callable[[], Obs]) -> Obs:
        obs = self._call(name, function)
        if not check_observation(self.report, self.env, name, obs):
            raise StopCheck
        return self._keep(f"the observation of {name}", obs)

    def _step(self, name: str, action: Tensor) -> Transition:
        given = action.clone()
        step = self._call(name, lambda: self.env.step(given))
        if not check_transition(self.report, self.env, name, step):
            raise StopCheck
        if not same(given, action):
            found, advice = f"{name} changed `actions`", "Copy the actions before changing them."
            self.report.add("unchanged actions", found, "the actions as they were given", advice)
        return self._keep(f"the transition of {name}", step)

    def _targets(self, name: str) -> AuxiliaryTargets | None:
        what, method = f"`auxiliary_targets` after {name}", self.env.auxiliary_targets
        return self._repeatable("auxiliary targets", what, "targets", method, check_targets, DRAWS)

    def _advice(self, name: str) -> Tensor | None:
        what, method = f"`teacher_actions` after {name}", self.env.teacher_actions
        advice = "Give equally good actions equal probabilities, instead of drawing one."
        return self._repeatable("teacher", what, "advice", method, check_advice, advice)

    def _masks(self, name: str) -> Tensor | None:
        what, method = f"`action_masks` after {name}", self.env.action_masks
        return self._repeatable("action masks", what, "masks", method, check_masks, DRAWS)

    def _repeatable(
        self,
        rule: str,
        what: str,
        kind: str,
        method: Callable[[], Any],
        check: Callable[[Report, BatchedEnv, str, Any], bool],
        advice: str,
    ) -> Any:
        """Return a copy of what a method returns, which must be equal in a second call; None if it is None.

        Args:
            rule: that is broken if it is not.
            what: the call, for messages.
            kind: what the method returns, for messages.
            method: of the environments.
            check: reports a wrong structure, and returns whether it is right.
            advice: how to return the same in both calls.
        """
        value = self._call(what, method)
        if not check(self.report, self.env, what, value):
            raise StopCheck
        kept = self._keep(what, value)
        if value is not None and not _same_tree(self._call(what, method), kept):
            found, expected = f"{what} differ in a second call", f"the same {kind} until the next step"
            self.report.add(rule, found, expected, advice)
        return kept

    def _check_allowed(self, run: Run, name: str) -> None:
        advice, masks = run.advice[-1], run.masks[-1]
        if advice is not None and masks is not None and (advice * ~masks).any():
            found, expected = f"advice after {name} is to do what the action masks forbid", "allowed actions"
            self.report.add("teacher", found, expected, "Give what is forbidden the probability 0.")

    def _check_warnings(self) -> None:
        found = self._call("`warnings`", self.env.warnings)
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            advice = "Return [] where there is nothing to report."
            self.report.add("warnings", f"`warnings` returned {found!r}", "a list of strings", advice)

    def _check_new_tensors(self) -> None:
        for name, value, copy in self._returned:
            if not _same_tree(value, copy):
                self.report.add(
                    "new tensors",
                    f"{name} was changed later",
                    "returned tensors to stay as they are",
                    "Return new tensors, or copies of those that are changed in place.",
                )


PLURALS = ("targets", "masks", "actions")


def difference(a: Run, b: Run, ignore_success: bool = False) -> str | None:
    """Say which value is the first to differ between two runs; None if they are equal bit for bit."""
    for (name, x), (_, y) in zip(_values(a, ignore_success), _values(b, ignore_success), strict=True):
        if not _same_tree(x, y):
            return f"{name} {'differ' if any(word in name for word in PLURALS) else 'differs'}"
    return None


def _values(run: Run, ignore_success: bool) -> Iterator[tuple[str, Any]]:
    yield "the first observation", run.first
    yield "the first auxiliary targets", run.targets[0]
    yield "the first action masks", run.masks[0]
    yield "the first teacher actions", run.advice[0]
    columns = zip(run.transitions, run.targets[1:], run.masks[1:], run.advice[1:], strict=True)
    for t, (step, targets, masks, advice) in enumerate(columns):
        for field, value in zip(step._fields, step, strict=True):
            if not (ignore_success and field == "success"):
                yield f"`{field}` of step {t}", value
        yield f"`auxiliary_targets` after step {t}", targets
        yield f"`action_masks` after step {t}", masks
        yield f"`teacher_actions` after step {t}", advice
    yield "the observation of a reset without a seed after them", run.last


def _same_tree(a: Any, b: Any) -> bool:
    ours, theirs = list(leaves(a)), list(leaves(b))
    return len(ours) == len(theirs) and all(same(x, y) for x, y in zip(ours, theirs, strict=True))


def random_actions(space: spaces.Space, num_envs: int, generator: torch.Generator) -> Tensor:
    """Draw actions as an agent gives them: [B] or [B, n] int64, or float32 for `MultiBinary` and `Box`."""
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), (num_envs,), generator=generator)
    shape = (num_envs, *(space.shape or ()))
    if isinstance(space, spaces.MultiDiscrete):
        return (torch.rand(shape, generator=generator) * torch.as_tensor(space.nvec)).long()
    if isinstance(space, spaces.MultiBinary):
        return torch.randint(2, shape, generator=generator).float()
    assert isinstance(space, spaces.Box)
    low, high = (torch.as_tensor(bound).float() for bound in (space.low, space.high))
    uniform = low + torch.rand(shape, generator=generator) * (high - low)
    normal = torch.randn(shape, generator=generator).clamp(low, high)
    return torch.where(low.isfinite() & high.isfinite(), uniform, normal)

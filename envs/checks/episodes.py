"""Rules of the contract about behaviour, which need several calls, several runs or several instances.

Axes: B environments.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rmc_agents.environment import BatchedEnv

from ..building import build
from ..gymnasium.adapter import GymnasiumEnvs
from .play import Player, Run, difference, random_actions
from .report import Report
from .starts import check_final_obs, check_ground_truth, check_seeds
from .state import check_unchanged, read_state, save_state
from .table import check_ids_on_meta, check_table
from .values import (
    check_advice,
    check_attributes,
    check_masks,
    check_observation,
    check_targets,
    check_transition,
    parts_of,
    same,
)

RAISED_NOTHING = "raised nothing"
Builder = Callable[..., BatchedEnv]
"""Builds a task from `num_envs` and `device` by name."""


class EpisodeChecks:
    """Checks of one environment; each method checks some rules and adds violations to `report`."""

    def __init__(self, report: Report, env: BatchedEnv, seed: int, steps: int, make: Builder | None) -> None:
        self.report, self.env, self.seed = report, env, seed
        self.make = make or _default_builder(env)
        generator = torch.Generator().manual_seed(seed)
        self.actions = [
            random_actions(env.action_space, env.num_envs, generator).to(env.device) for _ in range(steps)
        ]
        self.is_adapter = isinstance(env, GymnasiumEnvs)

    def check_reset_first(self) -> None:
        """Check that methods that need an episode raise RuntimeError before the first reset."""
        calls: dict[str, Callable[[], Any]] = {
            "state_dict": self.env.state_dict,
            "assign": lambda: self.env.assign(self.env.task_of.tolist()),
            "step": lambda: self.env.step(self.actions[0].clone()),
        }
        for name, call in calls.items():
            found = _outcome(call, RuntimeError)
            if found is not None and not (name == "state_dict" and found == "returned None"):
                self.report.add(
                    "reset first",
                    f"`{name}` before the first reset {found}",
                    f"RuntimeError from `{name}`",
                    "Pass an environment that was not reset. Let its state be None until then, and raise "
                    "RuntimeError('call reset first').",
                )
                if found == RAISED_NOTHING:
                    break  # an episode may be running now

    def check_episodes(self) -> None:
        """Check the rules about episodes: play them, play them again, and restore a saved state.

        Raises:
            StopCheck: a violation that makes further checks meaningless.
        """
        env, report = self.env, self.report
        global_states, task_of = _global_states(env.device), env.task_of.clone()
        middle = len(self.actions) // 2
        state, saved = None, None

        def before_step(t: int) -> None:
            nonlocal state, saved
            if t == middle:
                state, saved = save_state(report, env)
            if not same(env.task_of, task_of):
                expected = "`task_of` to change in `assign` and `load_state_dict` only"
                report.add("assign", "`reset` or `step` changed `task_of`", expected, "Leave it as it is.")

        run = Player(report, env).play("reset", lambda: env.reset(self.seed), self.actions, before_step)
        if _global_states(env.device) != global_states:
            report.add(
                "own randomness",
                "a global generator of torch, NumPy or Python was used or seeded",
                "random numbers from generators that the environment owns",
                "Pass generator=self.generator to every random function.",
            )
        self._check_optional_fields(run)
        if not any(step.done.any() for step in run.transitions):
            report.unchecked.append(f"ends of episodes, since none ended in {len(self.actions)} steps")
        check_final_obs(report, run)
        if saved is not None:
            check_unchanged(report, state, saved, "the state that `state_dict` returned")
        self._check_seed(run)
        if saved is not None and not (report.has("seed") or report.has("auxiliary targets")):
            self._check_state(run.part(middle), self.actions[middle:], saved)
        if not report.has("seed"):
            rest = None if saved is None or report.has("saved state") else (saved, run.part(middle))
            check_table(report, env, self.seed, self.actions, run, rest)
        self._check_action_shapes()
        self._check_assign()
        check_ground_truth(report, env, self.seed, self.actions[0])

    def check_meta(self) -> None:
        """Check that the task runs on the meta device, where reading a number raises an error."""
        if self.is_adapter:
            return
        make = self.make or _class_builder(self.env)
        if make is None:
            self.report.unchecked.append("the meta device (pass make=, which builds the task on a device)")
            return
        inner, what, rows = Report(), "the constructor", self.env.num_envs
        try:
            other = make(num_envs=rows, device="meta")
            check_attributes(inner, other)
            what = "reset"
            check_observation(inner, other, "reset", other.reset(self.seed))
            for action in self.actions[:3]:
                what = "step"
                check_transition(inner, other, "a step", other.step(action.to("meta")))
                what = "auxiliary_targets"
                check_targets(inner, other, "`auxiliary_targets`", other.auxiliary_targets())
                what = "action_masks"
                check_masks(inner, other, "`action_masks`", other.action_masks())
                what = "teacher_actions"
                check_advice(inner, other, "`teacher_actions`", other.teacher_actions())
            what = "a call with observe_ids"
            check_ids_on_meta(inner, other, self.actions[0])
            new = [violation for violation in inner.violations if not self.report.has(violation.rule)]
            found = [(violation.found, violation.expected) for violation in new]
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            found = [(f"`{what}` raised {type(error).__name__}: {reason}", "no exception")]
        for fault, expected in found:
            self.report.add(
                "meta device",
                f"on the meta device, {fault}",
                expected,
                "Create every tensor on `device`, use no generator there, and read no number in `step` (no "
                ".item(), .cpu() or branch on a tensor).",
            )

    def _check_optional_fields(self, run: Run) -> None:
        """Check that success and valid are given in every step or never."""
        for field, rule in (("success", "success"), ("valid", "flags")):
            given = {getattr(step, field) is not None for step in run.transitions}
            if len(given) > 1 and not self.is_adapter:
                found, expected = f"`{field}` is None in some steps only", f"`{field}` in every step or never"
                self.report.add(rule, found, expected, "Return false where there is nothing to report.")
        if len({masks is None for masks in run.masks}) > 1:
            found, advice = "`action_masks` is None after some steps only", "Return true for what is allowed."
            self.report.add("action masks", found, "masks always or never", advice)
        if not any(step.valid is None or step.valid.any() for step in run.transitions):
            found, advice = "`valid` is false in every step", "Return false for filler steps only."
            self.report.add("flags", found, "true for real steps", advice)

    def _check_seed(self, run: Run) -> None:
        """Check that a seed fixes the episodes, in the same instance and in another one."""

        def play(env: BatchedEnv) -> Run:
            return Player(self.report, env).play("reset", lambda: env.reset(self.seed), self.actions)

        advice = "Seed every generator in `reset(seed)`, and drop what was drawn before."
        self._require_equal("seed", run, play(self.env), "a second reset with the same seed", advice)
        if self.report.has("seed"):
            return
        check_seeds(self.report, self.env, self.seed, self.actions, run)
        if self.make is None:
            self.report.unchecked.append(
                "another instance (pass make=, which builds one, or check what rmc_envs.make returns)"
            )
            return
        with self._another(self.env.num_envs) as other:
            if other is not None:
                advice = "Let the episodes depend on the arguments, the seed and the actions only."
                self._require_equal("seed", run, play(other), "another instance and the same seed", advice)

    def _check_state(self, rest: Run, actions: list[torch.Tensor], saved: bytes) -> None:
        """Check that a restored state continues like the original, in this instance and in another one."""

        def play(env: BatchedEnv) -> Run:
            state = read_state(saved)
            run = Player(self.report, env).play(
                "load_state_dict", lambda: env.load_state_dict(state), actions
            )
            check_unchanged(self.report, state, saved, "the state that `load_state_dict` was given")
            return run

        rule, advice = "saved state", "Save everything that the next step depends on, generators included."
        self._require_equal(rule, rest, play(self.env), "a restored state", advice)
        if self.make is None or self.report.has(rule):
            return
        rows = self.env.num_envs
        with self._another(rows) as other:
            if other is not None:
                self._require_equal(rule, rest, play(other), "a state restored in another instance", advice)
        with self._another(rows + 1) as larger:
            if larger is None:
                return
            found = _outcome(lambda: larger.load_state_dict(read_state(saved)), ValueError)
            if found is not None:
                self.report.add(
                    rule,
                    f"`load_state_dict` in {rows + 1} environments {found} for a state of {rows}",
                    "ValueError from `load_state_dict`",
                    "Compare the number of environments first.",
                )

    @contextlib.contextmanager
    def _another(self, num_envs: int) -> Iterator[BatchedEnv | None]:
        """Build another instance and close it afterwards; None if its constructor raises."""
        assert self.make is not None
        try:
            other = self.make(num_envs=num_envs, device=self.env.device)
        except Exception as error:
            self.report.unchecked.append(
                f"another instance of {num_envs} environments, since its constructor raised {error!r}"
            )
            yield None
            return
        try:
            yield other
        finally:
            try:
                other.close()
            except Exception as error:
                found, advice = f"`close` raised {error!r}", "Correct the error."
                self.report.add("errors", found, "no exception from `close`", advice)

    def _require_equal(self, rule: str, expected: Run, found: Run, what: str, advice: str) -> None:
        # The adapter reports success only once it has seen an episode end.
        first = difference(expected, found, ignore_success=self.is_adapter)
        if first is not None:
            self.report.add(rule, f"with {what}, {first}", f"equal episodes with {what}", advice)

    def _check_action_shapes(self) -> None:
        env, action = self.env, self.actions[0]
        shapes = [(env.num_envs + 1, *action.shape[1:]), (*action.shape, 1)]
        if env.num_envs > 1:
            shapes.append((1, *action.shape[1:]))  # it would broadcast
        for shape in shapes:
            env.reset(self.seed)
            wrong = torch.zeros(shape, dtype=action.dtype, device=action.device)
            found = _outcome(lambda wrong=wrong: env.step(wrong), ValueError)
            if found is not None:
                self.report.add(
                    "action shape",
                    f"`step` with actions of shape {list(shape)} {found}",
                    "ValueError from `step`",
                    "Call `self.require_actions(actions)` at the beginning of `step`.",
                )

    def _check_assign(self) -> None:
        env, tasks, old = self.env, len(self.env.tasks), self.env.task_of.tolist()
        env.reset(self.seed)
        if not env.can_assign:
            self._require_error(old, RuntimeError, "Set `can_assign = True`, or do not override `assign`.")
            return
        half = (env.num_envs + 1) // 2
        for new in (old, [(task + 1) % tasks for task in old[:half]] + old[half:]):
            if not self._try_assign(new):
                return
        for wrong in ([*old, 0], [tasks] * env.num_envs, [-1] * env.num_envs):
            self._require_error(wrong, ValueError, "Check the length and the range of the argument.")

    def _try_assign(self, new: list[int]) -> bool:
        """Take a step, assign tasks, and check the result; return whether that worked."""
        env, report, rule = self.env, self.report, "assign"
        before = env.step(self.actions[0].clone()).obs
        old = env.task_of.tolist()
        try:
            obs = env.assign(new)
        except Exception as error:
            advice = "Accept every index into `tasks`."
            report.add(rule, f"`assign({new})` raised {error!r}", "no exception", advice)
            return False
        if not check_observation(report, env, "assign", obs):
            return False
        if env.task_of.tolist() != new:
            found = f"`task_of` is {env.task_of.tolist()} after `assign({new})`"
            report.add(rule, found, "the assigned tasks in `task_of`", "Set `task_of` in `assign`.")
        kept = torch.tensor([a == b for a, b in zip(old, new, strict=True)], device=env.device)
        if not all(same(parts_of(obs)[key][kept], part[kept]) for key, part in parts_of(before).items()):
            report.add(
                rule,
                "`assign` changed the observation of an environment that keeps its task",
                "a new episode only where the task changes",
                "Use torch.where(task_of != old_task_of, new, old) for each part of the state.",
            )
        return check_transition(report, env, "a step after assign", env.step(self.actions[0].clone()))

    def _require_error(self, task_of: list[int], error: type[Exception], advice: str) -> None:
        found = _outcome(lambda: self.env.assign(task_of), error)
        if found is not None:
            name = f"{error.__name__} from `assign`"
            if error is RuntimeError:
                name += ", since `can_assign` is False"
            self.report.add("assign", f"`assign({task_of})` {found}", name, advice)


def _outcome(call: Callable[[], Any], expected: type[Exception]) -> str | None:
    """Describe what a call did instead of raising the expected error; None if it raised that error."""
    try:
        result = call()
    except expected:
        return None
    except Exception as error:
        return f"raised {error!r}"
    return "returned None" if result is None else RAISED_NOTHING


def _global_states(device: torch.device) -> tuple[Any, ...]:
    """Return the states of all global generators, comparable with ==."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is what is checked
    return (*(state.numpy().tobytes() for state in states), repr(numpy_state), random.getstate())


def _default_builder(env: BatchedEnv) -> Builder | None:
    """Return a builder of the same task if `rmc_envs.make` built `env` or its class has no options."""
    config = env.config
    if config is not None:
        return lambda num_envs, device: build(replace(config, num_envs=num_envs), device)
    has_no_options = set(inspect.signature(type(env)).parameters) == {"num_envs", "device"}
    return type(env) if has_no_options else None


def _class_builder(env: BatchedEnv) -> Builder | None:
    """Return the class of `env` if its constructor needs no more than `num_envs` and `device`."""
    try:
        inspect.signature(type(env)).bind(num_envs=1, device="meta")
    except TypeError:
        return None
    return type(env)

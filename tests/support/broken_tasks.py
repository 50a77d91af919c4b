"""Tasks that each break one rule of the contract."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.environment import (
    AuxiliaryTargets,
    BatchedEnv,
    FullObs,
    GroundTruth,
    Obs,
    ObservationIds,
    Transition,
)
from tests.support.tiny_task import DIGITS, ListedTiny, Tiny

BROKEN: dict[type[Tiny], str] = {}
"""Each task, with a pattern of the message about the rule that it breaks, which begins with the rule."""


def breaks(pattern: str) -> Callable[[type[Tiny]], type[Tiny]]:
    """Add a task to `BROKEN`."""

    def add(task: type[Tiny]) -> type[Tiny]:
        BROKEN[task] = pattern
        return task

    return add


@breaks(r"attributes: `tasks` is \[\]")
class NoTasks(Tiny):
    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        self.tasks = []  # type: ignore[assignment]


@breaks(r"attributes: `task_of` is tensor")
class FloatTasks(Tiny):
    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        self.task_of = self.task_of.float()


@breaks(r"attributes: `task_of` is tensor.* from 0 to 1")
class UnknownTask(Tiny):
    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        self.task_of = self.task_of + 1


@breaks(r"attributes: `device` is 'cpu'; expected a torch.device")
class DeviceName(Tiny):
    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        self.device = "cpu"  # type: ignore[assignment]


@breaks(r"attributes: `aux_size` is -1; expected an int of 0 or more")
class NegativeAuxSize(Tiny):
    aux_size = -1


@breaks(r"attributes: `num_envs` is missing; expected an int of 1 or more")
class NoNumber(Tiny):
    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        del self.num_envs


@breaks(r"spaces: `observation_space` is Dict")
class NestedSpace(Tiny):
    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        self.observation_space = spaces.Dict({"outer": spaces.Dict({"inner": spaces.Discrete(2)})})


@breaks(r"spaces: .* has start 1; expected start 0")
class CountFromOne(Tiny):
    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        self.action_space = spaces.Discrete(DIGITS, start=1)


@breaks(r"reset first: `step` before the first reset raised nothing; expected RuntimeError")
class StepFirst(Tiny):
    def step(self, actions: Tensor) -> Transition:
        if self.digit is None:
            self.reset()
        return super().step(actions)


@breaks(r"reset first: `state_dict` before the first reset raised TypeError")
class StateFirst(Tiny):
    def state_dict(self) -> dict[str, Any] | None:
        if self.digit is None:
            raise TypeError("no digit")
        return super().state_dict()


@breaks(r"reset first: `assign` before the first reset raised nothing")
class AssignFirst(Tiny):
    def assign(self, task_of: Any) -> Obs:
        if self.digit is None:
            self.reset()
        return super().assign(task_of)


@breaks(r"errors: step 1 raised ZeroDivisionError")
class Fails(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        if self.device.type != "meta" and self.time[0] == 2:
            raise ZeroDivisionError("division by zero")
        return step


@breaks(r"transitions: step 0 returned an object of type tuple; expected a Transition")
class ReturnsTuple(Tiny):
    def step(self, actions: Tensor) -> Transition:
        return tuple(super().step(actions))  # type: ignore[return-value]


@breaks(r"observations: the observation 'digit' of reset is float32 .* expected int64 ")
class FloatDigit(Tiny):
    def observe(self) -> Obs:
        obs = super().observe()
        assert isinstance(obs, dict)
        return {**obs, "digit": obs["digit"].float()}


@breaks(r"observations: the observation of reset is a dictionary with the keys \['digit'\]")
class MissingKey(Tiny):
    def observe(self) -> Obs:
        obs = super().observe()
        assert isinstance(obs, dict)
        return {"digit": obs["digit"]}


@breaks(r"observations: the observation 'time' of reset is float32 \[4\]")
class Flat(Tiny):
    def observe(self) -> Obs:
        obs = super().observe()
        assert isinstance(obs, dict)
        return {**obs, "time": obs["time"].squeeze(1)}


@breaks(r"observations: `obs` 'time' of step 1 holds 2.0 in environment 0; expected numbers in Box")
class OutOfSpace(Tiny):
    def observe(self) -> Obs:
        obs = super().observe()
        assert isinstance(obs, dict)
        return {**obs, "time": torch.where(self.time.unsqueeze(1) == 2, 2.0, obs["time"])}


@breaks(r"observations: `obs` 'time' of step 1 holds nan in environment 0")
class NanObservation(Tiny):
    def observe(self) -> Obs:
        obs = super().observe()
        assert isinstance(obs, dict)
        return {**obs, "time": torch.where(self.time.unsqueeze(1) == 2, torch.nan, obs["time"])}


@breaks(r"rewards: `reward` of step 0 is float64 .* Convert it")
class DoubleReward(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(reward=step.reward.double())


@breaks(r"rewards: `reward` of step 2 holds inf; expected finite rewards")
class InfiniteReward(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(reward=torch.where(step.terminated, torch.inf, step.reward))


@breaks(r"flags: `terminated` of step 0 is int64 ")
class IntegerFlags(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(terminated=step.terminated.long())


@breaks(r"flags: `truncated` of step 0 is bool \[\]")
class OneFlag(Tiny):
    def step(self, actions: Tensor) -> Transition:
        never = torch.zeros((), dtype=torch.bool, device=self.device)
        return super().step(actions)._replace(truncated=never)


@breaks(r"success: `success` of step \d+ is true where no episode ended")
class EarlySuccess(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(success=step.success | ~step.done)


@breaks(r"success: `success` is None in some steps only")
class SuccessAtEndsOnly(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        if self.device.type == "meta" or step.done.any():
            return step
        return step._replace(success=None)


@breaks(r"same-step autoreset: `final_obs` of step 0 differs from `obs` where no episode ended")
class LateObservation(Tiny):
    def step(self, actions: Tensor) -> Transition:
        before = None if self.digit is None else self.observe()
        return super().step(actions)._replace(final_obs=before)


@breaks(r"new tensors: .*was changed later")
class ReusedBuffer(Tiny):
    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        self.buffer = torch.zeros(num_envs, device=self.device)

    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(reward=self.buffer.add_(1.0))

    def reset(self, seed: int | None = None) -> Obs:
        self.buffer.zero_()
        return super().reset(seed)

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        obs = super().load_state_dict(state)
        self.buffer.copy_(state["buffer"])
        return obs

    def state_dict(self) -> dict[str, Any] | None:
        state = super().state_dict()
        assert state is not None
        return {**state, "buffer": self.buffer.clone()}


@breaks(r"unchanged actions: step 0 changed `actions`")
class ChangesActions(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        actions.add_(1)
        return step


@breaks(r"action shape: `step` with actions of shape \[4, 1\] raised .*expected ValueError")
class Broadcasts(Tiny):
    def require_actions(self, actions: Tensor) -> None:
        if len(actions) != self.num_envs:
            raise ValueError("expected an action for each environment")


@breaks(r"action shape: `step` with actions of shape \[1\] raised nothing; expected ValueError")
class AcceptsOneAction(Tiny):
    def require_actions(self, actions: Tensor) -> None:
        if actions.shape not in ((1,), (self.num_envs,)):
            raise ValueError("expected an action for each environment")


@breaks(r"auxiliary targets: .* None; expected AuxiliaryTargets, since `aux_size` is 1")
class NoTargets(Tiny):
    def auxiliary_targets(self) -> None:
        return None


@breaks(r"auxiliary targets: .*expected None, since `aux_size` is 0")
class UnannouncedTargets(Tiny):
    aux_size = 0


@breaks(r"auxiliary targets: values of .* is float32 \[4\]")
class FlatTargets(Tiny):
    def auxiliary_targets(self) -> AuxiliaryTargets | None:
        targets = super().auxiliary_targets()
        return AuxiliaryTargets(*(part.squeeze(1) for part in targets))


@breaks(r"auxiliary targets: weights of .* are negative")
class NegativeWeights(Tiny):
    def auxiliary_targets(self) -> AuxiliaryTargets | None:
        targets = super().auxiliary_targets()
        return AuxiliaryTargets(targets.values, -targets.weights)


@breaks(r"own randomness: a global generator")
class TorchsGenerator(Tiny):
    def draw(self) -> Tensor:
        torch.rand((), device=self.device)
        return super().draw()


@breaks(r"own randomness: a global generator")
class NumpysGenerator(Tiny):
    def draw(self) -> Tensor:
        np.random.rand()  # noqa: NPY002
        return super().draw()


@breaks(r"own randomness: a global generator")
class PythonsGenerator(Tiny):
    def draw(self) -> Tensor:
        random.random()
        return super().draw()


@breaks(r"seed: with a second reset with the same seed, .* differs")
class IgnoresSeed(Tiny):
    def reset(self, seed: int | None = None) -> Obs:
        return super().reset()


@breaks(r"seed: with another instance and the same seed, .* differs")
class DependsOnInstance(Tiny):
    instances = 0

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        DependsOnInstance.instances += 1
        self.shift = DependsOnInstance.instances

    def draw(self) -> Tensor:
        return (super().draw() + self.shift) % DIGITS


@breaks(r"saved state: with a restored state, .* differs")
class ForgetsGenerator(Tiny):
    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        assert self.generator is not None
        return super().load_state_dict({**state, "generator": self.generator.get_state()})


@breaks(r"saved state: with a restored state, .* differs")
class ForgetsTime(Tiny):
    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        return super().load_state_dict({**state, "time": torch.zeros_like(state["time"])})


@breaks(r"saved state: `state_dict\(\)\['spaces'\]` is of type gymnasium.spaces.dict.Dict; expected ")
class UnsafeState(Tiny):
    def state_dict(self) -> dict[str, Any] | None:
        state = super().state_dict()
        assert state is not None
        return {**state, "spaces": self.observation_space}


@breaks(r"saved state: `load_state_dict` in 5 environments .* for a state of 4; expected ValueError")
class AnyNumber(Tiny):
    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        self.num_envs = len(state["digit"])
        return super().load_state_dict(state)


@breaks(r"errors: load_state_dict raised RuntimeError")
class NoLoad(Tiny):
    load_state_dict = BatchedEnv.load_state_dict


@breaks(r"assign: `assign` changed the observation of an environment that keeps its task")
class RestartsAll(Tiny):
    def assign(self, task_of: Any) -> Obs:
        obs = super().assign(task_of)
        if self.digit is None:
            return obs
        self.time = torch.zeros_like(self.time)
        return self.observe()


@breaks(r"assign: `task_of` is \[0, 1, 0, 1\] after `assign\(\[1, 0, 0, 1\]\)`")
class IgnoresAssignment(Tiny):
    def assign(self, task_of: Any) -> Obs:
        super().assign(task_of)
        self.task_of = torch.arange(self.num_envs) % 2
        return self.observe()


@breaks(r"assign: `assign\(\[2, 2, 2, 2\]\)` raised nothing; expected ValueError")
class AssignsAnything(Tiny):
    def assign(self, task_of: Any) -> Obs:
        if self.digit is not None and len(task_of) == self.num_envs:
            task_of = [min(task, 1) for task in task_of]
        return super().assign(task_of)


@breaks(r"assign: `assign\(\[0, 1, 0, 1\]\)` raised nothing; .* since `can_assign` is False")
class HiddenAssign(Tiny):
    can_assign = False


@breaks(r"assign: `reset` or `step` changed `task_of`")
class ChangesTasks(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        self.task_of = torch.where(step.done, 1 - self.task_of, self.task_of)
        return step


@breaks(r"meta device: on the meta device, `step` raised RuntimeError")
class ReadsNumbers(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        step.reward.sum().item()
        return step


@breaks(r"meta device: on the meta device, `reward` of a step is float32 \[4\] on cpu")
class StrayTensor(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(reward=torch.zeros(self.num_envs)) if self.device.type == "meta" else step


@breaks(r"same-step autoreset: `final_obs` equals `obs` at every end of an episode")
class NextFinalObservation(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(final_obs=step.obs)


@breaks(r"same-step autoreset: `final_obs` equals `obs` at every end of an episode")
class EndsWithoutReset(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        assert self.digit is not None
        self.digit = torch.where(self.time == 1, self.draw(), self.digit)
        obs = self.observe()
        return step._replace(obs=obs, final_obs=obs)


class AddsToState(Tiny):
    """Adds a part to the saved state, which `load_state_dict` ignores."""

    def part(self) -> Any:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any] | None:
        state = super().state_dict()
        assert state is not None
        return {**state, "part": self.part()}


@breaks(r"saved state: `state_dict\(\)\['part'\]` is of type set; expected ")
class SetInState(AddsToState):
    def part(self) -> Any:
        return {1, 2}


@breaks(r"saved state: `state_dict\(\)\['part'\]\[1\]` is a tensor of layout torch.sparse_coo")
class SparseTensorInState(AddsToState):
    def part(self) -> Any:
        return [0, torch.eye(2).to_sparse()]


@breaks(r"saved state: `state_dict\(\)\['part'\]\['array'\]` is of type numpy.ndarray; .*as_tensor")
class ArrayInState(AddsToState):
    def part(self) -> Any:
        return {"array": np.zeros(2)}


@breaks(r"saved state: `state_dict\(\)\['part'\]` is of type numpy.float64")
class NumpyNumberInState(AddsToState):
    def part(self) -> Any:
        return np.float64(1.0)


@breaks(r"saved state: `state_dict\(\)\['part'\]` has the key 1 of type int")
class IntegerKeyInState(AddsToState):
    def part(self) -> Any:
        return {1: "one"}


@breaks(r"saved state: `state_dict\(\)` is of type list")
class ListAsState(Tiny):
    def state_dict(self) -> Any:
        state = super().state_dict()
        assert state is not None
        return list(state.values())


class CountsInPlace(AddsToState):
    """Counts its steps in a tensor that it changes in place."""

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        self.steps = torch.zeros((), device=self.device)

    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        self.steps.add_(1)
        return step


@breaks(r"saved state: the state that `state_dict` returned changed later, at \['part'\];")
class SharesState(CountsInPlace):
    def part(self) -> Any:
        return self.steps


@breaks(r"saved state: the state that `load_state_dict` was given changed later, at \['part'\]\[0\]")
class KeepsGivenState(CountsInPlace):
    def part(self) -> Any:
        return [self.steps.clone()]

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        self.steps = state["part"][0]
        return super().load_state_dict(state)


@breaks(r"saved state: the state that `load_state_dict` was given changed later;")
class RemovesFromGivenState(AddsToState):
    def part(self) -> Any:
        return "part"

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        state.pop("part")
        return super().load_state_dict(state)


@breaks(r"warnings: `warnings` returned None; expected a list of strings")
class NoWarnings(Tiny):
    def warnings(self) -> Any:
        return None


@breaks(r"warnings: `warnings` returned \[1\]; expected a list of strings")
class NumbersAsWarnings(Tiny):
    def warnings(self) -> Any:
        return [1]


@breaks(r"rewards: `reward` of step 0 requires grad; expected tensors that do not require grad")
class RewardWithGradient(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(reward=step.reward * torch.ones((), device=self.device, requires_grad=True))


@breaks(r"flags: `valid` is false in every step")
class NeverValid(Tiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(valid=torch.zeros_like(step.terminated))


@breaks(r"auxiliary targets: .* are not finite")
class InfiniteTargets(Tiny):
    def auxiliary_targets(self) -> AuxiliaryTargets | None:
        targets = super().auxiliary_targets()
        assert targets is not None
        return targets._replace(values=targets.values / 0)


@breaks(r"auxiliary targets: `auxiliary_targets` after reset differ in a second call")
class RandomTargets(Tiny):
    def auxiliary_targets(self) -> AuxiliaryTargets | None:
        targets = super().auxiliary_targets()
        assert targets is not None
        noise = torch.rand(self.num_envs, 1, generator=self.generator, device=self.device)
        return targets._replace(values=noise)


@breaks(r"ground truth: `start_ids\(\)` is int32 \[4\] on cpu; expected int64 \[4\]")
class SmallStartIds(Tiny):
    def start_ids(self) -> Tensor:
        return torch.arange(self.num_envs, dtype=torch.int32)


@breaks(r"ground truth: `ground_truth\(\).cue_in_view` after a reset is int64 \[4\]")
class IntegerView(Tiny):
    def ground_truth(self) -> GroundTruth:
        assert self.digit is not None
        return GroundTruth(self.digit % 2, self.time, self.time, self.time)


@breaks(r"ground truth: `ground_truth` or `start_ids` raised KeyError\('missing'\)")
class GroundTruthFails(Tiny):
    def ground_truth(self) -> GroundTruth:
        raise KeyError("missing")


@breaks(r"observation table: with `observe_ids`, the observation of `reset` is of type dict; expected Obs")
class IgnoresIds(ListedTiny):
    def observe(self) -> Obs:
        return Tiny.observe(self)


@breaks(
    r"observation table: with `observe_ids`, the observation of `reset` is int32 \[4\] on cpu; expected int64"
)
class SmallIds(ListedTiny):
    def observe(self) -> Obs:
        obs = super().observe()
        return ObservationIds(obs.ids.int()) if isinstance(obs, ObservationIds) else obs


@breaks(
    r"observation table: with `observe_ids`, `final_obs` of `step` has the id 8; expected ids from 0 to 7"
)
class UnlistedEnd(ListedTiny):
    def observe(self) -> Obs:
        obs = super().observe()
        return ObservationIds(obs.ids + (obs.ids == 7)) if isinstance(obs, ObservationIds) else obs


@breaks(r"observation table: after reset with `observe_ids`, `final_obs` of step 2 differs; expected rows")
class WrongRow(ListedTiny):
    def step(self, actions: Tensor) -> Transition:
        step = super().step(actions)
        return step._replace(final_obs=step.obs) if self.observe_ids else step


@breaks(r"observation table: after load_state_dict with `observe_ids`, the first observation differs")
class WrongRowAfterLoading(ListedTiny):
    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        obs = super().load_state_dict(state)
        return ObservationIds(obs.ids * 0) if isinstance(obs, ObservationIds) else obs


@breaks(r"observation table: after assign with `observe_ids`, the observation differs")
class WrongRowAfterAssign(ListedTiny):
    def assign(self, task_of: Any) -> Obs:
        obs = super().assign(task_of)
        return ObservationIds(obs.ids.clamp_min(DIGITS)) if isinstance(obs, ObservationIds) else obs


@breaks(r"observation table: `observation_table\(\)` has 9 rows, of which 8 are distinct")
class RepeatedRow(ListedTiny):
    def observation_table(self) -> FullObs | None:
        table = super().observation_table()
        assert isinstance(table, dict)
        return {name: torch.cat([part, part[:1]]) for name, part in table.items()}


@breaks(r"observation table: a row of `observation_table\(\)` is a dictionary with the keys \['digit'\]")
class PartOfTable(ListedTiny):
    def observation_table(self) -> FullObs | None:
        table = super().observation_table()
        assert isinstance(table, dict)
        return {"digit": table["digit"]}


@breaks(r"observation table: `observation_table\(\)` has no rows")
class EmptyTable(ListedTiny):
    def observation_table(self) -> FullObs | None:
        table = super().observation_table()
        assert isinstance(table, dict)
        return {name: part[:0] for name, part in table.items()}


@breaks(r"errors: `close` raised OSError")
class CloseFails(Tiny):
    def close(self) -> None:
        raise OSError("already closed")


class Numbers(Tiny):
    """Actions are numbers, and no choices."""

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, device)
        self.action_space = spaces.Box(0, 1, ())  # type: ignore[assignment]


@breaks(r"teacher: `teacher_actions` after reset are float32 \[4, 10\] .* expected None, since `has_teacher`")
class UnannouncedTeacher(Tiny):
    def teacher_actions(self) -> Tensor | None:
        return torch.zeros(self.num_envs, 2 * DIGITS, device=self.device)


@breaks(r"teacher: `teacher_actions` after reset are no probabilities: \[1\.0, 1\.0, ")
class CertainOfEverything(Tiny):
    has_teacher = True

    def teacher_actions(self) -> Tensor | None:
        return torch.ones(self.num_envs, 2 * DIGITS, device=self.device)


@breaks(r"teacher: `teacher_actions` after reset is int64 \[4, 2\]")
class TeacherOfNumbers(Tiny):
    has_teacher = True

    def teacher_actions(self) -> Tensor | None:
        return torch.zeros(self.num_envs, 2, dtype=torch.int64, device=self.device)


@breaks(r"teacher: `has_teacher` is true, and actions are Box")
class TeacherOfControl(Numbers):
    has_teacher = True


@breaks(r"teacher: advice after reset is to do what the action masks forbid")
class ForbiddenAdvice(Tiny):
    has_teacher = True

    def teacher_actions(self) -> Tensor | None:
        advice = torch.zeros(self.num_envs, 2 * DIGITS, device=self.device)
        advice[:, 0] = 1
        return advice

    def action_masks(self) -> Tensor | None:
        masks = torch.ones(self.num_envs, 2 * DIGITS, dtype=torch.bool, device=self.device)
        masks[:, 0] = False
        return masks


@breaks(r"teacher: `teacher_actions` after reset differ in a second call")
class ChangingAdvice(Tiny):
    has_teacher, calls = True, 0

    def teacher_actions(self) -> Tensor | None:
        advice = torch.zeros(self.num_envs, 2 * DIGITS, device=self.device)
        advice[:, self.calls % 2] = 1
        self.calls += 1
        return advice


@breaks(r"action masks: `action_masks` after reset is float32 \[4, 10\]")
class FloatMasks(Tiny):
    def action_masks(self) -> Tensor | None:
        return torch.ones(self.num_envs, 2 * DIGITS, device=self.device)


@breaks(r"action masks: `action_masks` after reset allow no choice of component 0 in environment 3")
class NothingAllowed(Tiny):
    def action_masks(self) -> Tensor | None:
        masks = torch.ones(self.num_envs, 2 * DIGITS, dtype=torch.bool, device=self.device)
        masks[-1] = False
        return masks


@breaks(r"action masks: .* are bool \[4, 1\] on cpu; expected None, since Box")
class MasksOfNumbers(Numbers):
    def action_masks(self) -> Tensor | None:
        return torch.ones(self.num_envs, 1, dtype=torch.bool, device=self.device)


@breaks(r"action masks: `action_masks` is None after some steps only")
class MasksAtStartsOnly(Tiny):
    def action_masks(self) -> Tensor | None:
        if self.device.type == "meta" or self.time.any():
            return None
        return torch.ones(self.num_envs, 2 * DIGITS, dtype=torch.bool, device=self.device)


@breaks(r"action masks: `action_masks` after reset differ in a second call")
class MaskedAnew(Tiny):
    calls = 0

    def action_masks(self) -> Tensor | None:
        masks = torch.ones(self.num_envs, 2 * DIGITS, dtype=torch.bool, device=self.device)
        masks[:, self.calls % 2] = False
        self.calls += 1
        return masks

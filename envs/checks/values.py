"""Rules of the contract about single values: attributes, observations, transitions and auxiliary targets.

Axes: B environments, K auxiliary targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets, BatchedEnv, EnvConfig, Transition
from rmc_agents.spaces.masks import choice_sizes

from .report import Report

SIMPLE_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def parts_of(obs: Any) -> dict[str, Tensor]:
    """Return the tensors of an observation by key; "" for one without keys."""
    return obs if isinstance(obs, dict) else {"": obs}


def spaces_of(space: spaces.Space) -> dict[str, spaces.Space]:
    """Return the parts of an observation space by key; "" for one without keys."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def check_attributes(report: Report, env: BatchedEnv) -> bool:
    """Report attributes that are missing or have the wrong type; return whether all are right."""

    def require(condition: bool, name: str, expected: str) -> bool:
        if not condition:
            value = repr(getattr(env, name)) if hasattr(env, name) else "missing"
            report.add("attributes", f"`{name}` is {value}", expected, f"Set `{name}` in the constructor.")
        return condition

    def get(name: str) -> Any:
        return getattr(env, name, None)

    sized = require(_is_int(get("num_envs")) and env.num_envs >= 1, "num_envs", "an int of 1 or more")
    placed = require(isinstance(get("device"), torch.device), "device", "a torch.device")
    tasks: Any = get("tasks")
    named = require(
        isinstance(tasks, tuple)
        and len(tasks) > 0
        and all(isinstance(task, str) and task for task in tasks)
        and len(set(tasks)) == len(tasks),
        "tasks",
        "a tuple of one or more different names",
    )
    if sized and placed and named:
        expected = f"[{env.num_envs}] int64 on {env.device}, from 0 to {len(tasks) - 1}"
        task_of: Any = get("task_of")
        if require(_matches(task_of, (env.num_envs,), torch.int64, env.device), "task_of", expected):
            in_range = _is_meta(env) or bool(((task_of >= 0) & (task_of < len(tasks))).all())
            require(in_range, "task_of", expected)
    require(_is_int(get("aux_size")) and env.aux_size >= 0, "aux_size", "an int of 0 or more")
    require(isinstance(get("config"), EnvConfig | None), "config", "an EnvConfig or None")
    require(isinstance(get("can_assign"), bool), "can_assign", "a bool")
    _check_spaces(report, get("observation_space"), get("action_space"))
    return not report.violations


def _check_spaces(report: Report, observation: Any, action: Any) -> None:
    """Report spaces that agents do not support."""
    simple = "Box, Discrete, MultiDiscrete or MultiBinary"
    members = spaces_of(observation)
    if not members or not all(isinstance(member, SIMPLE_SPACES) for member in members.values()):
        report.add(
            "spaces",
            f"`observation_space` is {observation!r}",
            f"{simple}, or a Dict of them without further nesting",
            "Flatten nested spaces into one Dict.",
        )
    if not isinstance(action, SIMPLE_SPACES):
        advice = "Describe an action by one of these spaces."
        report.add("spaces", f"`action_space` is {action!r}", simple, advice)
    for space in (*members.values(), action):
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start != 0):
            report.add("spaces", f"{space!r} has start {space.start}", "start 0", "Count from 0.")
        if isinstance(space, spaces.Box) and torch_dtype(space) is None:
            advice = "Use float32 or another type of torch."
            report.add("spaces", f"{space!r} has dtype {space.dtype}", "a dtype that torch has", advice)


def check_observation(
    report: Report, env: BatchedEnv, source: str, obs: Any, what: str = "the observation"
) -> bool:
    """Report an observation that does not fit the space; return whether its structure is right.

    Messages call it `what` of `source`.
    """
    name = f"{what} of {source}"
    members = spaces_of(env.observation_space)
    if isinstance(env.observation_space, spaces.Dict) != isinstance(obs, dict) or (
        isinstance(obs, dict) and obs.keys() != members.keys()
    ):
        found = f"a dictionary with the keys {sorted(obs)}" if isinstance(obs, dict) else _describe(obs)
        expected = "a tensor" if "" in members else f"a dictionary with the keys {sorted(members)}"
        advice = "Return the structure of `observation_space`."
        report.add("observations", f"{name} is {found}", expected, advice)
        return False
    for key, space in members.items():
        part, value = f"{what} {key!r} of {source}" if key else name, parts_of(obs)[key]
        shape, dtype = (env.num_envs, *(space.shape or ())), torch_dtype(space)
        assert dtype is not None
        advice = "Return a tensor of the space's shape and type, with the batch axis first, on `device`."
        if not check_tensor(report, "observations", part, value, shape, dtype, env.device, advice):
            return False
        if not _is_meta(env):
            outside = ~_inside(space, value)
            if outside.any():
                row = (
                    int(outside.flatten(1).any(1).nonzero()[0, 0])
                    if value.dim() > 1
                    else int(outside.nonzero()[0])
                )
                number = value[outside][0].item()
                report.add(
                    "observations",
                    f"{part} holds {number} in environment {row}",
                    f"numbers in {space!r}",
                    "Widen the space, or clip or scale the observation.",
                )
    return True


def check_transition(report: Report, env: BatchedEnv, name: str, step: Any) -> bool:
    """Report a transition that breaks a rule; return whether its structure is right."""
    if not isinstance(step, Transition):
        report.add(
            "transitions", f"{name} returned {_describe(step)}", "a Transition", "Return a Transition."
        )
        return False
    rows = (env.num_envs,)
    ok = check_observation(report, env, name, step.obs, "`obs`")
    ok &= check_observation(report, env, name, step.final_obs, "`final_obs`")
    advice = "Convert it with `.float()`."
    ok &= check_tensor(
        report, "rewards", f"`reward` of {name}", step.reward, rows, torch.float32, env.device, advice
    )
    for field in ("terminated", "truncated", "success", "valid"):
        value = getattr(step, field)
        if value is not None or field in ("terminated", "truncated"):
            what, advice = f"`{field}` of {name}", "Return a bool for each environment."
            ok &= check_tensor(report, "flags", what, value, rows, torch.bool, env.device, advice)
    if ok and not _is_meta(env):
        _check_contents(report, name, step)
    return ok


def _check_contents(report: Report, name: str, step: Transition) -> None:
    """Report rewards, success and observations of a transition that contradict each other."""
    if not step.reward.isfinite().all():
        bad = step.reward[~step.reward.isfinite()][0].item()
        report.add("rewards", f"`reward` of {name} holds {bad}", "finite rewards", "Correct the reward.")
    if step.success is not None and (step.success & ~step.done).any():
        report.add(
            "success",
            f"`success` of {name} is true where no episode ended",
            "true only in a step that ends an episode",
            "Return `success & done`.",
        )
    for key, obs in parts_of(step.obs).items():
        if not same(obs[~step.done], parts_of(step.final_obs)[key][~step.done]):
            report.add(
                "same-step autoreset",
                f"`final_obs` of {name} differs from `obs` where no episode ended",
                "`final_obs` equal to `obs` there",
                "Start new episodes only where one ended: obs = where(done, first_obs, final_obs).",
            )


def check_targets(report: Report, env: BatchedEnv, name: str, targets: Any) -> bool:
    """Report auxiliary targets that break a rule; return whether their structure is right."""
    rule = "auxiliary targets"
    if env.aux_size == 0:
        if targets is not None:
            advice = "Set `aux_size`, the number of targets."
            report.add(rule, f"{name} are {_describe(targets)}", "None, since `aux_size` is 0", advice)
        return targets is None
    if not isinstance(targets, AuxiliaryTargets):
        found, expected = (
            f"{name} are {_describe(targets)}",
            f"AuxiliaryTargets, since `aux_size` is {env.aux_size}",
        )
        report.add(rule, found, expected, "Return values and weights.")
        return False
    shape, advice = (env.num_envs, env.aux_size), "Return one float32 number for each target, [B, aux_size]."
    for field, value in zip(targets._fields, targets, strict=True):
        if not check_tensor(
            report, rule, f"{field} of {name}", value, shape, torch.float32, env.device, advice
        ):
            return False
    if not _is_meta(env):
        if not (targets.values.isfinite().all() and targets.weights.isfinite().all()):
            advice = "Give unknown targets the value 0 and the weight 0."
            report.add(rule, f"{name} are not finite", "finite values and weights", advice)
        if (targets.weights < 0).any():
            advice = "Use the weight 0 to leave a target out."
            report.add(rule, f"weights of {name} are negative", "weights of 0 or more", advice)
    return True


def check_advice(report: Report, env: BatchedEnv, name: str, advice: Any) -> bool:
    """Report a teacher's probabilities that break a rule; return whether they are right."""
    rule, sizes = "teacher", choice_sizes(env.action_space)
    if not env.has_teacher:
        if advice is not None:
            found, help_ = f"{name} are {_describe(advice)}", "Set `has_teacher`."
            report.add(rule, found, "None, since `has_teacher` is false", help_)
        return advice is None
    if sizes is None or isinstance(env.action_space, spaces.MultiBinary):
        found = f"`has_teacher` is true, and actions are {env.action_space}"
        report.add(rule, found, "Discrete or MultiDiscrete actions", "Leave out the teacher.")
        return False
    shape, help_ = (env.num_envs, sum(sizes)), "Return the probability of each choice, in float32."
    if not check_tensor(report, rule, name, advice, shape, torch.float32, env.device, help_):
        return False
    if _is_meta(env):
        return True
    sums = torch.stack([x.sum(1) for x in advice.split(list(sizes), dim=1)], dim=1)
    whole = ((sums - 1).abs() < 1e-4).all(1) | (advice == 0).all(1)
    if not bool(whole.all() and (advice >= 0).all()):
        report.add(
            rule,
            f"{name} are no probabilities: {advice[~whole | (advice < 0).any(1)][0].tolist()}",
            "probabilities of each component's choices that sum to 1, or all of them 0",
            "Divide by the sum, and give 0 where there is no advice.",
        )
        return False
    return True


def check_masks(report: Report, env: BatchedEnv, name: str, masks: Any) -> bool:
    """Report action masks that break a rule; return whether they are right."""
    if masks is None:
        return True
    rule, sizes = "action masks", choice_sizes(env.action_space)
    if sizes is None:
        expected = f"None, since {env.action_space} has no choices"
        report.add(
            rule,
            f"{name} are {_describe(masks)}",
            expected,
            "Use Discrete, MultiDiscrete or MultiBinary actions.",
        )
        return False
    advice = "Return a bool for each choice of every component of the action."
    shape = (env.num_envs, sum(sizes))
    if not check_tensor(report, rule, name, masks, shape, torch.bool, env.device, advice):
        return False
    if not _is_meta(env):
        for component, part in enumerate(masks.split(sizes, dim=1)):
            stuck = ~part.any(1)
            if stuck.any():
                report.add(
                    rule,
                    f"{name} allow no choice of component {component} in environment "
                    f"{int(stuck.nonzero()[0])}",
                    "at least one allowed choice of every component",
                    "Allow an action that does nothing, or end the episode one step earlier.",
                )
                return False
    return True


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Return whether two tensors are equal bit for bit, with NaN equal to NaN."""
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())


def torch_dtype(space: spaces.Space) -> torch.dtype | None:
    """Return the dtype that observations of a simple space have; None if torch does not have it."""
    if isinstance(space, spaces.MultiBinary):
        return torch.int8
    if isinstance(space, spaces.Box):
        try:
            return torch.from_numpy(np.zeros(0, space.dtype)).dtype
        except TypeError:
            return None
    return torch.int64


def _inside(space: spaces.Space, x: Tensor) -> Tensor:
    """Return where the numbers of a batch of observations lie in the space; false for NaN."""
    low: Any = 0
    high: Any = 1  # of MultiBinary
    if isinstance(space, spaces.Box):  # in NumPy, since torch cannot compare uint16, uint32 and uint64
        array = x.detach().cpu().numpy()
        return torch.from_numpy(np.asarray((array >= space.low) & (array <= space.high))).to(x.device)
    if isinstance(space, spaces.Discrete):
        high = int(space.n) - 1
    elif isinstance(space, spaces.MultiDiscrete):
        high = torch.as_tensor(space.nvec - 1).to(x.device)
    return (x >= low) & (x <= high)


def check_tensor(
    report: Report,
    rule: str,
    name: str,
    value: Any,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    advice: str,
) -> bool:
    """Report a wrong shape, type or device, or a gradient; return whether all but the gradient is right."""
    if _matches(value, shape, dtype, device):
        if value.requires_grad:
            advice = "Compute it under torch.no_grad(), or call .detach()."
            report.add(rule, f"{name} requires grad", "tensors that do not require grad", advice)
        return True
    expected = f"{_dtype_name(dtype)} {list(shape)} on {device}"
    report.add(rule, f"{name} is {_describe(value)}", expected, advice)
    return False


def _matches(value: Any, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> bool:
    return (
        isinstance(value, Tensor)
        and value.shape == shape
        and value.dtype == dtype
        and value.device.type == device.type
        # A tensor on "cpu:0" or "meta:0" has no index.
        and (device.type in ("cpu", "meta") or device.index in (None, value.device.index))
    )


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{_dtype_name(value.dtype)} {list(value.shape)} on {value.device}"
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_meta(env: BatchedEnv) -> bool:
    return env.device.type == "meta"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""Flags that were given but have no effect in the configuration of a run: one note names them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rmc_agents.agent.heads import GaussianHead
from rmc_agents.agent.normalization import NormalizedPart
from rmc_agents.cli.config import RunConfig
from rmc_agents.cli.resume import settings
from rmc_agents.errors import shown
from rmc_agents.rl.trainer import Trainer


def note_on(reasons: Mapping[str, str | None], config: Any, default: Any) -> list[str]:
    """Return a note that names the flags without effect, or nothing if there are none.

    Args:
        reasons: why a setting has no effect, by its name; None for one that has an effect.
        config: the dataclass of the flags.
        default: the values of flags that were not given.
    """
    found = [
        f"--{'no-' * (new is False)}{name.replace('_', '-')}"
        f"{'' if isinstance(new, bool) else f' {shown(new, 40)}'} ({reason})"
        for name, old, new in settings(default, config)
        if old != new and (reason := reasons.get(name)) is not None
    ]
    return [f"no effect in this run: {'; '.join(found)}"] if found else []


def ineffective(config: RunConfig, trainer: Trainer, saved: RunConfig | None = None) -> list[str]:
    """Return a note on the flags of `train/ppo.py` that have no effect, or nothing.

    Args:
        config: the configuration.
        trainer: made from it.
        saved: the configuration of the resumed run; the class's defaults count for a new run.
    """
    environment, ppo, run = config.environment, config.ppo, config.run
    fixed = None
    if saved is not None and not run.auto_resume:  # for which the same command starts and resumes
        fixed = "a resumed run keeps its settings"
    reasons = {
        "preset": fixed,
        "preset_file": fixed,
        "scale": fixed,
        "match_parameters": fixed,
        "eval_episodes": None if run.eval_every else "without --eval-every, there is no evaluation",
        "env_timeout": None if environment.vectorization == "async" else "needs --vectorization async",
        "target_kl": None if ppo.epochs > 1 else "with --epochs 1, there are no epochs to skip",
        "normalize_observations": _why_not_normalized(trainer),
        "scale_actions": _why_not_scaled(trainer),
        "log_std_init": _why_not_drawn_so(trainer, saved),
    }
    return note_on(reasons, config, saved or RunConfig())


def _why_not_normalized(trainer: Trainer) -> str | None:
    if any(isinstance(part, NormalizedPart) for part in trainer.agent.encoder.parts):
        return None
    return "no part of the observation is read as numbers"


def _why_not_drawn_so(trainer: Trainer, saved: RunConfig | None) -> str | None:
    if not isinstance(trainer.agent.policy, GaussianHead):
        return "the actions are no Box"
    return None if saved is None else "a resumed run keeps its weights, and the standard deviation is one"


def _why_not_scaled(trainer: Trainer) -> str | None:
    head, space = trainer.agent.policy, trainer.agent.action_space
    if not isinstance(head, GaussianHead) or not isinstance(space, spaces.Box):
        return "the actions are no Box"
    if not head.scale or bool((head.half_range != 1).any() or (head.centre != 0).any()):
        return None
    unit = np.all(space.low == -1) and np.all(space.high == 1)
    return "its bounds are -1 and 1 already" if unit else "the Box has no finite bounds"

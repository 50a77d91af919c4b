"""Export of policies that Stable-Baselines3 has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gymnasium import spaces
from sb3_contrib import RecurrentPPO

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.errors import UsageError, shown
from rmc_agents.export.files import Export, export_file
from rmc_agents.sb3.policy import RMCPolicy


def export_policy(
    model: RecurrentPPO,
    path: Path | str,
    *,
    observation_space: spaces.Space[Any] | None = None,
    sample: bool = False,
) -> Export:
    """Write one step of a model's policy as a file; see `export_file`.

    Args:
        model: a `RecurrentPPO` with an `RMCPolicy`.
        path: ends in .onnx or .pt2.
        observation_space: of one environment, if SB3 changed it (it moves the channels of pictures to the
            front); None for the policy's, with small grids channels last again.
        sample: as in `export_file`.

    Raises:
        UsageError: another policy, a part of it that an `ActorCritic` cannot have, or observations that
            `VecNormalize` changes before the policy reads them; and as in `export_file`.
    """
    return export_file(agent_of(model, observation_space), path, sample=sample)


def agent_of(model: RecurrentPPO, observation_space: spaces.Space[Any] | None = None) -> ActorCritic:
    """Return an agent with the weights of a model's policy, which computes what the policy does.

    Arguments and errors are those of `export_policy`.
    """
    policy = model.policy
    if not isinstance(policy, RMCPolicy):
        raise UsageError(
            f"{type(policy).__name__} cannot be exported: expected an RMCPolicy of rmc_agents.sb3"
        )
    normalized = model.get_vec_normalize_env()
    if normalized is not None and normalized.norm_obs:
        raise UsageError(
            "VecNormalize changes what this policy reads, and is no part of it, so a file would read raw "
            "observations wrongly: train with norm_obs=False"
        )
    try:
        return policy.to_agent(observation_space)
    except ValueError as error:
        raise UsageError(str(error)) from error


def load_model(path: Path) -> RecurrentPPO:
    """Load a model that SB3 saved. Such a file is a pickle, which can run any code: load only what you trust.

    Raises:
        UsageError: it cannot be loaded.
    """
    try:
        return RecurrentPPO.load(path, device="cpu")
    except Exception as error:  # whatever a pickle raises
        raise UsageError(
            f"{path} cannot be loaded as a RecurrentPPO model ({type(error).__name__}: {shown(error, 100)})"
        ) from error

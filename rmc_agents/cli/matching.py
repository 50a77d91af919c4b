"""`--match-parameters`: cores of about the same number of parameters, whatever their presets say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gymnasium import spaces

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.config import AgentConfig
from rmc_agents.agent.shapes import shapes_only
from rmc_agents.cli.config import RunConfig, Selection
from rmc_agents.cli.flags import in_flags
from rmc_agents.cores import CORES, reads_entities
from rmc_agents.cores.sizes import match_parameters, require_no_widths
from rmc_agents.errors import UsageError


def without_widths(default: RunConfig, selection: Selection) -> RunConfig:
    """Return the defaults of a run whose core is to be sized: without the widths of a preset.

    Raises:
        UsageError: the flags set a width.
    """
    core, agent = selection.core or default.agent.core, default.agent
    if selection.match_parameters is None or core not in CORES:
        return default
    with _naming_flags():
        widths = require_no_widths(core, selection.match_parameters, selection.core_options)
    kept = {name: option for name, option in agent.core_options.items() if name not in widths}
    return replace(default, agent=replace(agent, core_options=kept))


def matched(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    config: AgentConfig,
    parameters: int | None,
) -> AgentConfig:
    """Return the options of an agent whose core has about so many parameters; None leaves them as they are.

    Raises:
        UsageError: no width of the core gives so many, or there can be no such agent.
    """
    if parameters is None:
        return config
    with _naming_flags(), shapes_only():
        # The input does not depend on the core's options, which may need another width.
        core = config.core if reads_entities(config.core) else "feedforward"
        plain = replace(config, core=core, core_options={})
        agent = ActorCritic.from_config(observation_space, action_space, plain)
        options = match_parameters(
            config.core, agent.core.input_size, parameters, config.core_options, agent.entities
        )
    return replace(config, core_options={key: options[key] for key in options if key not in agent.entities})


@contextlib.contextmanager
def _naming_flags() -> Iterator[None]:
    """Turn errors into messages for users. The options of cores that they name are no flags."""
    try:
        yield
    except (ValueError, TypeError) as error:
        mistake = UsageError(in_flags(str(error), Selection))
        mistake.names_options = True
        raise mistake from error

"""Cells of a grid as entities of a core: whether an agent feeds any, and what the core has to know."""

from __future__ import annotations

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cores import core_options, reads_entities

DEFAULT_CELL_SIZE = 24
"""Width of embedded cells, for cores that read entities."""
SET_BY_AGENT = ("num_entities", "entity_size", "context_size", "name_size", "extra_size")
"""Options of a core that only the agent sets, which feeds it cells."""


def entity_options(config: AgentConfig, num_cells: int, num_extra: int) -> dict[str, int]:
    """Return the options of a core that depend on what the agent feeds it.

    Args:
        config: of the agent, whose core reads entities.
        num_cells: number of cells that are fed to the core.
        num_extra: number of inputs besides the observation.
    """
    names, each = config.cell_names, cell_size_of(config) + config.cell_names
    options = {"num_entities": num_cells, "entity_size": each * (1 + config.cell_neighbours)}
    if config.cell_neighbours:
        options["context_size"] = each
    if names:
        options |= {"name_size": names, "key_size": names}
    if num_extra and "extra_size" in core_options(config.core):  # cores of one's own need not have it
        options["extra_size"] = num_extra
    return options


def cell_size_of(config: AgentConfig) -> int:
    """Return the width of embedded cells that an agent feeds to its core, where its observations have cells.

    Raises:
        ValueError: there is a width, and the core does not read entities.
    """
    if reads_entities(config.core):
        return DEFAULT_CELL_SIZE if config.cell_size is None else config.cell_size
    if config.cell_size:
        raise ValueError(
            f"cell_size={config.cell_size} needs a core that reads entities, such as entity_delta, and "
            f"{config.core} does not"
        )
    return 0

"""What a sweep draws from: a configuration, and the values that some of its settings may take."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rmc_agents.agent.entities import entity_options
from rmc_agents.cli.config import RunConfig
from rmc_agents.cores import make_core, reads_entities
from rmc_agents.errors import UsageError
from rmc_agents.options import Option
from rmc_agents.tuning.spaces import (
    SIZES,
    Choice,
    Search,
    default_searches,
    parse_searches,
    part_of,
    value_in,
)

Values = dict[str, Option]
"""Values of settings, by name."""


@dataclass(frozen=True)
class SearchSpace:
    """A configuration, and what is varied in it. Everything that it draws is a valid configuration."""

    base: RunConfig
    """The configuration that the search starts from."""
    searches: dict[str, Search]
    """What is varied, by the name of the setting."""

    def suggest(self, trial: Any) -> Values:
        """Draw a value for each setting, by a trial of Optuna."""
        return {name: search.suggest(trial, name) for name, search in self.searches.items()}

    def start(self) -> Values:
        """Return the values of the base, for the settings that can have them."""
        values = {name: value_in(self.base, name) for name in self.searches}
        return {
            name: value
            for name, value in values.items()
            if len(self.searches[name].extremes()) > 1
            and self.searches[name].including(value) == self.searches[name]
        }

    def configure(self, values: Mapping[str, Option]) -> RunConfig:
        """Return the base with other values.

        Raises:
            ValueError, TypeError: a value that the setting cannot have, or sizes that do not fit together.
        """
        parts: dict[str, Values] = {"core": {}, "ppo": {}, "agent": {}, "environment": {}}
        for name, value in values.items():
            parts[part_of(name, self.base.agent.core)][name] = value
        base = self.base
        options = {**base.agent.core_options, **parts["core"]}
        config = replace(
            base,
            environment=replace(base.environment, **parts["environment"]),
            agent=replace(base.agent, core_options=options, **parts["agent"]),
            ppo=replace(base.ppo, **parts["ppo"], **_ends(base, parts["ppo"])),
        )
        config.ppo.check_num_envs(config.environment.num_envs)
        return config


def search_space(
    base: RunConfig, words: Sequence[str] = (), fixed: Collection[str] = (), only: bool = False
) -> SearchSpace:
    """Return a search space around a configuration.

    Args:
        base: the configuration.
        words: searches of the user, as `parse_searches` reads them; they replace the defaults.
        fixed: names of settings that keep their value.
        only: whether to vary nothing but `words`.

    Raises:
        UsageError: a setting is unknown or fixed, a value is invalid, sizes do not divide each other, or
            nothing is left to vary.
    """
    try:
        _build_core(base)
        asked = parse_searches(words, base)
        if both := [name for name in asked if name in fixed]:
            raise ValueError(f"{both[0]} is searched and has a flag of its own: leave out one of them")
        rest = {} if only else default_searches(base, {*asked, *fixed, *_cell_options(base)})
        sizes = _sizes(base, asked, () if only else [name for name in SIZES if name not in fixed])
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    others = {name: search for name, search in asked.items() if name not in SIZES}
    space = SearchSpace(base, {**rest, **sizes, **others})
    if not any(len(search.extremes()) > 1 for search in space.searches.values()):
        raise UsageError("nothing to search: every setting has one value only")
    for name, search in space.searches.items():
        for value in search.extremes():
            if name not in SIZES:
                _require_valid(space, name, value)
    return space


def _require_valid(space: SearchSpace, name: str, value: Option) -> None:
    """Raise UsageError if a setting cannot have a value."""
    try:
        _build_core(space.configure({name: value}))
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"search {name}: {value!r} is not possible: {error}") from error


def _build_core(config: RunConfig) -> None:
    """Build a core where it takes no memory; one that reads entities, with a single cell."""
    agent, cell = config.agent, _cell_options(config)
    with torch.device("meta"):
        make_core(agent.core, agent.features + cell.get("entity_size", 0), {**agent.core_options, **cell})


def _cell_options(config: RunConfig) -> dict[str, int]:
    """Return the options that an agent sets of a core which it feeds cells with names or neighbours."""
    agent = config.agent
    told = agent.cell_names or agent.cell_neighbours
    return entity_options(agent, 1, 0) if told and reads_entities(agent.core) else {}


def _sizes(base: RunConfig, asked: Mapping[str, Search], varied: Collection[str]) -> dict[str, Search]:
    """Return the sizes to draw from, so that all combinations fit.

    Args:
        base: the configuration that the search starts from.
        asked: searches of the user.
        varied: names of the sizes that may be varied by default.

    Raises:
        ValueError: sizes that the user gave do not fit.
    """
    sizes: dict[str, tuple[Any, ...]] = {}
    for name in SIZES:
        search = asked.get(name)
        sizes[name] = search.extremes() if search is not None else (value_in(base, name),)
    for combination in _combinations(sizes):
        if (why := _misfit(base, combination)) is not None:
            raise ValueError(f"search of sizes: not every combination fits: {why}")
    for name in varied:
        if name in asked:
            continue
        for factor in SIZES[name]:
            size = value_in(base, name) * factor
            wider = {**sizes, name: (*sizes[name], int(size))}
            if size == int(size) > 0 and not any(_misfit(base, each) for each in _combinations(wider)):
                sizes = wider
    return {name: Choice(values) for name, values in sizes.items() if name in asked or len(values) > 1}


def _combinations(sizes: Mapping[str, tuple[Any, ...]]) -> Iterator[Values]:
    for values in itertools.product(*sizes.values()):
        yield dict(zip(sizes, values, strict=True))


def _misfit(base: RunConfig, sizes: Values) -> str | None:
    """Return why sizes do not divide each other; None if they do."""
    try:
        SearchSpace(base, {}).configure(sizes)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def _ends(base: RunConfig, changed: Mapping[str, Any]) -> dict[str, float]:
    """Return the values at the end of a run that stay in proportion to changed ones at its start."""
    ends = {}
    for name in ("learning_rate", "entropy_coef"):
        start, end = getattr(base.ppo, name), getattr(base.ppo, f"{name}_end")
        if name in changed and start:
            ends[f"{name}_end"] = float(f"{end * changed[name] / start:.3g}")
    return ends

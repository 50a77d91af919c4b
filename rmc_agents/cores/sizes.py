"""Sizes of cores for fair comparisons: about the same number of parameters for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rmc_agents.cores import core_options, make_core
from rmc_agents.options import MAX_SIZE

WIDTHS: dict[str, tuple[str, ...]] = {
    "rmc": ("head_size", "key_size"),
    "gated_delta": ("key_size", "value_size"),
    "delta_rmc": ("head_size", "key_size", "delta_key_size", "delta_value_size"),
    "entity_delta": ("hidden_size", "key_size", "value_size"),
    "lru": ("hidden_size", "state_size"),
    "gtrxl": ("hidden_size", "mlp_size"),
}
"""Options that set the width of a core; that of all others is `hidden_size`. They keep the proportions of
their defaults (an option that is None by default is as large as the first), except for the last one, which is
then adjusted alone. Add those of a core of your own if it has other names for them."""
MULTIPLES = {"gtrxl": "num_heads"}
"""By core, the option of which the first width must be a multiple. Add that of a core of your own, if any."""
TOLERANCE = 0.03
"""Largest relative difference between the numbers of parameters asked for and found."""


def match_parameters(
    name: str,
    input_size: int,
    parameters: int,
    options: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return options of a core with which it has about so many parameters.

    The parameters of the core alone are counted: not the encoder before it, nor the heads that read it.

    Args:
        name: a key of `CORES`.
        input_size: width of the core's input.
        parameters: their number, to within 3 %.
        options: other options of the core, which are kept. Those that set its width are chosen here.
        fixed: options that follow from the core's input, and are kept even if they are widths.

    Raises:
        ValueError: the options set the width; no width gives so many parameters; or an unknown core or
            option.
    """
    chosen, fixed = dict(options or {}), dict(fixed or {})
    options = chosen | fixed
    if type(parameters) is not int or parameters < 1:
        raise ValueError(f"match_parameters must be a whole number of at least 1, got {parameters!r}")

    def count(widths: Mapping[str, int]) -> int:
        with torch.device("meta"):
            core = make_core(name, input_size, {**options, **widths})
        return sum(p.numel() for p in core.parameters())

    unit = _unit(name, options)
    # Before anything else, so that wrong options are reported.
    count({} if unit == 1 else {widths_of(name)[0]: unit, **options})
    defaults = require_no_widths(name, parameters, chosen)
    defaults = {each: width for each, width in defaults.items() if each not in fixed}
    found = _nearest(defaults, unit, parameters, count)
    reached = count(found)
    if abs(reached - parameters) > TOLERANCE * parameters:
        raise ValueError(
            f"match_parameters={parameters}: core {name} cannot have this number of parameters to within "
            f"{TOLERANCE:.0%} with an input of {input_size} numbers; the nearest number is {reached}"
        )
    return {**options, **found}


def require_no_widths(name: str, parameters: int, options: Mapping[str, Any]) -> dict[str, int]:
    """Return the options that set a core's width, with their defaults.

    Raises:
        ValueError: they are not known, or among these options.
    """
    known, names = core_options(name), widths_of(name)
    if not set(names) <= known.keys():
        raise ValueError(
            f"the width of core {name} is unknown, since it has no option {' and '.join(names)}: add the "
            "names of its width options to rmc_agents.cores.sizes.WIDTHS"
        )
    given = [each for each in names if each in options]
    if given:
        raise ValueError(
            f"match_parameters={parameters} chooses {' and '.join(names)} of core {name}, and core_options "
            f"sets {' and '.join(given)}: leave out one or the other"
        )
    first = known[names[0]]
    return {each: first if known[each] is None else known[each] for each in names}


def widths_of(name: str) -> tuple[str, ...]:
    """Return the names of the options that set the width of a core."""
    return WIDTHS.get(name, ("hidden_size",))


def _unit(name: str, options: Mapping[str, Any]) -> int:
    """Return the number of which the first width must be a multiple."""
    option = MULTIPLES.get(name)
    unit = 1 if option is None else options.get(option, core_options(name).get(option))
    return unit if type(unit) is int and unit > 0 else 1


def _nearest(
    defaults: Mapping[str, int], unit: int, parameters: int, count: Callable[[Mapping[str, int]], int]
) -> dict[str, int]:
    """Return the widths with the nearest number of parameters."""
    (first, default), *others = defaults.items()

    def proportional(steps: int) -> dict[str, int]:
        return {first: steps * unit} | {
            name: max(1, round(steps * unit * width / default)) for name, width in others
        }

    def distance(widths: Mapping[str, int]) -> int:
        return abs(count(widths) - parameters)

    steps = _largest(lambda n: count(proportional(n)) <= parameters)
    widths = min(proportional(max(steps, 1)), proportional(steps + 1), key=distance)
    if not others:
        return widths
    last = others[-1][0]
    n = _largest(lambda n: count({**widths, last: n}) <= parameters)
    return min(widths, {**widths, last: max(n, 1)}, {**widths, last: n + 1}, key=distance)


def _largest(fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `MAX_SIZE` that fits, if all smaller ones do; 0 if none does."""
    low, high = 0, 1
    while high < MAX_SIZE and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low

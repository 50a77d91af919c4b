"""Success of episodes, as Gymnasium environments report it in their infos.

Axes: B environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmc_agents.errors import shown

from .protocol import on_host

KEYS = ("is_success", "success")
"""Names in an info; the first that holds a truth value counts."""
UNREADABLE = "unreadable_success"
"""Name under which `CheckedEnv` describes a report that is not a truth value."""


def truth_value(value: Any) -> bool | None:
    """Return a reported success as a bool, or None for anything but True, False, 1 and 0.

    None, NaN, texts, shares such as 0.7 and arrays with axes do not say whether an episode was solved.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str | bytes) or np.ndim(on_host(value)) != 0:
        return None
    number = np.asarray(on_host(value))
    if number.dtype.kind not in "biuf" or number not in (0, 1):
        return None
    return bool(number)


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Return whether the info of an episode's last step reports success; None if it does not say."""
    values = (truth_value(info[key]) for key in KEYS if key in info)
    return next((value for value in values if value is not None), None)


def unreadable_in(info: Mapping[str, Any]) -> str | None:
    """Describe a reported success that is not a truth value, such as "is_success='yes'"; None if all is well.

    None means that the environment does not say, and is no mistake.
    """
    if info.get(UNREADABLE):
        return str(info[UNREADABLE])
    for key in KEYS:
        if key in info and info[key] is not None and truth_value(info[key]) is None:
            return f"{key}={shown(repr(info[key]), 60)}"
    return None


def infos_of_ended(infos: Mapping[str, Any], ended: NDArray[np.bool_]) -> dict[int, dict[str, Any]]:
    """Return the infos of the environments whose episode has ended, by their rows.

    Vector environments report in three ways: arrays by key, with a mask "_key" (Gymnasium); the same in the
    dictionary "final_info"; a dictionary for each environment in "final_info" (Gymnasium 0.29).
    """
    rows = np.flatnonzero(ended).tolist()
    final = infos.get("final_info", infos)
    if isinstance(final, Mapping):
        keys = [key for key in (*KEYS, UNREADABLE) if key in final]
        by_key = {key: final[key] for key in keys if _one_each(final[key], len(ended))}
        return {row: {key: x[row] for key, x in by_key.items() if _is_set(final, key, row)} for row in rows}
    if not _one_each(final, len(ended)):
        return {}
    return {row: dict(final[row]) for row in rows if isinstance(final[row], Mapping)}


def _one_each(values: Any, num_envs: int) -> bool:
    return isinstance(values, list | tuple) or (np.ndim(on_host(values)) > 0 and len(values) == num_envs)


def _is_set(infos: Mapping[str, Any], key: str, row: int) -> bool:
    mask = infos.get(f"_{key}")
    return mask is None or bool(mask[row])

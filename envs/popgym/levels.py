"""The families of POPGym's tasks, and the ids of their levels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .autoencode import Autoencode
from .base import PopgymTask
from .battleship import Battleship
from .concentration import Concentration
from .count_recall import CountRecall
from .higher_lower import HigherLower
from .mine_sweeper import MineSweeper
from .multiarmed_bandit import MultiarmedBandit
from .noisy_position_only_cart_pole import NoisyPositionOnlyCartPole
from .noisy_position_only_pendulum import NoisyPositionOnlyPendulum
from .position_only_cart_pole import PositionOnlyCartPole
from .position_only_pendulum import PositionOnlyPendulum
from .repeat_first import RepeatFirst
from .repeat_previous import RepeatPrevious
from .velocity_only_cart_pole import VelocityOnlyCartPole

FAMILIES: tuple[type[PopgymTask], ...] = (
    RepeatFirst,
    RepeatPrevious,
    Autoencode,
    CountRecall,
    HigherLower,
    Concentration,
    Battleship,
    MineSweeper,
    MultiarmedBandit,
    PositionOnlyCartPole,
    VelocityOnlyCartPole,
    NoisyPositionOnlyCartPole,
    PositionOnlyPendulum,
    NoisyPositionOnlyPendulum,
)
LEVELS = ("Easy", "Medium", "Hard")

POPGYM_IDS: dict[str, Callable[..., PopgymTask]] = {
    family.popgym_id(level): partial(family, **family.LEVELS[level])
    for level in LEVELS
    for family in FAMILIES
}
"""POPGym's id of each level, and the function that builds a batch of it."""
POPGYM_ALIASES: dict[str, str] = {
    f"rmc/{family.FAMILY}{level}-v0": family.popgym_id(level) for level in LEVELS for family in FAMILIES
}
"""Names of the same tasks in Gymnasium's registry."""


def ids_of(level: str) -> tuple[str, ...]:
    """Return POPGym's ids of a level, in the order of `FAMILIES`."""
    return tuple(family.popgym_id(level) for family in FAMILIES)


def popgym_id(env_id: str) -> str:
    """Return POPGym's id of a level for ours, such as `rmc/AutoencodeEasy-v0`; other ids as they are."""
    name = env_id.removeprefix("popgym:")
    return POPGYM_ALIASES.get(name, name)

"""Ids of environments: native tasks, those of Gymnasium, and the modules that register them.

To add a task, write a `BatchedEnv` in a file of its own and `register` it at the end of this one.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from typing import Literal

import gymnasium
import torch

from rmc_agents.environment import BatchedEnv
from rmc_agents.errors import shown
from rmc_agents.plugins import import_module

from .box_world.box_world import BoxWorld
from .color_cubes.color_cubes import ColorCubes
from .gymnasium.masked_velocities import register_masked
from .gymnasium.originals import INSTALL as ORIGINALS
from .gymnasium.originals import import_original
from .memory_maze import MemoryMaze
from .mini_pacman.mini_pacman import MiniPacMan
from .minigrid.memory import MemoryMazes, Seeding
from .minigrid.reference import is_minigrid
from .minigrid.tables import MazeSpec
from .popgym.levels import FAMILIES, POPGYM_ALIASES, POPGYM_IDS
from .sequences.key_value import KeyValue
from .sequences.memory_cards import MemoryCards
from .sequences.memory_chain import MemoryChain
from .sequences.nth_farthest import NthFarthest
from .sequences.recall import Recall
from .t_maze.endless import EndlessTMaze
from .t_maze.passive_active import TMaze

NATIVE: dict[str, Callable[..., BatchedEnv]] = {}
"""Native tasks: the Gymnasium id of each, and the function that builds a batch of it from
`(num_envs, device, **options)`."""

SINGLE_ENV = "rmc_envs.gymnasium.api:SingleEnv"
"""Entry point of single environments: loaded by name, since that module imports this one."""

_REGISTERED_BY: dict[str, str] = {}
"""The module that registered each native task, which a run folder remembers."""
_WITHOUT_IMPORT = {"rmc_envs", "envs", "gymnasium", "minigrid", "__main__"}
"""Packages whose tasks every script knows, and the script itself, which cannot be imported."""

MEMORY_MAZES = tuple(
    f"MiniGrid-Memory{maze}-v0" for maze in ("S7", "S9", "S11", "S13", "S13Random", "S17Random")
)
"""The six Memory mazes that MiniGrid registers."""

OWN = "rmc/"
"""Beginning of the ids of this package."""
ATARI = "ALE/"
"""Beginning of the ids of Atari games."""
PACKAGES = {
    "Adroit": ("gymnasium_robotics", "gymnasium-robotics"),
    "AntMaze": ("gymnasium_robotics", "gymnasium-robotics"),
    "Fetch": ("gymnasium_robotics", "gymnasium-robotics"),
    "FrankaKitchen": ("gymnasium_robotics", "gymnasium-robotics"),
    "HandManipulate": ("gymnasium_robotics", "gymnasium-robotics"),
    "HandReach": ("gymnasium_robotics", "gymnasium-robotics"),
    "PointMaze": ("gymnasium_robotics", "gymnasium-robotics"),
    "FlappyBird": ("flappy_bird_gymnasium", "flappy-bird-gymnasium"),
    "Endless-": ("memory_gym", "--no-deps memory-gym"),
    "MemoryMaze-": ("memory_maze", "memory-maze gym"),
    "Meta-World/": ("metaworld", "metaworld"),
    "MortarMayhem": ("memory_gym", "--no-deps memory-gym"),
    "MysteryPath": ("memory_gym", "--no-deps memory-gym"),
    "SearingSpotlights": ("memory_gym", "--no-deps memory-gym"),
    "MiniWorld-": ("miniworld", "miniworld"),
    "Panda": ("panda_gym", "panda-gym"),
    "PyFlyt/": ("PyFlyt.gym_envs", "pyflyt"),
    "Vizdoom": ("vizdoom.gymnasium_wrapper", "vizdoom"),
    "dm_control/": ("shimmy", "shimmy[dm-control]"),
    "memory_len/": ("bsuite", "bsuite"),
    "memory_size/": ("bsuite", "bsuite"),
    "highway-": ("highway_env", "highway-env"),
    "merge-v": ("highway_env", "highway-env"),
    "mo-": ("mo_gymnasium", "mo-gymnasium"),
    "popgym-": ("popgym", "popgym"),
}
"""Beginnings of well-known ids: the module that registers them, and what pip installs."""


def register(env_id: str, build: Callable[..., BatchedEnv]) -> None:
    """Register a native task with `rmc_envs.make`, `gymnasium.make` and `gymnasium.make_vec`.

    Args:
        env_id: such as `rmc/Recall-v0`.
        build: takes `num_envs`, `device` and the task's options by name, as the class of a task does.
    """
    NATIVE[env_id] = build
    _REGISTERED_BY[env_id] = sys._getframe(1).f_globals.get("__name__", "")
    _register_with_gymnasium(env_id)


def _register_with_gymnasium(env_id: str) -> None:
    gymnasium.register(
        env_id,
        entry_point=SINGLE_ENV,
        vector_entry_point="rmc_envs.gymnasium.api:BatchedVectorEnv",
        kwargs={"task": env_id},
        disable_env_checker=True,  # the tests run the full checker on every task
        order_enforce=False,  # SingleEnv itself refuses a step before the first reset
    )


def resolve(env_id: str) -> str:
    """Import the modules that ids of the form `MODULE:ID` name, and return the ids without them.

    Ids of Atari games import ale_py, and the modules of `gymnasium.originals` register their environments.

    Args:
        env_id: an id, or several separated by commas, each with or without a module. Modules may lie in the
            current directory.

    Returns:
        The ids, separated by commas.

    Raises:
        ValueError: a module cannot be imported.
    """
    names = []
    for part in env_id.split(","):
        module, colon, name = part.strip().partition(":")
        if colon and module in ORIGINALS:
            import_original(module)
        elif colon or (module.startswith(ATARI) and _is_installed("ale_py")):
            import_module(module if colon else "ale_py")
        names.append(name if colon else module)
    return ",".join(names)


def native(env_id: str) -> Callable[..., BatchedEnv] | None:
    """Return the function that builds a batch of this id on the device, or None if it has no native task.

    Raises:
        ValueError: a maze that cannot exist, or a module that cannot be imported.
    """
    names = resolve(env_id)
    popgym = POPGYM_IDS.get(POPGYM_ALIASES.get(names, names))
    return NATIVE.get(names) or popgym or _maze_builder(names)


def modules_of(env_ids: str) -> tuple[str, ...]:
    """Return the user's modules that register these ids, as far as that is known.

    A native task is registered by the module that called `register`; of a Gymnasium environment only the
    module that defines its class is known.
    """
    found = []
    for name in resolve(env_ids).split(","):
        spec = gymnasium.registry.get(name)
        entry = None if spec is None else spec.entry_point
        module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
        found.append(_REGISTERED_BY.get(name, module))
    return tuple(m for m in dict.fromkeys(found) if m and m.split(".")[0] not in _WITHOUT_IMPORT)


def require_known(env_id: str) -> None:
    """Raise ValueError, with the nearest ids, for an id that neither Gymnasium nor this package knows."""
    name = resolve(env_id)
    if is_minigrid(name):
        import minigrid  # noqa: F401 - registers its ids
    if name in POPGYM_IDS and _is_installed("popgym"):
        import_module("popgym")  # its own environments, for vectorization="sync"
    if name in gymnasium.registry or native(name) is not None:
        return
    if name.startswith(ATARI) and not _is_installed("ale_py"):
        raise ValueError(f"{shown(name, 100)} needs ale_py: pip install 'rmc-agents[atari]'")
    raise ValueError(
        f"unknown environment {shown(repr(env_id), 100)}.{_suggestion(name)} `gymnasium.pprint_registry()` "
        "lists the ids of the packages that are imported, `rmc_envs.NATIVE` those of this package; "
        "'MODULE:ID' imports a module first."
    )


def _suggestion(name: str) -> str:
    """Return sentences about our task of that name, the package that registers an id, or similar ids."""
    own = f"{OWN}{name}"
    if own in gymnasium.registry or _maze_builder(own) is not None:
        others = [module for beginning, (module, _) in PACKAGES.items() if name.startswith(beginning)]
        return f" Did you mean {' or '.join([own, *(f'{module}:{name}' for module in others)])}?"
    near = difflib.get_close_matches(name[:100], [*NATIVE, *MEMORY_MAZES, *POPGYM_IDS], n=4, cutoff=0.9)
    if near:  # a misspelled task of this package, even if another package has ids that begin alike
        return f" Did you mean {', '.join(near)}?"
    for beginning, (module, package) in PACKAGES.items():
        if name.startswith(beginning) and module not in sys.modules:
            if _is_installed(module):
                return f" Did you mean {module}:{name}?"
            return f" Install {package} (`pip install {package}`), and write {module}:{name}."
    namespace = name.partition("/")[0]
    unloaded = namespace != name and namespace.isidentifier() and namespace not in sys.modules
    if unloaded and _is_installed(namespace):
        return f" Did you mean {namespace}:{name}?"
    known = sorted({*gymnasium.registry, *NATIVE, *MEMORY_MAZES, *POPGYM_IDS})
    near = difflib.get_close_matches(name[:100], known, n=4, cutoff=0.5)
    return f" Did you mean {', '.join(near)}?" if near else ""


def _is_installed(module: str) -> bool:
    """Return whether a module can be found, without importing it (but for the package around it)."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def build_maze(
    num_envs: int = 1,
    device: str | torch.device = "cpu",
    size: int = 13,
    random_length: bool = False,
    hallway: int | None = None,
    view_size: int = 7,
    actions: Literal[3, 7] = 7,
    seeding: Seeding = "device",
) -> MemoryMazes:
    """Build one Memory maze from its numbers; see `MazeSpec` and `MemoryMazes`."""
    spec = MazeSpec(size, random_length, hallway, view_size)
    return MemoryMazes(spec, num_envs, device, actions, seeding)


def _maze_builder(env_ids: str) -> Callable[..., MemoryMazes] | None:
    """Return a builder of the mazes of an id such as `MiniGrid-MemoryS13-v0`, or of several with commas."""
    names = [name.strip().replace("rmc/Memory", "MiniGrid-Memory") for name in env_ids.split(",")]
    if any(MazeSpec.from_id(name) is None for name in names):
        return None

    def builder(
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        view_size: int = 7,
        actions: Literal[3, 7] = 7,
        seeding: Seeding = "device",
    ) -> MemoryMazes:
        specs = [spec for name in names if (spec := MazeSpec.from_id(name, view_size)) is not None]
        return MemoryMazes(specs, num_envs, device, actions, seeding)

    return builder


register("rmc/Recall-v0", Recall)
register("rmc/KeyValue-v0", KeyValue)
register("rmc/NthFarthest-v0", NthFarthest)
register("rmc/MemoryCards-v0", MemoryCards)
register("rmc/MemoryChain-v0", MemoryChain)
register("rmc/ColorCubes-v0", ColorCubes)
register("rmc/TMaze-v0", TMaze)
register("rmc/EndlessTMaze-v0", EndlessTMaze)
register("rmc/BoxWorld-v0", BoxWorld)
register("rmc/BoxWorldViewport-v0", partial(BoxWorld, view_size=5))
for _size in (9, 11, 13, 15):
    register(f"rmc/MemoryMaze-{_size}x{_size}-v0", partial(MemoryMaze, size=_size))
register("rmc/MiniPacMan-v0", MiniPacMan)
register("rmc/MiniPacManViewport-v0", partial(MiniPacMan, view_size=5))
register("rmc/Memory-v0", build_maze)
for _maze in MEMORY_MAZES:
    _builder = _maze_builder(_maze)
    assert _builder is not None
    register(_maze.replace("MiniGrid-", "rmc/"), _builder)
for _family in FAMILIES:
    register(f"rmc/{_family.FAMILY}-v0", _family)
for _alias in POPGYM_ALIASES:
    _register_with_gymnasium(_alias)
register_masked()

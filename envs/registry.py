"""Ids of environments and the functions that build them: `make` for batches, `make_reference` for single
ones.

To add a task, write a `BatchedEnv` in a file of its own and `register` it at the end of this one.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable
from typing import Any, Literal

import gymnasium
import torch
from gymnasium.envs.registration import load_env_creator

from rmc_agents.environment import BatchedEnv, EnvConfig, Vectorization
from rmc_agents.plugins import import_module

from .gymnasium.adapter import GymnasiumEnvs
from .gymnasium.checked import checked
from .gymnasium.workers import Workers
from .minigrid.memory import MemoryMazes, Seeding
from .minigrid.reference import is_minigrid, minigrid_maker
from .minigrid.tables import MazeSpec
from .sequences.nth_farthest import NthFarthest
from .sequences.recall import Recall

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


def register(env_id: str, build: Callable[..., BatchedEnv]) -> None:
    """Register a native task with `rmc_envs.make`, `gymnasium.make` and `gymnasium.make_vec`.

    Args:
        env_id: such as `rmc/Recall-v0`.
        build: takes `num_envs`, `device` and the task's options by name, as the class of a task does.
    """
    NATIVE[env_id] = build
    _REGISTERED_BY[env_id] = sys._getframe(1).f_globals.get("__name__", "")
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
        if colon:
            import_module(module)
        names.append(name if colon else module)
    return ",".join(names)


def native(env_id: str) -> Callable[..., BatchedEnv] | None:
    """Return the function that builds a batch of this id on the device, or None if it has no native task.

    Raises:
        ValueError: a maze that cannot exist, or a module that cannot be imported.
    """
    names = resolve(env_id)
    return NATIVE.get(names) or _maze_builder(names)


def make(
    env_id: str,
    num_envs: int = 1,
    device: str | torch.device = "cpu",
    *,
    vectorization: Vectorization = "auto",
    env_timeout: float = 300.0,
    restart_crashed_envs: bool = False,
    **options: Any,
) -> BatchedEnv:
    """Build a batch of environments.

    Args:
        env_id: any Gymnasium id, also as `MODULE:ID`, which imports MODULE first;
            `MiniGrid-MemoryS<size>[Random]-v0` of any odd size; several mazes separated by commas, for a
            batch that mixes them.
        num_envs: B.
        device: where observations appear and actions are expected.
        vectorization: "auto" is the native task if there is one (the Memory mazes, `rmc/`, and what was
            registered with `register`) and "sync" otherwise. "sync" is Gymnasium's SyncVectorEnv of single
            environments. "async" runs each in its own process (`Workers`).
        env_timeout: with "async", seconds after which an environment that does not answer has failed.
        restart_crashed_envs: with "async", restart an environment that hung, raised or died.
        options: of the task: for the mazes `view_size`, `actions` (3 or 7) and, if native, `seeding`; for
            other ids the arguments of the environment's constructor.

    Returns:
        The batch. Its `config` holds these arguments.

    Raises:
        ValueError: an unknown id (the message lists the nearest ones), a module that cannot be imported, or
            an option that the task does not have.
    """
    config = EnvConfig(
        env=env_id,
        env_options=options,
        num_envs=num_envs,
        vectorization=vectorization,
        env_timeout=env_timeout,
        restart_crashed_envs=restart_crashed_envs,
    )
    return build(config, device)


def build(config: EnvConfig, device: str | torch.device = "cpu") -> BatchedEnv:
    """Build the batch of environments that a configuration describes, for training: `config.ids`.

    Returns:
        The batch, with `config` as its `config`.

    Raises:
        ValueError: as `make`.
    """
    builder = native(config.ids)
    if builder is not None and config.vectorization == "auto":
        _require_options(config.ids, builder, config.env_options)
        try:
            env = builder(num_envs=config.num_envs, device=device, **config.env_options)
        except TypeError as error:  # an option of the wrong type
            options = ", ".join(f"{name}={value!r}" for name, value in config.env_options.items())
            raise ValueError(
                f"{config.ids} cannot be built with {options or 'no options'}: {error}"
            ) from error
    else:
        env = _adapt(config, device)
    env.config, env.modules = config, _modules_of(config.ids)
    return env


def _modules_of(env_ids: str) -> tuple[str, ...]:
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


def _require_options(env_id: str, builder: Callable[..., BatchedEnv], options: dict[str, Any]) -> None:
    """Raise ValueError for options that a native task does not have."""
    parameters = inspect.signature(builder).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [name for name in parameters if name not in ("num_envs", "device")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"{env_id} has no option {', '.join(unknown)}; it has {', '.join(known) or 'no options'}"
        )


def _adapt(config: EnvConfig, device: str | torch.device) -> GymnasiumEnvs:
    """Build a batch of Gymnasium environments."""
    env_id, names = config.ids, resolve(config.ids)
    options: dict[str, Any] = dict(config.env_options)
    if "," in names:
        raise ValueError(f"{env_id}: only Memory mazes can be mixed, and only with vectorization='auto'")
    _require_known(env_id)
    spec = gymnasium.registry.get(names)
    if spec is not None and spec.entry_point is None:  # it has a vector environment only
        vector = gymnasium.make_vec(env_id, num_envs=config.num_envs, **options)
        return GymnasiumEnvs(vector, device, name=env_id)
    make_one = make_reference(env_id, **options)
    makers = [checked(make_one, i, env_id) for i in range(config.num_envs)]
    batch: gymnasium.vector.VectorEnv = (
        Workers(makers, env_id, config.env_timeout, config.restart_crashed_envs)
        if config.vectorization == "async"
        else gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
    )
    # MiniGrid rewards nothing but reaching the goal.
    return GymnasiumEnvs(batch, device, name=env_id, reward_is_success=is_minigrid(names))


def make_reference(
    env_id: str, render_mode: str | None = None, **options: Any
) -> Callable[[], gymnasium.Env]:
    """Return a function that builds the single environment of this id, for evaluation and pictures.

    MiniGrid's environments are built by MiniGrid, without the mission text, so that their observations equal
    those of the native mazes.

    Args:
        env_id: any Gymnasium id, also as `MODULE:ID`, or a Memory maze of any odd size.
        render_mode: as in `gymnasium.make`.
        options: as in `make`, without `seeding`: the environment's own generator is used.

    Raises:
        ValueError: an unknown id, several ids, or a maze that Farama's class cannot build.
    """
    name = resolve(env_id)
    if "," in name:
        raise ValueError(f"{env_id}: expected one id, since a single environment does not mix tasks")
    if is_minigrid(name):
        maker = minigrid_maker(name, render_mode, **options)
        _require_known(env_id)
        return maker
    _require_known(env_id)
    if render_mode is not None:
        options = {**options, "render_mode": render_mode}
    if name not in gymnasium.registry:  # a maze of a size that is not registered, such as rmc/MemoryS25-v0
        single: Callable[..., Any] = load_env_creator(SINGLE_ENV)
        return lambda: single(name, **options)
    # The whole `MODULE:ID`, so that worker processes import the module, too.
    return lambda: gymnasium.make(env_id, **options)


def _require_known(env_id: str) -> None:
    """Raise ValueError, with the nearest ids, for an id that neither Gymnasium nor this package knows."""
    name = resolve(env_id)
    if is_minigrid(name):
        import minigrid  # noqa: F401 - registers its ids
    if name in gymnasium.registry or native(name) is not None:
        return
    known = sorted({*gymnasium.registry, *NATIVE, *MEMORY_MAZES})
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    raise ValueError(
        f"unknown environment {env_id!r}."
        + (f" Did you mean {', '.join(near)}?" if near else "")
        + " `gymnasium.pprint_registry()` lists the ids of the packages that are imported, `rmc_envs.NATIVE`"
        " those of this package; 'MODULE:ID' imports a module first."
    )


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
register("rmc/NthFarthest-v0", NthFarthest)
register("rmc/Memory-v0", build_maze)
for _maze in MEMORY_MAZES:
    _builder = _maze_builder(_maze)
    assert _builder is not None
    register(_maze.replace("MiniGrid-", "rmc/"), _builder)

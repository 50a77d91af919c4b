"""Names and what they build: `make` for batches, `farama` for single environments of other people.

A new task is one file with a `BatchedEnv` and one `register` below.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, Literal

import gymnasium
import torch

from envs.base import BatchedEnv
from envs.gymnasium_adapter import GymnasiumEnvs, watched
from envs.minigrid_memory import MemoryMazes, Seeding
from envs.minigrid_tables import MazeSpec
from envs.nth_farthest import NthFarthest
from envs.recall import Recall
from envs.workers import Workers

Vectorization = Literal["auto", "sync", "async"]

NATIVE: dict[str, Callable[..., BatchedEnv]] = {}
"""Every native task: its Gymnasium id, and what builds a batch of it from
`(num_envs, device, **options)`."""

MEMORY_MAZES = tuple(
    f"MiniGrid-Memory{maze}-v0" for maze in ("S7", "S9", "S11", "S13", "S13Random", "S17Random")
)
"""The six Memory mazes that MiniGrid registers."""


def register(env_id: str, build: Callable[..., BatchedEnv]) -> None:
    """Make a native task known to `envs.make`, `gymnasium.make` and `gymnasium.make_vec`.

    Args:
        env_id: such as `rmc/Recall-v0`.
        build: takes `num_envs`, `device` and the task's options by name; a `BatchedEnv` class does.
    """
    NATIVE[env_id] = build
    gymnasium.register(
        env_id,
        entry_point="envs.faces:SingleEnv",
        vector_entry_point="envs.faces:BatchedVectorEnv",
        kwargs={"task": env_id},
        disable_env_checker=True,  # the tests run the full checker on every task
        order_enforce=False,  # the face itself says so where a step comes before a reset
    )


def memory(
    num_envs: int = 1,
    device: str | torch.device = "cpu",
    size: int = 13,
    random_length: bool = False,
    hallway: int | None = None,
    view_size: int = 7,
    actions: Literal[3, 7] = 7,
    seeding: Seeding = "device",
) -> MemoryMazes:
    """One Memory maze by its numbers; see `MazeSpec` and `MemoryMazes`."""
    spec = MazeSpec(size, random_length, hallway, view_size)
    return MemoryMazes(spec, num_envs, device, actions, seeding)


def _named_mazes(env_id: str) -> Callable[..., MemoryMazes] | None:
    """What builds the mazes of an id such as `MiniGrid-MemoryS13-v0`, or of several with commas between."""
    names = [name.strip().replace("rmc/Memory", "MiniGrid-Memory") for name in env_id.split(",")]
    if any(MazeSpec.from_id(name) is None for name in names):
        return None

    def build(
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        view_size: int = 7,
        actions: Literal[3, 7] = 7,
        seeding: Seeding = "device",
    ) -> MemoryMazes:
        specs = [spec for name in names if (spec := MazeSpec.from_id(name, view_size)) is not None]
        return MemoryMazes(specs, num_envs, device, actions, seeding)

    return build


def native(env_id: str) -> Callable[..., BatchedEnv] | None:
    """What builds a batch of this id on the device, or None if only its own package can."""
    return NATIVE.get(env_id) or _named_mazes(env_id)


def make(
    env_id: str,
    num_envs: int = 1,
    device: str | torch.device = "cpu",
    vectorization: Vectorization = "auto",
    env_timeout: float = 300.0,
    restart_crashed: bool = False,
    **options: Any,
) -> BatchedEnv:
    """A batch of environments.

    Args:
        env_id: any Gymnasium id; `MiniGrid-MemoryS<size>[Random]-v0` of any odd size; several of those
            with commas between, for a batch that mixes them.
        num_envs: B.
        device: where observations appear and actions are expected.
        vectorization: "auto" is the native implementation where there is one (the Memory mazes and `rmc/`)
            and "sync" elsewhere; "sync" is Gymnasium's SyncVectorEnv around single environments, "async"
            gives each a process of its own (`envs.workers`).
        env_timeout: async: seconds after which an environment that does not answer has failed.
        restart_crashed: async: start an environment again that hung, raised or died.
        options: the task's own: for the mazes `view_size`, `actions` (3 or 7) and natively `seeding`;
            for other ids whatever the environment's constructor takes.

    Raises:
        ValueError: an unknown id, with the nearest ones; an option that the task does not have.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs}: expected 1 or more")
    if vectorization not in ("auto", "sync", "async"):
        raise ValueError(f"vectorization={vectorization!r}: expected 'auto', 'sync' or 'async'")
    if restart_crashed and vectorization != "async":
        raise ValueError(
            "only environments in processes of their own can be started again: ask for "
            f"vectorization='async', not {vectorization!r}"
        )
    build = native(env_id)
    if build is not None and vectorization == "auto":
        known = [name for name in inspect.signature(build).parameters if name not in ("num_envs", "device")]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(f"{env_id} has no option {', '.join(unknown)}; it has {', '.join(known)}")
        return build(num_envs=num_envs, device=device, **options)
    if "," in env_id:
        raise ValueError(f"{env_id}: only Memory mazes, and only with vectorization='auto', mix in a batch")
    _require_known(env_id)
    spec = gymnasium.registry.get(env_id)
    if spec is not None and spec.entry_point is None:  # comes as a vector environment only
        return GymnasiumEnvs(gymnasium.make_vec(env_id, num_envs=num_envs, **options), device, name=env_id)
    build_one = farama(env_id, **options)
    makers = [watched(build_one, i, env_id) for i in range(num_envs)]
    batch: gymnasium.vector.VectorEnv = (
        Workers(makers, env_id, env_timeout, restart_crashed)
        if vectorization == "async"
        else gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
    )
    return GymnasiumEnvs(
        batch,
        device,
        name=env_id,
        # MiniGrid pays for reaching the goal and for nothing else.
        reward_is_success=env_id.startswith(("MiniGrid-", "BabyAI-")),
    )


def farama(env_id: str, render_mode: str | None = None, **options: Any) -> Callable[[], gymnasium.Env]:
    """What builds the single environment of this id by its own package, for evaluation and pictures.

    MiniGrid's observation comes without its mission text, so that it is the native mazes' observation.

    Args:
        env_id: any Gymnasium id, or a Memory maze of any size.
        render_mode: as in `gymnasium.make`.
        options: as in `make`, but for `seeding`: the environment's own generator is used.

    Raises:
        ValueError: an unknown id, or a maze that Farama's class cannot build.
    """
    if env_id.startswith(("MiniGrid-", "BabyAI-")):
        return _minigrid(env_id, render_mode, **options)
    _require_known(env_id)
    if render_mode is not None:
        options = {**options, "render_mode": render_mode}
    return lambda: gymnasium.make(env_id, **options)


def _minigrid(
    env_id: str, render_mode: str | None, view_size: int = 7, actions: Literal[3, 7] = 7, **options: Any
) -> Callable[[], gymnasium.Env]:
    if "seeding" in options:
        raise ValueError(f"{env_id}: MiniGrid's environments have generators of their own; leave seeding out")
    spec = MazeSpec.from_id(env_id, view_size)
    if spec is not None and spec.hallway is not None:
        raise ValueError(f"{env_id}: Farama's MemoryEnv cannot set the hallway; use vectorization='auto'")
    if actions not in (3, 7):
        raise ValueError(f"actions={actions}: expected 3 (turn, turn, forward) or 7 (MiniGrid's)")
    if spec is None:
        _require_known(env_id)

    def build() -> gymnasium.Env:
        from minigrid.envs.memory import MemoryEnv  # slow to import; registers MiniGrid's ids

        if spec is not None:
            env: gymnasium.Env = MemoryEnv(
                size=spec.size,
                random_length=spec.random_length,
                agent_view_size=view_size,
                render_mode=render_mode,
                **options,
            )
        else:
            env = gymnasium.make(env_id, agent_view_size=view_size, render_mode=render_mode, **options)
        assert isinstance(env.observation_space, gymnasium.spaces.Dict)
        kept = gymnasium.spaces.Dict(
            {key: space for key, space in env.observation_space.items() if key != "mission"}
        )
        env = gymnasium.wrappers.TransformObservation(env, lambda obs: {key: obs[key] for key in kept}, kept)
        if actions == 3:
            env = gymnasium.wrappers.TransformAction(env, lambda action: action, gymnasium.spaces.Discrete(3))
        return env

    return build


def _require_known(env_id: str) -> None:
    """Raise ValueError, with the nearest ids, for an id that neither Gymnasium nor we know."""
    if env_id.startswith(("MiniGrid-", "BabyAI-")):
        import minigrid  # noqa: F401 - registers its ids
    name = env_id.split(":")[-1]  # "module:id" imports the module first
    if ":" in env_id:
        __import__(env_id.split(":")[0])
    if name in gymnasium.registry or native(name) is not None:
        return
    known = sorted({*gymnasium.registry, *NATIVE, *MEMORY_MAZES})
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    raise ValueError(
        f"unknown environment {env_id!r}."
        + (f" Did you mean {', '.join(near)}?" if near else "")
        + " `gymnasium.pprint_registry()` lists the ids of the packages that are imported, `envs.NATIVE`"
        " ours; 'package:id' imports a package first."
    )


register("rmc/Recall-v0", Recall)
register("rmc/NthFarthest-v0", NthFarthest)
register("rmc/Memory-v0", memory)
for _maze in MEMORY_MAZES:
    _build = _named_mazes(_maze)
    assert _build is not None
    register(_maze.replace("MiniGrid-", "rmc/"), _build)

"""Environments from ids: `make` and `build` for batches, `make_reference` for single ones."""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import torch
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from rmc_agents.environment import BatchedEnv, EnvConfig, EnvironmentFailed, Vectorization
from rmc_agents.errors import UsageError
from rmc_agents.plugins import import_module

from .gymnasium.adapter import GymnasiumEnvs
from .gymnasium.atari import OPTIONS, preprocessed, preprocessed_batch
from .gymnasium.checked import checked
from .gymnasium.failures import building
from .gymnasium.workers import Workers
from .minigrid.missions import mission_notes
from .minigrid.reference import is_minigrid, minigrid_maker
from .popgym.levels import POPGYM_IDS
from .registry import NATIVE, SINGLE_ENV, modules_of, native, require_known, resolve

OF_GYMNASIUM = ("max_episode_steps", "disable_env_checker", "render_mode")
"""Options that `gymnasium.make` takes for every environment."""


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
        vectorization: "auto" is the native task if there is one (the Memory mazes, POPGym's tasks, `rmc/`,
            and what was registered with `register`), ale_py's own batch for Atari games with
            `preprocessing="atari"`, and "sync" otherwise. "sync" is Gymnasium's SyncVectorEnv of single
            environments. "async" runs each in its own process (`Workers`).
        env_timeout: with "async", seconds after which an environment that does not answer has failed.
        restart_crashed_envs: with "async", restart an environment that hung, raised or died.
        options: of the task: for the mazes `view_size`, `actions` (3 or 7) and, if native, `seeding`; for
            other ids of MiniGrid and BabyAI `view_size`, `actions` and `mission` ("auto", "read" or "drop"),
            besides the arguments of the environment's constructor, which are the options of all other ids.

    Returns:
        The batch. Its `config` holds these arguments.

    Raises:
        ValueError: an unknown id (the message lists the nearest ones), a module that cannot be imported, an
            option that the task does not have, or an environment that raises when it is built.

    Warns:
        UserWarning: what of `notes` is about a likely mistake, such as a mission that the agent does not see.
    """
    config = EnvConfig(
        env=env_id,
        env_options=options,
        num_envs=num_envs,
        vectorization=vectorization,
        env_timeout=env_timeout,
        restart_crashed_envs=restart_crashed_envs,
    )
    env = build(config, device)
    for note in env.notes:
        kind, _, message = note.partition(": ")
        if kind == "warning":
            warnings.warn(message, stacklevel=2)
    return env


def runs_on_device(config: EnvConfig) -> bool:
    """Return whether the environments of a configuration are tensors on the device: native tasks."""
    return config.vectorization == "auto" and native(config.ids) is not None


def build(config: EnvConfig, device: str | torch.device = "cpu") -> BatchedEnv:
    """Build the batch of environments that a configuration describes, for training: `config.ids`.

    Returns:
        The batch, with `config` as its `config`.

    Raises:
        ValueError: as `make`.
    """
    builder = native(config.ids)
    if builder is not None and runs_on_device(config):
        require_options(config.ids, builder, config.env_options)
        with building(config.ids, config.env_options):
            own = copy.deepcopy(config.env_options)  # the task may keep and change a list
            env = builder(num_envs=config.num_envs, device=device, **own)
    else:
        env = _adapt(config, device)
    env.config, env.modules = config, modules_of(config.ids)
    return env


def spaces_of(
    env_id: str, options: dict[str, Any]
) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None:
    """Return the observation and action space of an id, so that a preset can be chosen by them.

    Returns:
        None for native tasks, MiniGrid and BabyAI, and for what cannot be built: `build` reports why.
    """
    try:
        if native(env_id) is not None or is_minigrid(resolve(env_id)):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `build` gives them again
            vector = batched_by_itself(env_id, 1, options)
            if vector is not None:
                with contextlib.closing(vector):
                    return vector.single_observation_space, vector.single_action_space
            with contextlib.closing(make_reference(env_id, **options)()) as env:
                return env.observation_space, env.action_space
    except Exception:
        return None


def require_options(
    env_id: str,
    builder: Callable[..., Any],
    options: dict[str, Any],
    without: Sequence[str] = ("num_envs", "device"),
) -> None:
    """Raise UsageError for options that an environment does not have.

    Args:
        env_id: the environment.
        builder: its class, or the function that builds it.
        options: by name.
        without: arguments that are no options; by default, those of a native task.
    """
    try:
        parameters = inspect.signature(builder).parameters
    except (TypeError, ValueError):  # it is not written in Python
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [name for name in parameters if name not in without]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(
            f"{env_id} has no option {', '.join(unknown)}; it has {', '.join(known) or 'no options'}"
        )


def _adapt(config: EnvConfig, device: str | torch.device) -> GymnasiumEnvs:
    """Build a batch of Gymnasium environments."""
    env_id, names = config.ids, resolve(config.ids)
    options: dict[str, Any] = dict(config.env_options)
    if "," in names:
        raise ValueError(
            f"{env_id}: only MiniGrid's Memory mazes (MiniGrid-MemoryS13-v0 and others) can be mixed, and "
            "only with vectorization='auto'"
        )
    vector = batched_by_itself(env_id, config.num_envs, options)
    if vector is None and config.vectorization == "auto" and "preprocessing" in options:
        vector = _atari_batch(env_id, config.num_envs, options)
    if vector is None:
        makers = checked_makers(env_id, config.num_envs, options)
        in_processes = config.vectorization == "async"
        vector = _workers(config, makers) if in_processes else _in_this_process(env_id, makers)
    return adapted(vector, env_id, options, device)


def batched_by_itself(env_id: str, num_envs: int, options: dict[str, Any]) -> VectorEnv | None:
    """Build the vector environment of an id that has no single one; return None for other ids.

    Raises:
        ValueError: an unknown id, or it cannot be built.
    """
    require_known(env_id)
    spec = gymnasium.registry.get(resolve(env_id))
    if spec is None or spec.entry_point is not None:
        return None
    with building(env_id, options):
        return gymnasium.make_vec(spec, num_envs=num_envs, **copy.deepcopy(options))


def _atari_batch(env_id: str, num_envs: int, options: dict[str, Any]) -> VectorEnv | None:
    """Build the batch of preprocessed Atari games that ale_py computes by itself; None if it cannot."""
    with building(env_id, options):
        spec = gymnasium.spec(resolve(env_id))
        _require_buildable(env_id, spec, options)
        return preprocessed_batch(spec, num_envs, options)


def checked_makers(env_id: str, num_envs: int, options: dict[str, Any]) -> list[Callable[[], gymnasium.Env]]:
    """Return functions that build the single environments of a batch, whose errors name their index."""
    with building(env_id, options):
        make_one = make_reference(env_id, **options)
    return [checked(make_one, i, env_id) for i in range(num_envs)]


def adapted(
    vector: VectorEnv, env_id: str, options: dict[str, Any], device: str | torch.device
) -> GymnasiumEnvs:
    """Return a vector environment as a batch of tensors, with its notes; close it if that fails."""
    name = resolve(env_id)
    try:
        # MiniGrid rewards nothing but reaching the goal.
        env = GymnasiumEnvs(vector, device, name=env_id, reward_is_success=is_minigrid(name))
        env.notes += mission_notes(env_id, name, options)
    except BaseException:
        vector.close()
        raise
    return env


def _in_this_process(env_id: str, makers: Sequence[Callable[[], gymnasium.Env]]) -> VectorEnv:
    """Build the environments one after the other; if one cannot be built, close those before it."""
    envs: list[gymnasium.Env] = []
    try:
        for maker in makers:
            with building(env_id, {}):
                envs.append(maker())
        ready = [lambda env=env: env for env in envs]
        with building(env_id, {}):
            return SyncVectorEnv(ready, autoreset_mode=AutoresetMode.SAME_STEP)
    except BaseException:
        for env in envs:
            env.close()
        raise


def _workers(config: EnvConfig, makers: Sequence[Callable[[], gymnasium.Env]]) -> VectorEnv:
    try:
        return Workers(makers, config.ids, config.env_timeout, config.restart_crashed_envs)
    except EnvironmentFailed as error:  # its message names the environment
        raise ValueError(str(error)) from error


def make_reference(
    env_id: str, render_mode: str | None = None, **options: Any
) -> Callable[[], gymnasium.Env]:
    """Return a function that builds the single environment of this id, for evaluation and pictures.

    MiniGrid's environments are built by MiniGrid, and POPGym's by popgym where that is installed. The mission
    is left out where it is always the same (see the option `mission`), so that observations of the mazes
    equal those of the native ones. The function works in other processes, too, whatever their start method.

    Args:
        env_id: any Gymnasium id, also as `MODULE:ID`, or a Memory maze of any odd size.
        render_mode: as in `gymnasium.make`.
        options: as in `make`, without `seeding`: the environment's own generator is used.

    Returns:
        The function. It raises ValueError if the environment cannot be built.

    Raises:
        ValueError: an unknown id, several ids, an unknown option, a missing package, or a maze that Farama's
            class cannot build.
    """
    name = resolve(env_id)
    if "," in name:
        raise ValueError(f"{env_id}: expected one id, since a single environment does not mix tasks")
    if is_minigrid(name):
        with building(env_id, options):
            maker = minigrid_maker(name, render_mode, **options)
        require_known(env_id)
        return Maker(env_id, maker, options)
    require_known(env_id)
    if render_mode is not None:
        options = {**options, "render_mode": render_mode}
    spec = gymnasium.registry.get(name)
    if name in POPGYM_IDS and render_mode is not None:  # POPGym's own environments draw nothing
        spec = None
    if spec is None:  # such as rmc/MemoryS25-v0, a maze of a size that is not registered
        spec = EnvSpec(name, SINGLE_ENV, kwargs={"task": name}, disable_env_checker=True, order_enforce=False)
    _require_buildable(env_id, spec, options)
    return Maker(env_id, spec, options, native(name))


def _require_buildable(env_id: str, spec: EnvSpec, options: dict[str, Any]) -> None:
    """Raise ValueError for an unknown option, or if the environment's module cannot be imported."""
    if spec.entry_point is None:
        raise ValueError(f"{env_id} has a vector environment only: use vectorization='auto'")
    with building(env_id, options):
        creator = (
            load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        )
    own = {key: x for key, x in options.items() if key not in (*OF_GYMNASIUM, *OPTIONS)}
    builder = native(spec.id) if spec.entry_point == SINGLE_ENV else creator
    if builder is not None:
        require_options(env_id, builder, own, without=("num_envs", "device", "render_mode"))


@dataclass(frozen=True)
class Maker:
    """A function that builds a single environment, in this process or another.

    It carries what the registry of another process may lack, since that process does not run the script that
    registered the environment.
    """

    env_id: str
    """Also as `MODULE:ID`; the module is imported first."""
    how: EnvSpec | Callable[[], gymnasium.Env]
    """Registered specification, or a function that builds the environment."""
    options: dict[str, Any]
    """Of the environment."""
    task: Callable[..., BatchedEnv] | None = None
    """Of a native task: the function that builds a batch."""

    def __call__(self) -> gymnasium.Env:
        """Build the environment.

        Raises:
            CannotBuild: it raised.
        """
        with building(self.env_id, self.options):
            module, colon, _ = self.env_id.partition(":")
            if colon:
                import_module(module)
            if not isinstance(self.how, EnvSpec):
                return self.how()
            if self.task is not None and native(self.how.id) is None:
                NATIVE[self.how.id] = self.task
            return preprocessed(self.how, self.options)

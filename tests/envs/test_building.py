"""Environments that cannot be built are refused with one message that says what to do."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import rmc_envs
from rmc_agents.environment import BatchedEnv, Transition
from rmc_envs import registry
from rmc_envs.numbers import require_flag, require_whole
from tests.support.native_tasks import parameters


@pytest.mark.parametrize("vectorization", ["auto", "async"])
@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        (
            "CartPole-v1",
            {"foo": 1, "bar": 2},
            "CartPole-v1 has no option bar, foo; it has sutton_barto_reward",
        ),
        ("FrozenLake-v1", {"map_name": "9x9"}, r"v1\)? cannot be built with map_name='9x9': KeyError"),
        ("FrozenLake-v1", {"desc": [[]]}, r"v1\)? cannot be built with desc=\[\[\]\]: "),
        (
            "CartPole-v1",
            {"max_episode_steps": "x"},
            "CartPole-v1.* cannot be built with max_episode_steps='x'",
        ),
        ("CartPole-v1", {"env_id": "x"}, "CartPole-v1 cannot be built with env_id='x'"),
        ("CartPole-v1", {"preprocessing": "atari"}, "for the games of the package ale_py"),
        ("CartPole-v1", {"preprocessing": 3}, "expected 'atari'"),
        ("MiniGrid-Empty-5x5-v0", {"size": -3}, "MiniGrid-Empty-5x5-v0.* cannot be built with size=-3: "),
        ("MiniGrid-Empty-5x5-v0", {"view_size": 3.0}, "view_size=3.0: expected at least 1 and at most 99"),
        ("MiniGrid-Empty-5x5-v0", {"nothing": 1}, "unexpected keyword argument 'nothing'$"),
    ],
)
def test_wrong_option_of_a_gymnasium_environment_is_refused(
    env_id: str, options: dict[str, Any], message: str, vectorization: Any
) -> None:
    config = rmc_envs.EnvConfig(env_id, env_options=options, num_envs=2, vectorization=vectorization)
    with pytest.raises(ValueError, match=message) as caught:
        rmc_envs.build(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("vectorization", ["auto", "async"])
@pytest.mark.parametrize(
    ("env_id", "module", "package"),
    [("LunarLander-v3", "Box2D", "gymnasium[box2d]"), ("Ant-v5", "mujoco", "gymnasium[mujoco]")],
)
def test_missing_package_is_named(env_id: str, module: str, package: str, vectorization: Any) -> None:
    if importlib.util.find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    with pytest.raises(ValueError, match=f"^{env_id} cannot be built: DependencyNotInstalled") as caught:
        rmc_envs.make(env_id, 2, vectorization=vectorization)
    assert package in str(caught.value)


@pytest.mark.parametrize(
    ("env_id", "suggestion"),
    [
        ("FetchReach-v4", "gymnasium_robotics:FetchReach-v4"),
        ("highway-fast-v0", "highway_env:highway-fast-v0"),
        ("popgym-LabyrinthEscapeEasy-v0", "popgym:popgym-LabyrinthEscapeEasy-v0"),
    ],
)
@pytest.mark.parametrize("installed", [False, True])
def test_id_that_needs_an_import_is_suggested(
    env_id: str, suggestion: str, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_is_installed", lambda module: installed)
    monkeypatch.delitem(sys.modules, suggestion.partition(":")[0], raising=False)
    with pytest.raises(ValueError, match=f"unknown environment '{env_id}'") as caught:
        rmc_envs.make(env_id)
    assert suggestion in str(caught.value)
    assert ("pip install" in str(caught.value)) != installed


def test_module_in_the_folder_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_arcade.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="Did you mean my_arcade:my_arcade/Pong-v0"):
        rmc_envs.make("my_arcade/Pong-v0")


@pytest.mark.parametrize("name", ["x\x1b[31m\n" * 1000, "[/joint]", "\ud800", "é" * 10**6])
def test_unknown_name_is_shown_escaped_and_short(name: str) -> None:
    with pytest.raises(ValueError, match="unknown environment") as caught:
        rmc_envs.make(name)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600


NUMBERS = ["x", 2.5, 2.0, True, None, [3], 10**9, -1, 1e9]
NATIVE_OPTIONS = [
    ("rmc/Recall-v0", ("delay", "num_symbols")),
    ("rmc/NthFarthest-v0", ("num_objects", "num_dims", "max_rank")),
    ("MiniGrid-MemoryS9-v0", ("view_size", "actions", "seeding")),
    ("rmc/Memory-v0", ("size", "hallway", "random_length", "view_size")),
    ("rmc/RepeatPrevious-v0", ("num_decks", "k")),
    ("rmc/Concentration-v0", ("num_decks", "kind")),
    ("rmc/Battleship-v0", ("board_size",)),
    ("rmc/MineSweeper-v0", ("board_size", "num_mines")),
    ("rmc/MultiarmedBandit-v0", ("num_arms", "episode_length")),
    ("rmc/VelocityOnlyCartPole-v0", ("episode_length", "first_velocities")),
]


@pytest.mark.parametrize(
    ("env_id", "option"), [(env_id, option) for env_id, names in NATIVE_OPTIONS for option in names]
)
def test_wrong_option_of_a_native_task_is_refused(env_id: str, option: str) -> None:
    allowed = {"max_rank": None, "hallway": None, "random_length": True, "first_velocities": True}
    for value in NUMBERS:
        if option in allowed and value is allowed[option]:
            continue
        with pytest.raises(ValueError, match=rf"{env_id} cannot be built with {option}=.*expected") as caught:
            rmc_envs.make(env_id, 2, **{option: value})
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("MiniGrid-MemoryS99999-v0", "size=99999: expected at least 1 and at most 999"),
        ("MiniGrid-MemoryS999Random-v0", r"tables of 1.2 GB, more than 1 GB; choose a smaller size"),
        (f"MiniGrid-MemoryS{'9' * 5000}-v0", "digits"),
    ],
)
@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_huge_maze_is_refused_at_once(env_id: str, message: str, vectorization: Any) -> None:
    with pytest.raises(ValueError, match=message):
        rmc_envs.make(env_id, vectorization=vectorization)


def test_whole_numbers_and_flags_are_checked() -> None:
    require_whole("n", 3, 3, 3)
    require_whole("n", torch.tensor([3]).numpy()[0], 1, 5)
    require_flag("f", False)
    for value in (2, 6, 3.0, True, "3", None):
        with pytest.raises(ValueError, match=r"n=.*expected at least 3 and at most 5, as a whole number"):
            require_whole("n", value, 3, 5)
    for value in (0, 1, None, "True"):
        with pytest.raises(ValueError, match=r"f=.*expected True or False"):
            require_flag("f", value)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_timeout_is_a_time_that_one_can_wait(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"expected more than 0 seconds, and at most 1e\+06"):
        rmc_envs.EnvConfig("CartPole-v1", env_timeout=timeout)


def test_vector_environment_without_single_ones_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point = "rmc_envs.gymnasium.api:BatchedVectorEnv"
    spec = EnvSpec("test/OnlyVector-v0", vector_entry_point=entry_point, kwargs={"task": "rmc/Recall-v0"})
    monkeypatch.setitem(gymnasium.registry, "test/OnlyVector-v0", spec)
    batch = rmc_envs.trials("test/OnlyVector-v0", "gymnasium", 5, options={"delay": 0})
    assert batch.reset(0).shape == (5, 5)
    with pytest.raises(ValueError, match="has a vector environment only"):
        rmc_envs.make_reference("test/OnlyVector-v0")
    with pytest.raises(ValueError, match="cannot be built with delay=-1: "):
        rmc_envs.make("test/OnlyVector-v0", 2, delay=-1)


def test_processes_end_where_the_spaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsupported(gymnasium.Env):
        observation_space = spaces.Dict({"text": spaces.Text(5)})
        action_space = spaces.Discrete(2)

    monkeypatch.setitem(gymnasium.registry, "test/Text-v0", EnvSpec("test/Text-v0", Unsupported))
    for vectorization in ("sync", "async"):
        with pytest.raises(ValueError, match="test/Text-v0"):
            rmc_envs.make("test/Text-v0", 2, vectorization=vectorization)
    assert multiprocessing.active_children() == []


BATCHED = """
import torch
from gymnasium import spaces
import rmc_envs
from rmc_envs import BatchedEnv, Transition

class Registered(BatchedEnv):
    observation_space = action_space = spaces.Discrete(3)
    tasks = ("mine/Registered-v0",)

    def __init__(self, num_envs=1, device="cpu"):
        self.num_envs, self.device = num_envs, torch.device(device)
        self.task_of = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.digit = None

    def reset(self, seed=None):
        self.digit = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        return self.digit

    def step(self, actions):
        if self.digit is None:
            raise RuntimeError("reset first")
        self.require_actions(actions)
        right, shown = actions == self.digit, self.digit
        self.digit = (shown + 1) % 3
        never = torch.zeros_like(right)
        return Transition(self.digit, right.float(), ~never, never, shown, right)

rmc_envs.register("mine/Registered-v0", Registered)
"""


def test_native_task_of_a_module_is_batched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "registering_module.py").write_text(BATCHED)
    monkeypatch.chdir(tmp_path)
    try:
        batch = rmc_envs.make("registering_module:mine/Registered-v0", 4)
        assert type(batch).__name__ == "Registered"
        assert batch.modules == ("registering_module",)
        rmc_envs.check(batch)
        single = rmc_envs.make("registering_module:mine/Registered-v0", 2, vectorization="sync")
        assert isinstance(single, rmc_envs.GymnasiumEnvs)
        assert rmc_envs.choose_implementation("registering_module:mine/Registered-v0") == "batched"
    finally:
        rmc_envs.NATIVE.pop("mine/Registered-v0", None)
        gymnasium.registry.pop("mine/Registered-v0", None)
        sys.modules.pop("registering_module", None)
        sys.path[:] = [path for path in sys.path if path != str(tmp_path)]


class Costly(BatchedEnv):
    """A native task whose constructor raises."""

    observation_space = action_space = spaces.Discrete(2)

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu", error: str = "") -> None:
        if error == "exit":
            sys.exit(0)
        raise RuntimeError(error)

    def reset(self, seed: int | None = None) -> torch.Tensor:
        raise NotImplementedError

    def step(self, actions: torch.Tensor) -> Transition:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("error", "message"), [("exit", "SystemExit: 0"), ("no memory", "RuntimeError: no mem")]
)
def test_native_task_that_raises_is_refused(
    error: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rmc_envs.NATIVE, "mine/Costly-v0", Costly)
    pattern = f"mine/Costly-v0 cannot be built with error='{error}': {message}"
    with pytest.raises(ValueError, match=pattern):
        rmc_envs.make("mine/Costly-v0", 2, error=error)
    with pytest.raises(ValueError, match=pattern):
        rmc_envs.trials("mine/Costly-v0", "batched", 2, options={"error": error})


def test_own_minigrid_without_a_dictionary_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigrid.envs import EmptyEnv
    from minigrid.wrappers import ImgObsWrapper

    name = "MiniGrid-Mine-v0"
    spec = EnvSpec(name, lambda **options: ImgObsWrapper(EmptyEnv(size=5, **options)))
    monkeypatch.setitem(gymnasium.registry, name, spec)
    batch = rmc_envs.make(name, 2)
    assert batch.reset(0).shape == (2, 7, 7, 3)


SMALL_PICTURE = "ignore:The minimal resolution for an image is 36x36:UserWarning"
"""About a 7x7 grid of codes; SB3 takes every `Box(0, 255, uint8)` for a picture."""


@pytest.mark.parametrize("env_id", [parameters(each) for each in rmc_envs.NATIVE if each.startswith("rmc/")])
@pytest.mark.filterwarnings(SMALL_PICTURE)
# Spaces of POPGym: velocities have no bounds, and torques reach 2.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is -?infinity:UserWarning")
@pytest.mark.filterwarnings("ignore:.*recommend.* a symmetric and normalized:UserWarning")
def test_checkers_of_gymnasium_and_sb3_pass(env_id: str) -> None:
    env = gymnasium.make(env_id)
    check_env(env.unwrapped)
    check_env_of_sb3(env.unwrapped)
    for mode in env.unwrapped.metadata["render_modes"]:
        drawn = gymnasium.make(env_id, render_mode=mode)
        drawn.reset(seed=0)
        assert drawn.render() is not None
    vector = gymnasium.make_vec(env_id, num_envs=2)
    assert vector.metadata["render_modes"] == env.unwrapped.metadata["render_modes"]

"""Originals of memory benchmarks: one word imports and registers them, or says what to install."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import rmc_envs
from rmc_envs.gymnasium.originals import INSTALL

MEMORY_MAZE = """
import numpy as np


class Spec:
    def __init__(self, **values):
        self.__dict__.update(values)


class Maze:
    def __init__(self, seed, image_only_obs, good_visibility=False):
        assert image_only_obs
        self.picture = np.full((64, 64, 3), 255 if good_visibility else seed % 200, np.uint8)

    def observation_spec(self):
        return Spec(shape=(64, 64, 3), dtype=np.uint8, minimum=0, maximum=255)

    def action_spec(self):
        return Spec(num_values=6)

    def reset(self):
        return Spec(observation=self.picture)

    def step(self, action):
        return Spec(observation=self.picture, reward=1.0, discount=1.0, last=lambda: False)

    def close(self):
        pass


memory_maze_9x9 = Maze
"""
MEMORY_GYM = """
import os

import gymnasium

assert os.environ["SDL_VIDEODRIVER"] == "dummy"
gymnasium.register("MortarMayhem-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path for modules with the interfaces of the originals."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] in INSTALL]:
        monkeypatch.delitem(sys.modules, name)
    registry = dict(gymnasium.registry)
    for name in [name for name in registry if name.startswith(("MemoryMaze-", "MortarMayhem"))]:
        del gymnasium.registry[name]
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in INSTALL]:
        del sys.modules[name]
    gymnasium.registry.clear()
    gymnasium.registry.update(registry)


@pytest.mark.parametrize("module", INSTALL)
def test_missing_package_gives_the_command_that_installs_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "rmc_envs.gymnasium.originals.importlib.util.find_spec",
        lambda name: None if name == module else found(name),
    )
    with pytest.raises(ValueError, match=f"{module} is not installed: pip install"):
        rmc_envs.make(f"{module}:Any-v0", num_envs=1)


def test_folder_of_the_same_name_is_not_taken_for_the_package(stand_ins: Path) -> None:
    if importlib.util.find_spec("memory_maze") is not None:
        pytest.skip("the package itself is found first")
    (stand_ins / "memory_maze").mkdir()
    with pytest.raises(ValueError, match="memory_maze is not installed"):
        rmc_envs.make("memory_maze:MemoryMaze-9x9-v0", num_envs=1)


def test_memory_maze_is_converted(stand_ins: Path) -> None:
    package = stand_ins / "memory_maze"
    package.mkdir()
    (package / "__init__.py").write_text("from . import tasks\n", encoding="utf-8")
    (package / "tasks.py").write_text(MEMORY_MAZE, encoding="utf-8")
    env = rmc_envs.make("memory_maze:MemoryMaze-9x9-v0", num_envs=2)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert env.action_space == gymnasium.spaces.Discrete(6)
    first = env.reset(seed=1)
    assert isinstance(first, torch.Tensor)
    assert not torch.equal(first[0], first[1])  # each environment has its own seed
    assert env.step(torch.tensor([0, 5])).reward.tolist() == [1, 1]
    bright = rmc_envs.make("memory_maze:MemoryMaze-9x9-v0", num_envs=1, good_visibility=True)
    assert (bright.reset(seed=1) == 255).all()


def test_memory_gym_is_imported_without_a_window(stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    package = stand_ins / "memory_gym"
    package.mkdir()
    (package / "__init__.py").write_text(MEMORY_GYM, encoding="utf-8")
    env = rmc_envs.make("memory_gym:MortarMayhem-v0", num_envs=2)
    env.reset(seed=0)
    assert env.step(torch.tensor([0, 1])).reward.tolist() == [1, 1]
    monkeypatch.delenv("SDL_VIDEODRIVER")


def test_package_that_cannot_be_imported_gives_one_message(stand_ins: Path) -> None:
    package = stand_ins / "memory_maze"
    package.mkdir()
    (package / "__init__.py").write_text("import gym_of_old\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot import .*gym_of_old.*rmc-agents\[memory-maze\]"):
        rmc_envs.make("memory_maze:MemoryMaze-9x9-v0", num_envs=1)


def test_bsuite_is_played_by_its_own_ids() -> None:
    pytest.importorskip("bsuite")
    env = rmc_envs.make("bsuite:memory_len/1", num_envs=4)  # a length of 2
    assert env.observation_space.shape == (3,)
    obs = env.reset(seed=0)
    bits = (obs[:, 2] > 0).long()
    steps = [env.step(bits) for _ in range(3)]
    assert steps[-1].terminated.all()
    assert steps[-1].reward.tolist() == [1.0] * 4
    catch = rmc_envs.make("bsuite:catch/0", num_envs=1)  # its picture becomes a vector
    assert catch.reset(seed=0).shape == (1, 50)


def test_original_memory_maze_is_played() -> None:
    pytest.importorskip("memory_maze", exc_type=ImportError)
    env = rmc_envs.make("memory_maze:MemoryMaze-9x9-v0", num_envs=1)
    assert env.reset(seed=0).shape == (1, 64, 64, 3)
    assert env.step(torch.tensor([1])).reward.tolist() == [0]
    env.close()

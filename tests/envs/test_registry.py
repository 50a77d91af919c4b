"""Names lead to the right environments, and wrong names to the right ones."""

import subprocess
import sys

import gymnasium
import pytest
import torch

import envs
from envs import GymnasiumEnvs, MazeSpec, MemoryMazes


@pytest.mark.parametrize(
    ("env_id", "spec"),
    [
        ("MiniGrid-MemoryS13-v0", MazeSpec(13)),
        ("rmc/MemoryS13Random-v0", MazeSpec(13, random_length=True)),
        ("MiniGrid-MemoryS25-v0", MazeSpec(25)),
        ("MiniGrid-MemoryS33Random-v0", MazeSpec(33, random_length=True)),
        ("MiniGrid-MemoryS13Hallway6-v0", MazeSpec(13, hallway=6)),
    ],
)
def test_maze_ids(env_id: str, spec: MazeSpec) -> None:
    batch = envs.make(env_id)
    assert isinstance(batch, MemoryMazes)
    assert batch.specs == (spec,)
    assert MazeSpec.from_id(spec.env_id) == spec


def test_a_list_of_mazes_is_a_mixture() -> None:
    batch = envs.make("MiniGrid-MemoryS7-v0, rmc/MemoryS9-v0", num_envs=3, view_size=3)
    assert batch.tasks == ("MiniGrid-MemoryS7-v0", "MiniGrid-MemoryS9-v0")
    assert batch.task_of.tolist() == [0, 1, 0]
    assert batch.observation_space["image"].shape == (3, 3, 3)


def test_maze_by_numbers() -> None:
    env = gymnasium.make("rmc/Memory-v0", size=11, view_size=5)
    assert env.unwrapped.batch.specs == (MazeSpec(11, view_size=5),)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_other_environments_are_adapted(vectorization: str) -> None:
    batch = envs.make("CartPole-v1", num_envs=2, vectorization=vectorization)
    assert isinstance(batch, GymnasiumEnvs)
    batch.reset(seed=0)
    step = batch.step(torch.tensor([0, 1]))
    assert step.obs.shape == (2, 4)
    assert step.reward.tolist() == [1.0, 1.0]
    batch.close()


def test_other_minigrids_keep_image_and_direction() -> None:
    batch = envs.make("MiniGrid-Empty-5x5-v0", num_envs=2, view_size=5)
    assert set(batch.observation_space) == {"image", "direction"}
    assert batch.reset(seed=0)["image"].shape == (2, 5, 5, 3)


def test_an_environment_that_is_a_vector_only() -> None:
    gymnasium.register("test/VectorOnly-v0", vector_entry_point="envs.faces:BatchedVectorEnv")
    batch = envs.make("test/VectorOnly-v0", num_envs=2, task="rmc/Recall-v0", num_symbols=3)
    assert batch.reset(seed=0).shape == (2, 4)


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("MiniGrid-MemoryS13Rand-v0", {}, r"Did you mean .*MiniGrid-MemoryS13Random-v0"),
        ("rmc/Recal-v0", {}, r"Did you mean rmc/Recall-v0"),
        ("MiniGrid-MemoryS8-v0", {}, "size 8.*choose 9"),
        ("MiniGrid-MemoryS9-v0", {"veiw_size": 3}, "no option veiw_size; it has view_size"),
        ("MiniGrid-MemoryS9-v0", {"num_envs": 0}, "num_envs=0"),
        ("MiniGrid-MemoryS9-v0", {"vectorization": "threads"}, "vectorization='threads'"),
        ("MiniGrid-MemoryS9-v0", {"vectorization": "sync", "actions": 4}, "actions=4"),
        ("MiniGrid-MemoryS9-v0", {"vectorization": "sync", "seeding": "device"}, "seeding"),
        ("MiniGrid-MemoryS9Hallway4-v0", {"vectorization": "sync"}, "cannot set the hallway"),
        ("MiniGrid-MemoryS7-v0,CartPole-v1", {}, "mix"),
    ],
)
def test_what_cannot_be_made_is_said(env_id: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.make(env_id, **options)


def test_farama_builds_single_environments() -> None:
    env = envs.farama("MiniGrid-MemoryS15-v0", render_mode="rgb_array", view_size=3, actions=3)()
    obs, _ = env.reset(seed=0)
    assert obs.keys() == {"image", "direction"}
    assert env.observation_space.contains(obs)
    assert env.action_space == gymnasium.spaces.Discrete(3)
    assert env.render().shape[-1] == 3
    assert envs.farama("rmc/Recall-v0", delay=2)().unwrapped.batch.delay == 2


def test_import_stays_light() -> None:
    """Neither minigrid nor pygame comes with `import envs`; a maze needs neither."""
    script = (
        "import envs, sys; envs.make('MiniGrid-MemoryS7-v0').reset(0);"
        "print({'minigrid', 'pygame'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"

"""Ids build the right environments, and unknown ids are refused with the nearest ones."""

import importlib
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
import torch

import rmc_envs
from rmc_agents.environment import EnvConfig
from rmc_envs import GymnasiumEnvs, MazeSpec, MemoryMazes
from tests.support import fork_server


@pytest.mark.parametrize(
    ("env_id", "spec"),
    [
        ("MiniGrid-MemoryS13-v0", MazeSpec(13)),
        ("rmc/MemoryS13Random-v0", MazeSpec(13, random_length=True)),
        ("MiniGrid-MemoryS25-v0", MazeSpec(25)),
        ("MiniGrid-MemoryS33Random-v0", MazeSpec(33, random_length=True)),
        ("MiniGrid-MemoryS13Hallway6-v0", MazeSpec(13, hallway=6)),
        ("minigrid:MiniGrid-MemoryS13-v0", MazeSpec(13)),
    ],
)
def test_maze_id_builds_its_maze(env_id: str, spec: MazeSpec) -> None:
    batch = rmc_envs.make(env_id)
    assert isinstance(batch, MemoryMazes)
    assert batch.specs == (spec,)
    assert MazeSpec.from_id(spec.env_id) == spec


@pytest.mark.parametrize(
    "ids",
    ["MiniGrid-MemoryS7-v0, rmc/MemoryS9-v0", "minigrid:MiniGrid-MemoryS7-v0,rmc_envs:rmc/MemoryS9-v0"],
)
def test_several_maze_ids_build_a_mixture(ids: str) -> None:
    batch = rmc_envs.make(ids, num_envs=3, view_size=3)
    assert batch.tasks == ("MiniGrid-MemoryS7-v0", "MiniGrid-MemoryS9-v0")
    assert batch.task_of.tolist() == [0, 1, 0]
    assert batch.observation_space["image"].shape == (3, 3, 3)
    assert rmc_envs.choose_implementation(ids) == "batched"


def test_maze_is_built_from_its_numbers() -> None:
    env = gymnasium.make("rmc/Memory-v0", size=11, view_size=5)
    assert env.unwrapped.batch.specs == (MazeSpec(11, view_size=5),)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_gymnasium_environments_are_adapted(vectorization: str) -> None:
    batch = rmc_envs.make("CartPole-v1", num_envs=2, vectorization=vectorization)
    assert isinstance(batch, GymnasiumEnvs)
    batch.reset(seed=0)
    step = batch.step(torch.tensor([0, 1]))
    assert step.obs.shape == (2, 4)
    assert step.reward.tolist() == [1.0, 1.0]
    batch.close()


@pytest.mark.parametrize("env_id", ["MiniGrid-Empty-5x5-v0", "minigrid:MiniGrid-Empty-5x5-v0"])
def test_other_minigrids_keep_image_and_direction(env_id: str) -> None:
    batch = rmc_envs.make(env_id, num_envs=2, view_size=5)
    assert set(batch.observation_space) == {"image", "direction"}
    assert batch.reset(seed=0)["image"].shape == (2, 5, 5, 3)
    assert rmc_envs.choose_implementation(env_id) == "farama"


def test_environment_with_a_vector_entry_point_only_is_adapted() -> None:
    entry_point = "rmc_envs.gymnasium.api:BatchedVectorEnv"
    gymnasium.register("test/VectorOnly-v0", vector_entry_point=entry_point)
    batch = rmc_envs.make("test/VectorOnly-v0", num_envs=2, task="rmc/Recall-v0", num_symbols=3)
    assert batch.reset(seed=0).shape == (2, 4)


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("MiniGrid-MemoryS13Rand-v0", {}, r"Did you mean .*MiniGrid-MemoryS13Random-v0"),
        ("rmc/Recal-v0", {}, r"Did you mean rmc/Recall-v0"),
        ("popgym-AutoencodeEazy-v0", {}, r"Did you mean popgym-AutoencodeEasy-v0"),
        ("popgym-VelocityOnlyCartPoleEasy-v0", {}, r"Did you mean popgym-VelocityOnlyCartpoleEasy-v0"),
        (
            "rmc_envs:rmc/Recal-v0",
            {},
            r"unknown environment 'rmc_envs:rmc/Recal-v0'. Did you mean rmc/Recall-v0",
        ),
        ("MiniGrid-MemoryS8-v0", {}, "size 8.*choose 9"),
        ("MiniGrid-MemoryS9-v0", {"veiw_size": 3}, "no option veiw_size; it has view_size"),
        ("MiniGrid-MemoryS9-v0", {"num_envs": 0}, "num_envs=0"),
        ("MiniGrid-MemoryS9-v0", {"vectorization": "threads"}, "vectorization='threads'"),
        ("MiniGrid-MemoryS9-v0", {"vectorization": "sync", "actions": 4}, "actions=4"),
        ("MiniGrid-MemoryS9-v0", {"vectorization": "sync", "seeding": "device"}, "seeding"),
        ("MiniGrid-MemoryS9Hallway4-v0", {"vectorization": "sync"}, "cannot set the hallway"),
        ("MiniGrid-MemoryS7-v0,CartPole-v1", {}, "mix"),
        ("CartPole-v1", {"restart_crashed_envs": True}, "vectorization='async', not 'auto'"),
        ("no_such_module:CartPole-v1", {}, r"'no_such_module' \(ModuleNotFoundError: No module named"),
        (":CartPole-v1", {}, "cannot import the module ''"),
    ],
)
def test_invalid_request_is_refused(env_id: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rmc_envs.make(env_id, **options)


def test_gymnasium_imports_the_package_that_an_id_names() -> None:
    script = (
        "import gymnasium; print(gymnasium.make('rmc_envs:rmc/Recall-v0').spec.id,"
        "gymnasium.make_vec('rmc_envs:rmc/Recall-v0', num_envs=2).num_envs)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["rmc/Recall-v0", "2"]


OWN_IDS = [env_id for env_id in gymnasium.registry if env_id.startswith("rmc/")]


@pytest.mark.parametrize("env_id", [*OWN_IDS, "rmc/MemoryS25-v0"])
def test_id_without_its_prefix_suggests_the_id_first(env_id: str) -> None:
    name = env_id.removeprefix("rmc/")
    with pytest.raises(
        ValueError, match=f"^unknown environment '{name}'. Did you mean {env_id}( or memory_maze:{name})?[?]"
    ):
        rmc_envs.make(name, 4)


def test_make_reference_builds_single_environments() -> None:
    env = rmc_envs.make_reference("MiniGrid-MemoryS15-v0", render_mode="rgb_array", view_size=3, actions=3)()
    obs, _ = env.reset(seed=0)
    assert obs.keys() == {"image", "direction"}
    assert env.observation_space.contains(obs)
    assert env.action_space == gymnasium.spaces.Discrete(3)
    assert env.render().shape[-1] == 3
    assert rmc_envs.make_reference("rmc/Recall-v0", delay=2)().unwrapped.batch.delay == 2
    assert rmc_envs.make_reference("rmc/MemoryS25-v0", view_size=3)().unwrapped.batch.specs[0].size == 25
    with pytest.raises(ValueError, match="expected one id"):
        rmc_envs.make_reference("MiniGrid-MemoryS7-v0,MiniGrid-MemoryS9-v0")


def test_make_records_its_arguments_in_the_configuration() -> None:
    batch = rmc_envs.make("MiniGrid-MemoryS9-v0", 3, view_size=3)
    assert batch.config == EnvConfig(env="MiniGrid-MemoryS9-v0", env_options={"view_size": 3}, num_envs=3)
    batch = rmc_envs.make(
        "CartPole-v1", 2, vectorization="async", env_timeout=12.0, restart_crashed_envs=True
    )
    config = EnvConfig(
        "CartPole-v1", num_envs=2, vectorization="async", env_timeout=12.0, restart_crashed_envs=True
    )
    assert batch.config == config
    assert (batch.env.timeout, batch.env.restart) == (12.0, True)
    batch.close()


def test_build_makes_the_ids_to_train_on() -> None:
    config = EnvConfig(
        env="MiniGrid-MemoryS13-v0", train_on="MiniGrid-MemoryS7-v0,MiniGrid-MemoryS9-v0", num_envs=4
    )
    batch = rmc_envs.build(config, "meta")
    assert batch.config is config
    assert batch.tasks == ("MiniGrid-MemoryS7-v0", "MiniGrid-MemoryS9-v0")
    assert batch.device.type == "meta"
    assert rmc_envs.build(EnvConfig("rmc/Recall-v0", env_options={"delay": 3})).delay == 3


def test_import_stays_light() -> None:
    """Neither minigrid nor pygame is imported with the package, and a maze needs neither."""
    script = (
        "import rmc_envs, sys; rmc_envs.make('MiniGrid-MemoryS7-v0').reset(0);"
        "print({'minigrid', 'pygame'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


TASK_FILE = """
import rmc_envs

def build(num_envs=1, device="cpu", delay=1):
    return rmc_envs.Recall(num_envs, device, num_symbols=2, delay=delay)

rmc_envs.register("mine/LongPause-v0", build)
"""

MODULE_ID_SCRIPT = """
import os, sys
import rmc_envs
assert os.getcwd() not in sys.path and "" not in sys.path
ID = "long_pause:mine/LongPause-v0"
batch = rmc_envs.make(ID, 4, delay=3)
assert isinstance(batch, rmc_envs.Recall) and batch.delay == 3, batch
assert batch.config.env == ID and rmc_envs.build(batch.config).delay == 3
assert rmc_envs.native(ID) is rmc_envs.NATIVE["mine/LongPause-v0"]
assert rmc_envs.resolve(ID) == "mine/LongPause-v0"
assert rmc_envs.choose_implementation(ID) == "batched"
assert isinstance(rmc_envs.trials(ID, "batched", 7), rmc_envs.Recall)
assert isinstance(rmc_envs.trials(ID, "gymnasium", 7), rmc_envs.GymnasiumEnvs)
assert rmc_envs.make_reference(ID, delay=2)().unwrapped.batch.delay == 2
for vectorization in ("sync", "async"):
    batch = rmc_envs.make(ID, 2, vectorization=vectorization)
    assert isinstance(batch, rmc_envs.GymnasiumEnvs) and batch.reset(seed=0).shape == (2, 3)
    batch.close()
for wrong, message in {
    "broken:mine/X-v0": "cannot import the module 'broken' (RuntimeError: no licence)",
    "absent:mine/X-v0": "cannot import the module 'absent' (ModuleNotFoundError: No module named 'absent')",
    "long_pause:mine/LongPaus-v0": "Did you mean mine/LongPause-v0?",
}.items():
    try:
        rmc_envs.make(wrong)
    except ValueError as error:
        assert message in str(error), error
    else:
        raise AssertionError(wrong)
print("done")
"""


def test_module_id_imports_the_module_and_builds_the_native_task(tmp_path: Path) -> None:
    """Also from the current directory, which is not on the path of a script in another folder."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "long_pause.py").write_text(TASK_FILE)
    (tmp_path / "work" / "broken.py").write_text("raise RuntimeError('no licence')")
    (tmp_path / "script.py").write_text(MODULE_ID_SCRIPT)
    words = ["-W", "error", str(tmp_path / "script.py")]
    process = fork_server.start(words, tmp_path / "work", PYTHONPATH="")
    out, errors = process.communicate()
    assert process.wait() == 0, errors
    assert out.strip() == "done"


def test_failed_import_leaves_the_path_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = list(sys.path)
    with pytest.raises(ValueError, match="absent_module"):
        rmc_envs.make("absent_module:mine/X-v0")
    assert sys.path == before


def test_batch_names_the_modules_that_register_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_tasks.py").write_text(
        "import gymnasium\n"
        "import rmc_envs\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Pole(CartPoleEnv): pass\n"
        "gymnasium.register('their/Pole-v0', Pole, max_episode_steps=20)\n"
        "rmc_envs.register('their/Recall-v0', rmc_envs.Recall)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("their_tasks")
    assert rmc_envs.make("their/Pole-v0").modules == ("their_tasks",)
    assert rmc_envs.make("their/Recall-v0").modules == ("their_tasks",)
    assert rmc_envs.make("CartPole-v1").modules == ()
    assert rmc_envs.make("MiniGrid-MemoryS7-v0,MiniGrid-MemoryS9-v0", 2).modules == ()


def test_option_of_the_wrong_type_is_one_message() -> None:
    with pytest.raises(ValueError, match="rmc/Recall-v0 cannot be built with delay='x'"):
        rmc_envs.make("rmc/Recall-v0", delay="x")

"""Native tasks as Gymnasium environments pass the checkers and equal Gymnasium's own vector environments."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rmc_envs
from rmc_envs.gymnasium.api import Drawable
from tests.support.native_tasks import EVERY_TASK
from tests.support.seeding import takes_seeding
from tests.support.short_episodes import short_episodes


# Spaces of tasks that are other people's: POPGym's velocities have no bounds, and its torques reach 2.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is -?infinity:UserWarning")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space:UserWarning")
@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_single_environment_passes_gymnasiums_checker(env_id: str) -> None:
    env = gymnasium.make(env_id)
    check_env(env.unwrapped)
    if isinstance(env.unwrapped.batch, Drawable):
        drawn = gymnasium.make(env_id, render_mode="rgb_array")
        check_env(drawn.unwrapped)
    else:
        with pytest.raises(ValueError, match="render_mode"):
            gymnasium.make(env_id, render_mode="rgb_array")
        with pytest.raises(TypeError, match="render_mode"):  # then Stable-Baselines3 builds it without
            gymnasium.make(env_id, render_mode="rgb_array")


# SB3 warns that symbolic views are too small for its own image network.
@pytest.mark.filterwarnings("ignore:The minimal resolution for an image is 36x36:UserWarning")
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box:UserWarning")
@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_single_environment_passes_sb3s_checker(env_id: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    check_for_sb3(gymnasium.make(env_id).unwrapped, skip_render_check=False)


@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_metadata_lists_only_the_render_modes_of_the_task(env_id: str) -> None:
    modes = ["rgb_array"] if isinstance(rmc_envs.make(env_id), Drawable) else []
    assert gymnasium.make(env_id).metadata["render_modes"] == modes
    assert gymnasium.make_vec(env_id, num_envs=2).metadata["render_modes"] == modes
    for mode in modes:
        env = gymnasium.make(env_id, render_mode=mode)
        env.reset(seed=0)
        assert env.render().shape[-1] == 3


@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_single_environment_ends_once_and_then_needs_a_reset(env_id: str) -> None:
    env = gymnasium.make(env_id)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(6000):
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        if terminated or truncated:
            break
        assert info == {}
    assert terminated or truncated
    assert info == ({"is_success": reward > 0} if env.unwrapped.batch.reports_success else {})
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset()
    env.step(env.action_space.sample())  # which may end the episode
    env.reset()
    is_box = isinstance(env.action_space, gymnasium.spaces.Box)
    with pytest.raises(gymnasium.error.InvalidAction):
        env.step(env.action_space.high + 1 if is_box else -1)


@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_vector_environment_equals_gymnasiums_around_single_ones(env_id: str) -> None:
    """Observations, rewards, ends and infos have equal types; and equal values where seeds mean the same."""
    options = short_episodes(env_id)
    ours = gymnasium.make_vec(env_id, num_envs=3, **options)
    theirs = SyncVectorEnv(
        [lambda: gymnasium.make(env_id, **options)] * 3, autoreset_mode=AutoresetMode.SAME_STEP
    )
    assert ours.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    (ours_obs, ours_info), (theirs_obs, theirs_info) = ours.reset(seed=5), theirs.reset(seed=5)
    seeded_alike = takes_seeding(env_id)  # one generator for each environment
    ends, ends_together, ends_alike = 0, 0, True
    ours.action_space.seed(0)
    for _ in range(700):
        assert ours.observation_space.contains(ours_obs)
        assert_alike(ours_obs, theirs_obs, seeded_alike)
        if seeded_alike or ends_alike:
            assert_alike(ours_info, theirs_info, seeded_alike)
        actions = ours.action_space.sample()
        ours_obs, *ours_rest, ours_info = ours.step(actions)
        theirs_obs, *theirs_rest, theirs_info = theirs.step(actions)
        for a, b in zip(ours_rest, theirs_rest, strict=True):
            assert_alike(a, b, seeded_alike)
        # Episodes of different lengths end at different times, and infos name the environments that ended.
        ends_alike = np.array_equal(ours_rest[1] | ours_rest[2], theirs_rest[1] | theirs_rest[2])
        ends_together += ends_alike and bool((ours_rest[1] | ours_rest[2]).any())
        ends += int((ours_rest[1] | ours_rest[2]).sum())
    assert ends > 0
    assert ends_together > 0
    with pytest.raises(ValueError, match="reset_mask"):
        ours.reset(options={"reset_mask": np.ones(3, dtype=bool)})
    ours.close()
    theirs.close()


def assert_alike(a, b, values: bool) -> None:
    """The structure and types are equal, and with `values` also the numbers."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_alike(a[key], b[key], values)
    elif isinstance(a, np.ndarray):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if a.dtype == object:
            for one, other in zip(a, b, strict=True):
                assert_alike(one, other, values)
        elif values:
            np.testing.assert_array_equal(a, b)
    elif values:
        assert a == b


@pytest.mark.parametrize("maze", rmc_envs.MEMORY_MAZES)
def test_single_maze_equals_faramas_over_several_episodes(maze: str) -> None:
    ours, theirs = gymnasium.make(maze.replace("MiniGrid-", "rmc/")), rmc_envs.make_reference(maze)()
    assert ours.observation_space == theirs.observation_space
    obs, other = ours.reset(seed=9)[0], theirs.reset(seed=9)[0]
    ours.action_space.seed(1)
    for _ in range(1500):
        assert {key: np.asarray(part).tolist() for key, part in obs.items()} == {
            key: np.asarray(part).tolist() for key, part in other.items()
        }
        action = ours.action_space.sample()
        obs, reward, *ends, _ = ours.step(action)
        other, other_reward, *other_ends, _ = theirs.step(action)
        assert ends == other_ends
        assert np.float32(reward) == np.float32(other_reward)
        if any(ends):
            obs, other = ours.reset()[0], theirs.reset()[0]

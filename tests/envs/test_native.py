"""What every native task owes its users; a newly registered task is tested here on the day it arrives."""

import io

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import envs
from envs import BatchedEnv, Obs, Transition

ALL = [*envs.NATIVE, "MiniGrid-MemoryS9-v0,MiniGrid-MemoryS7-v0"]


def random_actions(batch: BatchedEnv, steps: int, seed: int = 0) -> list[torch.Tensor]:
    space = batch.action_space
    space.seed(seed)
    return [torch.from_numpy(np.stack([space.sample() for _ in range(batch.num_envs)])) for _ in range(steps)]


def parts(value: Obs) -> dict[str, torch.Tensor]:
    return value if isinstance(value, dict) else {"": value}


def assert_same(a: Transition, b: Transition) -> None:
    for name, one, other in zip(Transition._fields, a, b, strict=True):
        if one is None:
            assert other is None
            continue
        for key in parts(one):
            assert torch.equal(parts(one)[key], parts(other)[key]), name


def assert_follows_contract(batch: BatchedEnv, obs: Obs, step: Transition | None = None) -> None:
    space = batch.observation_space
    for value in (obs,) if step is None else (step.obs, step.final_obs):
        members = space.spaces if isinstance(space, gymnasium.spaces.Dict) else {"": space}
        assert parts(value).keys() == members.keys()
        for key, member in members.items():
            tensor = parts(value)[key]
            assert tensor.device == batch.device
            assert tensor.shape == (batch.num_envs, *member.shape)
            for row in tensor[:1]:
                assert member.contains(row.numpy()), (key, row)
    if step is not None:
        done = step.terminated | step.truncated
        assert step.reward.dtype == torch.float32
        for flags in (step.terminated, step.truncated):
            assert flags.dtype == torch.bool
            assert flags.shape == (batch.num_envs,)
        if step.success is not None:
            assert step.success.dtype == torch.bool
            assert not (step.success & ~done).any()
        for key, tensor in parts(step.obs).items():
            assert torch.equal(tensor[~done], parts(step.final_obs)[key][~done])


@pytest.mark.parametrize("env_id", ALL)
def test_contract_and_seeds(env_id: str) -> None:
    one, same, other = (envs.make(env_id, num_envs=6) for _ in range(3))
    assert len(one.tasks) == 1 + int(one.task_of.max())
    assert one.task_of.shape == (6,)
    obs = one.reset(seed=3)
    assert_follows_contract(one, obs)
    repeated = same.reset(seed=3)
    assert all(torch.equal(parts(obs)[key], parts(repeated)[key]) for key in parts(obs))
    other.reset(seed=4)
    ends, differ = 0, False
    for t, actions in enumerate(random_actions(one, 700)):
        step, again, different = one.step(actions), same.step(actions), other.step(actions)
        done = step.terminated | step.truncated
        if t % 20 == 0 or bool(done.any()):
            assert_follows_contract(one, step.obs, step)
        assert_same(step, again)
        ends += int(done.sum())
        differ |= any(not torch.equal(parts(step.obs)[k], parts(different.obs)[k]) for k in parts(step.obs))
    assert ends > 0
    assert differ


@pytest.mark.parametrize("env_id", ALL)
def test_hints_are_numbers_with_weights_or_none_at_all(env_id: str) -> None:
    batch = envs.make(env_id, num_envs=6)
    batch.reset(seed=3)
    weights = []
    for actions in random_actions(batch, 30):
        hints = batch.hints()
        if batch.hint_size == 0:
            assert hints is None
            continue
        assert hints is not None
        for tensor in hints:
            assert tensor.shape == (6, batch.hint_size)
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all()
        assert (hints.weights >= 0).all()
        weights.append(hints.weights)
        batch.step(actions)
    assert all(any(row.any() for row in column) for column in zip(*weights, strict=True))


@pytest.mark.parametrize("env_id", ALL)
def test_reset_without_seed_goes_on(env_id: str) -> None:
    """Two resets are not the same episode twice, and the sequence itself is seeded."""
    runs = []
    for _ in range(2):
        batch = envs.make(env_id, num_envs=64)
        first = batch.reset(seed=0)
        runs.append([first, batch.reset(), batch.reset()])
    for a, b in zip(*runs, strict=True):
        assert all(torch.equal(parts(a)[key], parts(b)[key]) for key in parts(a))
    first, second, _ = runs[0]
    assert any(not torch.equal(parts(first)[key], parts(second)[key]) for key in parts(first))


def cases_of_seeding() -> list[tuple[str, dict]]:
    cases: list[tuple[str, dict]] = [(env_id, {}) for env_id in ALL]
    return cases + [(env_id, {"seeding": "farama"}) for env_id in ALL if "Memory" in env_id]


@pytest.mark.parametrize(("env_id", "options"), cases_of_seeding())
def test_resumed_equals_uninterrupted(env_id: str, options: dict) -> None:
    batch = envs.make(env_id, num_envs=5, **options)
    batch.reset(seed=11)
    actions = random_actions(batch, 400)
    for action in actions[:123]:
        obs = batch.step(action).obs
    buffer = io.BytesIO()
    torch.save(batch.state_dict(), buffer)
    buffer.seek(0)
    rest = [batch.step(action) for action in actions[123:]]
    again = envs.make(env_id, num_envs=5, **options)
    restored = again.load_state_dict(torch.load(buffer, weights_only=True))
    assert all(torch.equal(parts(obs)[key], parts(restored)[key]) for key in parts(obs))
    for action, step in zip(actions[123:], rest, strict=True):
        assert_same(again.step(action), step)
    a, b = parts(batch.reset()), parts(again.reset())
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("env_id", ALL)
def test_no_step_before_reset_and_no_foreign_state(env_id: str) -> None:
    batch = envs.make(env_id, num_envs=4)
    action = random_actions(batch, 1)[0]
    with pytest.raises(RuntimeError, match="reset"):
        batch.step(action)
    with pytest.raises(RuntimeError, match="reset"):
        batch.state_dict()
    batch.reset(seed=0)
    other = envs.make(env_id, num_envs=5)
    with pytest.raises(ValueError, match=r"4 environments.*expected 5"):
        other.load_state_dict(batch.state_dict())


@pytest.mark.parametrize("env_id", ALL)
def test_no_number_is_read_inside_a_step(env_id: str) -> None:
    """The meta device holds shapes and no numbers: any hidden `.item()` or stray CPU tensor fails there."""
    batch = envs.make(env_id, num_envs=6, device="meta")
    batch.reset(seed=0)
    for actions in random_actions(batch, 3):
        step = batch.step(actions.to("meta"))
    for name, value in zip(Transition._fields, step, strict=True):
        for tensor in () if value is None else parts(value).values():
            assert tensor.device.type == "meta", name
            assert tensor.shape[0] == 6
    assert batch.task_of.device.type == "meta"


@pytest.mark.parametrize("env_id", envs.NATIVE)
def test_single_environment_passes_gymnasiums_checker(env_id: str) -> None:
    env = gymnasium.make(env_id)
    check_env(env.unwrapped, skip_render_check=True)
    if "rgb_array" in env.metadata["render_modes"] and "Memory" in env_id:
        drawn = gymnasium.make(env_id, render_mode="rgb_array")
        check_env(drawn.unwrapped)
    else:
        with pytest.raises(ValueError, match="render_mode"):
            gymnasium.make(env_id, render_mode="rgb_array")


@pytest.mark.parametrize("env_id", envs.NATIVE)
def test_single_environment_ends_once(env_id: str) -> None:
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
    assert info == {"is_success": reward > 0}
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset()
    env.step(0)
    with pytest.raises(gymnasium.error.InvalidAction):
        env.step(-1)


@pytest.mark.parametrize("env_id", envs.NATIVE)
def test_vector_environment_is_gymnasiums_own_around_singles(env_id: str) -> None:
    """Observations, rewards, ends and infos, in value and in type; where a seed means the same to both."""
    ours = gymnasium.make_vec(env_id, num_envs=3)
    theirs = SyncVectorEnv([lambda: gymnasium.make(env_id)] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    (ours_obs, ours_info), (theirs_obs, theirs_info) = ours.reset(seed=5), theirs.reset(seed=5)
    seeded_alike = "Memory" in env_id  # one generator for each environment
    ends = 0
    ours.action_space.seed(0)
    for _ in range(700):
        assert ours.observation_space.contains(ours_obs)
        assert_alike(ours_obs, theirs_obs, seeded_alike)
        assert_alike(ours_info, theirs_info, seeded_alike)
        actions = ours.action_space.sample()
        ours_obs, *ours_rest, ours_info = ours.step(actions)
        theirs_obs, *theirs_rest, theirs_info = theirs.step(actions)
        for a, b in zip(ours_rest, theirs_rest, strict=True):
            assert_alike(a, b, seeded_alike)
        ends += int((ours_rest[1] | ours_rest[2]).sum())
    assert ends > 0
    with pytest.raises(ValueError, match="reset_mask"):
        ours.reset(options={"reset_mask": np.ones(3, dtype=bool)})
    ours.close()
    theirs.close()


def assert_alike(a, b, values: bool) -> None:
    """The same structure and types, and with `values` the same numbers."""
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


@pytest.mark.parametrize("maze", envs.MEMORY_MAZES)
def test_single_maze_is_faramas_over_several_episodes(maze: str) -> None:
    ours, theirs = gymnasium.make(maze.replace("MiniGrid-", "rmc/")), envs.farama(maze)()
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

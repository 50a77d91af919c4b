"""Native tasks follow the contract; a newly registered task is tested here automatically."""

import io

import gymnasium
import numpy as np
import pytest
import torch

import rmc_envs
from rmc_envs import BatchedEnv, Obs, Transition
from tests.support.native_tasks import parameters
from tests.support.seeding import takes_seeding
from tests.support.short_episodes import short_episodes

ALL = [*rmc_envs.NATIVE, "MiniGrid-MemoryS9-v0,MiniGrid-MemoryS7-v0"]
BLANK_AT_FIRST = ("Concentration", "Battleship", "MineSweeper", "MultiarmedBandit")
"""Tasks whose first observation is always the same."""
EVERY = [parameters(env_id) for env_id in ALL]
WITH_SEEDINGS = [parameters(env_id, {}) for env_id in ALL] + [
    parameters(env_id, {"seeding": "farama"}) for env_id in ALL if takes_seeding(env_id)
]


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
        assert step.reward.dtype == torch.float32
        for flags in (step.terminated, step.truncated):
            assert flags.dtype == torch.bool
            assert flags.shape == (batch.num_envs,)
        if step.success is not None:
            assert step.success.dtype == torch.bool
            assert not (step.success & ~step.done).any()
        for key, tensor in parts(step.obs).items():
            assert torch.equal(tensor[~step.done], parts(step.final_obs)[key][~step.done])


@pytest.mark.slow
@pytest.mark.parametrize(("env_id", "options"), WITH_SEEDINGS)
def test_native_task_passes_the_checker(env_id: str, options: dict) -> None:
    on_the_host = options.get("seeding") == "farama"
    options = {**short_episodes(env_id), **options}
    rmc_envs.check(rmc_envs.make(env_id, num_envs=4, **options), steps=300, meta=not on_the_host)


@pytest.mark.parametrize("env_id", EVERY)
def test_native_task_returns_valid_values_and_repeats_a_seed(env_id: str) -> None:
    one, same, other = (rmc_envs.make(env_id, num_envs=6, **short_episodes(env_id)) for _ in range(3))
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
        if t % 20 == 0 or bool(step.done.any()):
            assert_follows_contract(one, step.obs, step)
        assert_same(step, again)
        ends += int(step.done.sum())
        differ |= any(not torch.equal(parts(step.obs)[k], parts(different.obs)[k]) for k in parts(step.obs))
    assert ends > 0
    assert differ


@pytest.mark.parametrize("env_id", EVERY)
def test_auxiliary_targets_match_aux_size(env_id: str) -> None:
    batch = rmc_envs.make(env_id, num_envs=6)
    batch.reset(seed=3)
    weights = []
    for actions in random_actions(batch, 30):
        aux_targets = batch.auxiliary_targets()
        if batch.aux_size == 0:
            assert aux_targets is None
            continue
        assert aux_targets is not None
        for tensor in aux_targets:
            assert tensor.shape == (6, batch.aux_size)
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all()
        assert (aux_targets.weights >= 0).all()
        weights.append(aux_targets.weights)
        batch.step(actions)
    assert all(any(row.any() for row in column) for column in zip(*weights, strict=True))


def shown_first(batch: BatchedEnv, seed: int | None) -> Obs:
    """Return the first observations after a reset, or later ones of a task that begins with a blank one."""
    obs = batch.reset(seed)
    if any(name in batch.tasks[0] for name in BLANK_AT_FIRST):
        for actions in random_actions(batch, 3):
            obs = batch.step(actions).obs
    return obs


@pytest.mark.parametrize("env_id", EVERY)
def test_reset_without_seed_continues_the_seeded_sequence(env_id: str) -> None:
    runs = []
    for _ in range(2):
        batch = rmc_envs.make(env_id, num_envs=64)
        runs.append([shown_first(batch, seed) for seed in (0, None, None)])
    for a, b in zip(*runs, strict=True):
        assert all(torch.equal(parts(a)[key], parts(b)[key]) for key in parts(a))
    first, second, _ = runs[0]
    assert any(not torch.equal(parts(first)[key], parts(second)[key]) for key in parts(first))


@pytest.mark.parametrize(("env_id", "options"), WITH_SEEDINGS)
def test_restored_state_continues_bit_for_bit(env_id: str, options: dict) -> None:
    options = {**short_episodes(env_id), **options}
    batch = rmc_envs.make(env_id, num_envs=5, **options)
    batch.reset(seed=11)
    actions = random_actions(batch, 400)
    for action in actions[:123]:
        obs = batch.step(action).obs
    buffer = io.BytesIO()
    torch.save(batch.state_dict(), buffer)
    buffer.seek(0)
    rest = [batch.step(action) for action in actions[123:]]
    again = rmc_envs.make(env_id, num_envs=5, **options)
    restored = again.load_state_dict(torch.load(buffer, weights_only=True))
    assert all(torch.equal(parts(obs)[key], parts(restored)[key]) for key in parts(obs))
    for action, step in zip(actions[123:], rest, strict=True):
        assert_same(again.step(action), step)
    a, b = parts(batch.reset()), parts(again.reset())
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("env_id", EVERY)
def test_step_before_reset_and_foreign_state_are_refused(env_id: str) -> None:
    batch = rmc_envs.make(env_id, num_envs=4)
    action = random_actions(batch, 1)[0]
    with pytest.raises(RuntimeError, match="reset"):
        batch.step(action)
    with pytest.raises(RuntimeError, match="reset"):
        batch.state_dict()
    batch.reset(seed=0)
    state = batch.state_dict()
    assert state is not None
    other = rmc_envs.make(env_id, num_envs=5)
    with pytest.raises(ValueError, match=r"4 environments.*expected 5"):
        other.load_state_dict(state)


@pytest.mark.parametrize("env_id", EVERY)
def test_step_runs_on_the_meta_device(env_id: str) -> None:
    """The meta device holds shapes and no numbers, so any `.item()` or stray CPU tensor fails there."""
    batch = rmc_envs.make(env_id, num_envs=6, device="meta")
    batch.reset(seed=0)
    for actions in random_actions(batch, 3):
        step = batch.step(actions.to("meta"))
    for name, value in zip(Transition._fields, step, strict=True):
        for tensor in () if value is None else parts(value).values():
            assert tensor.device.type == "meta", name
            assert tensor.shape[0] == 6
    assert batch.task_of.device.type == "meta"

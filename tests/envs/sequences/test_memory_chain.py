"""MemoryChain: episodes equal bsuite's, and the answer has to be remembered."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from rmc_envs import MemoryChain
from rmc_envs.players import play
from rmc_envs.sequences.memory_players import MemoryChainMemoryless, MemoryChainReference


def test_episode_by_hand() -> None:
    env = MemoryChain(1, length=3, num_bits=2)
    obs = env.reset(seed=0)
    bits = obs[0, 2:].tolist()
    assert set(bits) <= {-1.0, 1.0}
    assert obs[0, :2].tolist() == [1, 0]
    nothing = torch.zeros(1, dtype=torch.int64)
    step = env.step(nothing)
    assert torch.equal(step.obs, obs)  # as in bsuite, the bits are shown twice
    step = env.step(nothing)
    torch.testing.assert_close(step.obs, torch.tensor([[2 / 3, 0, 0, 0]]))
    step = env.step(nothing)
    query = int(step.obs[0, 1])
    torch.testing.assert_close(step.obs, torch.tensor([[1 / 3, query, 0, 0]]))
    step = env.step(torch.tensor([int(bits[query] > 0)]))
    assert step.final_obs.tolist() == [[0, 0, 0, 0]]
    assert step.reward.item() == 1
    assert step.terminated.item()
    assert step.success.item()


@pytest.mark.parametrize(("length", "num_bits"), [(1, 1), (1, 3), (2, 5), (7, 1)])
def test_episodes_equal_those_of_bsuite(length: int, num_bits: int) -> None:
    theirs = pytest.importorskip("bsuite.environments.memory_chain").MemoryChain(length, num_bits, seed=0)
    ours, choices = MemoryChain(1, length=length, num_bits=num_bits), random.Random(1)
    for _ in range(20):
        first = theirs.reset()
        ours.reset(seed=0)
        ours.load_state_dict(
            {
                **ours.state_dict(),
                "bits": torch.from_numpy(theirs._context)[None],
                "query": torch.tensor([theirs._query]),
            }
        )
        obs = ours.load_state_dict(ours.state_dict())
        np.testing.assert_array_equal(obs.numpy(), first.observation)
        done = False
        while not done:
            action = choices.randrange(2)
            expected, step = theirs.step(action), ours.step(torch.tensor([action]))
            np.testing.assert_allclose(step.final_obs.numpy(), expected.observation, rtol=1e-6)
            assert step.reward.item() == expected.reward
            done = expected.last()
            assert step.terminated.item() == done


def test_scores_of_the_players() -> None:
    env = MemoryChain(1000, length=5, num_bits=4)
    assert play(env, MemoryChainReference(env), 1000, seed=1).mean() == 1
    assert abs(play(env, MemoryChainMemoryless(env), 1000, seed=1).mean()) < 4 / 1000**0.5
    shown = MemoryChain(1000, length=1, num_bits=4)  # the query comes while the bits are in view
    assert play(shown, MemoryChainMemoryless(shown), 1000, seed=1).mean() == 1


def test_bits_and_queries_are_uniform() -> None:
    env = MemoryChain(8000, length=1, num_bits=2)
    obs = env.reset(seed=2)
    kinds = 4 * obs[:, 1] + 2 * (obs[:, 2] > 0) + (obs[:, 3] > 0)
    counts = torch.bincount(kinds.long(), minlength=8)
    assert ((counts - 1000) ** 2 / 1000).sum() < 7 + 4 * 14**0.5


def test_answer_outside_the_space_is_wrong() -> None:
    env = MemoryChain(2, length=1)
    env.reset(seed=0)
    env.step(torch.tensor([0, 0]))
    assert env.step(torch.tensor([-1, 2])).reward.tolist() == [-1, -1]


def test_pictures_change_at_the_query() -> None:
    env = MemoryChain(1, length=2, num_bits=12)
    env.reset(seed=0)
    first = env.render(tile_size=12)
    for _ in range(2):
        env.step(torch.zeros(1, dtype=torch.int64))
    query = env.render(tile_size=12)
    assert first.shape == query.shape
    assert (first != query).any()
    env.step(torch.zeros(1, dtype=torch.int64))
    assert (env.render(final=True, tile_size=12) == query).all()


@pytest.mark.parametrize("numbers", [{"length": 0}, {"num_bits": 0}, {"num_bits": 2.0}])
def test_invalid_arguments_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(numbers))}.*expected"):
        MemoryChain(**numbers)

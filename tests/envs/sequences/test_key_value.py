"""Key-value recall: the right value is the last that was shown for the key, and distractors mean nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rmc_envs import KeyValue

SIZES = [
    {"num_pairs": 1, "num_keys": 1, "num_values": 2},
    {"num_pairs": 3, "num_keys": 5, "num_values": 4},
    {"num_pairs": 3, "num_keys": 3, "num_values": 4, "num_rewrites": 7},
    {"num_pairs": 4, "num_keys": 6, "num_values": 3, "num_distractors": 5},
    {"num_pairs": 4, "num_keys": 9, "num_values": 5, "num_rewrites": 6, "num_distractors": 4},
]


class Reader:
    """A player with a dictionary for each environment, which reads nothing but observations."""

    def __init__(self, env: KeyValue) -> None:
        self.K, self.V = env.num_keys, env.num_values
        self.known: list[dict[int, int]] = [{} for _ in range(env.num_envs)]

    def read(self, obs: Tensor) -> Tensor:
        """Return the remembered values at queries, and 0 elsewhere."""
        answers = torch.zeros(len(obs), dtype=torch.int64)
        for i, row in enumerate(obs):
            key, value = row[: self.K], row[self.K : self.K + self.V]
            is_query, is_distractor = row[-2:].bool().tolist()
            assert key.sum() == 1
            assert value.sum() == (0 if is_query else 1)
            if is_query:
                answers[i] = self.known[i].pop(int(key.argmax()))  # each key is asked once
            elif not is_distractor:
                self.known[i][int(key.argmax())] = int(value.argmax())
        return answers


@pytest.mark.parametrize("sizes", SIZES)
def test_memory_of_the_last_values_answers_everything(sizes: dict[str, int]) -> None:
    env = KeyValue(16, **sizes)
    obs, steps = env.reset(seed=1), 2 * env.num_pairs + env.num_rewrites + env.num_distractors
    for _ in range(3):
        player, total = Reader(env), torch.zeros(16)
        for time in range(steps):
            step = env.step(player.read(obs))
            total, obs = total + step.reward, step.obs
            assert step.done.tolist() == [time == steps - 1] * 16
            assert not step.truncated.any()
        assert not any(player.known)
        torch.testing.assert_close(total, torch.ones(16))
        assert step.success.all()


def test_wrong_answers_cost_as_much_as_right_ones_gain() -> None:
    env = KeyValue(12, num_pairs=4, num_keys=6, num_values=5)
    obs = env.reset(seed=2)
    player, rewards = Reader(env), []
    for time in range(8):
        right = player.read(obs)
        wrong = torch.arange(12) < 3 * (time - 4)  # 0, 3, 6 and 9 environments err at the four queries
        step = env.step(torch.where(wrong, (right + 1) % 5, right))
        obs = step.obs
        rewards.append(step.reward)
    expected = torch.tensor([1.0] * 3 + [0.5] * 3 + [0.0] * 3 + [-0.5] * 3).flip(0)
    torch.testing.assert_close(torch.stack(rewards).sum(0), expected)
    assert not torch.stack(rewards[:4]).any()
    assert step.success.tolist() == [False] * 9 + [True] * 3


def test_answer_outside_the_space_is_wrong() -> None:
    env = KeyValue(3, num_pairs=1, num_keys=1, num_values=2)
    env.reset(seed=0)
    actions = torch.tensor([-1, 2, 99])
    env.step(actions)
    step = env.step(actions)
    assert step.terminated.all()
    assert step.reward.tolist() == [-1.0] * 3


def test_keys_values_and_orders_are_uniform() -> None:
    env = KeyValue(6000, num_pairs=2, num_keys=3, num_values=2)
    first = env.reset(seed=3)
    actions = torch.zeros(6000, dtype=torch.int64)
    second = env.step(actions).obs
    asked = env.step(actions).obs
    keys = [x[:, :3].argmax(1) for x in (first, second, asked)]
    values = [x[:, 3:5].argmax(1) for x in (first, second)]
    assert (keys[0] != keys[1]).all()
    asks_first = (asked[:, :3] == first[:, :3]).all(1).long()
    # 3 * 2 ordered pairs of keys, 4 pairs of values, 2 orders of the queries: 48 equally likely episodes.
    others = (keys[1] - keys[0]) % 3 - 1
    episode = (((keys[0] * 2 + others) * 2 + values[0]) * 2 + values[1]) * 2 + asks_first
    counts = torch.bincount(episode, minlength=48)
    assert ((counts - 125) ** 2 / 125).sum() < 47 + 4 * 94**0.5


def test_rewrites_change_answers_and_distractors_do_not() -> None:
    """Chance of a player that keeps the first value: right if no later write of the key differs."""
    env = KeyValue(4000, num_pairs=1, num_keys=4, num_values=4, num_rewrites=1)
    first = env.reset(seed=4)
    step = env.step(torch.zeros(4000, dtype=torch.int64))
    second, query = step.obs, env.step(torch.zeros(4000, dtype=torch.int64)).obs
    assert torch.equal(first[:, :4], second[:, :4])
    assert torch.equal(first[:, :4], query[:, :4])
    rewards = env.step(first[:, 4:8].argmax(1)).reward
    assert abs(rewards.mean() - (2 / 4 - 1)) < 4 * (0.75 / 4000) ** 0.5


@pytest.mark.parametrize(
    "numbers",
    [
        {"num_pairs": 0},
        {"num_pairs": 17},
        {"num_keys": 0},
        {"num_values": 1},
        {"num_rewrites": -1},
        {"num_distractors": 1.5},
    ],
)
def test_invalid_arguments_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(numbers))}.*expected"):
        KeyValue(**numbers)

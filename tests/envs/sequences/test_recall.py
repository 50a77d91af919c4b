"""Recall shows a symbol once, asks for it, and rewards the right answer only."""

import pytest
import torch

from rmc_envs import Recall


@pytest.mark.parametrize(("num_symbols", "delay"), [(2, 0), (4, 8), (7, 3)])
def test_episode_rewards_the_right_answer(num_symbols: int, delay: int) -> None:
    envs = Recall(32, num_symbols=num_symbols, delay=delay)
    obs = envs.reset(seed=1)
    for _ in range(3):
        symbol = obs[:, :num_symbols].argmax(1)
        expected = torch.zeros(32, num_symbols + 1)
        expected[torch.arange(32), symbol] = 1.0
        assert torch.equal(obs, expected)
        for _ in range(delay):
            step = envs.step(symbol)
            assert not step.obs.any()
            assert not (step.done | step.success).any()
            assert not step.reward.any()
        step = envs.step(symbol)
        assert torch.equal(step.obs, torch.eye(num_symbols + 1)[-1].expand(32, -1))  # the flag and no symbol
        answers = torch.where(torch.arange(32) < 16, symbol, (symbol + 1) % num_symbols)
        step = envs.step(answers)
        assert step.terminated.all()
        assert not step.truncated.any()
        assert step.reward.tolist() == [1.0] * 16 + [0.0] * 16
        assert torch.equal(step.success, step.reward.bool())
        assert not step.final_obs.any()
        obs = step.obs


def test_symbols_are_equally_likely_and_independent() -> None:
    envs = Recall(4000, num_symbols=4, delay=0)
    first = envs.reset(seed=0)[:, :4].argmax(1)
    actions = torch.zeros(4000, dtype=torch.int64)
    envs.step(actions)
    second = envs.step(actions).obs[:, :4].argmax(1)
    pairs = torch.bincount(4 * first + second, minlength=16)
    assert ((pairs - 250) ** 2 / 250).sum() < 15 + 4 * 30**0.5


def test_answer_outside_the_space_is_wrong() -> None:
    envs = Recall(3, num_symbols=2, delay=0)
    envs.reset(seed=0)
    actions = torch.tensor([-1, 2, 99])
    envs.step(actions)
    step = envs.step(actions)
    assert step.terminated.all()
    assert not step.reward.any()


@pytest.mark.parametrize("numbers", [{"num_symbols": 1}, {"delay": -1}, {"num_envs": 0}])
def test_invalid_arguments_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        Recall(**numbers)

"""The clock: waves that keep steps apart, and numbers that start again with each episode."""

import pytest
import torch
from gymnasium import spaces

from rmc_agents import ActorCritic
from rmc_agents.agent.clock import MAX_PERIOD, Clock
from tests.conftest import small_options


def agent_of(core: str, clock: int = 0) -> ActorCritic:
    return ActorCritic(spaces.Box(-1, 1, (4,)), spaces.Discrete(2), core, small_options(core), clock=clock)


@pytest.mark.parametrize("period", [1, 2, 3, 8, 13, 104])
def test_waves_of_different_steps_are_orthogonal(period: int) -> None:
    waves = Clock(period)(torch.arange(period).float()).double()
    torch.testing.assert_close(waves @ waves.T, period / 2 * torch.eye(period).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("period", [7, 8])
@pytest.mark.parametrize("m", [1, 3])
def test_waves_of_the_past_and_of_the_mirrored_step_are_linear_in_those_of_the_present(
    period: int, m: int
) -> None:
    clock, n = Clock(period), torch.arange(60)
    now = clock((n % period).float())
    for other in ((n - m) % period, (m - n) % period):
        few = torch.linalg.lstsq(now[:period], clock(other[:period].float())).solution
        torch.testing.assert_close(now @ few, clock(other.float()), atol=1e-5, rtol=0)


def read_one_by_one(first: list[int], starts: list[list[bool]], period: int) -> list[list[int]]:
    numbers, now = [], list(first)
    for row in starts:
        now = [0 if start else number for start, number in zip(row, now, strict=True)]
        numbers.append([number % period for number in now])
        now = [number + 1 for number in now]
    return numbers


@pytest.mark.parametrize("period", [1, 5, 64])
@pytest.mark.parametrize("steps", [1, 40])
def test_numbers_start_again_with_each_episode(period: int, steps: int) -> None:
    clock, generator = Clock(period), torch.Generator().manual_seed(0)
    starts = torch.rand(steps, 6, generator=generator) < 0.15
    first = torch.randint(period, (6,), generator=generator)
    expected = read_one_by_one(first.tolist(), starts.tolist(), period)
    numbers = clock.read(first.float(), starts)
    assert numbers.tolist() == expected
    assert clock.advance(numbers[-1]).tolist() == [(number + 1) % period for number in expected[-1]]


def test_clock_is_an_input_of_the_core() -> None:
    agent, plain = agent_of("gru", clock=6), agent_of("gru")
    assert agent.core.input_size == plain.core.input_size + 6
    state, obs = agent.initial_state(2), torch.rand(2, 4)
    assert plain.initial_state(2).step is None
    for t in range(9):
        _, _, _, state = agent.act(obs, torch.tensor([t == 0, t in (0, 4)]), state)
    assert state.step is not None
    assert state.step.tolist() == [3, 5]


def test_clock_distinguishes_steps_with_equal_observations_and_memories() -> None:
    agent = agent_of("feedforward", clock=6)
    obs, state = torch.rand(1, 4).expand(6, 4), agent.initial_state(6)._replace(step=torch.arange(6).float())
    with torch.no_grad():
        assert agent.value(obs, torch.zeros(6).bool(), state).diff().abs().min() > 1e-4
        assert agent.value(obs, torch.ones(6).bool(), state).diff().abs().max() < 1e-6


@pytest.mark.parametrize("period", [-1, MAX_PERIOD + 1])
def test_periods_out_of_range_are_refused(period: int) -> None:
    with pytest.raises(ValueError, match=f"clock must be from 0 to {MAX_PERIOD}, got {period}"):
        ActorCritic(spaces.Discrete(2), spaces.Discrete(2), clock=period)

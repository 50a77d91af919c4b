"""Evaluation counts every episode once: scripted players, hand-made environments, Farama's own as oracle."""

from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import envs
from rmc_agents import UsageError
from rmc_agents.evaluation import Episodes, RandomPolicy, evaluate
from tests.scripted import Plan, Scripted
from tests.support import MAZE, small_agent


def mazes(env_id: str = MAZE, num_envs: int = 50, **options: Any) -> envs.BatchedEnv:
    return envs.make(env_id, num_envs, seeding="farama", **options)


def singles(env_id: str, num_envs: int, **options: Any) -> envs.GymnasiumEnvs:
    """Farama's own environments, each of which stops after its first episode."""
    built = envs.trials(env_id, "farama", num_envs, options=options)
    assert isinstance(built, envs.GymnasiumEnvs)
    return built


def assert_same(a: Episodes, b: Episodes) -> None:
    np.testing.assert_allclose(a.returns, b.returns, rtol=1e-6)
    np.testing.assert_array_equal(a.lengths, b.lengths)
    np.testing.assert_array_equal(a.success, b.success)  # type: ignore[arg-type]


class Odd:
    """Episode of seed s: one step and a return of 1 if s is even, `long` steps and nothing if it is odd."""

    def __init__(self, num_envs: int, long: int = 20, filler: bool = False) -> None:
        self.num_envs, self.long, self.filler = num_envs, long, filler
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.device = torch.device("cpu")
        self.tasks = ("odd",)
        self.task_of = torch.zeros(num_envs, dtype=torch.int64)

    def reset(self, seed: int | None = None) -> Tensor:
        assert seed is not None
        self.odd = (torch.arange(self.num_envs) + seed) % 2 == 1
        self.time = torch.zeros(self.num_envs, dtype=torch.int64)
        self.steps = 0
        return torch.zeros(self.num_envs, 1)

    def step(self, actions: Tensor) -> envs.Transition:
        self.steps += 1
        valid = torch.ones(self.num_envs, dtype=torch.bool)
        if self.filler:  # every other step is none
            valid &= self.steps % 2 == 0
        self.time += valid
        end = torch.where(self.odd, self.time >= self.long, True)
        obs, none = torch.zeros(self.num_envs, 1), torch.zeros(self.num_envs, dtype=torch.bool)
        reward = torch.where(valid, torch.where(self.odd, 0.0, 1.0), torch.nan)
        return envs.Transition(obs, reward, end | ~valid, none, obs, None, valid)

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        raise NotImplementedError

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        (MAZE, {}),
        ("MiniGrid-MemoryS13-v0", {"view_size": 3}),
        ("MiniGrid-MemoryS17Random-v0", {"actions": 3}),
    ],
)
def test_perfect_memory_is_always_right(env_id: str, options: dict[str, Any]) -> None:
    result = evaluate(Scripted(), mazes(env_id, **options), 200, seed=3)
    spec = envs.MazeSpec.from_id(env_id, options.get("view_size", 7))
    assert spec is not None
    steps, reward = envs.best_possible(spec)
    assert result.success_rate == 1.0
    assert result.success_ci95 == (pytest.approx(200 / (200 + 1.96**2), abs=1e-3), 1.0)
    assert steps <= result.mean_length < spec.max_steps / 4
    assert result.mean_return <= reward + 0.02
    np.testing.assert_allclose(result.returns, 1 - 0.9 * result.lengths / spec.max_steps, rtol=1e-6)


def test_no_memory_is_right_half_the_time() -> None:
    result = evaluate(Scripted(forgetful=True), mazes(num_envs=500), 500, seed=3)
    assert result.success_rate == pytest.approx(0.5, abs=0.09)  # four deviations
    low, high = result.success_ci95 or (0, 0)
    assert low < 0.5 < high


@pytest.mark.parametrize("num_envs", [1, 5, 20])
def test_episodes_do_not_depend_on_the_size_of_a_wave(num_envs: int) -> None:
    expected = evaluate(Scripted(forgetful=True), mazes(num_envs=12), 12, seed=11)
    assert_same(evaluate(Scripted(forgetful=True), mazes(num_envs=num_envs), 12, seed=11), expected)
    assert_same(evaluate(Scripted(forgetful=True), singles(MAZE, num_envs), 12, seed=11), expected)


def test_short_episodes_are_not_counted_more_often() -> None:
    for num_envs in (1, 3, 8):
        result = evaluate(RandomPolicy(spaces.Discrete(2)), Odd(num_envs), 24, seed=5)
        assert result.mean_return == 0.5
        assert result.lengths.tolist() == [20, 1] * 12


def test_fillers_count_for_nothing() -> None:
    result = evaluate(RandomPolicy(spaces.Discrete(2)), Odd(4, filler=True), 8, seed=0)
    assert result.lengths.tolist() == [1, 20] * 4
    assert result.returns.tolist() == [1.0, 0.0] * 4


def test_an_episode_that_never_ends_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"2 of 4 episodes of odd did not end within 50 steps .*seed 5"):
        evaluate(RandomPolicy(spaces.Discrete(2)), Odd(4, long=10**9), 4, seed=5, step_limit=50)
    with pytest.raises(UsageError, match="0 episodes"):
        evaluate(RandomPolicy(spaces.Discrete(2)), Odd(4), 0, seed=0)


def play_alone(agent: Any, env: gymnasium.Env, seed: int) -> tuple[float, int]:
    """The oracle: one environment, one `predict` a step."""
    obs, _ = env.reset(seed=seed)
    state, total, steps, done = None, 0.0, 0, False
    while not done:
        action, state = agent.predict(obs, state, episode_start=steps == 0)
        obs, reward, terminated, truncated, _ = env.step(action)
        state = state._replace(reward=torch.tensor([float(reward)]))
        total, steps, done = total + float(reward), steps + 1, terminated or truncated
    return total, steps


def test_an_agent_is_judged_as_if_it_played_alone(any_core: str) -> None:
    env = singles("CartPole-v1", 3)
    agent = small_agent(any_core, env, previous_action=True, previous_reward=True)
    result = evaluate(agent, env, 4, seed=40)
    alone = [play_alone(agent, gymnasium.make("CartPole-v1"), 40 + j) for j in range(4)]
    assert list(zip(result.returns.tolist(), result.lengths.tolist(), strict=True)) == alone
    assert result.success is None
    assert result.success_rate is None
    assert result.success_ci95 is None


def test_drawn_actions_are_reproducible() -> None:
    env = mazes(num_envs=8)
    agent = small_agent("gru", env)
    torch.nn.init.zeros_(agent.policy.linear.weight)
    first, again = (evaluate(agent, env, 9, seed=2, deterministic=False) for _ in range(2))
    assert_same(first, again)
    assert len(np.unique(first.lengths)) > 1


SPACES = [
    spaces.Discrete(5),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
    spaces.Box(-2, 1, (2,), np.float32),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_random_actions_fit_the_space(space: spaces.Space[Any]) -> None:
    policy = RandomPolicy(space)
    policy.initial_state(40)
    for rows in (40, 9, 1):
        actions, _ = policy.act(None, torch.ones(rows, dtype=torch.bool), torch.zeros(rows), None)
        assert actions.shape == (rows, *(space.shape or ()))
        kind = space.dtype if space.dtype is not None else np.int64
        assert all(space.contains(action.astype(kind)) for action in actions.numpy())


def test_random_waves_differ_and_seeds_repeat() -> None:
    def draws(policy: RandomPolicy) -> list[int]:
        policy.initial_state(30)
        return policy.act(None, torch.ones(30, dtype=torch.bool), torch.zeros(30), None)[0].tolist()

    one, other = RandomPolicy(spaces.Discrete(5), 1), RandomPolicy(spaces.Discrete(5), 1)
    first = draws(one)
    assert draws(other) == first
    assert draws(one) != first


@pytest.mark.parametrize("forgetful", [False, True])
def test_what_must_go_the_same_way_is_played_once(forgetful: bool) -> None:
    """S7 has 4 x 4 starts; the figures are those of playing every episode."""

    class Counting(Scripted):
        deterministic = True
        rows = 0

        def initial_state(self, batch_size: int) -> Plan:
            self.rows = max(self.rows, batch_size)
            return super().initial_state(batch_size)

    policy = Counting(forgetful)
    once = evaluate(policy, mazes(num_envs=60), 50, seed=3)
    assert policy.rows == 16
    assert_same(once, evaluate(Scripted(forgetful), mazes(num_envs=60), 50, seed=3))
    assert len(np.unique(once.lengths)) > 3
    policy.deterministic = False
    evaluate(policy, mazes(num_envs=60), 50, seed=3)
    assert policy.rows == 50


def test_a_summary_is_json() -> None:
    summary = evaluate(Scripted(), mazes(num_envs=5), 5, seed=9).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert set(summary) == {
        *("success_rate", "success_ci95", "mean_return", "return_ci95"),
        *("mean_length", "episodes", "first_seed"),
    }
    assert (summary["episodes"], summary["first_seed"]) == (5, 9)
    single = evaluate(Scripted(), mazes(num_envs=5), 1, seed=9).summary()
    assert single["return_ci95"] is None

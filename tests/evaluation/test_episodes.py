"""Evaluation counts every episode once. Oracles: scripted players, hand-made tasks, MiniGrid's own mazes."""

from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

import rmc_agents
import rmc_envs
from rmc_agents import UsageError
from rmc_agents.evaluation.episodes import Episodes, Policy, RandomPolicy, evaluate
from tests.support.agents import MAZE, small_agent
from tests.support.masked_task import Extreme, Strict
from tests.support.scripted_player import Plan, Scripted


def mazes(env_id: str = MAZE, num_envs: int = 50, **options: Any) -> rmc_envs.BatchedEnv:
    return rmc_envs.make(env_id, num_envs, seeding="farama", **options)


def singles(env_id: str, num_envs: int, **options: Any) -> rmc_envs.GymnasiumEnvs:
    """MiniGrid's own environments, each of which stops after its first episode."""
    built = rmc_envs.trials(env_id, "farama", num_envs, options=options)
    assert isinstance(built, rmc_envs.GymnasiumEnvs)
    return built


def assert_same(a: Episodes, b: Episodes) -> None:
    np.testing.assert_allclose(a.returns, b.returns, rtol=1e-6)
    np.testing.assert_array_equal(a.lengths, b.lengths)
    np.testing.assert_array_equal(a.success, b.success)  # type: ignore[arg-type]


class Odd(rmc_envs.BatchedEnv):
    """Even seeds: episodes of one step with a return of 1. Odd seeds: `long` steps with a return of 0."""

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

    def step(self, actions: Tensor) -> rmc_envs.Transition:
        self.steps += 1
        valid = torch.ones(self.num_envs, dtype=torch.bool)
        if self.filler:  # every other step is a filler
            valid &= self.steps % 2 == 0
        self.time += valid
        end = torch.where(self.odd, self.time >= self.long, True)
        obs, none = torch.zeros(self.num_envs, 1), torch.zeros(self.num_envs, dtype=torch.bool)
        reward = torch.where(valid, torch.where(self.odd, 0.0, 1.0), torch.nan)
        return rmc_envs.Transition(obs, reward, end | ~valid, none, obs, None, valid)


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        (MAZE, {}),
        ("MiniGrid-MemoryS13-v0", {"view_size": 3}),
        ("MiniGrid-MemoryS17Random-v0", {"actions": 3}),
    ],
)
def test_perfect_memory_solves_every_episode(env_id: str, options: dict[str, Any]) -> None:
    result = evaluate(Scripted(), mazes(env_id, **options), 200, seed=3)
    spec = rmc_envs.MazeSpec.from_id(env_id, options.get("view_size", 7))
    assert spec is not None
    steps, reward = rmc_envs.best_possible(spec)
    assert result.success_rate == 1.0
    assert result.success_ci95 == (pytest.approx(200 / (200 + 1.96**2), abs=1e-3), 1.0)
    assert steps <= result.mean_length < spec.max_steps / 4
    assert result.mean_return <= reward + 0.02
    np.testing.assert_allclose(result.returns, 1 - 0.9 * result.lengths / spec.max_steps, rtol=1e-6)


def test_player_without_memory_solves_half_of_the_episodes() -> None:
    result = evaluate(Scripted(forgetful=True), mazes(num_envs=500), 500, seed=3)
    assert result.success_rate == pytest.approx(0.5, abs=0.09)  # four standard deviations
    low, high = result.success_ci95 or (0, 0)
    assert low < 0.5 < high


@pytest.mark.parametrize("num_envs", [1, 5, 20])
def test_episodes_do_not_depend_on_the_number_of_environments(num_envs: int) -> None:
    expected = evaluate(Scripted(forgetful=True), mazes(num_envs=12), 12, seed=11)
    assert_same(evaluate(Scripted(forgetful=True), mazes(num_envs=num_envs), 12, seed=11), expected)
    assert_same(evaluate(Scripted(forgetful=True), singles(MAZE, num_envs), 12, seed=11), expected)


def test_short_episodes_are_not_counted_more_often() -> None:
    for num_envs in (1, 3, 8):
        result = evaluate(RandomPolicy(spaces.Discrete(2)), Odd(num_envs), 24, seed=5)
        assert result.mean_return == 0.5
        assert result.lengths.tolist() == [20, 1] * 12


def test_filler_steps_are_not_counted() -> None:
    result = evaluate(RandomPolicy(spaces.Discrete(2)), Odd(4, filler=True), 8, seed=0)
    assert result.lengths.tolist() == [1, 20] * 4
    assert result.returns.tolist() == [1.0, 0.0] * 4


def test_endless_episode_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"2 of 4 episodes of odd did not end within 50 steps .*seed 5"):
        evaluate(RandomPolicy(spaces.Discrete(2)), Odd(4, long=10**9), 4, seed=5, step_limit=50)
    with pytest.raises(UsageError, match="episodes=0"):
        evaluate(RandomPolicy(spaces.Discrete(2)), Odd(4), 0, seed=0)


def play_alone(agent: Any, env: gymnasium.Env, seed: int) -> tuple[float, int]:
    """Play one environment with one `predict` per step, as the oracle."""
    obs, _ = env.reset(seed=seed)
    state, total, steps, done = None, 0.0, 0, False
    while not done:
        action, state = agent.predict(obs, state, episode_start=steps == 0)
        obs, reward, terminated, truncated, _ = env.step(action)
        state = state._replace(reward=torch.tensor([float(reward)]))
        total, steps, done = total + float(reward), steps + 1, terminated or truncated
    return total, steps


def test_evaluation_of_an_agent_equals_single_play(any_core: str) -> None:
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
def test_random_policy_draws_members_of_the_action_space(space: spaces.Space[Any]) -> None:
    policy = RandomPolicy(space)
    policy.initial_state(40)
    for rows in (40, 9, 1):
        actions, _ = policy.act(None, torch.ones(rows, dtype=torch.bool), torch.zeros(rows), None)
        assert actions.shape == (rows, *(space.shape or ()))
        kind = space.dtype if space.dtype is not None else np.int64
        assert all(space.contains(action.astype(kind)) for action in actions.numpy())


def test_random_policy_repeats_for_a_seed_and_differs_between_waves() -> None:
    def draws(policy: RandomPolicy) -> list[int]:
        policy.initial_state(30)
        return policy.act(None, torch.ones(30, dtype=torch.bool), torch.zeros(30), None)[0].tolist()

    one, other = RandomPolicy(spaces.Discrete(5), 1), RandomPolicy(spaces.Discrete(5), 1)
    first = draws(one)
    assert draws(other) == first
    assert draws(one) != first


def test_policies_get_masks_only_if_they_use_them() -> None:
    env = Extreme(6)
    drawn = evaluate(RandomPolicy(env.action_space, 1, uses_action_masks=True), env, 30)
    assert drawn.lengths.tolist() == [3] * 30  # no choice was forbidden
    assert drawn.success_rate is not None
    assert 0.2 < drawn.success_rate < 0.8
    assert evaluate(RandomPolicy(env.action_space, 1), env, 30).mean_length < 3
    agent = small_agent("gru", env)
    assert evaluate(agent, env, 30, deterministic=False).mean_length == 3
    ignoring = small_agent("gru", env, action_masks="ignore")
    assert evaluate(ignoring, env, 30, deterministic=False).mean_length < 3


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([3, 4]), spaces.MultiBinary(3)])
def test_ended_episodes_are_stepped_with_allowed_actions(space: spaces.Space) -> None:
    """The environments raise at a forbidden action, also in episodes that do not count."""
    lengths = [2, 9, 5]
    vector = SyncVectorEnv(
        [lambda length=length: Strict(space, length=length) for length in lengths],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    env = rmc_envs.GymnasiumEnvs(vector)
    assert evaluate(small_agent("gru", env), env, 3, deterministic=False).lengths.tolist() == lengths


@pytest.mark.parametrize("forgetful", [False, True])
def test_deterministic_policy_plays_each_start_once(forgetful: bool) -> None:
    """S7 has 4 x 4 starts; the figures equal those of playing every episode."""

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


def test_summary_is_json() -> None:
    summary = evaluate(Scripted(), mazes(num_envs=5), 5, seed=9).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert set(summary) == {
        *("success_rate", "success_ci95", "mean_return", "return_ci95"),
        *("mean_length", "episodes", "first_seed"),
    }
    assert (summary["episodes"], summary["first_seed"]) == (5, 9)
    single = evaluate(Scripted(), mazes(num_envs=5), 1, seed=9).summary()
    assert single["return_ci95"] is None


def test_public_call_evaluates_1000_episodes_far_from_training_seeds() -> None:
    env = mazes(num_envs=300)
    found = rmc_agents.evaluate(Scripted(), env)
    assert (found.episodes, found.first_seed) == (1000, 1_000_000)
    assert_same(found, evaluate(Scripted(), env, 1000, seed=1_000_000))
    assert rmc_agents.evaluate(small_agent("gru", env), env, episodes=3).episodes == 3


def test_policies_draw_at_random_unless_they_say_otherwise() -> None:
    assert Policy.deterministic is False
    assert Scripted().deterministic is False
    with pytest.raises(TypeError, match="abstract"):
        Policy()  # type: ignore[abstract]

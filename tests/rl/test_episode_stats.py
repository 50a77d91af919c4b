"""Episode statistics, compared with a plain loop; the window over the latest episodes."""

from __future__ import annotations

import torch

from rmc_agents.rl.episode_stats import WINDOW_EPISODES, EpisodeWindow, episode_stats, initial_accumulator
from tests.support.agents import collected, small_agent, small_env


def test_episode_stats_equal_a_plain_loop_over_three_rollouts() -> None:
    env = small_env(5)
    agent = small_agent("gru", env)
    task_of = torch.tensor([0, 1, 0, 1, 1])
    running = initial_accumulator(5, "cpu")
    returns, lengths = [0.0] * 5, [0] * 5
    for seed in range(3):
        torch.manual_seed(seed)
        _, rollout = collected(agent, 17, env)
        rollout.rewards = torch.randn(17, 5)
        rollout.terminated = torch.rand(17, 5) < 0.2
        rollout.truncated = torch.rand(17, 5) < 0.1
        rollout.valid = torch.rand(17, 5) < 0.8
        rollout.success = torch.rand(17, 5) < 0.5
        expected = torch.zeros(4, 2, dtype=torch.float64)
        for t in range(17):
            for b in range(5):
                if not rollout.valid[t, b]:
                    continue
                returns[b] += float(rollout.rewards[t, b])
                lengths[b] += 1
                if rollout.terminated[t, b] or rollout.truncated[t, b]:
                    solved = float(rollout.success[t, b])
                    expected[:, task_of[b]] += torch.tensor(
                        [1, returns[b], lengths[b], solved], dtype=torch.float64
                    )
                    returns[b], lengths[b] = 0.0, 0
        stats, running = episode_stats(rollout, running, task_of, 2)
        torch.testing.assert_close(torch.stack(list(stats)), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(running.returns, torch.tensor(returns, dtype=torch.float64), atol=1e-5, rtol=0)
    assert running.lengths.tolist() == lengths


def test_window_drops_iterations_beyond_its_size() -> None:
    window = EpisodeWindow()
    assert window.score() is None
    assert window.latest() is None
    window.add(60, 30, 12.0)
    assert window.score() is None, "fewer episodes than a tenth of the window"
    assert window.score(at_least=0) == window.latest() == (0.5, 0.2)
    for _ in range(3):
        window.add(WINDOW_EPISODES / 2, WINDOW_EPISODES / 2, 0.0)
    assert list(window) == [(WINDOW_EPISODES / 2, WINDOW_EPISODES / 2, 0.0)] * 2
    assert window.score() == (1.0, 0.0)
    assert list(EpisodeWindow(window)) == list(window)

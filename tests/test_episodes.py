"""Episode statistics against a plain loop."""

from __future__ import annotations

import torch

from rmc_agents.episodes import episode_stats, fresh_running
from tests.support import collected, small_agent, small_env


def test_against_a_plain_loop_over_two_rollouts() -> None:
    env = small_env(5)
    agent = small_agent("gru", env)
    task_of = torch.tensor([0, 1, 0, 1, 1])
    running = fresh_running(5, "cpu")
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

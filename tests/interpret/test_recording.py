"""Recordings agree with replayed episodes and with the ground truth of the mazes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import rmc_envs
from rmc_agents.evaluation.episodes import AgentPolicy
from rmc_agents.interpret.recording import OBSERVATION, WHOLE, RandomActions, parts_of, record, with_part
from tests.support.agents import MAZE, small_agent
from tests.support.slot_player import SlotPlayer

EPISODES = 60


def mazes(env_id: str = "MiniGrid-MemoryS11-v0", episodes: int = EPISODES) -> rmc_envs.MemoryMazes:
    env = rmc_envs.make(env_id, episodes, actions=3)
    assert isinstance(env, rmc_envs.MemoryMazes)
    return env


def test_recording_of_a_perfect_player_has_full_success() -> None:
    recording = record(SlotPlayer(), mazes(), seed=3, steps=60)
    assert recording.success_rate == 1
    assert set(recording.cue) == {0, 1}
    ended = ~recording.running
    assert (np.diff(ended.astype(int), axis=0) >= 0).all()  # an ended episode stays ended
    # The slot holds the cue from the step at which the player first sees it after turning round.
    held = recording.parts["slot 2"][..., 0]
    after = recording.running & (held != 0)
    assert after.any(0).all()
    assert (np.sign(held)[after] == np.broadcast_to(2 * recording.cue - 1, held.shape)[after]).all()


def test_since_counts_steps_from_the_last_view_of_the_cue() -> None:
    recording = record(SlotPlayer(), mazes(), seed=3, steps=60)
    for b in range(EPISODES):
        expected, last = [], None
        for t, seen in enumerate(recording.in_view[:, b]):
            last = t if seen else last
            expected.append(-1 if last is None else t - last)
        assert recording.since[:, b].tolist() == expected


def test_missing_choices_differ_from_wrong_ones() -> None:
    forgetful = record(SlotPlayer(forgetful=True), mazes(), seed=3, steps=60)
    assert set(forgetful.choice) == {0, 1}
    assert 0.2 < forgetful.success_rate < 0.8
    short = record(SlotPlayer(), mazes(), seed=3, steps=4)
    assert (short.choice == -1).all()
    assert len(short.running) == 4


def test_histories_are_equal_exactly_for_equal_starts() -> None:
    """The start fixes the episodes of a deterministic player, so only equal starts have equal histories."""
    recording = record(SlotPlayer(), mazes(episodes=300), seed=3, steps=60)
    starts = list(zip(recording.state_id[0].tolist(), recording.cue.tolist(), strict=True))
    for t in range(6):
        by_start = dict(zip(starts, recording.history[t], strict=True))
        assert [by_start[start] for start in starts] == recording.history[t].tolist()
        assert len(set(by_start.values())) == len(by_start)
    assert not set(recording.history[0]) & set(recording.history[1])


def test_random_actions_add_histories() -> None:
    env = mazes(episodes=300)
    agent = small_agent("gru", env)
    plain = record(AgentPolicy(agent, deterministic=True), env, seed=3, steps=10)
    mixed = record(RandomActions(AgentPolicy(agent, deterministic=True), 0.5, 3), env, seed=3, steps=10)
    assert len(np.unique(mixed.history[9])) > 2 * len(np.unique(plain.history[9]))


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_random_actions_replace_the_given_share(epsilon: float) -> None:
    env = mazes(episodes=3000)
    agent = small_agent("gru", env)
    obs, starts = env.reset(0), torch.ones(3000, dtype=torch.bool)
    plain, state = AgentPolicy(agent), agent.initial_state(3000)
    with torch.no_grad():
        own, _ = plain.act(obs, starts, torch.zeros(3000), state)
        acted, after = RandomActions(plain, epsilon, 3).act(obs, starts, torch.zeros(3000), state)
    assert torch.equal(after.action, acted)
    if epsilon == 0:
        assert torch.equal(acted, own)
    else:
        np.testing.assert_allclose(torch.bincount(acted) / 3000, 1 / 3, atol=0.04)


class Blocked(rmc_envs.MemoryMazes):
    """Mazes in which a third of the agents may not turn left, a third not turn right, and the others all."""

    def reset(self, seed: int | None = None) -> Any:
        self.taken: list[torch.Tensor] = []
        return super().reset(seed)

    def action_masks(self) -> torch.Tensor:
        return torch.arange(3) != torch.arange(self.num_envs).unsqueeze(1) % 3

    def step(self, actions: torch.Tensor) -> rmc_envs.Transition:
        self.taken.append(actions)
        return super().step(actions)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("use", ["use", "ignore"])
def test_recorded_and_random_actions_obey_the_masks_that_the_agent_uses(use: str, epsilon: float) -> None:
    env = mazes(episodes=90)
    env.__class__ = Blocked
    assert isinstance(env, Blocked)
    agent = small_agent("gru", env, action_masks=use)
    record(RandomActions(AgentPolicy(agent, deterministic=False), epsilon, 3), env, seed=3, steps=10)
    taken = torch.stack(env.taken)
    forbidden = taken == torch.arange(90) % 3
    assert forbidden.any() == (use == "ignore")
    assert set(taken.flatten().tolist()) == {0, 1, 2}


def test_same_arguments_record_the_same_episodes_up_to_an_edit(any_core: str) -> None:
    env = mazes(MAZE)
    agent = small_agent(any_core, env)
    plain = record(AgentPolicy(agent, deterministic=False), env, seed=5, steps=12)
    again = record(AgentPolicy(agent, deterministic=False), env, seed=5, steps=12)
    np.testing.assert_array_equal(plain.history, again.history)
    np.testing.assert_array_equal(plain.parts[WHOLE], again.parts[WHOLE])

    def edit(t: int, memory: Any) -> Any:
        return type(memory)(*(x + 3 * (t == 4) for x in memory))

    edited = record(AgentPolicy(agent, deterministic=False), env, seed=5, steps=12, edit=edit)
    np.testing.assert_array_equal(plain.history[:6], edited.history[:6])
    np.testing.assert_array_equal(plain.parts[WHOLE][:5], edited.parts[WHOLE][:5])
    if any_core != "feedforward":
        assert (plain.parts[WHOLE][5:8] != edited.parts[WHOLE][5:8]).any()


def test_with_part_replaces_exactly_that_part(any_core: str) -> None:
    core = small_agent(any_core).core
    one, two = core.initial_state(5), core.initial_state(5)
    one, two = (type(s)(*(torch.rand(x.shape) for x in s)) for s in (one, two))
    parts = parts_of(one)
    assert parts[WHOLE].shape == (5, sum(x[0].numel() for x in one))
    if any_core == "rmc":
        assert list(parts) == [*(f"slot {i}" for i in range(1, 5)), WHOLE]
        assert torch.equal(torch.cat([parts[f"slot {i}"] for i in range(1, 5)], 1), parts[WHOLE])
    for part in parts:
        mixed = parts_of(with_part(one, part, two))
        assert torch.equal(mixed[part], parts_of(two)[part])
        for other in set(parts) - {part, WHOLE}:
            if part != WHOLE:
                assert torch.equal(mixed[other], parts[other])
    stacked = parts_of(type(one)(*(torch.stack([a, b]) for a, b in zip(one, two, strict=True))), 2)
    for part, x in stacked.items():
        assert torch.equal(x, torch.stack([parts[part], parts_of(two)[part]]))


def test_observation_distinguishes_everything_in_view() -> None:
    """Equal states with equal cues look the same; where the cue is in view, the two cues look different."""
    recording = record(SlotPlayer(), mazes(), seed=3, steps=60)
    seen = recording.parts[OBSERVATION][recording.running]
    place = np.stack([recording.state_id, np.broadcast_to(recording.cue, recording.x.shape)], -1)
    groups = np.unique(place[recording.running], axis=0, return_inverse=True)[1].reshape(-1)
    for group in np.unique(groups):
        assert (seen[groups == group] == seen[groups == group][0]).all()
    t, b = np.nonzero(recording.in_view & recording.running)
    views: dict[int, dict[int, bytes]] = {}
    for i, j in zip(t, b, strict=True):
        view = recording.parts[OBSERVATION][i, j].tobytes()
        views.setdefault(int(recording.state_id[i, j]), {})[int(recording.cue[j])] = view
    both = [view for view in views.values() if len(view) == 2]
    assert both
    assert all(view[0] != view[1] for view in both)

"""Recordings hold what happened: they are played again, and compared with what the mazes know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import envs
from rmc_agents.evaluation import AgentPolicy
from rmc_agents.recording import OBSERVATION, WHOLE, Wandering, parts_of, record, with_part
from tests.slots import SlotPlayer
from tests.support import MAZE, small_agent

EPISODES = 60


def mazes(env_id: str = "MiniGrid-MemoryS11-v0", episodes: int = EPISODES) -> envs.MemoryMazes:
    env = envs.make(env_id, episodes, actions=3)
    assert isinstance(env, envs.MemoryMazes)
    return env


def test_a_perfect_player_is_recorded_as_one() -> None:
    recording = record(SlotPlayer(), mazes(), seed=3, steps=60)
    assert recording.success_rate == 1
    assert set(recording.cue) == {0, 1}
    ended = ~recording.running
    assert (np.diff(ended.astype(int), axis=0) >= 0).all()  # what has ended stays so
    # The cue is in the slot from the step on at which it first is in view after the player turned round.
    held = recording.parts["slot 2"][..., 0]
    after = recording.running & (held != 0)
    assert after.any(0).all()
    assert (np.sign(held)[after] == np.broadcast_to(2 * recording.cue - 1, held.shape)[after]).all()


def test_time_since_the_cue_counts_from_the_last_view() -> None:
    recording = record(SlotPlayer(), mazes(), seed=3, steps=60)
    for b in range(EPISODES):
        expected, last = [], None
        for t, seen in enumerate(recording.in_view[:, b]):
            last = t if seen else last
            expected.append(-1 if last is None else t - last)
        assert recording.since[:, b].tolist() == expected


def test_choices_that_were_not_made_are_told_from_wrong_ones() -> None:
    forgetful = record(SlotPlayer(forgetful=True), mazes(), seed=3, steps=60)
    assert set(forgetful.choice) == {0, 1}
    assert 0.2 < forgetful.success_rate < 0.8
    short = record(SlotPlayer(), mazes(), seed=3, steps=4)
    assert (short.choice == -1).all()
    assert len(short.running) == 4


def test_histories_are_equal_where_all_that_happened_is() -> None:
    """Without draws a maze's start fixes the episode, so equal starts have equal histories, and no others."""
    recording = record(SlotPlayer(), mazes(episodes=300), seed=3, steps=60)
    starts = list(zip(recording.situation[0].tolist(), recording.cue.tolist(), strict=True))
    for t in range(6):
        by_start = dict(zip(starts, recording.history[t], strict=True))
        assert [by_start[start] for start in starts] == recording.history[t].tolist()
        assert len(set(by_start.values())) == len(by_start)
    assert not set(recording.history[0]) & set(recording.history[1])


def test_what_is_drawn_makes_histories_differ() -> None:
    env = mazes(episodes=300)
    agent = small_agent("gru", env)
    plain = record(AgentPolicy(agent, deterministic=True), env, 3, 10)
    mixed = record(Wandering(AgentPolicy(agent, deterministic=True), 0.5, 3), env, 3, 10)
    assert len(np.unique(mixed.history[9])) > 2 * len(np.unique(plain.history[9]))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_wandering_draws_the_share_that_it_is_told(share: float) -> None:
    env = mazes(episodes=3000)
    agent = small_agent("gru", env)
    obs, starts = env.reset(0), torch.ones(3000, dtype=torch.bool)
    plain, state = AgentPolicy(agent), agent.initial_state(3000)
    with torch.no_grad():
        own, _ = plain.act(obs, starts, torch.zeros(3000), state)
        acted, told = Wandering(plain, share, 3).act(obs, starts, torch.zeros(3000), state)
    assert torch.equal(told.action, acted)
    if share == 0:
        assert torch.equal(acted, own)
    else:
        np.testing.assert_allclose(torch.bincount(acted) / 3000, 1 / 3, atol=0.04)


def test_the_same_arguments_give_the_same_episodes_up_to_an_edit(any_core: str) -> None:
    env = mazes(MAZE)
    agent = small_agent(any_core, env)
    plain = record(AgentPolicy(agent, deterministic=False), env, 5, 12)
    again = record(AgentPolicy(agent, deterministic=False), env, 5, 12)
    np.testing.assert_array_equal(plain.history, again.history)
    np.testing.assert_array_equal(plain.parts[WHOLE], again.parts[WHOLE])

    def edit(t: int, memory: Any) -> Any:
        return type(memory)(*(x + 3 * (t == 4) for x in memory))

    edited = record(AgentPolicy(agent, deterministic=False), env, 5, 12, edit)
    np.testing.assert_array_equal(plain.history[:6], edited.history[:6])
    np.testing.assert_array_equal(plain.parts[WHOLE][:5], edited.parts[WHOLE][:5])
    if any_core != "feedforward":
        assert (plain.parts[WHOLE][5:8] != edited.parts[WHOLE][5:8]).any()


def test_parts_are_cut_out_and_put_in(any_core: str) -> None:
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


def test_the_observation_says_all_that_is_seen() -> None:
    """Equal situations and cues look the same; where the cue is in view, the two cues do not."""
    recording = record(SlotPlayer(), mazes(), seed=3, steps=60)
    seen = recording.parts[OBSERVATION][recording.running]
    place = np.stack([recording.situation, np.broadcast_to(recording.cue, recording.x.shape)], -1)
    groups = np.unique(place[recording.running], axis=0, return_inverse=True)[1].reshape(-1)
    for group in np.unique(groups):
        assert (seen[groups == group] == seen[groups == group][0]).all()
    t, b = np.nonzero(recording.in_view & recording.running)
    views: dict[int, dict[int, bytes]] = {}
    for i, j in zip(t, b, strict=True):
        view = recording.parts[OBSERVATION][i, j].tobytes()
        views.setdefault(int(recording.situation[i, j]), {})[int(recording.cue[j])] = view
    both = [view for view in views.values() if len(view) == 2]
    assert both
    assert all(view[0] != view[1] for view in both)

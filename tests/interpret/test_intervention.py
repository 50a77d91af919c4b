"""Exchanging the slot by which a scripted player chooses flips its choice; exchanging others never does."""

from __future__ import annotations

import numpy as np
import pytest

import rmc_envs
from rmc_agents import UsageError
from rmc_agents.environment import CuedEnv
from rmc_agents.evaluation.episodes import AgentPolicy
from rmc_agents.evaluation.statistics import wilson
from rmc_agents.interpret.intervention import Swap, moments, pair, swap_parts
from rmc_agents.interpret.recording import WHOLE, Recording, record
from tests.support.agents import small_agent
from tests.support.slot_player import SlotPlayer

SEED, STEPS = 3, 60


def mazes(episodes: int = 200) -> CuedEnv:
    env = rmc_envs.make("MiniGrid-MemoryS11-v0", episodes, actions=3)
    assert isinstance(env, rmc_envs.MemoryMazes)
    return env


def recorded() -> Recording:
    return record(SlotPlayer(), mazes(), seed=SEED, steps=STEPS)


@pytest.mark.parametrize("slot", [2, 4])
@pytest.mark.parametrize("after", [2, 4])
def test_choice_flips_only_with_the_slot_that_decides_it(slot: int, after: int) -> None:
    def player() -> SlotPlayer:
        return SlotPlayer(slot)

    recording = record(player(), mazes(), seed=SEED, steps=STEPS)
    found = swap_parts(player, mazes(), recording, seed=SEED, after=after)
    assert {(swap.part, swap.same_cue) for swap in found} == {
        (part, same)
        for part in [*(f"slot {i}" for i in range(1, 5)), "slots 1-2", WHOLE]
        for same in (False, True)
    }
    for swap in found:
        holds = (f"slot {slot}", WHOLE, *["slots 1-2"] * (slot == 2))
        decides = swap.part in holds and not swap.same_cue
        assert swap.pairs > 100
        assert swap.undecided == 0
        assert swap.flipped == (swap.pairs if decides else 0)


def test_swap_needs_steps_before_the_end_of_the_episodes() -> None:
    recording = recorded()
    longest = int(recording.since.max())
    with pytest.raises(UsageError, match="no two episodes with opposite cues"):
        swap_parts(SlotPlayer, mazes(), recording, seed=SEED, after=longest + 1)


def test_pairs_are_in_the_same_state_with_different_histories() -> None:
    recording = recorded()
    moment = moments(recording, 2)
    taken = np.flatnonzero(moment >= 0)
    assert len(taken) > 100
    assert (recording.since[moment[taken], taken] == 2).all()
    assert recording.running[moment[taken] + 1, taken].all()
    for same_cue in (False, True):
        takers, givers = pair(recording, moment, same_cue)
        assert len(takers) > 50
        assert ((recording.cue[takers] == recording.cue[givers]) == same_cue).all()
        at = recording.state_id[moment[takers], takers], recording.state_id[moment[givers], givers]
        np.testing.assert_array_equal(*at)
        past = recording.history[moment[takers], takers], recording.history[moment[givers], givers]
        assert (past[0] != past[1]).all()


def test_swap_rejects_a_core_without_memory() -> None:
    env = mazes(20)
    agent = small_agent("feedforward", rmc_envs.make("MiniGrid-MemoryS11-v0", 2, actions=3))
    recording = record(AgentPolicy(agent), env, seed=SEED, steps=STEPS)
    with pytest.raises(UsageError, match="no memory"):
        swap_parts(lambda: AgentPolicy(agent), env, recording, seed=SEED, after=2)


def test_interval_uses_the_effective_number_of_pairs() -> None:
    swap = Swap("slot 1", False, pairs=1000, different=40, effective=25.0, flipped=250, undecided=3)
    assert swap.rate == 0.25
    assert swap.interval == wilson(6.25, 25)
    assert swap.to_json()["ci95"] == swap.interval

"""Exchanging the slot by which a known player chooses flips its choice; exchanging others never does."""

from __future__ import annotations

import numpy as np
import pytest

import envs
from rmc_agents import UsageError, probe_plots
from rmc_agents.evaluation import AgentPolicy
from rmc_agents.intervention import Swap, moments, pair, swap_parts
from rmc_agents.recording import WHOLE, CuedEnv, Recording, record
from rmc_agents.statistics import wilson
from tests.slots import SlotPlayer
from tests.support import small_agent

SEED, STEPS = 3, 60


def mazes(episodes: int = 200) -> CuedEnv:
    env = envs.make("MiniGrid-MemoryS11-v0", episodes, actions=3)
    assert isinstance(env, envs.MemoryMazes)
    return env


def recorded() -> Recording:
    return record(SlotPlayer(), mazes(), SEED, STEPS)


@pytest.mark.parametrize("slot", [2, 4])
@pytest.mark.parametrize("after", [2, 4])
def test_the_choice_flips_with_the_slot_that_it_is_made_by(slot: int, after: int) -> None:
    def player() -> SlotPlayer:
        return SlotPlayer(slot)

    recording = record(player(), mazes(), SEED, STEPS)
    found = swap_parts(player, mazes(), SEED, recording, after)
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


def test_nothing_is_exchanged_at_the_end() -> None:
    """Then the choice stands, and no episode goes on."""
    recording = recorded()
    longest = int(recording.since.max())
    with pytest.raises(UsageError, match="no two episodes with opposite cues"):
        swap_parts(SlotPlayer, mazes(), SEED, recording, longest + 1)


def test_pairs_stand_in_the_same_situation() -> None:
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
        at = recording.situation[moment[takers], takers], recording.situation[moment[givers], givers]
        np.testing.assert_array_equal(*at)
        past = recording.history[moment[takers], takers], recording.history[moment[givers], givers]
        assert (past[0] != past[1]).all()


def test_a_core_without_memory_has_nothing_to_exchange() -> None:
    env = mazes(20)
    agent = small_agent("feedforward", envs.make("MiniGrid-MemoryS11-v0", 2, actions=3))
    recording = record(AgentPolicy(agent), env, SEED, STEPS)
    with pytest.raises(UsageError, match="no memory"):
        swap_parts(lambda: AgentPolicy(agent), env, SEED, recording, 2)


def test_the_interval_goes_by_different_pairs() -> None:
    swap = Swap("slot 1", False, pairs=1000, different=40, effective=25.0, flipped=250, undecided=3)
    assert swap.rate == 0.25
    assert swap.interval == wilson(6.25, 25)
    assert swap.to_json()["ci95"] == swap.interval


def test_the_figure_has_a_point_for_each_exchange() -> None:
    found = [
        Swap(part, same, 100, 50, 40.0, flipped, 0)
        for same, counts in ((False, (10, 95)), (True, (2, 3)))
        for part, flipped in zip(("slot 1", WHOLE), counts, strict=True)
    ]
    plot = probe_plots.swaps(found, 2, "title").axes[0]
    points = [
        float(np.asarray(line.get_ydata())[0]) for line in plot.lines if line.get_marker() in ("o", "s")
    ]
    assert points == [0.1, 0.95, 0.02, 0.03]
    assert "2 steps after" in plot.get_xlabel()

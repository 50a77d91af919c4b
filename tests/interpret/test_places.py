"""Probes of places find what a memory holds, and no more."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from rmc_agents import UsageError
from rmc_agents.environment import ObjectsEnv
from rmc_agents.evaluation.episodes import Policy
from rmc_agents.interpret.places import EVERY, SINCE, decode, probe_places, record_places
from rmc_agents.interpret.recording import OBSERVATION, WHOLE
from rmc_envs import MemoryMaze

EPISODES, STEPS = 60, 120


class Held(NamedTuple):
    """State of the player: what its memory holds after the latest observation."""

    memory: Tensor


class Wanderer(Policy):
    """Acts at random; its memory holds the places of the first two objects, mixed with noise numbers."""

    def __init__(self, task: MemoryMaze, scale: float = 1.0) -> None:
        self.task, self.scale = task, scale

    def initial_state(self, batch_size: int) -> Held:
        self.generator = torch.Generator().manual_seed(1)
        return Held(torch.zeros(batch_size, 8))

    def act(
        self,
        obs: Any,
        episode_starts: Tensor,
        reward: Tensor,
        state: Held,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Held]:
        B = len(episode_starts)
        noise = torch.randn(B, 4, generator=self.generator)
        places = self.scale * self.task.object_places().offset[:, :2].flatten(1).float()
        memory = torch.cat([places, noise], dim=1) @ torch.linspace(-1, 1, 64).sin().view(8, 8).add(
            torch.eye(8)
        )
        return torch.randint(3, (B,), generator=self.generator), Held(memory)


def recorded(scale: float = 1.0, steps: int = STEPS) -> Any:
    task = MemoryMaze(EPISODES)
    assert isinstance(task, ObjectsEnv)
    return record_places(Wanderer(task, scale), task, seed=0, steps=steps)


def test_places_in_the_memory_are_found_and_others_are_not() -> None:
    found = probe_places(recorded(), ("red", "green", "blue"))
    assert (found.episodes, found.steps) == (EPISODES, STEPS)
    red, green, blue = found.scores[WHOLE]
    for score, chance in ((red, found.chance[0]), (green, found.chance[1])):
        assert score is not None
        assert chance is not None
        assert score.value > 0.95 > 0.5 > chance
    assert blue is not None
    assert blue.value < 0.4
    seen_now = found.scores[OBSERVATION][0]
    assert seen_now is not None
    assert seen_now.value < 0.5
    assert [name for name, *_ in found.since] == ["1 to 10", "11 to 50", "51 to 200", "201 or more"]
    assert found.since[-1][1:] == (0, None)  # no episode is that long


def test_noise_is_no_better_than_chance() -> None:
    found = probe_places(recorded(scale=0.0), ("red", "green", "blue"))
    for score, chance in zip(found.scores[WHOLE], found.chance, strict=True):
        assert score is not None
        assert chance is not None
        assert score.low < chance + 0.05


def test_recording_counts_steps_since_objects_were_in_view() -> None:
    recording = recorded()
    task = MemoryMaze(EPISODES)
    task.reset(0)
    known = torch.zeros(3, dtype=torch.bool)
    since = torch.zeros(3, dtype=torch.int64)
    first = recording.episode == 0
    assert recording.step[first].tolist() == list(range(STEPS))
    for t, actions in enumerate(recording.actions):
        places = task.object_places()
        known = known | places.in_view[0]
        since = torch.where(known & ~places.in_view[0], since + 1, 0)
        row = np.flatnonzero(first)[t]
        assert recording.known[row].tolist() == known.tolist()
        assert recording.since[row].tolist() == since.tolist()
        assert recording.offset[row].tolist() == places.offset[0].tolist()
        task.step(actions)
    assert set(recording.step[~first]) == set(range(0, STEPS, EVERY))
    assert recording.since.max() > SINCE[1]


def test_places_of_too_few_samples_are_not_decoded() -> None:
    recording = recorded(steps=4)
    used = (recording.since > 0).sum(0)
    assert (used < 50).all()
    assert np.isnan(decode(recording, WHOLE)).all()
    with pytest.raises(UsageError, match="places cannot be probed"):
        probe_places(recording, ("red", "green", "blue"))

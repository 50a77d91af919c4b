"""Ids of POPGym's levels build native tasks with POPGym's spaces, or POPGym's own environments."""

from __future__ import annotations

import gymnasium
import popgym
import pytest
import torch

import rmc_envs
from rmc_agents.spaces.plain import Observations
from rmc_envs import GymnasiumEnvs
from rmc_envs.popgym.base import PopgymTask
from rmc_envs.popgym.concentration import Concentration
from rmc_envs.popgym.levels import FAMILIES, POPGYM_ALIASES, POPGYM_IDS
from rmc_envs.popgym.repeat_previous import RepeatPrevious


def test_ids_are_those_of_popgym() -> None:
    assert set(POPGYM_IDS) == {kind["id"] for kind in popgym.envs.ALL.values()}
    assert len(POPGYM_IDS) == 42


@pytest.mark.parametrize("env_id", POPGYM_IDS)
def test_level_has_popgyms_spaces(env_id: str) -> None:
    task = rmc_envs.make(env_id, 2)
    assert isinstance(task, PopgymTask)
    assert task.tasks == (env_id,)
    own = gymnasium.make(env_id, disable_env_checker=True)
    assert task.observation_space == Observations(own.observation_space).plain
    assert task.action_space == own.action_space
    assert rmc_envs.choose_implementation(env_id) == "batched"


@pytest.mark.parametrize("alias", POPGYM_ALIASES)
def test_alias_is_registered_with_gymnasium(alias: str) -> None:
    env = gymnasium.make(alias)
    assert env.unwrapped.batch.tasks == (POPGYM_ALIASES[alias],)
    assert env.reset(seed=0)[0] in env.observation_space
    assert rmc_envs.make(alias).tasks == (POPGYM_ALIASES[alias],)


@pytest.mark.parametrize("env_id", ["popgym-AutoencodeEasy-v0", "popgym:popgym-VelocityOnlyCartpoleHard-v0"])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_popgyms_own_environments_run_where_they_are_asked_for(env_id: str, vectorization: str) -> None:
    theirs = rmc_envs.make(env_id, 2, vectorization=vectorization)
    ours = rmc_envs.make(env_id, 2)
    assert isinstance(theirs, GymnasiumEnvs)
    assert isinstance(ours, PopgymTask)
    obs, other = theirs.reset(seed=0), ours.reset(seed=0)
    assert type(obs) is type(other)
    actions = torch.zeros(2, dtype=torch.int64)
    assert theirs.step(actions).reward.shape == ours.step(actions).reward.shape
    theirs.close()


HELPED = {Concentration}
"""Families with auxiliary targets, which POPGym does not have."""


@pytest.mark.parametrize("family", FAMILIES)
def test_documentation_has_the_sections_of_a_task(family: type[PopgymTask]) -> None:
    wanted = ["Observation", "Actions", "Reward and end of an episode", "Levels", "What a score means"]
    wanted += ["Seeding", "Differences from POPGym"]
    assert family.__doc__ is not None
    found = [line.strip()[3:] for line in family.__doc__.splitlines() if line.strip().startswith("## ")]
    if family in HELPED:
        wanted.insert(3, "Auxiliary targets")
    assert found == wanted
    assert (family(1).aux_size > 0) == (family in HELPED)


def test_options_of_a_level_can_be_changed() -> None:
    task = rmc_envs.make("popgym-RepeatPreviousMedium-v0", k=5)
    assert isinstance(task, RepeatPrevious)
    assert (task.num_decks, task.k) == (2, 5)
    assert task.tasks == ("rmc/RepeatPrevious-v0",)
    with pytest.raises(ValueError, match="has no option level; it has num_decks, k"):
        rmc_envs.make("popgym-RepeatPreviousEasy-v0", level="Hard")

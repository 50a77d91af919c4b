"""Tests of `AgentConfig`: validation, and the same options in the constructor and in JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from gymnasium import spaces

from rmc_agents import ActorCritic, AgentConfig
from tests.conftest import small_options
from tests.support.spaces import MAZE_SPACE


@pytest.mark.parametrize("name", ["features", "hidden_size"])
@pytest.mark.parametrize("size", [0, -1, 1.5, True, "64", None], ids=repr)
def test_agent_config_rejects_sizes_that_are_not_positive_integers(name: str, size: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got {size!r}"):
        AgentConfig(**{name: size})


def test_agent_config_names_the_kinds_of_critic_memory() -> None:
    with pytest.raises(ValueError, match=r"critic_memory must be one of .*'separate'.*, got 'both'"):
        AgentConfig(critic_memory="both")  # type: ignore[arg-type]


@pytest.mark.parametrize("log_std", [-11.0, 5.5, float("nan")])
def test_initial_standard_deviation_out_of_range_is_refused(log_std: float) -> None:
    with pytest.raises(ValueError, match=f"log_std_init must be from -10 to 5, got {log_std}"):
        AgentConfig(log_std_init=log_std)


def test_agent_starts_with_its_standard_deviation_and_older_ones_with_1() -> None:
    box = spaces.Box(-1, 1, (2,))
    agent = ActorCritic(box, box, "gru", {"hidden_size": 8}, log_std_init=-2.0)
    assert agent.policy.log_std.tolist() == [-2.0, -2.0]
    described = agent.to_json()
    assert ActorCritic.from_json(described).policy.log_std.tolist() == [-2.0, -2.0]
    del described["agent"]["log_std_init"]
    assert ActorCritic.from_json(described).policy.log_std.tolist() == [0.0, 0.0]


def test_agent_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        AgentConfig().features = 3  # type: ignore[misc]


def test_agent_config_survives_json(any_core: str) -> None:
    config = AgentConfig(any_core, small_options(any_core), 8, 9, "separate", True, True, False)
    assert AgentConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_agent_config_holds_the_arguments_of_the_constructor() -> None:
    agent = ActorCritic(MAZE_SPACE, spaces.Discrete(3), "gru", {"hidden_size": 8}, features=16, skip=False)
    assert agent.config == AgentConfig("gru", {"hidden_size": 8}, features=16, skip=False)
    assert agent.core_name == "gru"
    assert agent.core_options == {"hidden_size": 8}
    assert ActorCritic(MAZE_SPACE, spaces.Discrete(3)).config == AgentConfig()


def test_constructor_rejects_unknown_options() -> None:
    with pytest.raises(TypeError, match="hidden"):
        ActorCritic(MAZE_SPACE, spaces.Discrete(3), hidden=3)

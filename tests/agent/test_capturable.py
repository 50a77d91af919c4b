"""Which agents may be recorded in CUDA graphs: cores say so in their own class."""

from __future__ import annotations

import pytest
from gymnasium import spaces

from rmc_agents import ActorCritic
from rmc_agents.agent.capturable import why_not_captured
from rmc_agents.cores import CORES, LSTM


def _agent(core: str, **options: object) -> ActorCritic:
    return ActorCritic(spaces.Discrete(3), spaces.Discrete(2), core, {}, **options)  # type: ignore[arg-type]


def test_cores_of_the_package_may_be_recorded(any_core: str) -> None:
    assert why_not_captured(_agent(any_core)) is None
    assert why_not_captured(_agent(any_core, critic_memory="separate")) is None


def test_subclass_has_to_say_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(LSTM): ...

    monkeypatch.setitem(CORES, "counting", Counting)
    reason = why_not_captured(_agent("counting"))
    assert "the core Counting does not say that it can be" in str(reason)
    monkeypatch.setattr(Counting, "capturable", True, raising=False)
    assert why_not_captured(_agent("counting")) is None

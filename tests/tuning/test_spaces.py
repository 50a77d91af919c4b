"""Search spaces: defaults of every core, and what users write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig
from rmc_agents.cores import CORES, core_options
from rmc_agents.tuning import spaces
from rmc_agents.tuning.spaces import Choice, Range, default_searches, parse_searches, searchable, value_in

BASE = RunConfig()


@pytest.mark.parametrize("core", CORES)
def test_every_core_has_a_space_of_its_own_options(core: str) -> None:
    assert spaces.CORES[core].keys() <= core_options(core).keys()
    base = replace(BASE, agent=AgentConfig(core=core))
    searches = default_searches(base, without=())
    assert searches.keys() == {*spaces.PPO, *spaces.CORES[core]}
    for name, search in searches.items():
        assert search.including(value_in(base, name)) == search


def test_defaults_are_widened_to_hold_the_present_value() -> None:
    ppo = replace(BASE.ppo, learning_rate=0.01, gamma=0.97, entropy_coef=0.0)
    searches = default_searches(replace(BASE, ppo=ppo), without={"epochs"})
    assert searches["learning_rate"] == Range(1e-4, 0.01, log=True)
    assert 0.97 in searches["gamma"].extremes()
    assert "entropy_coef" not in searches, "0 has no logarithm, so it stays"
    assert "epochs" not in searches


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("learning_rate=1e-4:1e-2:log", Range(1e-4, 1e-2, log=True)),
        ("learning-rate=0.001", Choice((0.001,))),
        ("num_slots=2,4,8", Choice((2, 4, 8))),
        ("num_slots=2:9", Range(2, 9, whole=True)),
        ("epochs=1:16:log", Range(1, 16, log=True, whole=True)),
        ("forget_bias=0:3", Range(0, 3)),
        ("gate_style=unit,none", Choice(("unit", "none"))),
        ("normalize_output=True,False,True", Choice((True, False))),
        ("target_kl=None,0.02", Choice((None, 0.02))),
        ("key_size=8:16", Range(8, 16, whole=True)),
        ("critic_memory=shared,separate", Choice(("shared", "separate"))),
    ],
)
def test_search_is_read(word: str, expected: Any) -> None:
    (search,) = parse_searches([word], BASE).values()
    assert search == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["num_slot=2,4"], "no setting 'num_slot' .*there are: .*num_slots.* Did you mean 'num_slots'"),
        (["total_steps=1,2"], "no setting 'total_steps'"),
        (["hidden_size=1,2"], "no setting 'hidden_size' can be searched for core rmc"),
        (["gamma"], "expected NAME=LOW:HIGH"),
        (["gamma=0.9", "gamma=0.99"], "gamma twice"),
        (["gamma=0.99:0.9"], "expected the lower end first"),
        (["gamma=0.9:x"], "with two numbers"),
        (["gamma=0.9:0.99:linear"], "LOW:HIGH:log"),
        (["learning_rate=0:1e-2:log"], "lower end above 0"),
        (["learning_rate=nan,1"], "expected a finite number"),
        (["learning_rate=nan:1"], "'learning_rate=nan:1': nan is not possible: expected a finite number"),
        (["learning_rate=0:inf"], "'learning_rate=0:inf': inf is not possible: expected a finite number"),
        (["learning_rate=-inf:1"], "': -inf is not possible: expected a finite number"),
        (["learning_rate=1e400:1:log"], "': 1e400 is not possible: expected a finite number"),
        (["learning_rate=1e-4,NaN"], "': NaN is not possible: expected a finite number"),
        (["learning_rate="], "expected NAME=LOW:HIGH"),
        ([" =1:2"], "expected NAME=LOW:HIGH"),
        (["learning_rate=:"], "a value is missing"),
        (["learning_rate=1e-4:"], "a value is missing"),
        (["learning_rate=:1e-2"], "a value is missing"),
        (["learning_rate=1e-4:1e-2:"], "a value is missing"),
        (["num_slots=2,,4"], "a value is missing"),
        (["num_slots=2,4,"], "a value is missing"),
        (["num_slots= , "], "a value is missing"),
        (["gamma=0.9:0.9"], "expected the lower end first"),
        (["num_slots=2:8:2"], "a range has no step size: list the values, separated by commas"),
        (["learning_rate=1e-4:1e-2:1e-3"], "a range has no step size"),
        (["learning_rate=-1:1:log"], "lower end above 0"),
        (["learning_rate=1e-4:1e-2:log:log"], "LOW:HIGH:log"),
        (["gamma=True:1"], "with two numbers"),
        (["num_slots=2:4.5"], "expected whole numbers"),
        (["gate_style=0:1"], "expected a list of values"),
        (["minibatch_size=64:512"], "such as minibatch_size=512,1024"),
        (["gamma=[1]"], "expected numbers, words"),
    ],
)
def test_wrong_search_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_searches(words, BASE)


def test_every_searchable_setting_has_a_value() -> None:
    for core in CORES:
        base = replace(BASE, agent=AgentConfig(core=core))
        for name in searchable(core):
            value_in(base, name)


def test_core_without_a_space_can_be_searched_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORES, "mine", CORES["gru"])
    base = replace(BASE, agent=AgentConfig(core="mine"))
    assert default_searches(base, ()).keys() == spaces.PPO.keys()
    assert parse_searches(["hidden_size=8,16"], base) == {"hidden_size": Choice((8, 16))}

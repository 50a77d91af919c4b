"""Search spaces around a configuration: whatever they draw is valid."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
import torch

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig, Selection
from rmc_agents.cli.kinds import GENERAL
from rmc_agents.cli.presets import PRESETS, defaults_for
from rmc_agents.cores import CORES, core_options, make_core
from rmc_agents.errors import UsageError
from rmc_agents.tuning.search import SearchSpace, Values, search_space

MAZE = "MiniGrid-MemoryS9-v0"
SAMPLES = 200


def drawn(space: SearchSpace, number: int) -> list[Values]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(number)]


def require_buildable(config: RunConfig) -> None:
    config.ppo.check_num_envs(config.environment.num_envs)
    with torch.device("meta"):
        make_core(config.agent.core, config.agent.features, config.agent.core_options)


@pytest.mark.parametrize("core", CORES)
def test_every_sample_of_a_core_is_a_configuration_that_builds(core: str) -> None:
    base, _ = defaults_for(Selection(env=MAZE, core=core))
    space = search_space(replace(base, agent=replace(base.agent, core=core)))
    samples = drawn(space, SAMPLES)
    for values in samples:
        require_buildable(space.configure(values))
    for name, search in space.searches.items():
        assert len({str(values[name]) for values in samples}) >= min(len(search.extremes()), 3), name


@pytest.mark.parametrize("base", [*PRESETS.values(), *GENERAL.values(), RunConfig()])
def test_sizes_of_every_preset_fit_in_all_combinations(base: RunConfig) -> None:
    space = search_space(base)
    assert {"num_envs", "minibatch_size"} & space.searches.keys()
    for values in drawn(space, 50):
        require_buildable(space.configure(values))
    start = space.configure(space.start())
    options = {**core_options(base.agent.core), **base.agent.core_options}
    assert options == {**options, **start.agent.core_options}
    assert replace(start, agent=base.agent) == base


def test_odd_sizes_are_left_as_they_are() -> None:
    ppo = replace(RunConfig().ppo, num_steps=15, bptt_length=5, minibatch_size=105)
    base = RunConfig(environment=replace(RunConfig().environment, num_envs=7), ppo=ppo)
    space = search_space(base)
    for values in drawn(space, 50):
        require_buildable(space.configure(values))


def test_sizes_of_the_user_replace_the_defaults_and_others_adapt() -> None:
    space = search_space(RunConfig(), ["minibatch_size=4096"])
    assert space.searches["minibatch_size"].extremes() == (4096,)
    assert space.searches["num_envs"].extremes() == (32, 64), "16 * 128 is less than 4096"
    with pytest.raises(UsageError, match=r"not every combination fits: .*minibatch_size=4096 and 16 \* 128"):
        search_space(RunConfig(), ["minibatch_size=4096", "num_envs=16,32"])


def test_start_of_the_search_is_the_base() -> None:
    base, _ = defaults_for(Selection(env=MAZE))
    space = search_space(base, ["learning_rate=1e-4:2e-3:log", "num_blocks=1"])
    assert space.start()["learning_rate"] == 1e-3
    assert "num_blocks" not in space.start()
    started = space.configure(space.start())
    assert started.ppo == base.ppo
    assert {**started.agent.core_options, **base.agent.core_options} == started.agent.core_options


def test_start_leaves_out_values_outside_of_the_search() -> None:
    space = search_space(RunConfig(), ["gamma=0.8:0.9", "learning_rate=1e-4:1e-2:log"], only=True)
    assert space.start() == {"learning_rate": 3e-4}


def test_ends_of_schedules_stay_in_proportion() -> None:
    base, _ = defaults_for(Selection(env=MAZE))
    config = search_space(base).configure({"learning_rate": 2e-3, "entropy_coef": 0.01})
    assert config.ppo.learning_rate_end == pytest.approx(1e-3)
    assert config.ppo.entropy_coef_end == pytest.approx(0.007)


def test_numbers_are_rounded_within_their_range() -> None:
    space = search_space(RunConfig(), ["gamma=0.99951:0.99959", "learning_rate=1e-4:1e-2:log"], only=True)
    for values in drawn(space, 20):
        assert isinstance(values["gamma"], float)
        assert 0.99951 <= values["gamma"] <= 0.99959
        assert len(f"{values['learning_rate']:g}") <= len("0.000123")


def test_only_what_is_named_is_varied() -> None:
    space = search_space(RunConfig(), ["num_slots=2,4"], only=True)
    assert space.searches.keys() == {"num_slots"}


def test_fixed_settings_are_not_varied() -> None:
    fixed = {"gamma", "num_envs", "num_slots"}
    assert not fixed & search_space(RunConfig(), fixed=fixed).searches.keys()


@pytest.mark.parametrize(
    ("words", "fixed", "only", "message"),
    [
        (["gamma=0.9,0.99"], {"gamma"}, False, "gamma is searched and has a flag of its own"),
        (["gamma=0.9"], (), True, "nothing to search"),
        ([], (), True, "nothing to search"),
        (["gamma=0.9,1.5"], (), False, "search gamma: 1.5 is not possible: gamma must be between 0 and 1"),
        (["num_slots=0,4"], (), False, "search num_slots: 0 is not possible"),
        (["gate_style=unit,x"], (), False, "search gate_style: 'x' is not possible"),
        (["learning_rate=1e-4:2"], (), False, "search learning_rate: 2.0 is not possible"),
        (["epochs=2.5,3"], (), False, "search epochs: 2.5 is not possible"),
        (["nonsense=1"], (), False, "no setting 'nonsense'"),
        (["num_envs=3,x"], (), False, "sizes|num_envs"),
    ],
)
def test_impossible_search_is_refused(words: list[str], fixed: set[str], only: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        search_space(RunConfig(), words, fixed, only)


def test_search_of_an_unknown_core_is_refused() -> None:
    with pytest.raises(UsageError, match="core"):
        search_space(replace(RunConfig(), agent=AgentConfig(core="nope")))


def test_cores_that_read_named_cells_are_searched_but_for_their_keys() -> None:
    options = {"num_hops": 3}
    agent = AgentConfig(core="entity_delta", cell_names=64, cell_neighbours=True, core_options=options)
    space = search_space(replace(RunConfig(), agent=agent), ["value_size=16,48", "odometer_size=0,16"])
    assert "key_size" not in space.searches
    assert {"hidden_size", "value_size", "odometer_size"} <= space.searches.keys()
    with pytest.raises(UsageError, match=r"num_hops=3 follows the names .* with cell_names and"):
        search_space(replace(RunConfig(), agent=replace(agent, cell_names=0)))

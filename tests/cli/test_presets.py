"""Presets: chosen by environment and view size, whole minibatches, described in one line."""

from __future__ import annotations

import pytest

import rmc_envs
from rmc_agents import EnvConfig
from rmc_agents.cli.config import RunConfig, Selection
from rmc_agents.cli.presets import PRESETS, defaults_for, find_preset


@pytest.mark.parametrize("key", PRESETS, ids=str)
def test_preset_is_named_by_its_environment_and_has_whole_minibatches(key: tuple[str, int]) -> None:
    env_id, view_size = key
    config = PRESETS[key]
    environment = config.environment
    assert environment.env == env_id
    config.ppo.check_num_envs(environment.num_envs)
    mazes = rmc_envs.make(environment.train_on or env_id, environment.num_envs, **environment.env_options)
    assert env_id in mazes.tasks
    assert mazes.observation_space["image"].shape == (view_size, view_size, 3)
    assert find_preset(env_id, view_size) == config
    selection = Selection(env=env_id, env_options={"view_size": view_size})
    assert defaults_for(selection)[0] == config


def test_preset_of_the_default_view_size_is_found_without_options() -> None:
    config, line = defaults_for(Selection(env="MiniGrid-MemoryS13-v0"))
    assert config.environment.env_options == {"actions": 3}
    assert line is not None
    assert line.startswith("MemoryS13: preset with a curriculum of MemoryS5, MemoryS7, MemoryS9, ")
    assert line.endswith("; --no-preset for none")
    assert find_preset("CartPole-v1") is None


@pytest.mark.parametrize(
    "selection",
    [
        Selection(env="CartPole-v1"),
        Selection(env="CartPole-v1", preset=False),
        Selection(env="MiniGrid-MemoryS9-v0", env_options={"view_size": 5}),
        Selection(env="MiniGrid-MemoryS9-v0", env_options={"view_size": "x"}),
    ],
    ids=str,
)
def test_environment_without_preset_has_general_defaults(selection: Selection) -> None:
    config, line = defaults_for(selection)
    assert config == RunConfig(environment=EnvConfig(env=selection.env))
    assert line is None


def test_no_preset_gives_general_defaults() -> None:
    config, line = defaults_for(Selection(env="MiniGrid-MemoryS9-v0", preset=False))
    assert config.environment == EnvConfig(env="MiniGrid-MemoryS9-v0")
    assert (config.agent, config.ppo) == (RunConfig().agent, RunConfig().ppo)
    assert config.run.target_success_rate is None
    assert line is None


def test_other_core_has_the_preset_without_its_core_options() -> None:
    tuned, _ = defaults_for(Selection(env="MiniGrid-MemoryS9-v0", core="rmc"))
    other, line = defaults_for(Selection(env="MiniGrid-MemoryS9-v0", core="gru"))
    assert tuned.agent.core_options
    assert other.agent.core_options == {}
    assert (other.environment, other.ppo, other.run) == (tuned.environment, tuned.ppo, tuned.run)
    assert line is not None


@pytest.mark.parametrize("env", ["MiniGrid-MemoryS13-v0", "CartPole-v1"])
def test_scale_multiplies_batches_at_as_many_gradient_steps(env: str) -> None:
    one, about = defaults_for(Selection(env=env))
    eight, same = defaults_for(Selection(env=env, scale=8))
    assert about == same
    assert eight.environment.num_envs == 8 * one.environment.num_envs
    assert eight.ppo.minibatch_size == 8 * one.ppo.minibatch_size
    assert eight.ppo.total_steps == 8 * one.ppo.total_steps
    assert eight.ppo.learning_rate == pytest.approx(2 * one.ppo.learning_rate)
    assert eight.ppo.learning_rate_end == pytest.approx(2 * one.ppo.learning_rate_end)
    two, _ = defaults_for(Selection(env=env, scale=2))
    assert two.ppo.learning_rate == pytest.approx(2**0.5 * one.ppo.learning_rate)
    eight.ppo.check_num_envs(eight.environment.num_envs)


@pytest.mark.parametrize("scale", [0, -1, 4097, 2**21])
def test_scale_out_of_range_is_refused(scale: int) -> None:
    with pytest.raises(ValueError, match="scale"):
        defaults_for(Selection(scale=scale))

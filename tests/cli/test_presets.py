"""Presets: chosen by environment and view size, whole minibatches, described in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import rmc_envs
from rmc_agents import ActorCritic, EnvConfig
from rmc_agents.cli.config import RunConfig, Selection
from rmc_agents.cli.control_presets import CONTROL
from rmc_agents.cli.kinds import CONTINUOUS, DISCRETE, GENERAL, PICTURES, kind_of
from rmc_agents.cli.presets import PRESETS, defaults_for, find_preset
from rmc_envs.popgym.levels import POPGYM_ALIASES


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
    assert find_preset("Blackjack-v1") is None


@pytest.mark.parametrize(
    "selection",
    [
        Selection(env="Blackjack-v1"),
        Selection(env="Blackjack-v1", preset=False),
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


VECTOR, PICTURE = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(0, 255, (64, 64, 3), np.uint8)
CHOICES, TORQUES = spaces.Discrete(3), spaces.Box(-2, 2, (2,))


@pytest.mark.parametrize(
    ("observation", "action", "expected"),
    [
        (VECTOR, TORQUES, CONTINUOUS),
        (VECTOR, CHOICES, DISCRETE),
        (spaces.Dict({"speed": VECTOR, "gear": CHOICES}), spaces.MultiDiscrete([2, 3]), DISCRETE),
        (spaces.Tuple([VECTOR, CHOICES]), TORQUES, CONTINUOUS),
        (PICTURE, CHOICES, PICTURES),
        (spaces.Dict({"camera": PICTURE, "speed": VECTOR}), TORQUES, PICTURES),
        (CHOICES, CHOICES, None),
        (spaces.MultiBinary(3), TORQUES, None),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), CHOICES, None),
        (spaces.Graph(VECTOR, None), CHOICES, None),
    ],
    ids=str,
)
def test_general_preset_is_chosen_by_the_spaces(
    observation: spaces.Space[Any], action: spaces.Space[Any], expected: RunConfig | None
) -> None:
    kind = kind_of((observation, action))
    assert (None if kind is None else GENERAL[kind]) == expected
    config, line = defaults_for(Selection(env="My-v0"), (observation, action))
    assert config.environment.env == "My-v0"
    if expected is None:
        assert (config, line) == (RunConfig(environment=EnvConfig(env="My-v0")), None)
        return
    assert (config.agent, config.ppo) == (expected.agent, expected.ppo)
    assert line == f"My-v0: general preset for {kind}; --no-preset for none"
    plain, line = defaults_for(Selection(env="My-v0", preset=False), (observation, action))
    assert (plain, line) == (RunConfig(environment=EnvConfig(env="My-v0")), None)


@pytest.mark.parametrize("kind", GENERAL)
def test_general_preset_normalises_and_has_whole_minibatches(kind: Any) -> None:
    config = GENERAL[kind]
    config.ppo.check_num_envs(config.environment.num_envs)
    assert config.agent.normalize_observations
    assert config.ppo.normalize_rewards


def test_own_preset_goes_before_the_general_one() -> None:
    maze = Selection(env="MiniGrid-MemoryS9-v0")
    assert defaults_for(maze, (VECTOR, CHOICES)) == defaults_for(maze)


@pytest.mark.parametrize("env_id", [*rmc_envs.NATIVE, "MiniGrid-MemoryS9-v0", "BabyAI-GoToObj-v0", "Nope-v0"])
def test_native_tasks_and_grid_worlds_have_no_general_preset(env_id: str) -> None:
    assert rmc_envs.spaces_of(env_id, {}) is None


@pytest.mark.parametrize(("name", "expected"), [("CartPole-v1", DISCRETE), ("Pendulum-v1", CONTINUOUS)])
def test_spaces_of_an_environment_choose_its_preset(
    name: str, expected: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_id = f"test/{name}"
    monkeypatch.setitem(gymnasium.registry, env_id, replace(gymnasium.spec(name), id=env_id))
    own = rmc_envs.spaces_of(env_id, {})
    assert own is not None
    assert defaults_for(Selection(env=env_id), own)[0].ppo == expected.ppo
    assert rmc_envs.spaces_of(env_id, {"no_such_option": 1}) is None


@pytest.mark.parametrize("env_id", CONTROL)
def test_control_preset_fits_its_environment(env_id: str) -> None:
    config, line = defaults_for(Selection(env=env_id), rmc_envs.spaces_of(env_id, {}))
    assert config == CONTROL[env_id] == find_preset(env_id)
    assert line == f"{env_id.removesuffix('-v0')}: preset; --no-preset for none"
    config.ppo.check_num_envs(config.environment.num_envs)
    env = rmc_envs.make(env_id, 1)
    ActorCritic.from_config(env.observation_space, env.action_space, config.agent)


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "ale_py:ALE/Breakout-v5"])
def test_atari_game_has_the_usual_preprocessing_by_its_preset(env_id: str) -> None:
    config, line = defaults_for(Selection(env=env_id))
    assert config.environment == EnvConfig(env=env_id, env_options={"preprocessing": "atari"}, num_envs=8)
    assert (config.agent, config.ppo) == (PICTURES.agent, PICTURES.ppo)
    assert line == f"{env_id}: preset; --no-preset for none"
    assert defaults_for(Selection(env=env_id, preset=False))[0].environment.env_options == {}


@pytest.mark.parametrize("env_id", rmc_envs.POPGYM_IDS)
def test_levels_of_popgym_have_presets_for_whole_chunks(env_id: str) -> None:
    preset = find_preset(env_id)
    assert preset is not None
    assert preset.environment.env == env_id
    preset.ppo.check_num_envs(preset.environment.num_envs)
    assert preset.agent.previous_action
    assert preset.agent.start_flag
    alias = next(own for own, its in POPGYM_ALIASES.items() if its == env_id)
    same = find_preset(alias)
    assert same is not None
    assert (same.agent, same.ppo) == (preset.agent, preset.ppo)


@pytest.mark.parametrize("level", ["Easy", "Medium", "Hard"])
@pytest.mark.parametrize("family", ["Autoencode", "RepeatPrevious"])
def test_clocks_of_popgym_reach_back_far_enough(family: str, level: str) -> None:
    """A turn is longer than what is looked back over, and each card on the way has a key of its own."""
    env_id = f"popgym-{family}{level}-v0"
    agent, options = find_preset(env_id).agent, rmc_envs.default_options(env_id)
    if env_id == "popgym-RepeatPreviousEasy-v0":
        assert (agent.core, agent.clock, options["k"]) == ("rmc", 0, 4)
        return
    num_cards = options.get("k", 52 * options["num_decks"])
    assert agent.core == "gated_delta"
    assert agent.clock >= num_cards * (2 if family == "Autoencode" else 1)
    assert agent.core_options["key_size"] >= num_cards


def test_families_of_popgym_without_a_level_have_no_preset() -> None:
    assert find_preset("rmc/RepeatPrevious-v0") is None
    assert find_preset("popgym-LabyrinthEscapeEasy-v0") is None

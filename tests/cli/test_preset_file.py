"""Presets in files: written, read, and as a command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rmc_agents.cli.config import RunConfig, RunOptions, Selection
from rmc_agents.cli.flags import parse
from rmc_agents.cli.preset_file import command_line, flags_of, read_preset, write_preset
from rmc_agents.cli.presets import PRESETS, defaults_for
from rmc_agents.errors import UsageError
from train.ppo import configure

MAZE = PRESETS["MiniGrid-MemoryS9-v0", 7]
TUNED = replace(
    MAZE,
    agent=replace(
        MAZE.agent, core_options={**MAZE.agent.core_options, "num_slots": 2, "gate_style": "memory"}
    ),
    ppo=replace(MAZE.ppo, learning_rate=7e-4, target_kl=None, normalize_rewards=True, clip_range_value=0.2),
    run=RunOptions(target_success_rate=0.9),
)


def test_preset_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_preset(tmp_path / "best.json", TUNED, {"score": 0.5})
    assert read_preset(path) == TUNED


def test_settings_that_a_preset_leaves_out_have_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "preset.json"
    path.write_text('{"ppo": {"gamma": 0.9}}')
    assert read_preset(path) == replace(RunConfig(), ppo=replace(RunConfig().ppo, gamma=0.9))


def test_flags_override_a_preset_file(tmp_path: Path) -> None:
    path = str(write_preset(tmp_path / "best.json", TUNED))
    config, _, notes = configure(["--preset-file", path, "--gamma", "0.9", "--core-options", "num_slots=3"])
    assert config.ppo == replace(TUNED.ppo, gamma=0.9)
    assert config.environment == TUNED.environment
    assert config.agent.core_options == {**TUNED.agent.core_options, "num_slots": 3}
    assert config.run.target_success_rate == 0.9
    assert f"preset of {path}, tuned for rmc on MiniGrid-MemoryS9-v0" in notes
    other, _, _ = configure(["--preset-file", path, "--core", "gru", "--env", "MiniGrid-MemoryS7-v0"])
    assert (other.agent.core, other.agent.core_options) == ("gru", {})
    assert other.environment.env == "MiniGrid-MemoryS7-v0"
    assert other.ppo == TUNED.ppo


def test_preset_file_is_scaled(tmp_path: Path) -> None:
    path = str(write_preset(tmp_path / "best.json", TUNED))
    config, _, _ = configure(["--preset-file", path, "--scale", "4"])
    assert config.environment.num_envs == 4 * TUNED.environment.num_envs
    assert config.ppo.learning_rate == 2 * TUNED.ppo.learning_rate


@pytest.mark.parametrize("default", [RunConfig(), MAZE, PRESETS["MiniGrid-MemoryS13-v0", 3]])
def test_flags_turn_one_configuration_into_another(default: RunConfig) -> None:
    words = flags_of(TUNED, default)
    parsed = parse(RunConfig, default, words, "ppo")
    options = {**default.agent.core_options, **parsed.agent.core_options}
    env_options = {**default.environment.env_options, **parsed.environment.env_options}
    parsed = replace(
        parsed,
        agent=replace(parsed.agent, core_options=options),
        environment=replace(parsed.environment, env_options=TUNED.environment.env_options | env_options),
    )
    assert parsed.ppo == TUNED.ppo
    assert parsed.agent == TUNED.agent
    assert parsed.run.target_success_rate == 0.9


def test_command_line_of_a_tuned_configuration_gives_it_again() -> None:
    general, _ = defaults_for(Selection(env=TUNED.environment.env, preset=False))
    words = [*flags_of(TUNED, general), "--no-preset"]
    config, _, _ = configure(words)
    assert (config.environment, config.agent, config.ppo) == (TUNED.environment, TUNED.agent, TUNED.ppo)
    assert command_line("python train/ppo.py", words[:2]) == "python train/ppo.py --env MiniGrid-MemoryS9-v0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "is not a preset: it has no entries"),
        ('{"ppo": {}, "seed": 1}', "is not a preset: it has seed; expected environment, agent, ppo"),
        ('{"ppo": {"gama": 0.9}}', "is not a preset: .*gama"),
        ('{"ppo": {"gamma": 2}}', "is not a preset: gamma must be between 0 and 1"),
        ('{"ppo": {"gamma": "x"}}', "is not a preset"),
        ('{"ppo": []}', "is not a preset"),
        ('{"agent": {"features": 1e30}}', "is not a preset"),
        ('{"environment": {"num_envs": 0}}', "is not a preset: num_envs=0"),
        ('{"imports": "x"}', "imports=x: expected names of modules"),
        ('{"target_success_rate": "x"}', "is not a preset"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_file_without_a_preset_is_one_message(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "preset.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        read_preset(path)
    assert len(str(error.value)) < 600


def test_preset_file_excludes_no_preset(tmp_path: Path) -> None:
    path = write_preset(tmp_path / "best.json", TUNED)
    with pytest.raises(ValueError, match="leave out either"):
        configure(["--preset-file", str(path), "--no-preset"])


def test_file_says_where_its_settings_come_from(tmp_path: Path) -> None:
    about: dict[str, Any] = {"study": "mine", "trial": 3}
    assert json.loads(write_preset(tmp_path / "best.json", TUNED, about).read_text())["about"] == about

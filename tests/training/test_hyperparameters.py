"""Hyperparameters, flat and nested."""

from __future__ import annotations

from rmc_agents.training.hyperparameters import flattened, hyperparameters


def test_flattened_names_nested_values_and_leaves_out_none() -> None:
    nested = {"ppo": {"gamma": 0.9, "target_kl": None}, "seed": 1, "agent": {"options": {"sizes": [1, 2]}}}
    assert flattened(nested) == {"ppo/gamma": 0.9, "seed": 1, "agent/options/sizes": "[1, 2]"}


def test_spaces_and_modules_are_no_hyperparameters() -> None:
    described = {"agent": {"core": "rmc"}, "observation_space": {}, "action_space": {}, "imports": []}
    assert hyperparameters(described) == {"agent": {"core": "rmc"}}

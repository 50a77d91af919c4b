"""Migrations of older run folders to the current format.

`config.json` and checkpoints are versioned separately. Each migration turns one format into the next; nothing
else in the package knows about older formats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CONFIG_FORMAT = 4
"""Version of config.json."""
CHECKPOINT_FORMAT = 3
"""Version of a checkpoint's layout."""


def migrate_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config.json in the current format.

    Raises:
        ValueError: a format that this version does not know.
        KeyError, TypeError, AttributeError: the contents do not match the format.
    """
    found = config.get("format", 1)
    if type(found) is not int or not 1 <= found <= CONFIG_FORMAT:
        raise ValueError(f"format {str(found)[:40]}; this version reads formats 1 to {CONFIG_FORMAT}")
    for version in range(found, CONFIG_FORMAT):
        config = {**_CONFIGS[version](config), "format": version + 1}
    return config


def migrate_checkpoint(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint in the current format.

    Raises:
        ValueError, TypeError, AttributeError: the contents do not match the format.
    """
    for found in range(payload["format"], CHECKPOINT_FORMAT):
        payload = {**_CHECKPOINTS[found](payload), "format": found + 1}
    return payload


def _config_from_1(config: dict[str, Any]) -> dict[str, Any]:
    """Migrate format 1.

    It mixed spaces into "agent", described environments under other names, and called auxiliary targets
    hints.
    """
    config = dict(config)
    network = dict(config.pop("agent"))
    network["aux_size"] = network.pop("hint_size", 0)
    _rename(config, {"stop_at_success": "target_success_rate", "stop_at_accuracy": "target_accuracy"})
    if "num_classes" in network:
        config["classifier"] = network
    else:
        for name in ("observation_space", "action_space", "aux_size"):
            config[name] = network.pop(name)
        config["agent"] = network
    if "env" in config:
        config["environment"] = _rename(
            dict(config.pop("env")),
            {
                "id": "env",
                "options": "env_options",
                "timeout": "env_timeout",
                "restart": "restart_crashed_envs",
            },
        )
    if "ppo" in config:
        config["ppo"] = _rename(dict(config["ppo"]), {"hint_coef": "aux_coef"})
    if "supervised" in config:
        config["supervised"] = _rename(
            dict(config["supervised"]), {"hint_weight": "aux_coef", "aids_share": "aux_until"}
        )
    if "nth_farthest" in config:
        # Runs from before there were levels of objects asked about all eight.
        config["nth_farthest"] = _rename({"objects": [8], **config["nth_farthest"]}, {"hints": "aux_targets"})
    return config


def _config_from_2(config: dict[str, Any]) -> dict[str, Any]:
    """Migrate format 2.

    Spaces did not say how they were read; there was one reading by shape. Muon orthogonalised in bfloat16.
    """
    if "supervised" in config:
        config = {**config, "supervised": {"orthogonalization": "bfloat16", **config["supervised"]}}
    if "observation_space" not in config:
        return config
    return {**config, "observation_space": _with_old_readings(config["observation_space"])}


def _config_from_3(config: dict[str, Any]) -> dict[str, Any]:
    """Migrate format 3.

    Agents ignored action masks. They did not read missions, which other grid worlds than the Memory mazes
    have.
    """
    if isinstance(config.get("agent"), dict):
        config = {**config, "agent": {**config["agent"], "action_masks": "ignore"}}
    environment = config.get("environment")
    if not isinstance(environment, dict):
        return config
    name = str(environment.get("env", "")).rpartition(":")[2]
    if not name.startswith(("MiniGrid-", "BabyAI-")) or name.startswith("MiniGrid-Memory"):
        return config
    options = {**environment.get("env_options", {}), "mission": "drop"}
    return {**config, "environment": {**environment, "env_options": options}}


def _with_old_readings(space: dict[str, Any]) -> dict[str, Any]:
    if space["type"] == "Dict":
        return {**space, "spaces": {key: _with_old_readings(part) for key, part in space["spaces"].items()}}
    if space["type"] != "Box":
        return space
    shape, reading = space["shape"], "raw"
    if len(shape) == 3 and space["dtype"] == "uint8":
        reading = "picture:hwc" if shape[2] < shape[0] else "picture:chw"
        if shape[2] == 3 and max(shape) <= 15:
            reading = "codes:11,6,4"
    return {**space, "read_as": reading}


_CONFIGS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _config_from_1,
    2: _config_from_2,
    3: _config_from_3,
}


def _rename(mapping: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Rename keys in place, where they are present."""
    for old, new in names.items():
        if old in mapping:
            mapping[new] = mapping.pop(old)
    return mapping


def _checkpoint_from_1(payload: dict[str, Any]) -> dict[str, Any]:
    """Format 1 kept the number of recent episodes and of successes, but not the sum of returns."""
    if "recent" not in payload:
        return payload
    return {**payload, "recent": [[count, solved, 0.0] for count, solved in payload["recent"]]}


def _checkpoint_from_2(payload: dict[str, Any]) -> dict[str, Any]:
    """Format 2 called the linear layer for auxiliary targets `hint`."""
    payload = dict(payload)
    for part in ("agent", "newest"):
        if isinstance(payload.get(part), dict):
            payload[part] = {
                f"aux_head.{name.removeprefix('hint.')}" if name.startswith("hint.") else name: weight
                for name, weight in payload[part].items()
            }
    return payload


_CHECKPOINTS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _checkpoint_from_1,
    2: _checkpoint_from_2,
}

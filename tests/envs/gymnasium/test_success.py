"""Only truth values count as reports of success, in every format of infos."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

import rmc_envs
from rmc_envs.gymnasium.success import truth_value
from rmc_envs.gymnasium.workers import Workers
from rmc_envs.popgym.levels import FAMILIES

SAME_STEP = AutoresetMode.SAME_STEP
TRUE = [True, np.True_, 1, 1.0, np.float32(1), np.array(True), torch.tensor(True)]
FALSE = [False, np.False_, 0, 0.0, np.array(0), torch.tensor(0)]
NEITHER = [
    *(None, float("nan"), float("inf"), 0.7, 2, -1, 1j, "True", "no", "", b"1"),
    *(np.array([True]), np.array([]), [True], (), {}, {"a": 1}, torch.ones(1), object()),
]


@pytest.mark.parametrize(
    ("values", "expected"), [(TRUE, True), (FALSE, False), (NEITHER, None)], ids=["true", "false", "neither"]
)
def test_truth_value_is_what_a_bool_says(values: list[Any], expected: bool | None) -> None:
    assert [truth_value(value) for value in values] == [expected] * len(values)


class Reporting(gymnasium.Env):
    """Episodes of one step with a given info."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(2)

    def __init__(self, info: dict[str, Any]) -> None:
        self.info = info

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return 0, {"is_success": True, "success": "of the reset"}

    def step(self, action: Any) -> Any:
        return 1, 1.0, True, False, dict(self.info)


class OldVector(VectorEnv):
    """A vector environment that reports in the way of Gymnasium 0.29, or only at the top of its infos."""

    def __init__(self, info: dict[str, Any], where: str) -> None:
        self.num_envs, self.info, self.where = 2, info, where
        self.single_observation_space = self.single_action_space = spaces.Discrete(2)
        self.observation_space = self.action_space = batch_space(spaces.Discrete(2), 2)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros(2, np.int64), {}

    def step(self, actions: Any) -> Any:
        final = np.empty(2, dtype=object)
        final[:] = [1, 1]
        if self.where == "dictionaries":
            infos: dict[str, Any] = {"final_info": [dict(self.info), dict(self.info)]}
        else:
            infos = {}
            for key, value in self.info.items():
                infos[key] = np.empty(2, dtype=object)
                infos[key][:] = [value, value]
        ended = np.ones(2, dtype=bool)
        return np.zeros(2, np.int64), np.ones(2), ended, ~ended, {"final_observation": final, **infos}


FORMATS = ("sync", "async", "vector sync", "next step", "vector async", "dictionaries", "top")


def batch_of(kind: str, info: dict[str, Any]) -> rmc_envs.GymnasiumEnvs:
    makers = [lambda: Reporting(info)] * 2
    if kind in ("sync", "async"):
        with pytest.MonkeyPatch.context() as patch:
            spec = gymnasium.envs.registration.EnvSpec("test/Reporting-v0", makers[0])
            patch.setitem(gymnasium.registry, "test/Reporting-v0", spec)
            made = rmc_envs.make("test/Reporting-v0", 2, vectorization=kind)  # type: ignore[arg-type]
            assert isinstance(made, rmc_envs.GymnasiumEnvs)
            return made
    if kind.startswith("vector"):
        vector = SyncVectorEnv if kind == "vector sync" else AsyncVectorEnv
        return rmc_envs.GymnasiumEnvs(
            vector(makers, autoreset_mode=AutoresetMode.SAME_STEP), name="Reporting"
        )
    if kind == "next step":
        return rmc_envs.GymnasiumEnvs(SyncVectorEnv(makers), name="Reporting")
    return rmc_envs.GymnasiumEnvs(OldVector(info, kind), name="Reporting")


def success_in(batch: rmc_envs.GymnasiumEnvs) -> Any:
    batch.reset(0)
    step = batch.step(torch.zeros(2, dtype=torch.int64))
    return None if step.success is None else step.success.tolist()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"is_success": True}, True),
        ({"success": np.True_}, True),
        ({"is_success": 0.0}, False),
        ({"is_success": False, "success": True}, False),
        ({"is_success": None, "success": True}, True),
        ({}, None),
        ({"is_success": None}, None),
        ({"success": float("nan")}, None),
        ({"is_success": "yes"}, None),
        ({"success": np.array([True])}, None),
        ({"success": np.array([True, False])}, None),
        ({"success": [True]}, None),
        ({"is_success": 0.7}, None),
    ],
    ids=str,
)
def test_success_is_read_in_every_format(info: dict[str, Any], expected: bool | None, kind: str) -> None:
    batch = batch_of(kind, info)
    assert batch.reports_success is None
    assert success_in(batch) == (None if expected is None else [expected] * 2)
    assert batch.reports_success == (expected is not None)
    batch.close()


@pytest.mark.parametrize("kind", FORMATS)
def test_unreadable_success_is_said_once(kind: str) -> None:
    batch = batch_of(kind, {"is_success": "yes"})
    assert success_in(batch) is None
    (message,) = batch.warnings()
    assert "environment 0" in message
    assert "is_success='yes', which does not count as a report of success" in message
    batch.step(torch.zeros(2, dtype=torch.int64))
    batch.step(torch.zeros(2, dtype=torch.int64))
    assert batch.warnings() == []
    batch.close()


@pytest.mark.parametrize("value", [None, 0])
def test_missing_and_false_reports_are_no_mistake(value: Any) -> None:
    batch = batch_of("sync", {"is_success": value})
    success_in(batch)
    assert batch.warnings() == []


def test_report_of_one_environment_counts_for_all() -> None:
    """An environment that says nothing where others report has not solved its episode."""
    makers = [lambda i=i: Reporting([{"is_success": True}, {"is_success": None}, {}][i]) for i in range(3)]
    for vector in (
        SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP),
        Workers(makers, "Reporting"),
    ):
        batch = rmc_envs.GymnasiumEnvs(vector, name="Reporting")
        batch.reset(0)
        assert batch.step(torch.zeros(3, dtype=torch.int64)).success.tolist() == [True, False, False]
        batch.close()


def test_native_tasks_say_whether_they_report_success() -> None:
    scored = {f"rmc/{family.FAMILY}-v0" for family in FAMILIES} | {
        *(f"rmc/MemoryMaze-{size}x{size}-v0" for size in (9, 11, 13, 15)),
        *("rmc/MiniPacMan-v0", "rmc/MiniPacManViewport-v0"),
    }
    for env_id in rmc_envs.NATIVE:
        if env_id.startswith("rmc/"):
            assert rmc_envs.make(env_id, 2).reports_success is (env_id not in scored)
    assert rmc_envs.make("MiniGrid-Empty-5x5-v0").reports_success

"""Environments that hang, crash or return invalid values are named, and restarted on request."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import pytest
import torch

import rmc_envs
from rmc_envs.gymnasium import workers
from rmc_envs.gymnasium.checked import checked
from rmc_envs.gymnasium.workers import MAX_CONSECUTIVE_CRASHES, Workers
from tests.support.faulty_env import FaultyEnv

ACTIONS = torch.zeros(3, dtype=torch.int64)
FAULTS = {
    "raise": "the robot fell over",
    "shape": r"shape \(3,\), expected \(2,\)",
    "text": "type <U1, expected float32",
    "ragged": "does not fit its space",
    "nothing": "does not fit its space",
    "infinite": "infinity at",
    "reward": "'much' as a reward",
}


def batch_with_a_fault(fault: str, vectorization: str, **options: Any) -> rmc_envs.GymnasiumEnvs:
    """Three environments, the second of which has the fault."""

    def maker(i: int) -> Any:
        return checked(lambda: FaultyEnv(fault if i == 1 else "none"), i, "Faulty-v0")

    makers = [maker(i) for i in range(3)]
    if vectorization == "async":
        return rmc_envs.GymnasiumEnvs(Workers(makers, "Faulty-v0", **options), name="Faulty-v0")
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    return rmc_envs.GymnasiumEnvs(
        gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=mode), name="Faulty-v0"
    )


def play(batch: rmc_envs.GymnasiumEnvs, steps: int) -> None:
    for _ in range(steps):
        batch.step(ACTIONS)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("fault", FAULTS)
def test_error_names_the_environment_and_the_fault(fault: str, vectorization: str) -> None:
    batch = batch_with_a_fault(fault, vectorization)
    batch.reset(seed=0)
    with pytest.raises(rmc_envs.EnvironmentFailed, match=f"environment 1.*{FAULTS[fault]}"):
        play(batch, 3)
    batch.close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [("hang", "did not answer within 2 s"), ("die", "died .SIGKILL"), ("exit", "died .exit code 3")],
)
def test_error_names_a_worker_that_hangs_or_dies(fault: str, message: str) -> None:
    batch = batch_with_a_fault(fault, "async", timeout=2.0)
    batch.reset(seed=0)
    began = time.monotonic()
    with pytest.raises(rmc_envs.EnvironmentFailed, match=rf"environment 1 \(Faulty-v0\) .*{message}"):
        play(batch, 3)
    batch.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("fault", [pytest.param("hang", marks=pytest.mark.slow), "die", "raise", "shape"])
def test_crashed_environment_is_restarted_on_request(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_with_a_fault(fault, "async", timeout=2.0, restart=True)
    batch.reset(seed=0)
    for _ in range(2):
        last = batch.step(ACTIONS)
    step = batch.step(ACTIONS)
    assert step.truncated.tolist() == [False, True, False]
    assert step.reward.tolist() == [1, 0, 1]
    assert torch.equal(step.final_obs[1], last.obs[1])
    assert step.obs.tolist() == [[0.5, 0.5], [0, 0], [0.5, 0.5]]
    (message,) = batch.warnings()
    assert "environment 1 (Faulty-v0)" in message
    assert "restart 1 of this run" in message
    assert batch.warnings() == []
    crashes = MAX_CONSECUTIVE_CRASHES + 1
    if fault == "hang":  # each crash takes the whole timeout
        crashes = 3
        monkeypatch.setattr(workers, "MAX_CONSECUTIVE_CRASHES", crashes - 1)
    with pytest.raises(rmc_envs.EnvironmentFailed, match=f"crashed {crashes} times in a row"):
        play(batch, 40)
    batch.close()


def test_warnings_are_empty_without_workers() -> None:
    batch = batch_with_a_fault("none", "sync")
    batch.reset(seed=0)
    play(batch, 6)
    assert batch.warnings() == []
    assert rmc_envs.make("rmc/Recall-v0").warnings() == []


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_timeout_must_be_positive(timeout: float) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        rmc_envs.make("CartPole-v1", 2, vectorization="async", env_timeout=timeout)

"""Whatever an environment raises becomes one message, when it is built, reset, stepped or closed."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec

import rmc_envs
from rmc_envs.gymnasium.failures import CloseWarning, described
from tests.support import strange_env
from tests.support.strange_env import StrangeEnv

ACTIONS = torch.zeros(2, dtype=torch.int64)
BOTH = pytest.mark.parametrize("vectorization", ["sync", "async"])
RAISED = {
    "exit": "SystemExit: 0",
    "panic": "Panic: the engine stopped",
    "generator": "GeneratorExit in strange_env.py",
    "pipe": "BrokenPipeError: the simulator is gone",
    "end of file": "EOFError: the simulator is gone",
    "raise": r"RuntimeError: no \\x1b\[31mlicence x+ \.\.\.$",
    "assert": "AssertionError in strange_env.py, line .*: assert action",
}


def strange(vectorization: str = "sync", **options: Any) -> rmc_envs.BatchedEnv:
    return rmc_envs.make("test/Strange-v0", 2, vectorization=vectorization, **options)


def play(batch: rmc_envs.BatchedEnv) -> None:
    batch.reset(0)
    batch.step(ACTIONS)


@BOTH
@pytest.mark.parametrize("what", RAISED)
def test_environment_that_cannot_be_built_is_refused_with_the_reason(what: str, vectorization: str) -> None:
    message = rf"test/Strange-v0.* cannot be built with when='build', what='{what}': {RAISED[what]}"
    with pytest.raises(ValueError, match=message) as caught:
        strange(vectorization, when="build", what=what)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("what", RAISED)
def test_maker_of_a_reference_refuses_with_the_reason(what: str) -> None:
    maker = rmc_envs.make_reference("test/Strange-v0", when="build", what=what)
    with pytest.raises(ValueError, match=f"test/Strange-v0 cannot be built .*{RAISED[what].rstrip('$')}"):
        maker()
    with pytest.raises(ValueError, match="cannot be built"):
        rmc_envs.trials("test/Strange-v0", "gymnasium", 2, options={"when": "build", "what": what})


def test_process_that_ends_itself_is_reported_without_success() -> None:
    with pytest.raises(ValueError, match=r"environment 0 .* ended its own process .exit code 0"):
        strange("async", when="build", what="hard exit")


@BOTH
@pytest.mark.parametrize("when", ["reset", "step"])
@pytest.mark.parametrize("what", RAISED)
def test_whatever_is_raised_in_an_episode_is_a_failure(what: str, when: str, vectorization: str) -> None:
    batch = strange(vectorization, when=when, what=what)
    place = "in reset" if when == "reset" else "at step 1 of its episode"
    pattern = rf"environment 0 \(test/Strange-v0\) raised {place}: {RAISED[what].rstrip('$')}"
    with pytest.raises(rmc_envs.EnvironmentFailed, match=pattern):
        play(batch)
    batch.close()


def test_interrupt_inside_an_environment_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = strange(when="step")
    batch.reset(0)

    def interrupted(what: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(strange_env, "_act", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batch.step(ACTIONS)


@BOTH
@pytest.mark.parametrize("what", ["exit", "panic", "raise", "pipe"])
def test_close_that_raises_is_a_warning(what: str, vectorization: str) -> None:
    batch = strange(vectorization, when="close", what=what)
    batch.reset(0)
    with pytest.warns(CloseWarning) as caught:
        batch.close()
    for i, each in enumerate(caught):
        assert str(each.message).startswith(f"environment {i} (test/Strange-v0) raised in close: ")
    assert len(caught) == 2


def test_close_that_hangs_is_killed_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmc_envs.gymnasium.workers.CLOSE_SECONDS", 0.5)
    batch = strange("async", when="close", what="hang")
    began = time.monotonic()
    with pytest.warns(CloseWarning, match=r"did not close within 0.5 seconds and was killed"):
        batch.close()
    assert time.monotonic() - began < 10


def test_vector_environment_that_raises_is_a_failure_and_its_close_a_warning() -> None:
    batch = strange()
    assert isinstance(batch, rmc_envs.GymnasiumEnvs)
    vector = batch.env

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise SystemExit(3)

    vector.reset = vector.close = fail
    with pytest.raises(rmc_envs.EnvironmentFailed, match="test/Strange-v0 raised in reset: SystemExit: 3"):
        batch.reset(0)
    with pytest.warns(CloseWarning, match="test/Strange-v0 raised in close: SystemExit: 3"):
        batch.close()


ZEROS = np.zeros(2, np.float32)
OLD_STEP = (ZEROS, 0.0, False, {})
WRONG = [
    ({"reset": ZEROS}, "returned a value of type ndarray from `reset`; .*must return .observation, info."),
    ({"reset": (ZEROS,)}, "a tuple of 1 values from `reset`"),
    ({"reset": (ZEROS, None)}, "from `reset`; .*must return .observation, info."),
    ({"reset": None}, "a value of type NoneType from `reset`"),
    ({"step": OLD_STEP}, "a tuple of 4 values from `step`; .*must return .*old Gym"),
    ({"step": None}, "a value of type NoneType from `step`"),
    ({"reward": None}, "returned None as a reward, expected a number"),
    ({"reward": "much"}, "returned 'much' as a reward"),
    ({"reward": np.ones(1)}, r"returned array\(\[1.\]\) as a reward"),
    ({"reward": 1j}, "as a reward, expected a number"),
    ({"reward": float("nan")}, "NaN as reward"),
    ({"reward": 1e300}, "infinity as reward, .*, as float32, which ends at 3.4e38"),
    ({"terminated": None}, "returned None as terminated, expected True or False"),
    ({"truncated": "no"}, "returned 'no' as truncated, expected True or False"),
    ({"terminated": np.array([True])}, "as terminated, expected True or False"),
    ({"truncated": float("nan")}, "returned nan as truncated"),
    ({"terminated": 2}, "returned 2 as terminated"),
    ({"info": None}, "a value of type NoneType as info, expected a dict"),
    ({"info": [1]}, "a list of 1 values as info, expected a dict"),
]


def returning(returns: dict[str, Any], vectorization: str, **spec: Any) -> rmc_envs.BatchedEnv:
    """Two environments whose results are replaced by `returns`."""
    name = "test/Returning-v0"
    given = EnvSpec(name, StrangeEnv, kwargs={"returns": returns}, disable_env_checker=True, **spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gymnasium.registry, name, given)
        return rmc_envs.make(name, 2, vectorization=vectorization)


@pytest.mark.parametrize(("vectorization", "wrapped"), [("sync", False), ("sync", True), ("async", False)])
@pytest.mark.parametrize(("returns", "message"), WRONG, ids=[str(list(each[0])) for each in WRONG])
def test_results_that_are_not_gymnasiums_are_named(
    returns: dict[str, Any], message: str, wrapped: bool, vectorization: str
) -> None:
    """Also below a wrapper that unpacks the results, such as a time limit."""
    batch = returning(returns, vectorization, **({"max_episode_steps": 100} if wrapped else {}))
    with pytest.raises(rmc_envs.EnvironmentFailed, match=rf"test/Returning-v0\) .*{message}"):
        play(batch)
    batch.close()


@pytest.mark.parametrize(
    "returns",
    [
        {"reward": np.float64(2)},
        {"reward": np.array(2)},
        {"reward": 2},
        {"reward": torch.tensor(2.0)},
        {"terminated": np.bool_(False)},
        {"terminated": 0},
        {"truncated": np.array(False)},
    ],
    ids=str,
)
def test_numbers_and_flags_of_other_types_are_converted(returns: dict[str, Any]) -> None:
    batch = returning(returns, "sync")
    batch.reset(0)
    step = batch.step(ACTIONS)
    assert step.reward.tolist() == [2.0 if "reward" in returns else 1.0] * 2
    assert not step.done.any()


def test_error_that_cannot_be_printed_is_described() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert described(Unprintable()) == "Unprintable: an error that cannot be printed"
    assert described(KeyError("key")) == "KeyError: 'key'"

"""An environment that fails ends training with a checkpoint of what was learned until then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

import rmc_envs
from rmc_agents import ActorCritic, PPOConfig, Trainer
from rmc_agents.runs.folder import checkpoints
from tests.support.strange_env import StrangeEnv, _act


class Late(StrangeEnv):
    """It does something unusual after 40 steps of the batch's first environment."""

    def __init__(self, what: str = "none", after: int = 40) -> None:
        super().__init__("late")
        self.late, self.after = what, after

    def step(self, action: Any) -> Any:
        self.after -= 1
        if self.after < 0:
            _act(self.late)
        return super().step(action)


def trainer(folder: Path, what: str, vectorization: Any, after: int = 40) -> Trainer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gymnasium.registry, "test/Late-v0", EnvSpec("test/Late-v0", Late))
        env = rmc_envs.make("test/Late-v0", 2, vectorization=vectorization, what=what, after=after)
    agent = ActorCritic(env.observation_space, env.action_space, core="feedforward")
    config = PPOConfig(total_steps=200, num_steps=16, bptt_length=8, minibatch_size=16)
    return Trainer(agent, env, config, folder)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("what", ["exit", "panic", "raise"])
def test_failed_environment_leaves_a_checkpoint_to_resume(
    what: str, vectorization: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = trainer(tmp_path / "run", what, vectorization)
    with pytest.raises(rmc_envs.EnvironmentFailed, match=r"environment 0 \(test/Late-v0\) raised at"):
        failing.run()
    failing.env.close()
    (path,) = checkpoints(tmp_path / "run")
    assert path.stem.endswith("0064")
    assert f"saved: {path}" in capsys.readouterr().out.replace("\n", "")
    resumed = trainer(tmp_path / "run", "none", "sync")
    resumed.restore()
    assert resumed.steps == 64
    resumed.run()


def test_failure_before_the_first_iteration_saves_nothing(tmp_path: Path) -> None:
    failing = trainer(tmp_path / "run", "exit", "sync", after=3)
    with pytest.raises(rmc_envs.EnvironmentFailed):
        failing.run()
    assert list(checkpoints(tmp_path / "run")) == []

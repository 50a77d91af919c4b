"""Notes and warnings of a script's run name flags, not the Python arguments of the library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rmc_agents.cli.config import RunConfig
from rmc_agents.cli.flags import field_names
from rmc_agents.rl.diagnostics import DivergenceMonitor, LearningMonitor
from rmc_agents.rl.fit import SuccessMonitor
from rmc_agents.scripts.ppo import build, configure  # pyright: ignore[reportMissingImports]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    sizes = ["--num-envs", "2", "--num-steps", "16", "--minibatch-size", "32"]
    words = ["--env", "Pendulum-v1", "--no-preset", "--core", "gru", *sizes, "--run-dir", str(folder)]
    made = build(configure(words)[0])
    yield made
    made.env.close()


def messages(trainer: Any) -> list[str]:
    """Return every warning of the monitors."""
    flat = {"rollout/ep_rew_mean": 1.0, "time/total_timesteps": 900_000.0}
    learning = LearningMonitor.of_run(trainer.agent, trainer.config, 0)
    found = [line for _ in range(70) for line in learning.warnings(flat)]
    divergence = DivergenceMonitor(trainer.agent.action_space)
    for loss, entropy in [*[(1.0, 1.4)] * 20, (1e6, 1.4), (1.0, -90.0)]:
        found += divergence.warnings({"train/value_loss": loss, "train/entropy_loss": -entropy})
    return [*found, *SuccessMonitor(["Pendulum-v1"], 0.9).warnings(False)]


def test_warnings_of_a_scripts_run_name_flags(trainer: Any) -> None:
    found = messages(trainer)
    assert len(found) == 4
    text = "\n".join(map(trainer.wording, found))
    for flag in ("--normalize-rewards", "--normalize-observations", "--learning-rate", "--entropy-coef"):
        assert flag in text
    names = [name for name in field_names(RunConfig) if "_" in name]
    assert not re.search(rf"\b({'|'.join(names)})\b", text)
    assert "=True" not in text


def test_notes_without_names_of_arguments_stay_as_they_are(trainer: Any, tmp_path: Path) -> None:
    for note in (
        f"resuming from {tmp_path}/run_dir/checkpoints/step_1.pt",
        "a core of 4 slots, seeded with 3",
    ):
        assert trainer.wording(note) == note

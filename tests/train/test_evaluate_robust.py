"""`python train/evaluate.py` where something fails: what can be done is done, and the rest is said."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from rmc_agents.runs import files
from rmc_agents.runs.folder import checkpoints
from tests.support.agents import MAZE
from tests.support.commands import Command, in_process
from tests.support.runs import saved_run
from train import evaluate as script

QUICK = ["--episodes", "3", "--implementation", "batched"]


class Drawn(gymnasium.Env):
    """A task of three steps whose `render` does what `picture` says."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 - as Gymnasium's
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    picture: Any = None

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.steps = render_mode, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(2, np.float32), 1.0, self.steps == 3, False, {}

    def render(self) -> Any:
        if isinstance(self.picture, BaseException):
            raise self.picture
        return self.picture


class Fragile(Drawn):
    """A task whose second step raises."""

    def step(self, action: Any) -> Any:
        if self.steps == 1:
            raise KeyError("[/joint]\x1b[2J")
        return super().step(action)


gymnasium.register("test/Drawn-v0", Drawn, disable_env_checker=True)
gymnasium.register("test/Fragile-v0", Fragile, disable_env_checker=True)


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The script, in this process and an empty folder."""
    monkeypatch.chdir(tmp_path)
    return in_process("evaluate", monkeypatch, capfd)


def entries(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (RuntimeError("no display [/b]\x1b[2J"), r"raised in render: RuntimeError: no display [/b]\x1b[2J"),
        (SystemExit(3), "SystemExit"),
        (None, "renders to NoneType"),
        ("ansi text", "renders to str"),
        ([np.zeros((4, 4, 3), np.uint8)], "renders to list"),
        (np.zeros((3, 4, 5, 3), np.uint8), "renders to an array of shape (3, 4, 5, 3)"),
        (np.zeros((3, 8, 8), np.uint8), "renders to an array of shape (3, 8, 8)"),
        (np.zeros((0, 8, 3), np.uint8), "renders to an array of shape (0, 8, 3)"),
        (np.full((8, 8, 3), 0.5), "renders to float64, expected whole numbers from 0 to 255"),
        (np.full((8, 8, 3), 300), "renders to int64, expected whole numbers from 0 to 255"),
    ],
    ids=lambda x: str(x)[:40] if isinstance(x, str) else type(x).__name__,
)
def test_environment_without_pictures_is_evaluated(
    picture: Any, reason: str, evaluate: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Drawn, "picture", picture)
    saved_run(tmp_path / "run", "test/Drawn-v0", "gru")
    code, out, errors = evaluate("run", "--episodes", "3")
    assert code == 0, errors
    assert "pictures: none (" in out
    assert reason in out
    assert "run (gru)" in out
    assert entries(tmp_path / "run")["test/Drawn-v0"]["mean_return"] == 3
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("shape", [(24, 24), (24, 24, 1), (24, 24, 3), (24, 24, 4)], ids=str)
def test_grey_and_transparent_pictures_are_drawn(
    shape: tuple[int, ...], evaluate: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Drawn, "picture", np.full(shape, 100, np.uint8))
    saved_run(tmp_path / "run", "test/Drawn-v0", "gru")
    code, out, errors = evaluate("run", "--episodes", "1", "--no-report")
    assert code == 0, errors
    assert "pictures: run/media/test-Drawn-v0.gif" in out


@pytest.mark.parametrize("env_id", ["Blackjack-v1", "FrozenLake-v1"])
def test_gymnasiums_own_tasks_are_evaluated(env_id: str, evaluate: Command, tmp_path: Path) -> None:
    saved_run(tmp_path / "run", env_id, "gru")
    code, out, errors = evaluate("run", "--episodes", "3")
    assert code == 0, errors
    assert "report: run/report.html" in out


def test_later_runs_are_evaluated_after_one_that_fails(evaluate: Command, tmp_path: Path) -> None:
    saved_run(tmp_path / "fragile", "test/Fragile-v0", "gru")
    saved_run(tmp_path / "sound", "test/Drawn-v0", "gru")
    code, out, errors = evaluate("fragile", "sound", "--episodes", "3", "--no-gif")
    assert code == 1
    assert "fragile in test/Fragile-v0 was not evaluated: " in out
    assert r"KeyError: '[/joint]\x1b[2J'" in errors
    assert errors.count("\n") == 1
    assert "sound (gru)" in out
    assert entries(tmp_path / "sound")["test/Drawn-v0"]["episodes"] == 3
    code, out, errors = evaluate("fragile", "--episodes", "3")
    assert code == 1
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


def test_fewer_episodes_do_not_replace_more(evaluate: Command, tmp_path: Path) -> None:
    saved_run(tmp_path / "run", core="gru", actions=3)
    flags = ["--implementation", "batched", "--no-gif", "--no-report"]
    assert evaluate("run", "--episodes", "20", *flags)[0] == 0
    before = entries(tmp_path / "run")[MAZE]
    code, out, _ = evaluate("run", "--episodes", "5", *flags)
    assert code == 0
    assert "run/evaluation.json keeps the figures of 20 episodes instead of these 5" in out
    assert entries(tmp_path / "run")[MAZE] == before
    assert evaluate("run", "--episodes", "30", *flags)[0] == 0
    assert entries(tmp_path / "run")[MAZE]["episodes"] == 30


def test_trained_agent_stays_as_it_is(
    evaluate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rmc_agents.evaluation import output

    monkeypatch.setattr(output, "TRAINED", tmp_path / "trained")
    run = saved_run(tmp_path / "trained" / "agent", core="gru", actions=3)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for flags in (["--episodes", "4", "--no-gif"], ["--episodes", "1"]):
        code, out, errors = evaluate("trained/agent", *flags, "--implementation", "batched")
        assert code == 0, errors
        assert "results of trained/agent go to evaluations/agent" in out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert entries(tmp_path / "evaluations" / "agent")[MAZE]["episodes"] == 4
    assert (tmp_path / "evaluations" / "agent" / "report.html").is_file()
    assert list((tmp_path / "evaluations" / "agent" / "media").glob("*.gif"))
    code, out, _ = evaluate("trained/agent", *QUICK, "--output", "elsewhere", "--no-gif", "--no-report")
    assert code == 0
    assert entries(tmp_path / "elsewhere")[MAZE]["episodes"] == 3


def test_full_disk_shows_the_table_and_one_message(
    evaluate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_run(tmp_path / "run", core="gru", actions=3)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    code, out, errors = evaluate("run", *QUICK)
    assert code != 0
    assert "run (gru)" in out
    assert "pictures: none (OSError: [Errno 28] No space left on device)" in out
    assert errors.startswith("error: the figures were not saved: cannot write to the run folder run")
    assert errors.count("\n") == 1
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_runs_of_different_mazes_are_compared_apart(evaluate: Command, tmp_path: Path) -> None:
    saved_run(tmp_path / "small", MAZE, "gru", actions=3)
    saved_run(tmp_path / "large", "MiniGrid-MemoryS9-v0", "gru", actions=3)
    flags = [*QUICK, "--no-gif"]
    code, out, errors = evaluate("small", "large", "--env", MAZE, *flags)
    assert code == 0, errors
    for maze in ("MemoryS7", "MemoryS9"):
        assert f"gru, trained in {maze} actions=3" in out
        assert f"gru, trained in {maze} actions=3" in (tmp_path / "comparison" / "comparison.md").read_text()
    saved_run(tmp_path / "other", "rmc/Recall-v0", "rnn", num_symbols=3, delay=1)
    code, out, errors = evaluate("small", "other", *flags)
    assert code == 0, errors
    assert "not compared by core: no environment was evaluated with each of gru, rnn" in out


def test_hostile_names_are_shown_as_text(evaluate: Command, tmp_path: Path) -> None:
    name = "sweep[lr=1e-3][b]<img src=x>\x1b[2J"
    run = saved_run(tmp_path / name, core="gru", actions=3)
    code, out, errors = evaluate(name, *QUICK, "--no-gif")
    assert (code, errors) == (0, "")
    assert "\x1b[2J" not in out
    assert r"sweep[lr=1e-3][b]<img src=x>\x1b[2J in MiniGrid" in out
    page = (run / "report.html").read_text()
    assert "<img src=x>" not in page
    assert "\x1b" not in page


def test_ctrl_c_is_one_line(evaluate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    saved_run(tmp_path / "run", core="gru", actions=3)
    for name in ("evaluate_run", "draw", "load_with_imports"):
        with monkeypatch.context() as patch:
            patch.setattr(script, name, interrupt)
            code, _, errors = evaluate("run", *QUICK)
        assert (code, errors) == (130, "error: interrupted\n")
    assert len(checkpoints(tmp_path / "run")) == 1


def test_baseline_with_a_memory_is_refused(evaluate: Command, tmp_path: Path) -> None:
    saved_run(tmp_path / "run", core="gru", actions=3)
    saved_run(tmp_path / "other", core="lstm", actions=3)
    code, _, errors = evaluate("run", "--memoryless", "other", *QUICK)
    assert code == 2
    assert errors == (
        "error: --memoryless other: its core lstm has a memory; train one with --core feedforward\n"
    )
    assert not (tmp_path / "run" / "evaluation.json").exists()

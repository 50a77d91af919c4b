"""`python train/evaluate.py` from a run folder to the table, the figures and the picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import envs
from rmc_agents import UsageError
from rmc_agents.checkpoint import save_checkpoint, write_json
from rmc_agents.classifier import SequenceClassifier, load_classifier
from tests.support import MAZE, small_agent
from train import evaluate

ROOT = Path(__file__).parents[2]
QUIET = ("--no-gif", "--no-report")


def saved_run(folder: Path, env_id: str = MAZE, core: str = "rmc", **options: Any) -> Path:
    """An untrained agent in a run folder."""
    agent = small_agent(core, envs.make(env_id, 2, **options))
    env = {"id": env_id, "options": options, "num_envs": 2, "vectorization": "auto"}
    write_json(folder / "config.json", {"agent": agent.config(), "env": env, "seed": 0})
    save_checkpoint(folder, 7, {"agent": agent.state_dict()})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(tmp_path_factory.mktemp("runs") / "maze", actions=3)


def entries(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


def test_a_run_becomes_table_figures_and_picture(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(run), "--episodes", "2", "--stochastic"])
    shown = capsys.readouterr().out
    written = [str(run / name) for name in ("evaluation.json", "report.html")]
    for part in (MAZE, "farama", "maze (rmc)", "random", "best possible", *written):
        assert part in shown
    assert "# What maze can do" in (run / "evaluation.md").read_text()
    assert MAZE in (run / "report.html").read_text()
    entry = entries(run)[MAZE]
    assert entry["implementation"] == "farama"
    assert entry["deterministic"] is False
    assert entry["first_seed"] == 1_000_000
    assert entry["episodes"] == 2
    assert entry["random"]["implementation"] == "exact"
    assert (entry["hallway"], entry["trained_hallway"]) == (1, 1)
    assert entry["best_possible"]["mean_length"] == pytest.approx(6.0, abs=0.1)
    assert entry["checkpoint"].endswith("step_000000000007.pt")
    assert entry["command"] == f"python train/evaluate.py {run} --episodes 2 --stochastic"
    assert "torch" in entry["versions"]
    assert "date" in entry
    picture = run / "media" / f"{MAZE}.gif"
    assert str(picture) in shown
    with Image.open(picture) as gif:
        assert gif.n_frames > 3


def test_both_implementations_agree_and_other_mazes_are_added(run: Path) -> None:
    checkpoint = str(run / "checkpoints" / "step_000000000007.pt")
    figures = []
    for kind in ("farama", "batched"):
        flags = ["--episodes", "3", "--implementation", kind, *QUIET, "--seed", "3"]
        evaluate.main([checkpoint, *flags])
        figures.append(
            {key: entries(run)[MAZE][key] for key in ("success_rate", "mean_length", "first_seed")}
        )
    assert figures[0] == figures[1]
    evaluate.main([str(run), "--env", "MiniGrid-MemoryS9-v0, rmc/MemoryS7-v0", "--episodes", "2", *QUIET])
    assert set(entries(run)) == {MAZE, "MiniGrid-MemoryS9-v0", "rmc/MemoryS7-v0"}


def test_several_runs_are_compared_by_core(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"num_symbols": 3, "delay": 1}
    runs = [
        saved_run(tmp_path / f"{core}{i}", "rmc/Recall-v0", core, **options)
        for core in ("gru", "rnn")
        for i in "12"
    ]
    for run in runs:
        (run / "log.jsonl").write_text('{"step": 100, "rollout/success_rate": 0.5}\n')
    out = tmp_path / "together"
    evaluate.main([*map(str, runs), "--episodes", "20", "--no-gif", "--out", str(out)])
    shown = capsys.readouterr().out
    assert "by core" in shown
    assert "P(better than" in shown
    page = (out / "comparison.md").read_text()
    assert "learning-curves-rmc-Recall-v0.png" in page
    assert (out / "learning-curves-rmc-Recall-v0.png").is_file()
    assert all(run.name in page for run in runs)


def test_a_run_of_another_kind_is_told_and_left_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = tmp_path / "classifier"
    model = SequenceClassifier(4, 3, "gru", {"hidden_size": 8})
    write_json(classifier / "config.json", {"agent": model.config()})
    save_checkpoint(classifier, 7, {"agent": model.state_dict()})
    evaluate.main([str(classifier), str(run), "--episodes", "2", "--no-gif", "--no-report"])
    told = (
        f"{classifier} holds a classifier, not an agent: python train/nth_farthest.py --evaluate {classifier}"
    )
    assert f"skipped: {told}" in capsys.readouterr().out
    with pytest.raises(UsageError, match="holds a classifier"):
        evaluate.main([str(classifier), "--episodes", "2"])
    with pytest.raises(UsageError, match="none of these runs"):
        evaluate.main([str(classifier), str(classifier), "--episodes", "2"])
    with pytest.raises(UsageError, match=r"holds an agent, not a classifier: python train/evaluate\.py"):
        load_classifier(run)


def test_a_suite_is_judged_at_the_agents_own_view(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # An agent that was never trained takes minutes to the time limits of the longest mazes.
    monkeypatch.setitem(envs.SUITES, "memory-mazes", (MAZE, "MiniGrid-MemoryS9-v0", "MiniGrid-MemoryS11-v0"))
    run = saved_run(tmp_path / "near", actions=3, view_size=3)
    blind = saved_run(tmp_path / "blind", core="feedforward", actions=3, view_size=3)
    flags = ["--suite", "memory-mazes", "--memoryless", str(blind), "--stochastic"]
    evaluate.main([str(run), *flags, "--episodes", "2", "--implementation", "batched"])
    assert set(entries(run)) == set(envs.SUITES["memory-mazes"])
    longest = entries(run)["MiniGrid-MemoryS11-v0"]
    assert (longest["hallway"], longest["trained_hallway"]) == (5, 1)
    assert longest["memoryless"]["run"] == "blind"
    assert "evaluation.json" not in {path.name for path in blind.iterdir()}  # only judged beside another
    assert "blind (no memory)" in capsys.readouterr().out
    for name in ("success-by-hallway.png", f"{MAZE}.gif"):  # a film of the maze that it knows, not of all
        assert (run / "media" / name).is_file()
    assert len(list((run / "media").glob("*.gif"))) == 1


def test_any_gymnasium_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pole = saved_run(tmp_path / "pole", "CartPole-v1", "gru")
    evaluate.main([str(pole), "--episodes", "1"])
    entry = entries(pole)["CartPole-v1"]
    assert entry["implementation"] == "gymnasium"
    assert entry["success_rate"] is None
    assert entry["best_possible"] is None
    assert entry["mean_return"] == entry["mean_length"]
    assert (pole / "media" / "CartPole-v1.gif").is_file()


def test_a_run_that_does_not_say_its_environment(tmp_path: Path) -> None:
    folder = saved_run(tmp_path / "python", actions=3)
    config = json.loads((folder / "config.json").read_text())
    del config["env"]  # as a Trainer used from Python leaves it
    write_json(folder / "config.json", config)
    with pytest.raises(UsageError, match="choose an --env"):
        evaluate.main([str(folder)])
    evaluate.main([str(folder), "--env", MAZE, "--episodes", "1", *QUIET, "--implementation", "batched"])
    assert MAZE in entries(folder)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env", "MiniGrid-MemoryS8-v0"], "odd"),
        (["--env", "Nope-v0"], "unknown environment 'Nope-v0'"),
        (["--env", "CartPole-v1"], "observation_space"),
        (["--env", "CartPole-v1", "--implementation", "farama"], "not one of Farama's"),
        (["--env", "CartPole-v1", "--implementation", "batched"], "no batched implementation"),
        (["--episodes", "0"], "--episodes 0"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
    ],
)
def test_bad_flags_are_one_clear_message(run: Path, flags: list[str], message: str) -> None:
    before = (run / "evaluation.json").read_bytes() if (run / "evaluation.json").exists() else None
    with pytest.raises(UsageError, match=message):
        evaluate.main([str(run), *flags])
    assert before is None or (run / "evaluation.json").read_bytes() == before


def test_the_script_leaves_with_code_2(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "train" / "evaluate.py"), str(tmp_path / "none")],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 2
    assert "is not a run folder" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1

"""`python train/probe.py`, from a run folder to tables, figures and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rmc_envs
from rmc_agents import UsageError
from rmc_agents.errors import Incomplete
from rmc_agents.interpret.recording import OBSERVATION, WHOLE
from tests.support.agents import MAZE
from tests.support.runs import saved_run
from train import probe

EPISODES = 160
QUICK = ["--episodes", str(EPISODES), "--steps", "16", "--swap-after", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {core: saved_run(folder / core, core=core, actions=3) for core in ("rmc", "gru", "feedforward")}


def entry(run: Path, env_id: str = MAZE) -> dict[str, Any]:
    return json.loads((run / "probe.json").read_text())[env_id]


def test_runs_are_probed_and_compared(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    probe.main([*map(str, runs.values()), *QUICK, "--random-actions", "0.5"])
    shown = capsys.readouterr().out
    for core, run in runs.items():
        found = entry(run)
        parts = [*(f"slot {i}" for i in range(1, 5))] * (core == "rmc") + [WHOLE, OBSERVATION]
        assert found["probe"]["parts"] == parts
        assert found["probe"]["episodes"] == EPISODES
        assert found["command"].startswith("python train/probe.py")
        assert found["versions"]["torch"]
        assert found["core"] == core
        swaps = {(swap["part"], swap["same_cue"]): swap for swap in found["swaps"]}
        exchanged = [] if core == "feedforward" else parts[:-1] + ["slots 1-2"] * (core == "rmc")
        assert set(swaps) == {(part, same) for part in exchanged for same in (False, True)}
        for swap in swaps.values():
            assert 0 <= swap["ci95"][0] <= swap["rate"] <= swap["ci95"][1] <= 1
        pictures = {"probe", "cores"} | ({"swap"} if swaps else set())
        assert {path.name for path in (run / "media").iterdir()} == {
            f"{MAZE}-{picture}.{kind}" for picture in pictures for kind in ("png", "svg")
        }
        for picture in (run / "media").glob("*.png"):
            with Image.open(picture) as image:
                image.load()
                assert min(image.size) > 400
        assert str(run / "probe.json") in shown
    assert "this core has no memory" in shown


@pytest.mark.slow
def test_probe_repeats_its_figures_and_updates_an_existing_report(runs: dict[str, Path]) -> None:
    found = []
    page = runs["gru"] / "report.html"
    page.write_text("old")
    for _ in range(2):
        probe.main([str(runs["gru"]), *QUICK])
        found.append(entry(runs["gru"]))
    assert found[0] == found[1]
    assert f"{MAZE}-probe" in page.read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give at least one run folder"),
        (["--env", "rmc/Recall-v0"], "that reports where its cue is"),
        (["--env", "MiniGrid-MemoryS4-v0"], "maze size 4"),
        (["--env", "CartPole-v1"], "that reports where its cue is"),
        (["--env", "Nope-v0"], "unknown environment 'Nope-v0'"),
        (["--episodes", "1"], "expected 2 or more"),
        (["--random-actions", "2"], "a share from 0 to 1"),
        (["--swap-after", "0"], "1 or more"),
    ],
)
def test_bad_flag_is_one_message_before_any_work(
    runs: dict[str, Path], args: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        probe.main([str(runs["gru"]), *args] if args else [])


def test_task_with_few_starts_is_refused_with_the_reason(tmp_path: Path) -> None:
    few, enough = (
        saved_run(tmp_path / maze, f"MiniGrid-Memory{maze}-v0", "gru", actions=3) for maze in ("S5", "S7")
    )
    with pytest.raises(UsageError, match=r"cannot be probed: its .* episodes have 4 different starts"):
        probe.main([str(few), *QUICK])
    assert not (few / "probe.json").exists()
    with pytest.raises(Incomplete, match=r"S5 in MiniGrid-MemoryS5-v0 was not probed"):
        probe.main([str(few), str(enough), *QUICK, "--no-swap"])
    assert entry(enough)["probe"]["episodes"] == EPISODES


def test_damaged_file_is_reported_before_any_work(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", core="gru", actions=3)
    (run / "probe.json").write_text("{")
    with pytest.raises(UsageError, match=r"probe\.json is not JSON"):
        probe.main([str(run), *QUICK])


def test_users_task_with_a_cue_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any native task that reports its ground truth can be probed, whatever its id."""
    monkeypatch.setitem(rmc_envs.NATIVE, "mine/Maze-v0", rmc_envs.native(MAZE))
    run = saved_run(tmp_path / "run", "mine/Maze-v0", "gru", actions=3)
    probe.main([str(run), *QUICK])
    assert entry(run, "mine/Maze-v0")["probe"]["episodes"] == EPISODES
    assert (run / "media" / "mine-Maze-v0-probe.png").is_file()


def test_places_of_objects_are_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env_id = "rmc/MemoryMaze-9x9-v0"
    run = saved_run(tmp_path / "run", env_id, "gru")
    probe.main([str(run), "--episodes", "40", "--steps", "60"])
    found = entry(run, env_id)["places"]
    assert (found["episodes"], found["steps"], found["objects"]) == (40, 60, ["red", "green", "blue"])
    assert set(found["scores"]) == {WHOLE, OBSERVATION}
    assert any(found["scores"][WHOLE])
    shown = capsys.readouterr().out
    assert "chance" in shown
    assert "1 to 10" in shown
    with Image.open(run / "media" / "rmc-MemoryMaze-9x9-v0-places.gif") as image:
        assert image.n_frames > 30  # type: ignore[attr-defined]


def test_run_without_an_environment_needs_the_flag_env(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", core="gru", actions=3)
    config = json.loads((run / "config.json").read_text())
    del config["environment"]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="choose an --env"):
        probe.main([str(run), *QUICK])


def test_remembered_module_that_is_missing_names_the_run(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", core="gru", actions=3, imports=("no_such_module",))
    with pytest.raises(UsageError, match=rf"{run} cannot be loaded: .*'no_such_module'"):
        probe.main([str(run), *QUICK])

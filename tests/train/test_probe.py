"""`python train/probe.py` from a run folder to the table, the figures and the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rmc_agents import UsageError
from rmc_agents.recording import OBSERVATION, WHOLE
from tests.support import MAZE
from tests.train.test_evaluate import saved_run
from train import probe

QUICK = ["--episodes", "600", "--steps", "30", "--swap-after", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {core: saved_run(folder / core, core=core, actions=3) for core in ("rmc", "gru", "feedforward")}


def entry(run: Path) -> dict[str, Any]:
    return json.loads((run / "probe.json").read_text())[MAZE]


def test_runs_are_probed_and_compared(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    probe.main([*map(str, runs.values()), *QUICK, "--random-actions", "0.5"])
    said = capsys.readouterr().out
    for core, run in runs.items():
        found = entry(run)
        parts = [*(f"slot {i}" for i in range(1, 5))] * (core == "rmc") + [WHOLE, OBSERVATION]
        assert found["probe"]["parts"] == parts
        assert found["probe"]["episodes"] == 600
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
        assert str(run / "probe.json") in said
    assert "this core has no memory" in said


def test_the_same_command_gives_the_same_figures(runs: dict[str, Path]) -> None:
    """And a report that is there takes them up."""
    found = []
    page = runs["gru"] / "report.html"
    page.write_text("as it was")
    for _ in range(2):
        probe.main([str(runs["gru"]), *QUICK])
        found.append(entry(runs["gru"]))
    assert found[0] == found[1]
    assert f"{MAZE}-probe" in page.read_text()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "which run"),
        (["--env", "rmc/Recall-v0"], "probes need a task that tells where its cue is"),
        (["--env", "MiniGrid-MemoryS4-v0"], "maze size 4"),
        (["--episodes", "1"], "ask for 2 or more"),
        (["--random-actions", "2"], "a share from 0 to 1"),
        (["--swap-after", "0"], "1 or more"),
    ],
)
def test_mistakes_are_told_at_once(runs: dict[str, Path], args: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        probe.main([str(runs["gru"]), *args] if args else [])


def test_a_damaged_file_is_told_before_the_work(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", core="gru", actions=3)
    (run / "probe.json").write_text("{")
    with pytest.raises(UsageError, match=r"probe\.json is not JSON"):
        probe.main([str(run), *QUICK])

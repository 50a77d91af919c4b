"""Hand-made and forged files of a run folder: every reader loads them, or refuses them with one message."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import rmc_agents
from benchmarks.robustness import processes
from benchmarks.robustness.mutations import outcome
from benchmarks.robustness.trees import STRANGE, STRANGE_TENSORS, variants
from rmc_agents.cli.resume import resumed
from rmc_agents.cli.script import checking
from rmc_agents.runs.folder import best_checkpoint, checkpoints, evaluated_checkpoints
from rmc_agents.supervised.classifier import load_classifier
from rmc_agents.training.run_log import RunLog
from tests.support.trainers import supervised_trainer
from train import nth_farthest, ppo

pytestmark = [
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning"),
]


@pytest.fixture(scope="module")
def agent_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two iterations."""
    return processes.tiny_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def classifier_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an interrupted run of a classifier."""
    trainer = supervised_trainer(tmp_path_factory.mktemp("runs"), average_updates=20)
    trainer.iterate()
    trainer.save()
    return trainer.run_dir


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the run that the test names."""
    return Path(shutil.copytree(request.getfixturevalue(request.param), tmp_path / "run"))


def resume(run_dir: Path) -> None:
    with checking():  # as the script does
        trainer = ppo.build(resumed(run_dir))
    trainer.restore()


CONFIG_READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "agent_run": (rmc_agents.load, resume),
    "classifier_run": (load_classifier, rmc_agents.load, nth_farthest.resumed),
}


def require_clear(found: Counter[str], examples: dict[str, str]) -> None:
    unclear = {text: examples[text] for text in found if text not in ("loaded", "refused")}
    assert not unclear, unclear
    assert found["refused"] > found.total() / 4


@pytest.mark.slow
@pytest.mark.parametrize("run", CONFIG_READERS, indirect=True)
def test_config_json_with_a_strange_value_is_loaded_or_refused(run: Path, request: Any) -> None:
    readers = CONFIG_READERS[request.node.callspec.params["run"]]
    config = json.loads((run / "config.json").read_text())
    found, examples = Counter[str](), {}
    for change, forged in variants(config, STRANGE, 60):
        (run / "config.json").write_text(json.dumps(forged))
        for read in readers:
            result = outcome(lambda read=read: read(run))
            found[result] += 1
            examples.setdefault(result, change)
    require_clear(found, examples)


def require_clear_for_strange_checkpoints(run: Path, train: Callable[[], None], count: int) -> None:
    """Run `train` on `count` checkpoints with one strange value each, and check every outcome."""
    path = checkpoints(run)[0]
    payload = torch.load(path, weights_only=True)
    found, examples = Counter[str](), {}
    for change, forged in variants(payload, [*STRANGE, *STRANGE_TENSORS], count):
        torch.save(forged, path)
        result = outcome(train)
        found[result] += 1
        examples.setdefault(result, change)
    require_clear(found, examples)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["agent_run"], indirect=True)
def test_checkpoint_with_a_strange_value_is_resumed_or_refused(run: Path) -> None:
    """What is resumed also trains."""
    trainer = ppo.build(resumed(run))

    def train() -> None:
        trainer.restore()
        trainer.iterate()

    require_clear_for_strange_checkpoints(run, train, 125)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["classifier_run"], indirect=True)
def test_checkpoint_of_a_classifier_with_a_strange_value_is_resumed_or_refused(run: Path) -> None:
    trainer = supervised_trainer(run, average_updates=20)

    def train() -> None:
        trainer.restore()
        trainer.update()

    require_clear_for_strange_checkpoints(run, train, 100)


@pytest.mark.parametrize("run", ["agent_run"], indirect=True)
@pytest.mark.parametrize("name", ["best.json", "evaluation.json"])
def test_strange_json_beside_the_checkpoints_is_ignored(run: Path, name: str) -> None:
    path = run / "checkpoints" / name if name == "best.json" else run / name
    good = {"checkpoint": "step_000000000064.pt", "score": [0.5, 1.0]}
    for _, forged in variants(good if name == "best.json" else {"x": good}, STRANGE, 1000):
        path.write_text(json.dumps(forged))
        best_checkpoint(run)
        evaluated_checkpoints(run)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"null", b"[]", b"3", b"{}", b'{"step": null}', b'{"step": "7"}', b'{"step": NaN}',
        b'{"step": 1e999}', b'{"step": []}', b"{" * 10_000, b"[" * 100_000, b"\xff\xfe", b"1" * 10_000,
        b'{"step": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_strange_lines_of_the_log_are_dropped(line: bytes, tmp_path: Path) -> None:
    good = b'{"step": 1}\n'
    (tmp_path / "log.jsonl").write_bytes(good + line + b"\n" + good)
    RunLog(tmp_path, 5, note=pytest.fail).close()
    assert (tmp_path / "log.jsonl").read_bytes() == good + good


@pytest.mark.parametrize(
    "name", ["events.out.tfevents.x", "events.out.tfevents.", "events.out.tfevents.9.x", "x"]
)
def test_strange_names_of_event_files_are_ignored(name: str, tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / name).touch()
    log = RunLog(tmp_path, 5, note=pytest.fail)
    log.figures(6, {"x": 1.0})
    log.close()

"""Studies of Optuna: trials claimed, repeated and continued by any number of processes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from rmc_agents.cli.config import RunConfig
from rmc_agents.errors import UsageError
from rmc_agents.runs.lock import run_lock
from rmc_agents.tuning import study
from rmc_agents.tuning.search import search_space
from rmc_agents.tuning.study import MAX_ATTEMPTS, Plan, Sweep, make_pruner, storage_url, study_folder

SPACE = search_space(RunConfig(), ["learning_rate=1e-4:1e-2:log", "gamma=0.9,0.99"], only=True)


def opened(folder: Path, trials: int = 4, **settings: Any) -> Sweep:
    return Sweep("mine", folder, storage_url(None, folder), SPACE, settings, Plan(trials))


def claimed(sweep: Sweep) -> optuna.Trial:
    claim = sweep.claim()
    assert claim is not None
    trial, values = claim
    assert trial.params.keys() == values.keys()
    return trial


def complete(sweep: Sweep) -> list[dict[str, Any]]:
    """Make all trials, with a score that depends on the settings; return what was tried."""
    tried = []
    while (claim := sweep.claim()) is not None:
        trial, values = claim
        tried.append(values)
        sweep.finish(trial, 1 - abs(float(str(values["learning_rate"])) - 2e-3))
    return tried


def killed(sweep: Sweep) -> None:
    """Release the locks of a sweep, as the operating system does when its process is killed."""
    sweep._held.close()


def test_first_trial_has_the_settings_of_the_base(tmp_path: Path) -> None:
    sweep = opened(tmp_path)
    assert claimed(sweep).params == {"learning_rate": 3e-4, "gamma": 0.99}


def test_trials_count_over_all_commands(tmp_path: Path) -> None:
    assert len(complete(opened(tmp_path, 3))) == 3
    assert complete(opened(tmp_path, 3)) == []
    assert len(complete(opened(tmp_path, 5))) == 2
    best = opened(tmp_path).best()
    assert best is not None
    assert best.value == max(trial.value or 0.0 for trial in opened(tmp_path).complete())
    assert opened(tmp_path).counts() == {"complete": 5}


def test_processes_share_the_trials(tmp_path: Path) -> None:
    sweeps = [opened(tmp_path, 3), opened(tmp_path, 3)]
    numbers = [claimed(sweeps[0]).number, claimed(sweeps[1]).number]
    assert numbers == [0, 1]
    killed(sweeps[1])
    assert claimed(opened(tmp_path, 3)).params.keys() == {"learning_rate", "gamma"}


def test_killed_trial_fails_and_is_repeated(tmp_path: Path) -> None:
    sweep = opened(tmp_path, 2)
    trial = claimed(sweep)
    assert (tmp_path / "trial-0000").is_dir()
    killed(sweep)
    again = opened(tmp_path, 2)
    repeated = claimed(again)
    assert repeated.params == trial.params
    assert repeated.user_attrs == {"attempt": 2, "repeats": 0}
    assert not (tmp_path / "trial-0000").exists()
    assert again.counts() == {"fail": 1, "running": 1}
    again.finish(repeated, 1.0)
    complete(again)
    assert again.counts() == {"complete": 2, "fail": 1}


def test_trial_of_a_process_that_runs_is_left_alone(tmp_path: Path) -> None:
    first, second = opened(tmp_path, 2), opened(tmp_path, 2)
    claimed(first)
    assert claimed(second).number == 1
    killed(second)
    assert first.counts() == {"running": 2}


def test_settings_that_kill_every_process_are_given_up(tmp_path: Path) -> None:
    for _ in range(MAX_ATTEMPTS):
        sweep = opened(tmp_path, 2)
        assert claimed(sweep).params == {"learning_rate": 3e-4, "gamma": 0.99}
        killed(sweep)
    assert len(complete(opened(tmp_path, 2))) == 1
    assert opened(tmp_path, 2).counts() == {"complete": 1, "fail": MAX_ATTEMPTS}


def test_interrupted_study_tries_what_it_would_have_tried(tmp_path: Path) -> None:
    number = study.STARTUP_TRIALS + 3
    expected = complete(opened(tmp_path / "whole", number))
    tried = []
    for stop in (2, study.STARTUP_TRIALS + 1):
        sweep = opened(tmp_path / "parts", number)
        while len(tried) < stop:
            trial = claimed(sweep)
            tried.append(trial.params)
            sweep.finish(trial, 1 - abs(float(f"{trial.params['learning_rate']:.3g}") - 2e-3))
        sweep.give_up(claimed(sweep), repeat=True)
    rest = complete(opened(tmp_path / "parts", number))
    assert [trial["gamma"] for trial in [*tried, *rest]] == [trial["gamma"] for trial in expected]
    rates = [trial["learning_rate"] for trial in [*tried, *rest]]
    assert rates == pytest.approx([trial["learning_rate"] for trial in expected], rel=0.01)


def test_interruptions_do_not_count_as_attempts(tmp_path: Path) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        sweep = opened(tmp_path, 1)
        sweep.give_up(claimed(sweep), repeat=True)
    assert len(complete(opened(tmp_path, 1))) == 1


def test_failed_trial_is_not_repeated(tmp_path: Path) -> None:
    sweep = opened(tmp_path, 2)
    sweep.give_up(claimed(sweep), repeat=False)
    tried = complete(sweep)
    assert len(tried) == 2
    assert tried[0] != SPACE.start()


def test_pruned_trial_has_no_score(tmp_path: Path) -> None:
    sweep = opened(tmp_path, 1)
    sweep.finish(claimed(sweep), None)
    assert sweep.counts() == {"pruned": 1}
    assert sweep.best() is None


def test_run_folders_of_the_best_trial_are_kept(tmp_path: Path) -> None:
    sweep = opened(tmp_path, 4)
    for score in (0.2, 0.9, None):
        trial = claimed(sweep)
        (sweep.trial_folder(trial.number) / "seed-1").mkdir()
        sweep.finish(trial, score)
    other = opened(tmp_path, 4)
    claimed(other)
    sweep.delete_run_folders()
    assert sorted(path.name for path in tmp_path.glob("trial-*")) == ["trial-0001", "trial-0003"]
    killed(other)


def test_study_with_other_settings_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, **{"--gamma": 0.99, "--seeds": 2})
    opened(tmp_path, **{"--gamma": 0.99, "--seeds": 2})
    with pytest.raises(UsageError, match=r"other settings: --gamma was 0.99, now 0.9; --x was fixed, now 1"):
        opened(tmp_path, **{"--gamma": 0.9, "--seeds": 2, "--x": 1})


def test_trials_of_another_study_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "trial-0000").mkdir()
    with pytest.raises(UsageError, match="holds trials of another study"):
        opened(tmp_path)


@pytest.mark.parametrize("storage", ["text.db", "no/folder/x.db", "nonsense://x", "sqlite:////no/x.db"])
def test_storage_that_cannot_be_opened_is_one_message(storage: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but a text of more than some bytes\n" * 50)
    url = storage_url(storage if "://" in storage else str(tmp_path / storage), tmp_path)
    with pytest.raises(UsageError, match="cannot be opened") as error:
        Sweep("x", tmp_path / "runs" / "studies" / "x", url, SPACE, {}, Plan(1))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_storage_is_a_file_or_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage_url(None, Path("runs/x")) == f"sqlite:///{tmp_path}/runs/x/study.db"
    assert storage_url("some.db", Path("runs/x")) == f"sqlite:///{tmp_path}/some.db"
    assert storage_url("postgresql://host/x", Path("runs/x")) == "postgresql://host/x"
    assert study_folder("a/b") == Path("runs/studies/a-b")


def test_lock_of_the_study_waits_for_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = opened(tmp_path)
    other = contextlib.ExitStack()
    other.enter_context(run_lock(tmp_path))
    waits: list[float] = []
    monkeypatch.setattr(study.time, "sleep", lambda seconds: (waits.append(seconds), other.close()))
    assert sweep.claim() is not None
    assert len(waits) == 1
    killed(sweep)


def test_pruners_end_hopeless_trials(tmp_path: Path) -> None:
    assert isinstance(make_pruner(Plan(1, "none")), optuna.pruners.NopPruner)
    assert isinstance(make_pruner(Plan(1, "hyperband", seeds=3)), optuna.pruners.HyperbandPruner)
    sweep = opened(tmp_path, 7)
    for _ in range(6):
        trial = claimed(sweep)
        for point in range(10):
            trial.report(0.5, point)
        sweep.finish(trial, 0.5)
    trial = claimed(sweep)
    ends = []
    for point in range(10):
        trial.report(0.1, point)
        ends.append(trial.should_prune())
    assert ends == [False] * 2 + [True] * 8
    killed(sweep)


def test_missing_optuna_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"optuna is not installed: pip install 'rmc-agents\[tune\]'"):
        study.require_optuna()


def test_settings_of_a_trial_are_those_that_were_trained(tmp_path: Path) -> None:
    sweep = opened(tmp_path, 3)
    tried = complete(sweep)
    assert [sweep.values_of(trial) for trial in sweep.complete()] == tried
    assert replace(RunConfig(), ppo=sweep.space.configure(tried[1]).ppo) == sweep.space.configure(tried[1])

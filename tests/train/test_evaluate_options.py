"""Options of evaluated tasks: whose they are, how results name them, and which tasks are compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import rmc_envs
from rmc_agents import UsageError
from rmc_agents.agent.saved import load_run
from tests.support.runs import saved_run
from train import evaluate
from train.evaluate_task import names_in_comparison, task_of

QUIET = ("--episodes", "4", "--no-gif", "--no-report")
RECALL = "rmc/Recall-v0"
REPEAT = "popgym-RepeatPreviousEasy-v0"


def entries(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


def recall(folder: Path, core: str = "gru", **options: Any) -> Path:
    return saved_run(folder, RECALL, core, num_symbols=3, **options)


def test_memoryless_run_plays_with_the_options_of_the_evaluated_run(tmp_path: Path) -> None:
    runs = [recall(tmp_path / f"delay{delay}", delay=delay) for delay in (1, 4)]
    blind = recall(tmp_path / "blind", "feedforward", delay=2)
    flags = ["--memoryless", str(blind), *QUIET]
    evaluate.main([*map(str, runs), *flags])
    assert [entries(run)[RECALL]["memoryless"]["mean_length"] for run in runs] == [3, 6]
    evaluate.main([str(runs[0]), "--env-options", "delay=7", *flags])
    assert entries(runs[0])[f"{RECALL} delay=7"]["memoryless"]["mean_length"] == 9


def test_memoryless_run_that_does_not_fit_the_options_is_refused_before_any_work(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", RECALL, "gru", num_symbols=4)
    blind = recall(tmp_path / "blind", "feedforward")
    with pytest.raises(UsageError, match="blind was trained with observation_space"):
        evaluate.main([str(run), "--memoryless", str(blind), *QUIET])
    assert not (run / "evaluation.json").exists()


def test_tasks_with_other_options_are_compared_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, long = recall(tmp_path / "short", delay=1), recall(tmp_path / "long", "rnn", delay=4)
    evaluate.main([str(short), str(long), *QUIET])
    shown = capsys.readouterr().out
    for name in (f"{RECALL} delay=1", f"{RECALL} delay=4"):
        assert re.search(rf"{name} +│ (short|long) \((gru|rnn)\)", shown)
    assert "not compared by core: no environment was evaluated with each of gru, rnn" in shown
    # Each run's own results are named as if it were evaluated alone.
    assert [list(entries(run)) for run in (short, long)] == [[RECALL]] * 2


def test_options_given_to_all_runs_make_one_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, long = recall(tmp_path / "short", delay=1), recall(tmp_path / "long", "rnn", delay=4)
    evaluate.main([str(short), str(long), "--env-options", "delay=4", *QUIET])
    shown = capsys.readouterr().out
    assert "P(better than" in shown
    assert re.search(rf"{RECALL} delay=4 +│ short \(gru\)[^\n]*\n[^\n]* long \(rnn\)", shown)
    assert len(re.findall("│ random +│", shown)) == 1
    assert list(entries(short)) == [f"{RECALL} delay=4"]
    assert list(entries(long)) == [RECALL]  # which is its own task


def test_options_of_a_run_and_defaults_are_not_named(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", REPEAT, "gru")
    for words in ([], ["k=4"], ["num_decks=2", "k=4"], ["k=8", "num_decks=2"], ["num_decks=2", "k=8"]):
        evaluate.main([str(run), *QUIET, *(["--env-options", *words] if words else [])])
    assert list(entries(run)) == [REPEAT, f"{REPEAT} num_decks=2", f"{REPEAT} k=8 num_decks=2"]
    assert entries(run)[REPEAT]["command"].endswith("k=4")  # the later of two evaluations of one task
    assert ["reference" in entry for entry in entries(run).values()] == [True, False, False]


def test_run_with_a_default_given_belongs_to_the_suite(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", REPEAT, "gru", k=4)
    evaluate.main([str(run), "--suite", "popgym-easy", *QUIET])
    assert "reference" in entries(run)[REPEAT]


@pytest.mark.parametrize(
    ("trained", "given", "names"),
    [
        ([{}, {}], {}, [RECALL, RECALL]),
        ([{}, {"delay": 8}], {}, [RECALL, RECALL]),
        ([{}, {"delay": 1}], {}, [f"{RECALL} delay=8", f"{RECALL} delay=1"]),
        ([{}, {"delay": 1}], {"delay": 8}, [f"{RECALL} delay=8"] * 2),
        ([{"delay": 1}, {"delay": 1}], {"delay": 1}, [RECALL, RECALL]),
        ([{"delay": 1}, {"delay": 1}], {"delay": 2}, [f"{RECALL} delay=2"] * 2),
        ([{"delay": 1}], {"delay": 8}, [f"{RECALL} delay=8"]),
    ],
)
def test_names_state_what_differs(
    tmp_path: Path, trained: list[dict[str, Any]], given: dict[str, Any], names: list[str]
) -> None:
    runs = [load_run(saved_run(tmp_path / str(i), RECALL, "gru", **x)) for i, x in enumerate(trained)]
    assert names_in_comparison([task_of(run, RECALL, given) for run in runs]) == names


def test_agents_of_other_grid_worlds_share_a_task_with_those_trained_in_it(tmp_path: Path) -> None:
    """Without options, the mission and the view are those that the agent's spaces ask for."""
    task = "BabyAI-GoToObj-v0"
    runs = [load_run(saved_run(tmp_path / each, each, "gru")) for each in (task, "BabyAI-GoToRedBall-v0")]
    tasks = [task_of(run, task, {}) for run in runs]
    assert tasks[0].options != tasks[1].options
    assert tasks[0].rules == {"actions": 7, "view_size": 7, "mission": "read"}
    assert names_in_comparison(tasks) == [task, task]


@pytest.mark.parametrize(
    ("env_id", "some"),
    [
        (RECALL, {"num_symbols": 4, "delay": 8}),
        (REPEAT, {"k": 4, "num_decks": 1}),
        ("rmc/RepeatPreviousHard-v0", {"k": 64}),
        ("rmc/BoxWorldViewport-v0", {"view_size": 5, "max_steps": None}),
        ("MiniGrid-MemoryS9-v0", {"view_size": 7, "actions": 7}),
        ("BabyAI-GoToObj-v0", {"view_size": 7, "mission": "auto"}),
        ("rmc/MaskedCartPole-v0", {"hide": "velocities"}),
        ("CartPole-v1", {"sutton_barto_reward": False}),
        ("Nope-v0", {}),
    ],
)
def test_default_options_are_those_of_the_id(env_id: str, some: dict[str, Any]) -> None:
    found = rmc_envs.default_options(env_id)
    assert found | some == found
    assert not {"num_envs", "device", "seeding", "render_mode"} & set(found)

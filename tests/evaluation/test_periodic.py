"""Evaluation during training: held-out episodes, and nothing in training that it disturbs."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rmc_agents
import rmc_envs
from rmc_agents import PeriodicEvaluation, PPOConfig, Trainer, UsageError, evaluate
from rmc_agents.agent.acceleration import accelerate
from rmc_agents.evaluation.episodes import FIRST_SEED
from rmc_agents.evaluation.periodic import VALIDATION_SEED
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import best_checkpoint, checkpoints, read_config
from rmc_agents.training.processes import SEED_STRIDE, Processes
from rmc_agents.training.rng import keep_global_generators
from tests.support.agents import fresh_agent, small_env
from tests.support.groups import in_processes
from tests.support.trainers import QUICK, assert_identical, ppo_trainer

MAZE = "MiniGrid-MemoryS7-v0"
LADDER = f"MiniGrid-MemoryS5-v0,{MAZE}"


def held_out(env_id: str = MAZE, num_envs: int = 20, **options: Any) -> rmc_envs.BatchedEnv:
    kind = "batched" if rmc_envs.native(env_id) else rmc_envs.choose_implementation(env_id)
    return rmc_envs.trials(env_id, kind, num_envs, options=options)


def maze_trainer(run_dir: Path, evaluation: PeriodicEvaluation | None = None, **options: Any) -> Trainer:
    env = rmc_envs.make(LADDER, 8, actions=3)
    return ppo_trainer(run_dir, env=env, curriculum=True, evaluation=evaluation, **options)


def every(steps: int, episodes: int = 20) -> PeriodicEvaluation:
    return PeriodicEvaluation(held_out(actions=3), steps, episodes)


def evaluations(run_dir: Path) -> dict[int, float]:
    """Return the mean returns of a run's evaluations, by step."""
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["eval/mean_reward"] for line in lines if "eval/mean_reward" in line}


def test_figures_are_those_of_evaluate() -> None:
    env = held_out(actions=3)
    agent = fresh_agent("gru", env)
    figures, score = PeriodicEvaluation(held_out(actions=3), 1, 50).run(agent)
    played = evaluate(agent, env, 50, seed=VALIDATION_SEED)
    assert figures["eval/mean_reward"] == pytest.approx(played.mean_return)
    assert figures["eval/mean_ep_length"] == played.mean_length
    assert figures["eval/success_rate"] == played.success_rate
    assert score == (figures["eval/success_rate"], figures["eval/mean_reward"])


def test_several_tasks_have_figures_of_their_own() -> None:
    envs = [held_out("MiniGrid-MemoryS5-v0", actions=3), held_out(actions=3)]
    figures, _ = PeriodicEvaluation(envs, 1, 10).run(fresh_agent("gru", envs[0]))
    names = [f"eval/mean_reward/MiniGrid-MemoryS{size}-v0" for size in (5, 7)]
    assert figures["eval/mean_reward"] == pytest.approx(sum(figures[name] for name in names) / 2)
    assert "eval/success_rate/MiniGrid-MemoryS5-v0" in figures


def test_success_that_is_not_reported_is_left_out() -> None:
    env = held_out("CartPole-v1", 4)
    figures, score = PeriodicEvaluation(env, 1, 4).run(fresh_agent("gru", env))
    assert "eval/success_rate" not in figures
    assert score == (0.0, figures["eval/mean_reward"])
    env.close()


def test_held_out_seeds_are_those_of_no_training_and_no_final_evaluation() -> None:
    """1024 processes with seeds below 900 million; a million episodes of `evaluate`; 32-bit seeds."""
    assert 900_000_000 + 1024 * SEED_STRIDE < VALIDATION_SEED < 2**31 - 100_000_000
    assert FIRST_SEED + 1_000_000 < VALIDATION_SEED


@pytest.mark.parametrize("kind", ["mazes", "ids of observations", "Gymnasium"])
def test_training_is_bit_identical_with_evaluation(kind: str, tmp_path: Path) -> None:
    def trained(evaluated: bool) -> Trainer:
        run_dir = tmp_path / str(evaluated)
        evaluation = None
        if kind == "Gymnasium":
            env = rmc_envs.make("CartPole-v1", 8, vectorization="sync")
            evaluation = PeriodicEvaluation(held_out("CartPole-v1", 3), 256, 3) if evaluated else None
            trainer = ppo_trainer(run_dir, env=env, evaluation=evaluation)
        elif kind == "mazes":
            trainer = maze_trainer(run_dir, every(256) if evaluated else None)
        else:
            env = rmc_envs.make(MAZE, 8, actions=3)
            trainer = ppo_trainer(run_dir, env=env, evaluation=every(256) if evaluated else None)
            assert trainer.ids
        trainer.run()
        return trainer

    plain, evaluated = trained(False), trained(True)
    assert_identical(plain, evaluated)
    assert list(evaluations(tmp_path / "True")) == [256, 512]


def test_evaluation_is_due_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    maze_trainer(tmp_path, every(300)).run()
    assert list(evaluations(tmp_path)) == [384, 512]
    assert read_config(tmp_path)["evaluation"] == {"every": 300, "episodes": 20, "seed": VALIDATION_SEED}


def test_resumed_run_evaluates_at_the_same_steps(tmp_path: Path) -> None:
    maze_trainer(tmp_path / "whole", every(150)).run()
    half = PPOConfig(**{**vars(QUICK), "total_steps": 256})
    maze_trainer(tmp_path / "parts", every(150), config=half).run()
    again = maze_trainer(tmp_path / "parts", every(150))
    again.restore()
    again.run()
    assert evaluations(tmp_path / "whole").keys() == evaluations(tmp_path / "parts").keys() == {256, 384, 512}


def test_best_checkpoint_is_that_of_the_best_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.9, 0.5, 0.2])

    def scored(*_: Any) -> tuple[dict[str, float], tuple[float, float]]:
        score = next(scores)
        return {"eval/mean_reward": score}, (0.0, score)

    monkeypatch.setattr(PeriodicEvaluation, "run", scored)
    trainer = maze_trainer(tmp_path, every(128), keep_checkpoints=1)
    trainer.recent.add(1000, 1000, 1000.0)  # the score of training, which does not count
    trainer.run()
    path = tmp_path / "checkpoints" / "step_000000000256.pt"
    assert best_checkpoint(tmp_path) == best_checkpoint(tmp_path, "evaluation") == (path, [0.0, 0.9])
    assert best_checkpoint(tmp_path, "training") is None
    assert [each.name for each in checkpoints(tmp_path)] == ["step_000000000512.pt", path.name]
    rmc_agents.load(path)


def test_evaluation_replaces_a_best_checkpoint_of_training(tmp_path: Path) -> None:
    """A share of training episodes cannot be compared with that of an evaluation."""
    half = PPOConfig(**{**vars(QUICK), "total_steps": 256})
    first = maze_trainer(tmp_path, config=half)
    first.recent.add(1000, 1000, 1000.0)
    first.run()
    assert best_checkpoint(tmp_path, "training") is not None
    again = maze_trainer(tmp_path, every(1000))
    again.restore()
    again.run()
    best = best_checkpoint(tmp_path, "evaluation")
    assert best is not None
    assert best[0].name == "step_000000000512.pt"


def play_share(group: Processes) -> list[Any]:
    torch.manual_seed(0)
    env = held_out(num_envs=4, actions=3)
    figures, score = PeriodicEvaluation(env, 1, 7).run(fresh_agent("gru", env), group)
    return [{tag: x for tag, x in figures.items() if not tag.startswith("time/")}, score]


def test_processes_share_the_same_episodes() -> None:
    torch.manual_seed(0)
    env = held_out(num_envs=7, actions=3)
    figures, score = PeriodicEvaluation(env, 1, 7).run(fresh_agent("gru", env))
    for number in (2, 5):  # of five, the last has no episode left
        for result in in_processes(play_share, number):
            assert not isinstance(result, str), result
            assert result[0] == pytest.approx({tag: figures[tag] for tag in result[0]})
            assert result[1] == pytest.approx(score)


def train_share(group: Processes, run_dir: Path) -> list[Any]:
    trainer = ppo_trainer(run_dir, env=rmc_envs.make(LADDER, 4, actions=3), curriculum=True, processes=group)
    trainer.evaluation = every(200, 9)
    trainer.run()
    return [trainer.iterations, trainer.evaluated]


def test_processes_evaluate_and_save_together(tmp_path: Path) -> None:
    first, second = in_processes(lambda group: train_share(group, tmp_path))
    assert first == second
    assert list(evaluations(tmp_path)) == [256, 512]


def test_compiled_agent_is_evaluated_uncompiled() -> None:
    """Compiled networks would be compiled again for each number of unfinished episodes."""
    env = held_out(actions=3)
    agent = fresh_agent("gru", env)
    plain, _ = PeriodicEvaluation(env, 1, 8).run(agent)

    def fail(*_: Any) -> Any:
        raise AssertionError("the compiled networks were used")

    accelerate(agent, "bf16")
    agent._networks = agent._encode_table = fail
    figures, _ = PeriodicEvaluation(env, 1, 8).run(agent)
    assert figures["eval/mean_reward"] == plain["eval/mean_reward"]


def test_failed_evaluation_leaves_the_iteration_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise UsageError("an episode does not end")

    monkeypatch.setattr(PeriodicEvaluation, "run", fail)
    trainer = maze_trainer(tmp_path, every(200))
    with pytest.raises(UsageError, match="does not end"):
        trainer.run()
    assert read_newest(tmp_path)[1]["steps"] == trainer.steps == 256


def test_environments_with_other_spaces_are_refused(tmp_path: Path) -> None:
    other = PeriodicEvaluation(held_out("CartPole-v1", 2), 100, 2)
    with pytest.raises(ValueError, match="observation_space of agent and environments of the evaluation"):
        ppo_trainer(tmp_path, evaluation=other)
    other.close()


@pytest.mark.parametrize(("options", "message"), [((0, 5), "every must be"), ((5, 0), "episodes must be")])
def test_numbers_out_of_range_are_refused(options: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PeriodicEvaluation(small_env(2), *options)


def test_global_generators_are_restored() -> None:
    def draws() -> list[float]:
        return [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002

    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    with keep_global_generators():
        first = draws()
        with contextlib.suppress(KeyError), keep_global_generators():
            raise KeyError(draws())
        second = draws()
    assert draws() == first != second

"""PPO training loop: reproducible, resumable bit for bit, stopped by non-finite values, able to learn."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import rmc_agents
import rmc_envs
from rmc_agents import PPOConfig, Trainer, TrainingError, UsageError
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import checkpoints, read_config
from rmc_agents.runs.migrations import CONFIG_FORMAT
from rmc_agents.training.rng import OTHER_DEVICE
from rmc_envs.gymnasium.checked import checked
from rmc_envs.gymnasium.workers import Workers
from tests.conftest import CORES_WITH_MEMORY
from tests.support.agents import MAZE, fresh_agent, small_agent, small_env
from tests.support.faulty_env import FaultyEnv
from tests.support.native_tasks import EVERY_TASK
from tests.support.trainers import QUICK, assert_identical, ppo_trainer, save_interrupted

TASKS = [f"{MAZE},MiniGrid-MemoryS9-v0", *rmc_envs.NATIVE]
SHORT = dataclasses.replace(QUICK, num_steps=8, bptt_length=4, minibatch_size=32)
"""As QUICK, with half of the steps."""
LADDER = "MiniGrid-MemoryS5-v0,MiniGrid-MemoryS7-v0"


def test_same_seed_gives_the_same_run(any_core: str, tmp_path: Path) -> None:
    runs = [ppo_trainer(tmp_path / name, any_core) for name in "ab"]
    for run in runs:
        run.run()
    assert_identical(*runs)


def test_success_counts_episodes_of_eval_tasks(tmp_path: Path) -> None:
    tasks = ["MiniGrid-MemoryS5-v0", "MiniGrid-MemoryS7-v0"]
    config = dataclasses.replace(QUICK, total_steps=32 * 256 * 2, num_steps=256, minibatch_size=512)
    for eval_tasks in (None, tasks[:1], tasks[1:]):
        env = rmc_envs.make(",".join(tasks), 32, actions=3)
        run = ppo_trainer(tmp_path / "run", env=env, config=config, eval_tasks=eval_tasks)
        figures = run.iterate()
        tag = "rollout/success_rate" if eval_tasks is None else f"rollout/success_rate/{eval_tasks[0]}"
        latest = run.recent.latest()
        assert latest is not None
        assert latest[0] == figures[tag]
    assert len({figures[f"rollout/success_rate/{task}"] for task in tasks}) == 2
    with pytest.raises(ValueError, match="eval_tasks names MiniGrid-MemoryS9-v0"):
        ppo_trainer(tmp_path / "run", eval_tasks=["MiniGrid-MemoryS9-v0"])


@pytest.mark.parametrize("task", TASKS)
def test_resumed_run_equals_uninterrupted(any_core: str, task: str, tmp_path: Path) -> None:
    whole = ppo_trainer(tmp_path / "whole", any_core, rmc_envs.make(task, 8), config=SHORT)
    for _ in range(4):
        whole.iterate()
    first = ppo_trainer(tmp_path / "parts", any_core, rmc_envs.make(task, 8), config=SHORT)
    for _ in range(2):
        first.iterate()
    save_interrupted(first)
    second = ppo_trainer(tmp_path / "parts", any_core, rmc_envs.make(task, 8), config=SHORT)
    second.agent.value_head.bias.data += 1  # the checkpoint replaces whatever the weights were
    second.restore()
    for _ in range(2):
        second.iterate()
    assert_identical(whole, second)


def test_state_dict_continues_another_trainer_bit_for_bit(tmp_path: Path) -> None:
    """Without a file between them."""
    first, second = ppo_trainer(tmp_path / "a"), ppo_trainer(tmp_path / "b")
    for _ in range(2):
        first.iterate()
    state = first.state_dict()
    assert second.load_state_dict(state) == []
    assert_identical(first, second)
    assert (second.count, second.seconds, second.restored) == (first.steps, first.seconds, False)
    for run in (first, second):
        run.iterate()
    assert_identical(first, second)
    assert first.count == first.steps == 3 * 128


def test_state_dict_does_not_change_as_training_continues(tmp_path: Path) -> None:
    """Rolling back in memory: the same iteration again gives the same weights."""
    trainer = ppo_trainer(tmp_path)
    trainer.iterate()
    saved = trainer.state_dict()
    trainer.iterate()
    after = [p.detach().clone() for p in trainer.agent.parameters()]
    trainer.load_state_dict(saved)
    trainer.iterate()
    for again, first in zip(trainer.agent.parameters(), after, strict=True):
        assert torch.equal(again, first)


@pytest.mark.parametrize(
    "part", ["agent", "optimizer", "generator", "env", "carry", "running", "recent", "seen_rewards"]
)
def test_state_that_does_not_fit_leaves_the_trainer_as_it_was(part: str, tmp_path: Path) -> None:
    other = ppo_trainer(tmp_path / "other")
    other.iterate()
    wrong = {**other.state_dict(), part: {"env": {}}.get(part, "nonsense")}
    trainer, same = ppo_trainer(tmp_path / "a"), ppo_trainer(tmp_path / "b")
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever a part raises
        trainer.load_state_dict(wrong)
    assert_identical(trainer, same)
    trainer.iterate()
    same.iterate()
    assert_identical(trainer, same)


def test_state_dict_of_another_run_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path / "run")
    run.iterate()
    before = [x.clone() for x in run.agent.parameters()]
    good = ppo_trainer(tmp_path / "other").state_dict()
    moments = {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(1), "exp_avg_sq": torch.ones(1)}}
    for change, error in [
        ({"steps": -1}, "saved after -1 steps"),
        ({"iterations": 1.5}, r"1\.5 iterations"),
        ({"running": good["running"][:1]}, "expected tensors of shapes"),
        ({"carry": good["carry"][1:]}, "expected tensors of shapes"),
        ({"env": None}, "the environments were of another kind"),
        ({"env": {**good["env"], "time": "now"}}, r"the environments' state \(time\) has another form"),
        ({"env": {"generator": good["env"]["generator"]}}, "the environments' state has another form"),
        ({"optimizer": {"state": moments}}, "moments of 1 parameters"),
        ({"agent": {}}, "another configuration"),
    ]:
        with pytest.raises((ValueError, UsageError), match=error):
            run.load_state_dict({**good, **change})
        assert run.steps == 128
        assert all(torch.equal(a, b) for a, b in zip(before, run.agent.parameters(), strict=True))
    with pytest.raises(KeyError, match="generator"):
        run.load_state_dict({name: part for name, part in good.items() if name != "generator"})


def test_state_of_environments_without_newer_parts_is_loaded(tmp_path: Path) -> None:
    """An older version saved the length of a T-maze, and neither its options nor what pictures need."""
    older, newer, again = (
        ppo_trainer(tmp_path / name, env=rmc_envs.make("rmc/TMaze-v0", 8)) for name in ("a", "b", "c")
    )
    older.iterate()
    state = older.state_dict()
    env = {name: part for name, part in state["env"].items() if name not in ("options", "pictures")}
    newer.load_state_dict({**state, "env": {**env, "length": 10}})
    again.load_state_dict(state)
    for trainer in (newer, again):
        trainer.iterate()
    assert_identical(newer, again)


def test_state_of_environments_with_other_options_is_refused(tmp_path: Path) -> None:
    run, other = (
        ppo_trainer(tmp_path / name, env=rmc_envs.make("rmc/TMaze-v0", 8, dense=dense))
        for name, dense in (("a", True), ("b", False))
    )
    run.iterate()
    with pytest.raises(ValueError, match="a state of a task with dense=True: expected dense=False"):
        other.load_state_dict(run.state_dict())


@pytest.mark.parametrize("task", EVERY_TASK)
def test_run_resumed_on_another_kind_of_device_draws_other_numbers(task: str, tmp_path: Path) -> None:
    first = ppo_trainer(tmp_path, env=rmc_envs.make(task, 8))
    first.run()
    path, payload, _ = read_newest(tmp_path)
    # States of another length than a CPU's, as a GPU gives.
    payload["generator"] = torch.arange(16, dtype=torch.uint8)
    payload["env"]["generator"] = torch.arange(16, 32, dtype=torch.uint8)
    torch.save(payload, path)
    runs = []
    for _ in range(2):
        config = dataclasses.replace(QUICK, total_steps=2 * QUICK.total_steps)
        again = ppo_trainer(tmp_path, env=rmc_envs.make(task, 8), config=config)
        assert again.restore() == [f"resuming from {path}", OTHER_DEVICE]
        again.iterate()
        runs.append(again)
    assert_identical(*runs)


def test_run_folder_holds_what_loading_the_agent_needs(tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path / "run", "rmc")
    figures = run.run()
    assert figures["time/total_timesteps"] == QUICK.total_steps == run.steps
    agent = rmc_agents.load(tmp_path / "run")
    for x, y in zip(agent.parameters(), run.agent.parameters(), strict=True):
        assert torch.equal(x, y)
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_config_json_describes_the_run(tmp_path: Path) -> None:
    env = rmc_envs.make("rmc/Recall-v0", 8, num_symbols=3, delay=2)
    run = ppo_trainer(
        tmp_path, env=env, target_success_rate=0.9, extra={"precision": "float32", "imports": ["math"]}
    )
    run.run()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["format"] == CONFIG_FORMAT
    assert {name: config[name] for name in run.agent.to_json()} == run.agent.to_json()
    assert config["environment"] == dataclasses.asdict(
        rmc_agents.EnvConfig(env="rmc/Recall-v0", env_options={"num_symbols": 3, "delay": 2}, num_envs=8)
    )
    assert config["ppo"] == dataclasses.asdict(QUICK)
    assert (config["seed"], config["target_success_rate"]) == (5, 0.9)
    assert (config["precision"], config["imports"]) == ("float32", ["math"])
    assert config["versions"]["torch"] == metadata.version("torch")
    assert read_config(tmp_path) == config


def test_config_json_names_the_eval_tasks_and_the_training_tasks(tmp_path: Path) -> None:
    env = rmc_envs.make(LADDER, 8, actions=3)
    described = ppo_trainer(tmp_path, env=env, eval_tasks=[LADDER.split(",")[1]], curriculum=True).to_json()
    assert described["environment"]["env"] == "MiniGrid-MemoryS7-v0"
    assert described["environment"]["train_on"] == LADDER
    assert described["environment"]["curriculum"]
    described = ppo_trainer(tmp_path, env=env).to_json()
    assert (described["environment"]["env"], described["environment"]["train_on"]) == (LADDER, None)
    assert "environment" not in ppo_trainer(tmp_path, env=rmc_envs.Recall(8)).to_json()


def test_resuming_keeps_entries_of_config_json_that_the_trainer_does_not_know(tmp_path: Path) -> None:
    extra = {"precision": "bf16", "imports": ["math"], "note": "hand-written"}
    ppo_trainer(tmp_path, extra=extra).run()
    again = ppo_trainer(tmp_path, config=dataclasses.replace(QUICK, total_steps=1024))
    again.restore()
    again.run()
    config = read_config(tmp_path)
    assert {name: config[name] for name in extra} == extra
    assert config["ppo"]["total_steps"] == 1024


def test_tensorboard_tags_are_those_of_sb3(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ppo_trainer(tmp_path / "run").run()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    names = set(events.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "time/fps"} <= names
    assert {"train/entropy_loss", "train/value_loss", "train/approx_kl", "train/explained_variance"} <= names
    assert [e.step for e in events.Scalars("time/fps")] == [128, 256, 384, 512]


def test_second_run_never_overwrites_the_first(tmp_path: Path) -> None:
    ppo_trainer(tmp_path / "run").run()
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="already holds a run: resume it, or choose another run_dir"):
        ppo_trainer(tmp_path / "run").run()
    kept = {p: p.read_bytes() for p in before}
    assert kept == before


class SpoiledRecall(rmc_envs.Recall):
    """Recall whose reward or observation is NaN from some step on."""

    def __init__(self, what: str, after: int) -> None:
        super().__init__(8)
        self.what, self.left = what, after

    def step(self, actions: torch.Tensor) -> rmc_envs.Transition:
        transition = super().step(actions)
        self.left -= 1
        if self.left < 0:
            spoiled = transition.reward if self.what == "reward" else transition.obs
            assert isinstance(spoiled, torch.Tensor)
            spoiled[3] = torch.nan
        return transition


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_nan_is_reported_and_does_not_reach_the_agent(what: str, tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path / "run", env=SpoiledRecall(what, after=20), checkpoint_seconds=0)
    with pytest.raises(TrainingError, match=f"the {what} of environment 3"):
        run.run()
    assert all(p.isfinite().all() for p in run.agent.parameters())
    assert run.steps == 128
    assert len(checkpoints(tmp_path / "run")) == 1
    assert all(p.isfinite().all() for p in rmc_agents.load(tmp_path / "run").parameters())


def test_run_stops_at_target_success_rate(tmp_path: Path) -> None:
    config = PPOConfig(total_steps=10**6, num_steps=64, bptt_length=8, minibatch_size=512, epochs=1)
    run = ppo_trainer(tmp_path / "run", env=small_env(32), config=config, target_success_rate=0.1)
    assert not run.target_reached
    figures = run.run()
    assert run.target_reached
    assert run.done
    assert 1000 * 4 <= run.steps < 20_000
    assert figures["rollout/success_rate"] >= 0.1
    # The agent that is saved is the one that reached the target: it learned nothing after that.
    assert "train/loss" not in figures
    assert run.iterations == 1 + max(int(s["step"]) for s in run.optimizer.state.values()) // 4


def test_kl_limit_ends_the_epochs_early(tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, epochs=50, learning_rate=1e-2)
    updates = {}
    for limit in (None, 1e-3):
        run = ppo_trainer(tmp_path / str(limit), config=dataclasses.replace(config, target_kl=limit))
        run.iterate()
        updates[limit] = max(int(s["step"]) for s in run.optimizer.state.values())
    assert updates[None] == 50 * 2
    assert 2 <= updates[1e-3] < 50


@pytest.mark.parametrize(("task", "reported"), [("CartPole-v1", False), ("rmc/Recall-v0", True)])
def test_success_is_shown_only_if_the_task_reports_it(task: str, reported: bool, tmp_path: Path) -> None:
    env = rmc_envs.make(task, 8)
    run = ppo_trainer(tmp_path, env=env, config=dataclasses.replace(QUICK, num_steps=64))
    figures = run.iterate()
    env.close()
    assert "rollout/ep_rew_mean" in figures
    assert ("rollout/success_rate" in figures) == reported


def test_spaces_of_agent_and_environments_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="observation_space"):
        Trainer(small_agent("gru"), small_env(8, num_symbols=5), QUICK, tmp_path)


def test_rollout_larger_than_memory_is_refused_with_one_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit into memory"):
        ppo_trainer(tmp_path, config=PPOConfig(num_steps=2**44, bptt_length=16, minibatch_size=512))


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoint_seconds": -1},
        {"keep_checkpoints": 0},
        {"target_success_rate": 2.0},
        {"target_success_rate": 0},
    ],
)
def test_settings_out_of_range_fail_before_anything_is_created(
    options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ppo_trainer(tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())


def test_environment_without_saved_state_starts_new_episodes_on_resume(tmp_path: Path) -> None:
    """Two runs resumed from one checkpoint are the same run."""
    config = PPOConfig(total_steps=512, num_steps=16, bptt_length=8, minibatch_size=64, epochs=1)
    first = ppo_trainer(tmp_path / "run", env=rmc_envs.make("CartPole-v1", 8), config=config)
    first.iterate()
    save_interrupted(first)
    resumed = [
        ppo_trainer(tmp_path / "run", env=rmc_envs.make("CartPole-v1", 8), config=config) for _ in range(2)
    ]
    for run in resumed:
        assert any("new episodes start" in note for note in run.restore())
        run.iterate()
    assert_identical(*resumed)


def test_restarted_environments_are_logged_and_training_continues(tmp_path: Path) -> None:
    makers = [checked(FaultyEnv, i, "Faulty-v0") for i in range(3)]
    workers = Workers(makers, "Faulty-v0", restart=True)
    batch = rmc_envs.GymnasiumEnvs(workers, name="Faulty-v0")
    config = PPOConfig(total_steps=3 * 8 * 4, num_steps=8, bptt_length=8, minibatch_size=24, epochs=1)
    run = ppo_trainer(tmp_path / "run", env=batch, config=config)
    iterate = run.iterate

    def kill_one_process() -> dict[str, float]:
        figures = iterate()
        if run.iterations == 2:
            workers._workers[2].process.kill()
        return figures

    run.iterate = kill_one_process  # type: ignore[method-assign]
    run.run()
    batch.close()
    assert run.done
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert "environment 2 (Faulty-v0) is gone: its process died (SIGKILL); it was restarted" in log


def aux_trainer(run_dir: Path, aux_size: int = 15, **changes: Any) -> Trainer:
    """Build a trainer in Nth Farthest with three objects of two dimensions: 15 auxiliary targets."""
    torch.manual_seed(5)
    env = rmc_envs.NthFarthest(8, num_objects=3, num_dims=2)
    agent = fresh_agent("rmc", env, aux_size=aux_size)
    return Trainer(agent, env, dataclasses.replace(QUICK, **{"aux_coef": 2.0, **changes}), run_dir)


def test_auxiliary_loss_falls_and_is_logged(tmp_path: Path) -> None:
    run = aux_trainer(tmp_path / "a", total_steps=6000, learning_rate=3e-3)
    losses = [run.iterate()["train/aux_loss"] for _ in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    plain = aux_trainer(tmp_path / "b", aux_coef=0.0, aux_size=0)
    assert "train/aux_loss" not in plain.iterate()


def test_run_with_auxiliary_targets_resumed_mid_episode_equals_uninterrupted(tmp_path: Path) -> None:
    whole, first = aux_trainer(tmp_path / "whole"), aux_trainer(tmp_path / "parts")
    assert QUICK.num_steps % 3
    for run, iterations in ((whole, 4), (first, 2)):
        for _ in range(iterations):
            run.iterate()
    save_interrupted(first)
    second = aux_trainer(tmp_path / "parts")
    second.restore()
    for _ in range(2):
        second.iterate()
    assert_identical(whole, second)


def test_auxiliary_targets_must_exist_in_environment_and_agent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="aux_size=7"):
        aux_trainer(tmp_path, aux_size=7)
    with pytest.raises(ValueError, match="Recall-v0 has 0"):
        ppo_trainer(tmp_path, config=dataclasses.replace(QUICK, aux_coef=1.0))


RECALL = PPOConfig(
    total_steps=60_000,
    num_steps=24,
    bptt_length=12,
    minibatch_size=384,
    epochs=4,
    learning_rate=4e-3,
    learning_rate_end=4e-3,
)


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES_WITH_MEMORY)
def test_core_with_memory_learns_recall(core: str, tmp_path: Path) -> None:
    """Three symbols, four blank steps. Without memory no agent exceeds 1/3."""
    env = small_env(32, num_symbols=3, delay=4)
    torch.manual_seed(0)
    run = Trainer(fresh_agent(core, env), env, RECALL, tmp_path, target_success_rate=0.95)
    run.run()
    assert run.target_reached, f"{core} solved {run.recent.score()} of the last episodes"


def test_core_without_memory_does_not_learn_recall(tmp_path: Path) -> None:
    """The control, with the whole budget: it stays at the memoryless ceiling of 1/3."""
    env = small_env(32, num_symbols=3, delay=4)
    torch.manual_seed(0)
    run = Trainer(fresh_agent("feedforward", env), env, RECALL, tmp_path, target_success_rate=0.95)
    run.run()
    count, solved, _ = (sum(x) for x in zip(*run.recent, strict=True))
    assert run.steps >= RECALL.total_steps
    assert not run.target_reached
    assert abs(solved / count - 1 / 3) < 4 * (2 / 9 / count) ** 0.5

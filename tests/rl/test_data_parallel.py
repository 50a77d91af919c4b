"""PPO in several processes: equal parameters, steps of the whole minibatch, and decisions made together."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import rmc_envs
from rmc_agents import PPOConfig, Trainer
from rmc_agents.environment import AuxiliaryTargets, EnvironmentFailed
from rmc_agents.errors import Interrupted, UsageError
from rmc_agents.rl.optimizer import make_optimizer
from rmc_agents.rl.rollout import Chunks
from rmc_agents.rl.update import Updater
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import checkpoints, read_config
from rmc_agents.training.processes import ALONE, Processes
from rmc_agents.training.snapshot import OTHERS
from tests.support.agents import chunks_of, collected, fresh_agent, small_env
from tests.support.groups import in_processes
from tests.support.trainers import QUICK, assert_identical, everything, ppo_trainer, save_interrupted

LADDER = "MiniGrid-MemoryS5-v0,MiniGrid-MemoryS7-v0"


def mazes(num_envs: int) -> rmc_envs.BatchedEnv:
    return rmc_envs.make(LADDER, num_envs, actions=3)


def share(group: Processes, run_dir: Path, **options: Any) -> Trainer:
    """Build the trainer of one of two processes, which together have eight environments."""
    if group.rank:
        torch.manual_seed(6)
    return ppo_trainer(run_dir, env=mazes(8 // group.size), curriculum=True, processes=group, **options)


def iterate_and_resume(group: Processes, run_dir: Path) -> list[Any]:
    """Train for four iterations, once in one go and once resumed after two."""
    whole = share(group, run_dir / "whole")
    initial = [p.detach().clone() for p in whole.agent.parameters()]
    for _ in range(4):
        whole.iterate()
    first = share(group, run_dir / "parts")
    first.iterate()
    figures = first.iterate()
    first.save() if group.rank else save_interrupted(first)
    second = share(group, run_dir / "parts")
    notes = second.restore()
    for _ in range(2):
        second.iterate()
    assert_identical(whole, second)
    moved = any(not torch.equal(a, b) for a, b in zip(initial, whole.agent.parameters(), strict=True))
    state = second.state_dict()
    assert second.load_state_dict(state) == []
    assert_identical(whole, second)
    parameters = [*initial, *whole.agent.parameters(), *whole.optimizer.tensors]
    assert whole.generator is not None
    own = [whole.generator.get_state(), whole.carry.state.action]
    shared = [whole.steps, list(whole.recent), whole.curriculum, moved]
    same = {tag: x for tag, x in figures.items() if not tag.startswith("time/")}
    return [[x.detach() for x in parameters], own, shared, same, len(notes)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A run of two processes, and what each of them returned."""
    folder = tmp_path_factory.mktemp("two")
    return folder, in_processes(lambda group: iterate_and_resume(group, folder))


def test_processes_stay_equal_and_resume_bit_for_bit(trained: tuple[Path, list[Any]]) -> None:
    folder, (first, second) = trained
    assert not isinstance(first, str), first
    assert not isinstance(second, str), second
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert not torch.equal(first[1][0], second[1][0]), "each process draws its own numbers"
    assert first[2:] == second[2:]
    assert first[2][0] == 4 * 128, "steps count the environments of both"
    assert first[2][3], "the weights moved"
    config = read_config(folder / "parts")
    assert (config["processes"], config["environment"]["num_envs"]) == (2, 8)


def test_another_number_of_processes_starts_new_episodes(trained: tuple[Path, list[Any]]) -> None:
    folder, _ = trained
    run = share(ALONE, folder / "parts")
    notes = run.restore()
    path, payload, _ = read_newest(folder / "parts")
    assert notes == [
        f"resuming from {path}",
        "the run was saved by 2 processes and continues in 1: new episodes start, seeded with 261 (the seed "
        "plus the steps so far)",
    ]
    for name, weights in run.agent.state_dict().items():
        assert torch.equal(weights, payload["agent"][name])
    assert run.optimizer.state_dict()["state"][0]["step"] > 0
    assert (run.steps, run.carry.starts.tolist()) == (256, [True] * 8)
    run.iterate()
    assert run.steps == 384


DAMAGE = {
    "no list": lambda parts: "x",
    "no states": lambda parts: [1],
    "weights of its own": lambda parts: [{**parts[0], "agent": {}}],
    "another form": lambda parts: [{**parts[0], "carry": parts[0]["carry"][1:]}],
    "no generator": lambda parts: [{**parts[0], "generator": "x"}],
    "no environments": lambda parts: [{**parts[0], "env": None}],
    "not finite": lambda parts: [{**parts[0], "running": [x * torch.nan for x in parts[0]["running"]]}],
}


def test_damaged_states_of_other_processes_are_refused_in_all(trained: tuple[Path, list[Any]]) -> None:
    folder, _ = trained
    payload = read_newest(folder / "parts")[1]

    def load_damaged(group: Processes) -> list[str]:
        run, same = share(group, folder / "a"), share(group, folder / "b")
        errors = []
        for damage in DAMAGE.values():
            try:
                run.load_state_dict({**payload, OTHERS: damage(payload[OTHERS])})
                errors.append("none")
            except Exception as error:
                errors.append(type(error).__name__)
            assert_identical(run, same)
        return errors

    first, second = in_processes(load_damaged)
    assert first == second
    assert len(first) == len(DAMAGE)
    assert "none" not in first


def test_group_of_one_equals_a_process_alone(tmp_path: Path) -> None:
    def train(group: Processes) -> list[torch.Tensor]:
        run = share(group, tmp_path / str(group.size))
        for _ in range(2):
            run.iterate()
        return [x.detach() for x in everything(run)]

    (grouped,) = in_processes(train, size=1)
    assert all(torch.equal(a, b) for a, b in zip(grouped, train(ALONE), strict=True))


def filled_chunks() -> tuple[Any, Chunks]:
    """Return an agent with auxiliary targets, and 16 chunks with filler steps."""
    torch.manual_seed(0)
    env = rmc_envs.NthFarthest(8, num_objects=3, num_dims=2)
    agent = fresh_agent("gru", env, aux_size=env.aux_size)
    _, rollout = collected(agent, 16, env)
    chunks = chunks_of(agent, rollout, 8)
    valid = torch.rand_like(chunks.advantages) < 0.7
    targets = chunks.aux_targets
    assert targets is not None
    weights = targets.weights * torch.rand_like(targets.weights)
    return agent, chunks._replace(valid=valid, aux_targets=AuxiliaryTargets(targets.values, weights))


def step_on(group: Processes, normalize: bool) -> list[torch.Tensor]:
    """Take steps on the chunks of a process: every chunk of the 16, or every second one."""
    agent, chunks = filled_chunks()
    own = torch.arange(group.rank, 16, group.size)
    config = PPOConfig(
        num_steps=16,
        bptt_length=8,
        minibatch_size=128,
        epochs=3,
        aux_coef=2.0,
        max_grad_norm=0.1,
        normalize_advantage=normalize,
    )
    updater = Updater(agent, make_optimizer(agent, config), config, group)
    metrics = updater.update(chunks.select(own), 3e-4, 0.01, torch.Generator().manual_seed(group.rank))
    return [torch.stack(metrics), *(p.detach() for p in agent.parameters())]


@pytest.mark.parametrize("normalize", [True, False])
def test_divided_minibatch_gives_the_step_of_the_whole(normalize: bool) -> None:
    whole = step_on(ALONE, normalize)
    first, second = in_processes(lambda group: step_on(group, normalize))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.testing.assert_close(first[0], whole[0], rtol=1e-4, atol=1e-6)
    for divided, together in zip(first[1:], whole[1:], strict=True):
        torch.testing.assert_close(divided, together, rtol=0, atol=3e-5)  # a tenth of a learning rate


def outcome(run: Trainer) -> str:
    """Train to the end; return the type of the error, if there is one, and its message."""
    try:
        run.run()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def run_until_target(group: Processes, folder: Path) -> list[Any]:
    torch.manual_seed(5)
    config = PPOConfig(total_steps=10**6, num_steps=64, bptt_length=8, minibatch_size=512, epochs=1)
    run = ppo_trainer(
        folder / str(group.rank),
        env=small_env(16),
        config=config,
        target_success_rate=0.1,
        processes=group,
    )
    return [outcome(run), run.target_reached, run.steps, run.iterations]


def run_until_signal(group: Processes, folder: Path) -> list[Any]:
    """Process 1 receives SIGTERM in its third iteration."""
    config = dataclasses.replace(QUICK, total_steps=10**6)
    run = share(group, folder / f"signal {group.rank}", config=config, checkpoint_seconds=0)
    iterate = run.iterate

    def with_signal() -> dict[str, float]:
        if group.rank == 1 and run.iterations == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return iterate()

    run.iterate = with_signal  # type: ignore[method-assign]
    try:
        run.run()
    except Interrupted as stop:
        return ["Interrupted", stop.signal, run.iterations]
    return ["no signal"]


def run_until_signal_to_all(group: Processes, folder: Path) -> list[Any]:
    """All processes receive SIGTERM in the third iteration, those of process 1's environments, too."""
    run = share(group, folder / f"all {group.rank}", checkpoint_seconds=0)
    iterate = run.iterate

    def with_signal() -> dict[str, float]:
        if run.iterations == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            if group.rank == 1:
                raise EnvironmentFailed("the processes of the environments ended")
        return iterate()

    run.iterate = with_signal  # type: ignore[method-assign]
    run.run()
    return ["no signal"]


def run_into_nan(group: Processes, folder: Path) -> list[Any]:
    """The rewards of process 1 become NaN in its second iteration."""
    run = share(group, folder / f"nan {group.rank}", checkpoint_seconds=0)
    step = run.env.step

    def spoiled(actions: torch.Tensor) -> rmc_envs.Transition:
        transition = step(actions)
        if group.rank == 1 and run.iterations == 1:
            transition.reward[2] = torch.nan
        return transition

    run.env.step = spoiled  # type: ignore[method-assign]
    return [outcome(run), run.steps, all(bool(p.isfinite().all()) for p in run.agent.parameters())]


def test_decisions_are_made_together(tmp_path: Path) -> None:
    """The target is reached, a signal arrives in one process, a number is NaN in one process."""

    def decide(group: Processes) -> list[Any]:
        return [run(group, tmp_path) for run in (run_until_target, run_until_signal, run_into_nan)]

    (target, interrupted, nan), (target_1, interrupted_1, nan_1) = in_processes(decide)
    assert target == target_1
    assert target[:2] == ["done", True]
    assert interrupted == interrupted_1 == ["Interrupted", signal.SIGTERM, 3]
    assert len(checkpoints(tmp_path / "signal 0")) == 3
    where = tmp_path / "nan 0"
    assert nan[0].startswith("TrainingError: the reward of environment 6 (MiniGrid-MemoryS")
    assert "is not finite at step 128; training stopped before it could damage the agent" in nan[0]
    assert nan_1[0] == "TrainingError: a number is not finite; process 0 explains it"
    assert nan[1:] == nan_1[1:] == [128, True]
    assert '"process": 1' in (where / "diagnostic.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "nan 0", "signal 0"], "process 0 writes"


def test_signal_that_ends_environments_of_another_process_is_no_failure(tmp_path: Path) -> None:
    found = in_processes(lambda group: run_until_signal_to_all(group, tmp_path))
    newest = checkpoints(tmp_path / "all 0")[0]
    assert found[0] == f"Interrupted: interrupted after 256 steps; saved: {newest}"
    assert found[1].startswith("Interrupted: ")


def test_minibatches_and_environments_must_be_divisible(tmp_path: Path) -> None:
    class Three(type(ALONE)):
        size = 3

    with pytest.raises(ValueError, match="minibatch_size=64 cannot be divided among 3 processes"):
        ppo_trainer(tmp_path, processes=Three())


def test_config_json_with_another_number_of_environments_is_refused(
    trained: tuple[Path, list[Any]],
) -> None:
    from rmc_agents.cli.resume import resumed

    folder, _ = trained
    assert resumed(folder / "parts").run.processes == 2
    text = (folder / "parts" / "config.json").read_text()
    try:
        for old, new, error in [
            ('"num_envs": 8', '"num_envs": 4', "of other than 4 environments"),
            ('"processes": 2', '"processes": "2"', "processes=2: expected 1 or more"),
        ]:
            (folder / "parts" / "config.json").write_text(text.replace(old, new))
            with pytest.raises(UsageError, match=error):
                resumed(folder / "parts")
    finally:
        (folder / "parts" / "config.json").write_text(text)

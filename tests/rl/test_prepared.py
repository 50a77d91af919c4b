"""Prepared acting and learning: the same training, bit for bit, as with PyTorch between the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

import rmc_envs
from rmc_agents import ActorCritic, Trainer
from rmc_agents.rl import rollout as rollout_module
from rmc_agents.rl import update as update_module
from rmc_agents.rl.prepared_step import PreparedStep
from rmc_agents.rl.rollout import Rollout, collect
from rmc_agents.tree import leaves
from tests.conftest import small_options
from tests.support.cores import needs_native
from tests.support.trainers import QUICK, assert_identical

pytestmark = needs_native

CONFIG = replace(QUICK, total_steps=8 * 32 * 8, num_steps=32, minibatch_size=128)
NORMALIZED = {**small_options("rmc"), "normalize_output": True}
COUPLED = {**NORMALIZED, "coupled_gates": True, "forget_bias_end": 3.0, "output_gain": 0.1}
MAZES = "MiniGrid-MemoryS5-v0,MiniGrid-MemoryS7-v0"


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Builds a trainer in small mazes, whose few observations recur."""

    def build_trainer(name: str, core: str = "gru", *, env: Any = None, **options: Any) -> Trainer:
        torch.manual_seed(5)
        env = env or rmc_envs.make("MiniGrid-MemoryS5-v0", 8, actions=3, view_size=3)
        core_options = options.pop("core_options", None) or small_options(core)
        config = options.pop("config", CONFIG)
        agent = ActorCritic(
            env.observation_space,
            env.action_space,
            core,
            core_options,
            features=32,
            hidden_size=16,
            **options,
        )
        torch.nn.init.normal_(agent.policy.linear.weight)
        return Trainer(agent, env, config, tmp_path / name, seed=5)

    return build_trainer


@pytest.fixture
def unprepared(monkeypatch: pytest.MonkeyPatch) -> Callable[[Trainer], dict[str, float]]:
    """Iterates a trainer with neither acting nor learning prepared."""

    def iterate(run: Trainer) -> dict[str, float]:
        with monkeypatch.context() as patch:
            patch.setattr(rollout_module, "prepare_acting", lambda *_: None)
            patch.setattr(update_module, "prepare_step", lambda *_: None)
            return run.iterate()

    return iterate


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each gradient step that was prepared, whether it could be taken."""
    steps: list[bool] = []
    take = PreparedStep.__call__

    def record(self: PreparedStep, *args: Any) -> Tensor | None:
        result = take(self, *args)
        steps.append(result is not None)
        return result

    monkeypatch.setattr(PreparedStep, "__call__", record)
    return steps


def acting_is_prepared(run: Trainer) -> bool:
    """Whether collecting a rollout does without `ActorCritic.act`."""
    calls: list[str] = []
    act = ActorCritic.act

    def recorded(agent: ActorCritic, *args: Any, **kwargs: Any) -> Any:
        calls.append("act")
        return act(agent, *args, **kwargs)

    ActorCritic.act = recorded  # type: ignore[method-assign]
    try:
        run.carry = collect(run.agent, run.env, run.carry, run.rollout, run.generator)
    finally:
        ActorCritic.act = act  # type: ignore[method-assign]
    return not calls


def tensors(rollout: Rollout) -> Iterator[Tensor]:
    return leaves({name: value for name, value in vars(rollout).items() if name != "reports_success"})


def learned(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not name.startswith("time/")}


@pytest.mark.parametrize(
    ("core", "options"),
    [
        ("rmc", {}),
        ("rmc", {"core_options": NORMALIZED}),
        ("rmc", {"core_options": COUPLED}),
        ("rmc", {"core_options": {**small_options("rmc"), "coupled_gates": True, "gate_style": "memory"}}),
        ("rmc", {"core_options": {**small_options("rmc"), "gate_style": "none", "slot_attention": "own"}}),
        ("rmc", {"skip": False}),
        ("lstm", {}),
        ("gru", {"skip": False}),
        ("rnn", {}),
        ("mingru", {}),
        (
            "gru",
            {"config": replace(CONFIG, normalize_advantage=False, clip_range_value=0.1, entropy_coef=0.1)},
        ),
        ("gru", {"config": replace(CONFIG, target_kl=1e-4, epochs=4)}),
        ("lstm", {"config": replace(CONFIG, bptt_length=32, minibatch_size=256)}),
    ],
)
def test_prepared_training_equals_training_with_autograd(
    core: str,
    options: dict[str, Any],
    trainer: Callable[..., Trainer],
    unprepared: Callable[..., dict[str, float]],
    taken: list[bool],
) -> None:
    fast, slow = trainer("fast", core, **options), trainer("slow", core, **options)
    for _ in range(3):
        assert learned(fast.iterate()) == learned(unprepared(slow))
        for a, b in zip(tensors(fast.rollout), tensors(slow.rollout), strict=True):
            assert torch.equal(a, b)
    assert_identical(fast, slow)
    assert taken
    assert all(taken)
    assert acting_is_prepared(fast)


def test_minibatch_of_many_distinct_observations_is_left_to_autograd(
    trainer: Callable[..., Trainer], unprepared: Callable[..., dict[str, float]], taken: list[bool]
) -> None:
    runs = [
        trainer(
            name, "rmc", env=rmc_envs.make(MAZES, 8), config=replace(CONFIG, bptt_length=1, minibatch_size=8)
        )
        for name in ("fast", "slow")
    ]
    for _ in range(3):
        runs[0].iterate()
        unprepared(runs[1])
    assert_identical(*runs)
    assert set(taken) == {True, False}, "the test needs minibatches of both kinds"


def test_rollout_of_one_step_is_prepared(
    trainer: Callable[..., Trainer], unprepared: Callable[..., dict[str, float]]
) -> None:
    env = rmc_envs.make("MiniGrid-MemoryS5-v0", 256, view_size=3)
    other = rmc_envs.make("MiniGrid-MemoryS5-v0", 256, view_size=3)
    config = replace(CONFIG, num_steps=1, bptt_length=1, minibatch_size=256)
    fast, slow = trainer("fast", env=env, config=config), trainer("slow", env=other, config=config)
    for _ in range(3):
        fast.iterate()
        unprepared(slow)
    assert_identical(fast, slow)


def test_carried_state_does_not_change_with_the_next_rollout(trainer: Callable[..., Trainer]) -> None:
    run = trainer("run", "lstm")
    run.iterate()
    before = [x.clone() for x in leaves(run.carry)]
    carry = run.carry
    run.iterate()
    assert all(torch.equal(a, b) for a, b in zip(leaves(carry), before, strict=True))


def freeze_encoder(run: Trainer) -> None:
    run.agent.encoder.linear.weight.requires_grad_(False)


def watch_gradients(run: Trainer) -> None:
    run.agent.value_head.weight.register_hook(lambda gradient: 2 * gradient)


def watch_accumulated_gradients(run: Trainer) -> None:
    run.agent.value_head.weight.register_post_accumulate_grad_hook(_double_gradient)


def _double_gradient(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.mul_(2)


def double(_: Any, __: Any, output: Tensor) -> Tensor:
    return 2 * output


def watch_heads(run: Trainer) -> None:
    run.agent.value_head.register_forward_hook(double)


def watch_encoder(run: Trainer) -> None:
    run.agent.encoder.register_forward_hook(double)


def watch_encoder_layer(run: Trainer) -> None:
    run.agent.encoder.linear.register_forward_hook(double)


def watch_core_layer(run: Trainer) -> None:
    run.agent.core.input_proj.register_forward_hook(double)  # type: ignore[union-attr,operator]


def patch_encoder(run: Trainer) -> None:
    forward = run.agent.encoder.forward
    run.agent.encoder.forward = lambda obs: 2 * forward(obs)  # type: ignore[method-assign]


def patch_layer_of_heads(run: Trainer) -> None:
    forward = run.agent.policy.linear.forward
    run.agent.policy.linear.forward = lambda x: 2 * forward(x)  # type: ignore[method-assign]


def patch_evaluation(run: Trainer) -> None:
    evaluate = run.agent.evaluate_actions

    def doubled(*args: Any, **options: Any) -> Any:
        evaluation = evaluate(*args, **options)
        return evaluation._replace(values=2 * evaluation.values)

    run.agent.evaluate_actions = doubled  # type: ignore[method-assign]


def prune_encoder(run: Trainer) -> None:
    prune.l1_unstructured(run.agent.encoder.linear, "weight", 0.5)


def replace_unroll(run: Trainer) -> None:
    unroll = run.agent.core.unroll
    run.agent.core.unroll = lambda inputs, *args: unroll(2 * inputs, *args)  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "change",
    [
        freeze_encoder,
        watch_gradients,
        watch_accumulated_gradients,
        watch_heads,
        watch_encoder,
        watch_encoder_layer,
        watch_core_layer,
        patch_encoder,
        patch_layer_of_heads,
        patch_evaluation,
        prune_encoder,
        replace_unroll,
    ],
)
@pytest.mark.parametrize("core", ["rmc", "gru"])
def test_agents_that_their_user_changes_train_as_without_preparation(
    core: str,
    change: Callable[[Trainer], None],
    trainer: Callable[..., Trainer],
    unprepared: Callable[..., dict[str, float]],
    taken: list[bool],
) -> None:
    fast, slow, unchanged = (trainer(name, core) for name in ("fast", "slow", "unchanged"))
    for run in (fast, slow):
        run.iterate()  # the change comes later than the first preparation
        change(run)
        taken.clear()
        run.iterate() if run is fast else unprepared(run)
        assert not taken
    assert_identical(fast, slow)
    for _ in range(2):
        unchanged.iterate()
    parameters = zip(fast.agent.parameters(), unchanged.agent.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in parameters), "the change has no effect"


def share_hidden_layers(run: Trainer) -> None:
    run.agent.value_hidden = run.agent.policy_hidden


def share_one_weight(run: Trainer) -> None:
    run.agent.value_hidden[0].weight = run.agent.policy_hidden[0].weight


def share_layers_of_core(run: Trainer) -> None:
    run.agent.core.mlp[1] = run.agent.core.mlp[0]  # type: ignore[union-attr,index,operator]


def normalize_weights_of_core(run: Trainer) -> None:
    weight_norm(run.agent.core.input_proj)  # type: ignore[arg-type]


def normalize_weights_of_encoder(run: Trainer) -> None:
    weight_norm(run.agent.encoder.linear)


@pytest.mark.parametrize(
    "change",
    [
        share_hidden_layers,
        share_one_weight,
        share_layers_of_core,
        normalize_weights_of_core,
        normalize_weights_of_encoder,
    ],
)
def test_shared_and_computed_weights_train_as_without_preparation(
    change: Callable[[Trainer], None],
    trainer: Callable[..., Trainer],
    unprepared: Callable[..., dict[str, float]],
    taken: list[bool],
) -> None:
    runs = []
    for name in ("fast", "slow"):
        run = trainer(name, "rmc")
        change(run)
        runs.append(Trainer(run.agent, run.env, CONFIG, run.run_dir, seed=5))
    for _ in range(2):
        assert learned(runs[0].iterate()) == learned(unprepared(runs[1]))
    assert_identical(*runs)
    assert not taken


def test_trainers_of_one_agent_read_their_own_tables(trainer: Callable[..., Trainer]) -> None:
    first = trainer("first")
    table = first.agent.encoder.table
    other = rmc_envs.make("MiniGrid-MemoryS7-v0", 8, actions=3, view_size=3)
    second = Trainer(first.agent, other, CONFIG, first.run_dir.parent / "second", seed=5)
    assert first.agent.encoder.table is not table
    first.iterate()
    assert first.agent.encoder.table is table
    second.iterate()
    assert first.agent.encoder.table is second.table


def test_default_dtype_changes_nothing(trainer: Callable[..., Trainer]) -> None:
    runs = [trainer(name, "rmc") for name in ("double", "single")]
    torch.set_default_dtype(torch.float64)
    try:
        runs[0].iterate()
    finally:
        torch.set_default_dtype(torch.float32)
    runs[1].iterate()
    for a, b in zip(runs[0].agent.parameters(), runs[1].agent.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_interrupted_update_leaves_nothing_prepared(
    trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer("run")

    def interrupt(self: PreparedStep, *_: Any) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(PreparedStep, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.iterate()
    assert run.updater.prepared is None


@pytest.mark.parametrize(
    "options",
    [
        {"previous_action": True},
        {"previous_reward": True},
        {"critic_memory": "separate"},
        {"critic_memory": "none"},
    ],
)
def test_agents_that_read_or_remember_more_are_not_prepared(
    options: dict[str, Any], trainer: Callable[..., Trainer], taken: list[bool]
) -> None:
    run = trainer("run", **options)
    run.iterate()
    assert not taken
    assert not acting_is_prepared(run)


def test_unknown_observation_id_raises(trainer: Callable[..., Trainer]) -> None:
    run = trainer("run")
    run.carry = run.collect(run.carry)
    run.rollout.obs.ids[3, 2] = 10**6
    with pytest.raises(IndexError, match="an id lies outside of 0 to"):
        run._learn(0)

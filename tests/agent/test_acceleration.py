"""Tests of acceleration: compiled or bfloat16 networks give the same results, or a note says why not."""

from __future__ import annotations

import copy
import pickle
import time

import pytest
import torch

import rmc_envs
from rmc_agents import ActorCritic
from rmc_agents.agent import acceleration
from rmc_agents.agent.acceleration import accelerate, bfloat16_is_slow
from rmc_agents.agent.actor_critic import AgentState
from rmc_agents.cores.kernels import gated_triton, rmc_triton
from rmc_agents.tree import leaves

# torch.compile raises them on its first use.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def agent_and_inputs(core: str) -> tuple[ActorCritic, tuple]:
    """Return an agent and the arguments of `evaluate_actions` for 4 steps of 8 mazes."""
    torch.manual_seed(0)
    mazes = rmc_envs.make("MiniGrid-MemoryS7-v0", 8, actions=3)
    agent = ActorCritic(mazes.observation_space, mazes.action_space, core, hidden_size=16, features=16)
    steps = [mazes.reset(0), *(mazes.step(torch.full((8,), 2)).obs for _ in range(3))]
    obs = {key: torch.stack([step[key] for step in steps]) for key in steps[0]}
    starts = torch.zeros(4, 8, dtype=torch.bool)
    starts[2, 3] = True
    state = agent.initial_state(8)
    return agent, (obs, torch.zeros(4, 8, dtype=torch.int64), torch.zeros(4, 8), starts, state)


def evaluate(agent: ActorCritic, inputs: tuple) -> list[torch.Tensor]:
    """Return log-probabilities, entropies and values."""
    evaluation = agent.evaluate_actions(*inputs)
    assert evaluation.aux_predictions is None
    return list(evaluation[:3])


def evaluate_with_gradients(agent: ActorCritic, inputs: tuple) -> list[torch.Tensor]:
    """Return log-probabilities, entropies and values, and the gradient of every parameter."""
    agent.zero_grad()
    outputs = evaluate(agent, inputs)
    torch.stack(outputs).square().sum().backward()
    return [*outputs, *(p.grad for p in agent.parameters() if p.grad is not None)]


@pytest.mark.parametrize("core", [pytest.param("rmc", marks=pytest.mark.slow), "lstm"])
def test_compiled_networks_compute_the_same(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, inputs = agent_and_inputs(core)
    expected = evaluate_with_gradients(agent, inputs)
    real = torch.compile
    # The whole graph is captured here; the slow test generates machine code.
    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend="eager", fullgraph=True))
    assert accelerate(agent, compiled=True) == []
    torch.testing.assert_close(evaluate_with_gradients(agent, inputs), expected, atol=1e-5, rtol=1e-4)
    torch.compiler.reset()


@pytest.mark.slow
def test_networks_compiled_to_machine_code_compute_the_same() -> None:
    agent, inputs = agent_and_inputs("feedforward")  # the other cores take a minute to compile
    expected = evaluate_with_gradients(agent, inputs)
    notes = accelerate(agent, compiled=True)
    assert notes == [] or "cannot be compiled here" in notes[0]
    torch.testing.assert_close(evaluate_with_gradients(agent, inputs), expected, atol=1e-5, rtol=1e-4)
    torch.compiler.reset()


@pytest.mark.parametrize("slow", [False, True])
def test_bf16_networks_compute_nearly_the_same_and_keep_float32_memories(
    slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "bfloat16_is_slow", lambda _: slow)
    agent, inputs = agent_and_inputs("rmc")
    expected = evaluate(agent, inputs)
    notes = accelerate(agent, "bf16")
    assert ["slower than float32 on this CPU" in note for note in notes] == [True] * slow
    found = evaluate(agent, inputs)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
    assert any(not torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    obs, _, _, starts, state = inputs
    _, _, _, after = agent.act({key: x[0] for key, x in obs.items()}, starts[0], state)
    assert isinstance(after, AgentState)
    assert {x.dtype for x in leaves(after.memory)} == {torch.float32}


def test_slow_bfloat16_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU without instructions for bfloat16; other devices are not measured."""
    mm = torch.mm

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        clock[0] += costs[a.dtype]
        return mm(a, b)

    clock = [0.0]
    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    costs = {torch.float32: 1e-3, torch.bfloat16: 5e-4}
    assert not bfloat16_is_slow(torch.device("cpu"))
    costs[torch.bfloat16] = 1e-2
    assert bfloat16_is_slow(torch.device("cpu"))
    assert not bfloat16_is_slow(torch.device("meta"))


def test_agent_without_a_compiler_runs_uncompiled_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("no working C++ compiler\nand many lines more")

    agent, inputs = agent_and_inputs("rmc")
    expected = evaluate(agent, inputs)
    monkeypatch.setattr(torch, "compile", fail)
    (note,) = accelerate(agent, compiled=True)
    assert note == (
        "the networks cannot be compiled here and run uncompiled: RuntimeError: no working C++ compiler"
    )
    torch.testing.assert_close(evaluate(agent, inputs), expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("precision", "reason"), [("float32", "no compiler"), ("bf16", "they compute in float32 or tf32")]
)
@pytest.mark.parametrize(("core", "name"), [("rmc", "RMC"), ("gru", "GRU"), ("lstm", "LSTM"), ("rnn", None)])
def test_core_without_its_triton_kernels_on_a_gpu_gets_a_note(
    core: str, name: str | None, precision: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = agent_and_inputs(core)
    monkeypatch.setattr(ActorCritic, "device", property(lambda _: torch.device("cuda")))
    for module in (rmc_triton, gated_triton):
        monkeypatch.setattr(module, "why_not", lambda *args: "no compiler")
    notes = accelerate(agent, precision)  # type: ignore[arg-type]
    assert notes == [f"{name} runs in PyTorch instead of its Triton kernels: {reason}"] * (name is not None)
    for module in (rmc_triton, gated_triton):
        monkeypatch.setattr(module, "why_not", lambda *args: None)
    assert precision == "bf16" or accelerate(agent, "float32") == []


def test_accelerate_rejects_unknown_precisions() -> None:
    agent, _ = agent_and_inputs("rmc")
    with pytest.raises(ValueError, match="float32"):
        accelerate(agent, "fp8")  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [copy.deepcopy, lambda agent: pickle.loads(pickle.dumps(agent))])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_copy_of_an_agent_runs_its_own_weights(how: object, precision: str) -> None:
    env = rmc_envs.make("rmc/Recall-v0", 3)
    agent = ActorCritic(env.observation_space, env.action_space, "gru", features=8, hidden_size=8)
    accelerate(agent, precision)  # type: ignore[arg-type]
    copied = how(agent)  # type: ignore[operator]
    obs, starts = env.reset(0), torch.ones(3, dtype=torch.bool)
    before = copied.value(obs, starts, copied.initial_state(3))
    assert torch.equal(before, agent.value(obs, starts, agent.initial_state(3)))
    for parameter in agent.parameters():
        parameter.data.zero_()
    assert torch.equal(copied.value(obs, starts, copied.initial_state(3)), before)
    assert not torch.equal(agent.value(obs, starts, agent.initial_state(3)), before)

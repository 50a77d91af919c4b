"""Compiled and in bfloat16: the same agent, or one clear line that it is not."""

from __future__ import annotations

import pytest
import torch

import envs
from rmc_agents import ActorCritic
from rmc_agents.actor_critic import AgentState
from rmc_agents.execution import run_networks
from rmc_agents.tree import leaves

# The compiler's own, on its first use.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def agent_and_inputs(core: str) -> tuple[ActorCritic, tuple]:
    """An agent, and a sequence of 4 steps for 8 rows."""
    torch.manual_seed(0)
    mazes = envs.make("MiniGrid-MemoryS7-v0", 8, actions=3)
    agent = ActorCritic(mazes.observation_space, mazes.action_space, core, hidden_size=16, features=16)
    steps = [mazes.reset(0), *(mazes.step(torch.full((8,), 2)).obs for _ in range(3))]
    obs = {key: torch.stack([step[key] for step in steps]) for key in steps[0]}
    starts = torch.zeros(4, 8, dtype=torch.bool)
    starts[2, 3] = True
    state = agent.initial_state(8)
    return agent, (obs, torch.zeros(4, 8, dtype=torch.int64), torch.zeros(4, 8), starts, state)


def results(agent: ActorCritic, inputs: tuple) -> list[torch.Tensor]:
    """Values, log-probabilities, entropies, and the gradient of every parameter."""
    agent.zero_grad()
    outputs = agent.evaluate(*inputs)
    torch.stack(outputs).square().sum().backward()
    return [*outputs, *(p.grad for p in agent.parameters() if p.grad is not None)]


@pytest.mark.parametrize("core", ["rmc", "lstm"])
def test_compiled_it_computes_the_same(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, inputs = agent_and_inputs(core)
    expected = results(agent, inputs)
    real = torch.compile
    # The graph is captured whole; code for this machine is made in the slow test.
    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend="eager", fullgraph=True))
    assert run_networks(agent, compiled=True) == []
    torch.testing.assert_close(results(agent, inputs), expected, atol=1e-5, rtol=1e-4)
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_for_this_machine_it_computes_the_same() -> None:
    agent, inputs = agent_and_inputs("feedforward")  # the others take a minute to compile
    expected = results(agent, inputs)
    notes = run_networks(agent, compiled=True)
    assert notes == [] or "is not possible here" in notes[0]
    torch.testing.assert_close(results(agent, inputs), expected, atol=1e-5, rtol=1e-4)
    torch.compiler.reset()


def test_in_bf16_it_computes_nearly_the_same_and_remembers_in_float32() -> None:
    agent, inputs = agent_and_inputs("rmc")
    expected = agent.evaluate(*inputs)
    assert run_networks(agent, "bf16") == []
    found = agent.evaluate(*inputs)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
    assert any(not torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    obs, _, _, starts, state = inputs
    _, _, _, after = agent.act({key: x[0] for key, x in obs.items()}, starts[0], state)
    assert isinstance(after, AgentState)
    assert {x.dtype for x in leaves(after.memory)} == {torch.float32}


def test_without_a_compiler_it_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("no working C++ compiler\nand many lines more")

    agent, inputs = agent_and_inputs("rmc")
    expected = agent.evaluate(*inputs)
    monkeypatch.setattr(torch, "compile", fail)
    (note,) = run_networks(agent, compiled=True)
    assert note == "--compile is not possible here, going on without: RuntimeError: no working C++ compiler"
    torch.testing.assert_close(agent.evaluate(*inputs), expected, atol=0, rtol=0)


def test_an_unknown_precision_is_refused() -> None:
    agent, _ = agent_and_inputs("rmc")
    with pytest.raises(ValueError, match="float32"):
        run_networks(agent, "fp8")  # type: ignore[arg-type]

"""Playthroughs: tracing changes neither agent nor numbers, and moments agree with the tables of the mazes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

import rmc_envs
from rmc_agents import ActorCritic, UsageError
from rmc_agents.cores import GRU, TracedCore, make_core
from rmc_agents.environment import EnvironmentFailed
from rmc_agents.interpret.playthrough import TracingCore, play, trace_steps
from tests.conftest import small_options
from tests.support.agents import MAZE, small_agent
from tests.support.masked_task import Strict


def maze(env_id: str = MAZE, render_mode: str = "rgb_array") -> gymnasium.Env:
    return rmc_envs.make_reference(env_id, render_mode=render_mode, actions=3)()


def player(core: str = "rmc") -> ActorCritic:
    """An agent with a uniform policy."""
    agent = small_agent(core, rmc_envs.make(MAZE, actions=3))
    torch.nn.init.zeros_(agent.policy.linear.weight)
    return agent


def test_tracing_changes_no_numbers(any_core: str) -> None:
    mazes = rmc_envs.make(MAZE, 3, actions=3)
    agent = small_agent(any_core, mazes)
    obs = mazes.reset(0)
    starts, state = torch.tensor([True, False, True]), agent.initial_state(3)
    with torch.no_grad():
        plain = agent.act(obs, starts, state, deterministic=True)
        with trace_steps(agent) as steps:
            traced = agent.act(obs, starts, state, deterministic=True)
    assert torch.equal(plain[0], traced[0])
    torch.testing.assert_close(traced[1:3], plain[1:3])
    torch.testing.assert_close(traced[3], plain[3])
    assert len(steps) == (1 if isinstance(agent.core, TracedCore) else 0)


def test_tracing_leaves_the_agent_as_it_was(any_core: str) -> None:
    agent = small_agent(any_core)
    core, modules = agent.core, list(agent.named_modules())
    parameters = [(name, id(x), x.clone()) for name, x in agent.named_parameters()]
    with pytest.raises(RuntimeError, match="inside"), trace_steps(agent):
        raise RuntimeError("inside")
    assert agent.core is core
    assert list(agent.named_modules()) == modules
    for (name, identity, value), (name_now, x) in zip(parameters, agent.named_parameters(), strict=True):
        assert (name, identity) == (name_now, id(x))
        assert torch.equal(value, x)


def test_tracing_core_unrolls_like_its_core() -> None:
    core = make_core("rmc", 5, small_options("rmc"))
    tracing = TracingCore(core)
    inputs, starts = torch.randn(7, 3, 5), torch.rand(7, 3) < 0.3
    state = core.step(torch.randn(3, 5), core.initial_state(3))[1]
    outputs, after = tracing.unroll(inputs, state, starts)
    expected, expected_after = core.unroll(inputs, state, starts)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(after, expected_after)
    assert len(tracing.steps) == 7
    assert tracing.output_size == core.output_size
    fresh: Tensor = core.initial_state(3).memory
    for t, (step, start) in enumerate(zip(tracing.steps, starts, strict=True)):
        before = state if t == 0 else tracing.steps[t - 1].after
        assert torch.equal(step.before.memory, torch.where(start[:, None, None], fresh, before.memory))
        torch.testing.assert_close(step.trace.attention.sum(-1), torch.ones(3, 1, 2, 4))


def test_tracing_core_rejects_a_core_without_traces() -> None:
    with pytest.raises(TypeError, match="GRU has no method `trace`"):
        TracingCore(GRU(3))


def test_moments_agree_with_the_tables_of_the_maze() -> None:
    env_id = "MiniGrid-MemoryS9-v0"
    env, agent = maze(env_id), player()
    played = play(agent, env, seed=4, deterministic=False)
    assert [m.step for m in played.moments] == list(range(len(played.moments)))
    for moment in played.moments[:-1]:
        assert moment.trace is not None
        np.testing.assert_allclose(moment.trace.attention.sum(1), 1, rtol=1e-5)
        assert moment.trace.attention.shape == (4, 5)
        for shares in (moment.trace.written, moment.trace.kept, moment.trace.changed):
            assert shares.shape == (4,)
            assert ((shares >= 0) & (shares <= 1)).all()
    assert played.moments[-1].trace is None
    # The same episode in the tables, which know from breadth-first search where the cue is in view.
    twin = rmc_envs.make(env_id, 1, actions=3, seeding="farama")
    assert isinstance(twin, rmc_envs.MemoryMazes)
    obs, seen, state, start, ended, solved = twin.reset(4), [], None, True, False, False
    torch.manual_seed(4)
    for _ in played.moments[:-1]:
        seen.append(bool(twin.ground_truth().cue_in_view))
        single = {key: x[0].numpy() for key, x in obs.items()}
        action, state = agent.predict(single, state, episode_start=start, deterministic=False)
        step = twin.step(torch.as_tensor(action).reshape(1))
        obs, start, ended, solved = step.obs, False, bool(step.done), bool(step.success)
    assert [m.cue is not None and m.cue.in_view for m in played.moments[:-1]] == seen
    assert ended
    assert played.success == solved


def test_moments_of_a_core_without_slots_have_no_trace() -> None:
    played = play(player("gru"), maze(), seed=0)
    assert all(moment.trace is None for moment in played.moments)
    assert played.moments[0].cue is not None


def test_playthrough_outside_the_mazes_has_no_cue() -> None:
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    agent = small_agent("gru", rmc_envs.make("CartPole-v1", 1))
    played = play(agent, env, seed=0)
    env.close()
    assert played.success is None
    assert all(moment.cue is None for moment in played.moments)
    assert played.moments[-1].reward == len(played.moments) - 1


def test_play_rejects_an_environment_without_pictures() -> None:
    with pytest.raises(UsageError, match="make it with render_mode='rgb_array'"):
        play(player(), rmc_envs.make_reference(MAZE, actions=3)(), seed=0)


@pytest.mark.parametrize("form", ["info", "method"])
def test_playthrough_takes_allowed_actions(form: str) -> None:
    class Drawn(Strict):
        """Raises at a forbidden action."""

        def render(self) -> Any:
            return np.zeros((2, 2, 3), np.uint8)

    env = Drawn(form=form)
    agent = ActorCritic(env.observation_space, env.action_space, "gru", small_options("gru"))
    for seed in range(5):
        assert len(play(agent, env, seed, deterministic=False).moments) == 6
    ignoring = ActorCritic(
        env.observation_space, env.action_space, "gru", small_options("gru"), action_masks="ignore"
    )

    def play_five() -> None:
        for seed in range(5):
            play(ignoring, env, seed, deterministic=False)

    with pytest.raises(EnvironmentFailed, match="is forbidden"):
        play_five()

"""Tests of the decoder: which observations it can reconstruct, what its errors are, and what it may read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import rmc_envs
from rmc_agents import ActorCritic
from rmc_agents.agent.encoders import Encoder
from rmc_agents.agent.observation_table import ObservationTable
from rmc_agents.agent.reconstruction import Decoder
from rmc_agents.environment import ObservationIds
from rmc_agents.spaces.annotated import AnnotatedBox, minigrid_image
from rmc_agents.tree import Tree
from tests.support.agents import MAZE, chunks_of, collected, fresh_agent, small_agent, small_env
from tests.support.spaces import MAZE_SPACE, OBSERVATION_SPACES, sample_tensors

SPACES = {
    **OBSERVATION_SPACES,
    "codes": minigrid_image(7),
    "many values": spaces.Discrete(5000, start=3),
    "odd picture": spaces.Box(0, 255, (45, 61, 3), np.uint8),
    "stack": spaces.Box(0, 255, (2, 40, 40, 1), np.uint8),
    "picture without bounds": AnnotatedBox(spaces.Box(-np.inf, np.inf, (16, 16), np.float32), "picture:hw"),
    "words": AnnotatedBox(spaces.Box(0, 9, (6,), np.uint8), "words"),
}


def made(space: spaces.Space) -> tuple[Encoder, Decoder]:
    encoder = Encoder(space, 16)
    return encoder, Decoder(space, encoder, 8, 16)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_decoder_learns_observations_of_every_kind(space: spaces.Space) -> None:
    """Each output belongs to one observation, so that the decoder can learn it by heart."""
    encoder, decoder = made(space)
    obs = sample_tensors(space, 2, 2)
    outputs = torch.randn(2, 2, 8)
    errors = decoder(outputs, obs, encoder)
    assert errors.shape == (2, 2)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.01)
    for _ in range(12):
        optimizer.zero_grad()
        decoder(outputs, obs, encoder).mean().backward()
        optimizer.step()
    assert decoder(outputs, obs, encoder).mean() < errors.mean()
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_layer_of_a_decoder_runs_its_hooks(space: spaces.Space) -> None:
    encoder, decoder = made(space)
    obs, outputs = sample_tensors(space, 2, 2), torch.randn(2, 2, 8)
    before = decoder(outputs, obs, encoder)
    for name, module in decoder.named_modules():
        if isinstance(module, nn.ModuleList):
            continue
        calls: list[Any] = []
        hook = module.register_forward_hook(lambda *call, calls=calls: calls.append(call))
        torch.testing.assert_close(decoder(outputs, obs, encoder), before)
        hook.remove()
        assert calls, name


def zeroed(space: spaces.Space) -> tuple[Encoder, Decoder]:
    """Return a decoder that predicts zeros: equal probabilities, and the number 0."""
    encoder, decoder = made(space)
    for parameter in decoder.parameters():
        nn.init.zeros_(parameter)
    return encoder, decoder


@pytest.mark.parametrize(
    ("space", "obs", "error"),
    [
        (spaces.Discrete(4), torch.tensor([[2]]), math.log(4)),
        (spaces.MultiDiscrete([2, 8]), torch.tensor([[[1, 5]]]), (math.log(2) + math.log(8)) / 2),
        (spaces.MultiBinary(3), torch.tensor([[[1, 0, 1]]]), math.log(2)),
        (spaces.Box(0, 100, (2,)), torch.tensor([[[50.0, 100.0]]]), (0.5**2 + 1) / 2),
        (minigrid_image(3), torch.ones(1, 1, 3, 3, 3).byte(), (math.log(11) + math.log(6) + math.log(4)) / 3),
        (spaces.Box(0, 255, (5, 5, 1), np.uint8), torch.ones(1, 1, 5, 5, 1).byte(), math.log(31)),
        (spaces.Box(0, 255, (40, 40, 1), np.uint8), torch.ones(1, 1, 40, 40, 1).byte(), math.log(2)),
        (SPACES["words"], torch.tensor([[[2, 3, 4, 0, 0, 0]]]), math.log(10)),
    ],
)
def test_errors_match_hand_computation(space: spaces.Space, obs: Tensor, error: float) -> None:
    encoder, decoder = zeroed(space)
    torch.testing.assert_close(decoder(torch.randn(1, 1, 8), obs, encoder), torch.tensor([[error]]))


def test_error_is_the_mean_over_parts() -> None:
    encoder, decoder = zeroed(spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(7)))
    obs = {"a": torch.tensor([[1]]), "b": torch.tensor([[6]])}
    expected = torch.tensor([[(math.log(2) + math.log(7)) / 2]])
    torch.testing.assert_close(decoder(torch.randn(1, 1, 8), obs, encoder), expected)


def test_normalized_numbers_are_targets_on_their_normalized_scale() -> None:
    space = spaces.Box(-np.inf, np.inf, (2,))
    encoder = Encoder(space, 16, normalize=True)
    obs = 1000 + torch.randn(8, 4, 2)
    encoder.update_statistics(obs, torch.ones(8, 4, dtype=torch.bool))
    decoder = Decoder(space, encoder, 8, 16)
    assert decoder(torch.zeros(8, 4, 8), obs, encoder).mean() < 10


def test_value_beyond_its_bounds_counts_as_the_nearest() -> None:
    encoder, decoder = made(minigrid_image(3))
    outputs, image = torch.randn(1, 1, 8), torch.full((1, 1, 3, 3, 3), 200, dtype=torch.uint8)
    nearest = torch.tensor([10, 5, 3], dtype=torch.uint8).expand_as(image)
    assert torch.equal(decoder(outputs, image, encoder), decoder(outputs, nearest, encoder))


def test_parts_with_too_many_values_are_left_out() -> None:
    large = spaces.Discrete(2**15 + 1)
    agent_space = spaces.Dict(large=large, small=spaces.Discrete(3))
    encoder = Encoder(agent_space, 16)
    decoder = Decoder(agent_space, encoder, 8, 16)
    assert (decoder.reconstructed, decoder.left_out) == (["small"], ["large"])
    with pytest.raises(ValueError, match=r"every part of the observation \(observation\)"):
        Decoder(large, Encoder(large, 16), 8, 16)


def test_agent_says_what_it_reconstructs() -> None:
    space = spaces.Dict(large=spaces.Discrete(2**15 + 1), small=spaces.Discrete(3))
    env = small_env()
    lines = ActorCritic(space, env.action_space, "gru", reconstruct=True).describe().splitlines()
    assert "reconstructed from the memory: small" in lines
    assert "large: not reconstructed, because it has too many values" in lines


def test_ids_are_reconstructed_as_the_rows_of_their_table() -> None:
    encoder, decoder = made(MAZE_SPACE)
    table: Tree = sample_tensors(MAZE_SPACE, 5)
    encoder.use_table(ObservationTable(MAZE_SPACE, table))
    ids, outputs = torch.tensor([[3, 0], [4, 4]]), torch.randn(2, 2, 8)
    rows = {key: part[ids] for key, part in table.items()}
    by_ids = decoder(outputs, ObservationIds(ids), encoder)
    torch.testing.assert_close(by_ids, decoder(outputs, rows, encoder))


def test_weights_are_the_same_with_and_without_a_decoder(any_core: str) -> None:
    env = small_env()
    torch.manual_seed(3)
    plain = fresh_agent(any_core, env).state_dict()
    torch.manual_seed(3)
    agent = fresh_agent(any_core, env, reconstruct=True)
    assert agent.config.reconstruct
    kept = {name: x for name, x in agent.state_dict().items() if not name.startswith("decoder.")}
    assert kept.keys() == plain.keys()
    assert all(torch.equal(x, plain[name]) for name, x in kept.items())


def test_agent_with_a_decoder_survives_json() -> None:
    agent = small_agent("gru", reconstruct=True)
    again = ActorCritic.from_json(agent.to_json())
    assert again.decoder is not None
    again.load_state_dict(agent.state_dict())
    described = agent.to_json()
    del described["agent"]["reconstruct"]  # as in older run folders
    assert ActorCritic.from_json(described).decoder is None


@pytest.mark.parametrize("options", [{}, {"skip": False}, {"critic_memory": "separate"}])
def test_errors_depend_on_the_memory_only(options: dict[str, Any]) -> None:
    """Neither heads nor skip connection: the gradient reaches decoder, core and encoder."""
    agent = small_agent("gru", reconstruct=True, **options)
    chunks = chunks_of(agent, collected(agent, steps=12)[1], 6)
    evaluation = agent.evaluate_actions(
        chunks.obs, chunks.actions, chunks.rewards, chunks.starts, chunks.state
    )
    assert agent.decoder is not None
    assert evaluation.reconstruction_errors is not None
    outputs, _ = agent.core.unroll(agent.encoder(chunks.obs), chunks.state.memory, chunks.starts)
    expected = agent.decoder(outputs, chunks.obs, agent.encoder)
    torch.testing.assert_close(evaluation.reconstruction_errors, expected)
    evaluation.reconstruction_errors.mean().backward()
    moved = {name.split(".")[0] for name, p in agent.named_parameters() if p.grad is not None}
    assert moved == {"decoder", "core", "encoder"}


def test_acting_does_not_run_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    env = rmc_envs.make(MAZE, 4)
    agent = small_agent("rmc", env, reconstruct=True)
    monkeypatch.setattr(Decoder, "forward", lambda *_: pytest.fail("the decoder ran"))
    collected(agent, 8, env)

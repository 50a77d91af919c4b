"""Tests of ids of observations: the same features and gradients as from the observations themselves."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents import ActorCritic
from rmc_agents.agent.acceleration import Accelerated
from rmc_agents.agent.encoders import Encoder
from rmc_agents.agent.observation_table import EncodedObservations, ObservationTable
from rmc_agents.environment import ObservationIds
from rmc_agents.tree import Tree, map_tree
from tests.support.spaces import MAZE_SPACE

ROWS = 200
FEATURES = 12
"""A number of features for which PyTorch encodes ids, not C."""


def maze_table(rows: int = ROWS) -> dict[str, Tensor]:
    """Return distinct observations of a maze."""
    torch.manual_seed(0)
    image = torch.randint(0, 4, (rows, 7, 7, 3), dtype=torch.uint8)
    return {"image": image, "direction": torch.randint(4, (rows,))}


def maze_agent(rows: int = ROWS, features: int = FEATURES, **options: Any) -> ActorCritic:
    agent = ActorCritic(MAZE_SPACE, spaces.Discrete(3), "gru", features=features, hidden_size=16, **options)
    torch.nn.init.normal_(agent.policy.linear.weight)
    agent.use_observation_table(maze_table(rows))
    return agent


def observations(ids: Tensor, table: Tree) -> Tree:
    """Return the observations that ids [...] name."""
    return map_tree(lambda part: part[ids], table)


def encoded_rows(encoder: Encoder) -> list[int]:
    """Return a list to which each call of the encoder adds the number of rows it encodes."""
    rows: list[int] = []
    encoder.linear.register_forward_hook(
        lambda module, inputs, output: rows.append(inputs[0].flatten(0, -2).shape[0])
    )
    return rows


@pytest.mark.parametrize(
    "ids", [torch.arange(40), torch.arange(40).reshape(4, 10).flip(0), torch.arange(ROWS)]
)
def test_ids_have_the_features_of_their_observations(ids: Tensor) -> None:
    """Bit for bit, where as many rows are encoded."""
    encoder = maze_agent().encoder
    rows = encoded_rows(encoder)
    assert torch.equal(encoder(ObservationIds(ids)), encoder(observations(ids, maze_table())))
    assert rows == [ids.numel()] * 2


@pytest.mark.parametrize("kinds", [1, 40, ROWS])
def test_repeated_ids_have_the_features_and_gradients_of_their_observations(kinds: int) -> None:
    agent = maze_agent().double()
    ids = torch.randint(kinds, (16, 32))
    upstream = torch.randn(16, 32, FEATURES, dtype=torch.float64)
    results = []
    for obs in (ObservationIds(ids), observations(ids, maze_table())):
        agent.zero_grad()
        features = agent.encoder(obs)
        features.backward(upstream)
        results.append([features, *(p.grad for p in agent.encoder.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_each_row_is_encoded_at_most_once_on_a_cpu() -> None:
    encoder = maze_agent().encoder
    rows = encoded_rows(encoder)
    encoder(ObservationIds(torch.arange(512).reshape(16, 32) % 7))
    assert rows == [7]


@pytest.mark.parametrize(("num_ids", "encoded"), [(512, ROWS), (ROWS, ROWS), (64, 64)])
def test_a_gpu_encodes_the_table_or_a_smaller_batch(num_ids: int, encoded: int) -> None:
    encoder = maze_agent().encoder.to("meta")
    rows = encoded_rows(encoder)
    features = encoder(ObservationIds(torch.zeros(2, num_ids // 2, dtype=torch.int64, device="meta")))
    assert rows == [encoded]
    assert features.shape == (2, num_ids // 2, FEATURES)


@pytest.mark.parametrize("num_ids", [64, 512])
def test_ids_compile_without_graph_breaks(num_ids: int) -> None:
    encoder, ids = maze_agent().encoder, torch.randint(ROWS, (num_ids,))
    torch._dynamo.reset()
    compiled = torch.compile(lambda ids: encoder(ObservationIds(ids)), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids), encoder(ObservationIds(ids)))


@pytest.mark.parametrize(("rows", "features"), [(ROWS, FEATURES), (2500, FEATURES), (ROWS, 32)])
def test_agent_acts_alike_on_ids_their_features_and_observations(rows: int, features: int) -> None:
    agent = maze_agent(rows, features, previous_action=True, previous_reward=True)
    ids, starts, state = torch.randint(rows, (8,)), torch.zeros(8, dtype=torch.bool), agent.initial_state(8)
    encoded = agent.encode_ahead(rows)
    known = encoded(ObservationIds(ids))
    assert isinstance(known, EncodedObservations)
    expected = agent.act(observations(ids, maze_table(rows)), starts, state, deterministic=True)
    for obs in (ObservationIds(ids), known):
        found = agent.act(obs, starts, state, deterministic=True)
        assert torch.equal(found[0], expected[0])
        torch.testing.assert_close(found[1:3], expected[1:3])
        torch.testing.assert_close(agent.value(obs, starts, state), expected[2])


def test_encode_ahead_encodes_the_table_once() -> None:
    agent = maze_agent()
    rows = encoded_rows(agent.encoder)
    encoded = agent.encode_ahead(ROWS)
    for _ in range(3):
        features = encoded(ObservationIds(torch.arange(8)))
        assert not features.features.requires_grad
    assert rows == [ROWS]


def test_encode_ahead_leaves_other_observations_and_large_tables_alone() -> None:
    agent = maze_agent()
    ids, obs = ObservationIds(torch.arange(3)), observations(torch.arange(3), maze_table())
    rows = encoded_rows(agent.encoder)
    assert agent.encode_ahead(ROWS - 1)(ids) is ids
    assert rows == []
    assert agent.encode_ahead(ROWS)(obs) is obs
    agent.use_observation_table(None)
    assert agent.encode_ahead(ROWS)(ids) is ids


def test_bfloat16_encodes_tables_as_it_encodes_observations() -> None:
    agent = maze_agent()
    agent.wrap_networks(Accelerated("bf16", False, "cpu"))
    ids, starts, state = (
        torch.randint(ROWS, (64,)),
        torch.zeros(64, dtype=torch.bool),
        agent.initial_state(64),
    )
    features = agent.encode_ahead(ROWS)(ObservationIds(ids))
    assert torch.equal(features.features.bfloat16().float(), features.features)
    torch.testing.assert_close(
        agent.value(features, starts, state),
        agent.value(ObservationIds(ids), starts, state),
        rtol=0,
        atol=0.01,
    )


def test_table_moves_and_copies_with_the_agent_and_is_not_saved() -> None:
    agent = maze_agent()
    plain = ActorCritic(MAZE_SPACE, spaces.Discrete(3), "gru", features=FEATURES, hidden_size=16)
    assert agent.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(agent.state_dict())
    ids = ObservationIds(torch.arange(8))
    with pytest.raises(ValueError, match=r"agent\.use_observation_table"):
        plain.encoder(ids)
    for other in (copy.deepcopy(agent), pickle.loads(pickle.dumps(agent))):
        assert torch.equal(other.encoder(ids), agent.encoder(ids))
        with torch.no_grad():
            other.encoder.linear.bias += 1
        assert not torch.equal(other.encode_ahead(ROWS)(ids).features, agent.encoder(ids))
    moved = copy.deepcopy(agent).to("meta")
    assert moved.encoder(map_tree(lambda x: x.to("meta"), ids)).is_meta


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({"image": maze_table()["image"]}, r"the parts \['image'\], expected \['image', 'direction'\]"),
        (
            {**maze_table(), "direction": torch.zeros(3)},
            r"table direction has the shape \[3\], expected \[200\]",
        ),
        (map_tree(lambda x: x[:0], maze_table()), "without rows"),
        (
            {**maze_table(), "direction": torch.full((ROWS,), torch.inf)},
            "direction holds numbers that are not",
        ),
        (torch.zeros(3, 4), r"the parts \[''\], expected \['image', 'direction'\]"),
    ],
)
def test_table_of_another_space_is_refused(table: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        maze_agent().use_observation_table(table)


def test_table_of_a_space_without_keys_has_one_part() -> None:
    table = ObservationTable(spaces.Box(0, 1, (3,)), torch.eye(3))
    (part,) = table.look_up(torch.tensor([[2, 0]]))
    assert part.tolist() == [[0, 0, 1], [1, 0, 0]]

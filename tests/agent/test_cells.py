"""Cells of a grid as entities of a core: where they go, tables of observations, options, and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gymnasium import spaces
from torch.nn.functional import one_hot

import rmc_envs
from rmc_agents import ActorCritic
from rmc_agents.agent.config import AgentConfig
from rmc_agents.agent.names import Names
from rmc_agents.agent.neighbours import DIRECTIONS
from rmc_agents.cli.matching import matched
from rmc_agents.cores import CORES, EntityDelta, MemoryCore
from rmc_agents.environment import ObservationIds
from rmc_agents.sb3 import policy_kwargs_for
from tests.support.spaces import MAZE_SPACE, sample_tensors

SIZES = {"hidden_size": 8, "key_size": 6, "value_size": 4}
PLAIN = spaces.Box(-1, 1, (3,))


def test_core_reads_the_cells_as_entities() -> None:
    agent = ActorCritic(
        MAZE_SPACE, spaces.Discrete(3), "entity_delta", SIZES, previous_action=True, cell_size=5
    )
    core, cells = agent.core, agent.encoder.num_cells
    assert isinstance(core, EntityDelta)
    assert (core.num_entities, core.entity_size) == (cells, 5)
    assert agent.entities["extra_size"] == 3  # the previous action
    assert core.controller.input_size == 128 + 3
    assert agent.core_options == SIZES  # what the agent adds itself is not recorded
    again = ActorCritic.from_json(agent.to_json())
    again.load_state_dict(agent.state_dict())

    obs = sample_tensors(MAZE_SPACE, 2, 3)
    starts = torch.zeros(2, 3, dtype=torch.bool)
    inputs = agent.core_inputs(obs, torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3), starts)
    entities, rest = core._split(inputs)  # type: ignore[arg-type]
    embedding = agent.encoder.cells[str(agent.encoder.keys.index("image"))]  # type: ignore[union-attr]
    image = agent.encoder.parts[agent.encoder.keys.index("image")]  # type: ignore[union-attr]
    expected = embedding(image.one_hot(obs["image"])).flatten(-3)  # type: ignore[index, operator]
    torch.testing.assert_close(entities.flatten(-2), expected)
    assert rest.shape[-1] == 131


@pytest.mark.parametrize("critic_memory", ["shared", "separate", "none"])
def test_ids_of_observations_are_read_as_the_observations(critic_memory: str) -> None:
    env = rmc_envs.make("MiniGrid-MemoryS7-v0", 6)
    agent = ActorCritic(
        env.observation_space, env.action_space, "entity_delta", SIZES, critic_memory=critic_memory
    )
    table = env.observation_table()
    agent.use_observation_table(table)
    ids = torch.randint(0, 50, (4, 6))
    obs = {key: x[ids] for key, x in table.items()} if isinstance(table, dict) else table[ids]
    starts, actions = torch.rand(4, 6) < 0.3, torch.randint(0, 3, (4, 6))
    evaluations = [
        agent.evaluate_actions(each, actions, torch.zeros(4, 6), starts, agent.initial_state(6))
        for each in (ObservationIds(ids), obs)
    ]
    torch.testing.assert_close(evaluations[0].log_probs, evaluations[1].log_probs)
    torch.testing.assert_close(evaluations[0].values, evaluations[1].values)


def named_agent(**options: object) -> ActorCritic:
    sizes = {"hidden_size": 8, "value_size": 4, "num_hops": 2}
    named = {"cell_size": 5, "cell_names": 6, "cell_neighbours": True, **options}
    return ActorCritic(MAZE_SPACE, spaces.Discrete(3), "entity_delta", sizes, **named)  # type: ignore[arg-type]


def test_context_of_a_cell_is_the_weighted_sum_of_its_neighbours() -> None:
    agent = named_agent()
    core = agent.core
    assert isinstance(core, EntityDelta)
    assert (core.entity_size, core.own_size, core.name_size, core.key_size) == (22, 11, 6, 6)
    obs = sample_tensors(MAZE_SPACE, 2, 3)
    starts = torch.zeros(2, 3, dtype=torch.bool)
    inputs = agent.core_inputs(obs, torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3), starts)
    entities, _ = core._split(inputs)  # type: ignore[arg-type]
    (neighbours,) = agent.encoder.neighbours.values()
    height, width = MAZE_SPACE["image"].shape[:2]  # type: ignore[index]
    own, context = entities.unflatten(-2, (height, width)).split(11, dim=-1)
    expected = torch.zeros_like(own)
    for weight, (down, right) in zip(neighbours.weights, DIRECTIONS, strict=True):  # type: ignore[call-overload]
        for row in range(height):
            for column in range(width):
                if 0 <= row + down < height and 0 <= column + right < width:
                    expected[..., row, column, :] += weight * own[..., row + down, column + right, :]
    torch.testing.assert_close(context, expected)


def test_names_are_products_of_the_codes_signs_and_are_saved() -> None:
    agent = named_agent(cell_names=256)
    (names,) = agent.encoder.names.values()
    assert isinstance(names, Names)
    signs = names.signs.split(names.sizes)
    codes = torch.cartesian_prod(*(torch.arange(n) for n in names.sizes))
    hot = torch.cat([one_hot(c, n) for c, n in zip(codes.unbind(1), names.sizes, strict=True)], 1).float()
    found = names(hot)
    expected = torch.stack([s[c] for s, c in zip(signs, codes.unbind(1), strict=True)]).prod(0) / 16
    torch.testing.assert_close(found, expected)
    similar = found @ found.T - torch.eye(len(found))
    torch.testing.assert_close(similar.diagonal(), torch.zeros(len(found)), atol=1e-5, rtol=0)
    assert similar.abs().mean() < 1.2 * (2 / torch.pi) ** 0.5 / 16  # that of random directions

    again = ActorCritic.from_json(agent.to_json())
    assert not torch.equal(next(iter(again.encoder.names.values())).signs, names.signs)  # type: ignore[arg-type]
    again.load_state_dict(agent.state_dict())
    assert torch.equal(next(iter(again.encoder.names.values())).signs, names.signs)  # type: ignore[arg-type]
    assert all("signs" not in name for name, _ in agent.named_parameters())


def test_embeddings_beside_names_start_with_orthogonal_codes_where_there_is_room() -> None:
    (embedding,) = named_agent(cell_size=40).encoder.cells.values()
    similar = embedding.weight.T @ embedding.weight
    torch.testing.assert_close(similar, similar.diagonal().diag(), atol=1e-4, rtol=0)
    (embedding,) = named_agent(cell_size=6).encoder.cells.values()
    similar = embedding.weight @ embedding.weight.T  # as many directions as numbers
    torch.testing.assert_close(similar, similar.diagonal().diag(), atol=1e-4, rtol=0)


def test_without_a_grid_the_input_is_one_entity() -> None:
    agent = ActorCritic(PLAIN, spaces.Discrete(2), "entity_delta", SIZES)
    assert isinstance(agent.core, EntityDelta)
    assert (agent.core.num_entities, agent.core.entity_size) == (1, 128)
    assert (
        ActorCritic(MAZE_SPACE, spaces.Discrete(2), "entity_delta", SIZES, cell_size=0).encoder.num_cells == 0
    )
    assert ActorCritic(MAZE_SPACE, spaces.Discrete(2), "gru").encoder.num_cells == 0


@pytest.mark.parametrize(
    ("space", "core", "options", "message"),
    [
        (
            MAZE_SPACE,
            "gru",
            {"cell_size": 8},
            "cell_size=8 needs a core that reads entities, such as entity_delta, and gru does not",
        ),
        (
            PLAIN,
            "entity_delta",
            {"cell_size": 8},
            "cell_size=8: no part of the observation is read as a grid of codes",
        ),
        (
            MAZE_SPACE,
            "entity_delta",
            {"cell_size": -1},
            "cell_size must be a whole number of at least 0, or None, got -1",
        ),
        (MAZE_SPACE, "entity_delta", {"cell_size": 2.5}, r"cell_size must be a whole number .* got 2\.5"),
        (
            PLAIN,
            "entity_delta",
            {"cell_neighbours": True},
            "cell_names and cell_neighbours need cells that are fed to the core",
        ),
        (MAZE_SPACE, "gru", {"cell_names": 8}, "cell_names and cell_neighbours need cells that are fed"),
        (MAZE_SPACE, "entity_delta", {"cell_size": 0, "cell_names": 8}, "a cell_size other than 0"),
        (
            MAZE_SPACE,
            "entity_delta",
            {"core_options": {"name_size": 8}},
            "^name_size of core entity_delta: set by the agent",
        ),
        (
            MAZE_SPACE,
            "entity_delta",
            {"cell_names": 8, "core_options": {"key_size": 16}},
            "^key_size of core entity_delta: set by the agent",
        ),
        (MAZE_SPACE, "entity_delta", {"cell_names": -1}, "cell_names must be from 0 to .*, got -1"),
        (
            MAZE_SPACE,
            "entity_delta",
            {"core_options": {"num_hops": 2}},
            "num_hops=2 follows the names .* build the agent with cell_names and cell_neighbours",
        ),
        (
            MAZE_SPACE,
            "entity_delta",
            {"core_options": {"num_entities": 3, "entity_size": 2}},
            "entity_size, num_entities of core entity_delta: set by the agent, .* with cell_size=0",
        ),
    ],
)
def test_cells_that_cannot_be_fed_are_refused(
    space: spaces.Space, core: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ActorCritic(space, spaces.Discrete(2), core, **options)  # type: ignore[arg-type]


def test_own_entities_are_used_where_there_are_no_cells() -> None:
    own = {"num_entities": 3, "entity_size": 2}
    for space, options in ((PLAIN, {}), (MAZE_SPACE, {"cell_size": 0})):
        core = ActorCritic(space, spaces.Discrete(2), "entity_delta", SIZES | own, **options).core
        assert isinstance(core, EntityDelta)
        assert (core.num_entities, core.entity_size) == (3, 2)


def test_sb3_policies_take_no_agent_with_cells() -> None:
    agent = ActorCritic(MAZE_SPACE, spaces.Discrete(2), "entity_delta", SIZES)
    with pytest.raises(ValueError, match=r"feeds cells to its core, .* train an agent with cell_size=0"):
        policy_kwargs_for(agent)


def test_core_with_cells_is_sized() -> None:
    found = matched(MAZE_SPACE, spaces.Discrete(3), AgentConfig(core="entity_delta", cell_size=8), 50_000)
    assert found.core_options.keys() == {"hidden_size", "key_size", "value_size"}
    agent = ActorCritic.from_config(MAZE_SPACE, spaces.Discrete(3), found)
    assert abs(sum(p.numel() for p in agent.core.parameters()) / 50_000 - 1) < 0.03
    assert found.core_options["hidden_size"] == pytest.approx(4 * found.core_options["key_size"], abs=2)


def test_core_with_named_cells_is_sized_but_for_its_keys() -> None:
    config = AgentConfig(core="entity_delta", cell_size=8, cell_names=16, cell_neighbours=True)
    config = replace(config, core_options={"num_hops": 2, "odometer_size": 4})
    found = matched(MAZE_SPACE, spaces.Discrete(3), config, 80_000)
    assert found.core_options.keys() == {"hidden_size", "value_size", "num_hops", "odometer_size"}
    agent = ActorCritic.from_config(MAZE_SPACE, spaces.Discrete(3), found)
    assert isinstance(agent.core, EntityDelta)
    assert agent.core.key_size == 16
    assert abs(sum(p.numel() for p in agent.core.parameters()) / 80_000 - 1) < 0.03


class Plain(MemoryCore):
    """A core of one's own that reads cells, and knows nothing of names and extras."""

    reads_entities = True
    output_size = 3  # type: ignore[assignment]

    def __init__(self, input_size: int, *, num_entities: int = 0, entity_size: int = 0) -> None:
        super().__init__(input_size)
        self.sizes = num_entities, entity_size

    def initial_state(self, batch_size: int) -> torch.Tensor:
        return torch.zeros(batch_size, 1)

    def step(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return inputs[:, :3], state


def test_cores_that_know_nothing_of_extras_are_fed_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORES, "plain", Plain)
    agent = ActorCritic(MAZE_SPACE, spaces.Discrete(3), "plain", previous_action=True, cell_size=4)
    assert isinstance(agent.core, Plain)
    assert agent.core.sizes == (agent.encoder.num_cells, 4)

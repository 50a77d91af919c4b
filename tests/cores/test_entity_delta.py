"""The delta memory of entities: comparison with NumPy, how writes share, and what it binds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rmc_agents.cores import EntityDelta, make_core
from tests.support.cores import sequence, tiny_core, unroll_by_steps, values_and_gradients
from tests.support.oracles import entity_delta as oracle

ENTITIES = {"num_entities": 4, "entity_size": 3}
LINKED = {"num_entities": 2, "entity_size": 6, "context_size": 3, "name_size": 2, "key_size": 2}
CHAINED = {**LINKED, "num_hops": 2}


@pytest.mark.parametrize(
    ("input_size", "options"),
    [
        (3, {}),
        (17, ENTITIES),
        (7, {"num_entities": 1, "entity_size": 4}),
        (17, LINKED),
        (17, {"num_entities": 2, "entity_size": 5, "context_size": 2}),
        (17, CHAINED),
        (17, {**CHAINED, "num_hops": 1, "value_size": 7}),
        (17, {**ENTITIES, "name_size": 2, "key_size": 2}),
        (17, {**CHAINED, "odometer_size": 3, "extra_size": 2}),
        (17, {**ENTITIES, "odometer_size": 2}),
    ],
)
def test_step_computes_the_equations(input_size: int, options: dict[str, int]) -> None:
    core = tiny_core("entity_delta", input_size, **options)
    assert isinstance(core, EntityDelta)
    state = core.initial_state(1)
    h, memory = np.zeros(core.controller.output_size), np.zeros((core.key_size, core.stored_size))
    odometer = np.zeros(core.odometer_size)
    crowded = 0
    for _ in range(6):
        x = torch.randn(1, input_size, dtype=torch.float64)
        with torch.no_grad():
            output, state = core.step(x, state)
            entities, _ = core._split(x)
            shares = core._writes(entities, torch.cat([state.h, state.odometer], -1)).shares
            crowded += int((shares < torch.sigmoid(core.share(entities)) - 1e-6).any())
        expected, h, memory, odometer = oracle.step(core, x[0].numpy(), h, memory, odometer)
        np.testing.assert_allclose(output[0].numpy(), expected, atol=1e-9)
        np.testing.assert_allclose(state.memory[0].numpy(), memory, atol=1e-9)
        np.testing.assert_allclose(state.h[0].numpy(), h, atol=1e-9)
        np.testing.assert_allclose(state.odometer[0].numpy(), odometer, atol=1e-9)
    if core.num_entities != 2:
        assert bool(crowded) == (core.num_entities > 2)  # some shares were reduced


@pytest.mark.parametrize("options", [ENTITIES, {**CHAINED, "odometer_size": 3, "extra_size": 2}])
def test_unroll_with_resets_is_a_loop_over_steps(options: dict[str, int]) -> None:
    core = tiny_core("entity_delta", 17, **options)
    seq = sequence(core, length=9)
    expected = values_and_gradients(core, lambda *s: unroll_by_steps(core, *s), seq)
    torch.testing.assert_close(values_and_gradients(core, core.unroll, seq), expected)


def test_many_equal_entities_overwrite_at_most_once() -> None:
    core = tiny_core("entity_delta", 60, num_entities=25, entity_size=2)
    entities = torch.randn(1, 1, 2, dtype=torch.float64).expand(1, 25, 2)
    keys, _, shares = core._writes(entities, torch.zeros(1, 5, dtype=torch.float64))
    kept = torch.eye(core.key_size, dtype=torch.float64) - keys[0].T @ (shares[0] * keys[0])
    values = torch.linalg.eigvalsh(kept)
    assert values.min() > -1e-9
    assert values.max() < 1 + 1e-9
    assert values.min() < 0.01  # together they overwrite nearly all


def test_kept_share_of_the_memory_lies_between_none_and_all() -> None:
    torch.manual_seed(1)
    core = tiny_core("entity_delta", 60, num_entities=9, entity_size=6)
    with torch.no_grad():
        core.share.bias.fill_(4.0)  # everything is to be written
        entities = torch.randn(200, 9, 6, dtype=torch.float64)
        keys, _, shares = core._writes(entities, torch.randn(200, 5, dtype=torch.float64))
    kept = torch.eye(core.key_size, dtype=torch.float64) - keys.transpose(1, 2) @ (shares * keys)
    values = torch.linalg.eigvalsh(kept)
    assert values.min() > -1e-9
    assert values.max() < 1 + 1e-9


def test_order_of_entities_changes_only_their_places() -> None:
    core = tiny_core("entity_delta", 17, **ENTITIES)
    x, state = torch.randn(2, 17, dtype=torch.float64), core.initial_state(2)
    entities, rest = core._split(x)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        before = core.step(x, state)[1].memory
        core.place.copy_(core.place[order])
        shuffled = torch.cat([entities[:, order].flatten(1), rest], 1)
        torch.testing.assert_close(core.step(shuffled, state)[1].memory, before)


def test_places_of_things_can_be_read_linearly_after_they_are_out_of_view() -> None:
    """A random memory: the place at which each of eight kinds was last seen follows from the output."""
    torch.manual_seed(3)
    kinds, places, rows = 8, 5, 600
    core = make_core("entity_delta", places * kinds + 1, {"num_entities": places, "entity_size": kinds})
    assert isinstance(core, EntityDelta)
    with torch.no_grad():
        core.share.bias.fill_(5.0)
        core.key.weight.copy_(torch.eye(core.key_size)[:, :kinds])
        seen = torch.stack([torch.randperm(kinds)[:places] for _ in range(rows)])  # [rows, places]
        view = torch.nn.functional.one_hot(seen, kinds).float().flatten(1)
        state = core.initial_state(rows)
        for inputs in (view, torch.zeros_like(view), torch.zeros_like(view)):
            output, state = core.step(torch.cat([inputs, torch.zeros(rows, 1)], 1), state)
        at = torch.full((rows, kinds), -1.0).scatter(1, seen, torch.arange(places).float().expand(rows, -1))
        fit, test = slice(0, 500), slice(500, rows)
        readout = torch.linalg.lstsq(
            _with_one(output[fit]).double(), at[fit].double(), driver="gelsd"
        ).solution
        error = (_with_one(output[test]).double() @ readout - at[test]).abs()
    assert error.max() < 1e-6


def test_chained_reads_follow_links_to_where_what_is_next_was_seen() -> None:
    """Three pairs of kinds lie apart, 0 beside 1, 1 beside 2 and 2 beside 3: from 0, two reads lead to 2."""
    kinds, hidden = 4, 3
    sizes = {"num_entities": 1, "entity_size": 2 * kinds, "context_size": kinds, "name_size": kinds}
    sizes["key_size"] = kinds
    core = make_core("entity_delta", 2 * kinds + 1, {"hidden_size": hidden, "num_hops": 3, **sizes})
    assert isinstance(core, EntityDelta)
    assert core.chain is not None
    eye = torch.eye(kinds)
    with torch.no_grad():
        core.share.bias.fill_(9.0)
        core.forget_bias.fill_(20.0)
        core.chain.first.weight.zero_()
        core.chain.first.bias.copy_(eye[0])  # asks for kind 0
        core.chain.follow.bias.zero_()
        for parameter in (core.value.weight, core.value.bias, core.position.weight):
            parameter.zero_()
        core.value.weight[0, :kinds] = torch.arange(1.0, kinds + 1)  # tells kinds apart
        core.place.zero_()
        state = core.initial_state(1)
        for kind in (2, 0, 1):
            pair = torch.cat([eye[kind], eye[kind + 1], torch.zeros(1)])
            output, state = core.step(pair.unsqueeze(0), state)
    start = hidden + core.num_reads * core.stored_size
    chain = output[0, start : start + 3 * core.stored_size].view(3, -1)
    torch.testing.assert_close(chain[:, 0], torch.tensor([1.0, 2.0, 3.0]), atol=1e-2, rtol=0)
    torch.testing.assert_close(chain[:, core.value_size :], eye[1:], atol=1e-2, rtol=0)


def test_odometer_adds_up_the_moves_of_an_episode() -> None:
    """Up, down, left and right as the last inputs: where the agent is can be read off exactly."""
    core = make_core("entity_delta", 9, {"odometer_size": 2, "extra_size": 4})
    assert isinstance(core, EntityDelta)
    assert core.odometer is not None
    steps = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    with torch.no_grad():
        core.odometer.moves.weight.copy_(steps.T)
        core.odometer.gate.weight.zero_()
        core.odometer.gate.bias.fill_(30.0)
        actions = torch.randint(4, (200, 3))
        starts = torch.rand(200, 3) < 0.02
        inputs = torch.cat([torch.randn(200, 3, 5), torch.eye(4)[actions]], dim=-1)
        output, state = core.unroll(inputs, core.initial_state(3), starts)
    expected = torch.zeros(3, 2)
    for t in range(200):
        expected = torch.where(starts[t].unsqueeze(1), 0.0, expected) + steps[actions[t]]
        torch.testing.assert_close(output[t, :, 128:130], expected)
    torch.testing.assert_close(state.odometer, expected)


def _with_one(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, torch.ones(len(x), 1)], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_entities": 3}, "num_entities and entity_size must be given together"),
        ({"entity_size": 3}, "num_entities and entity_size must be given together"),
        ({"num_entities": -1, "entity_size": 3}, "num_entities must be a whole number of at least 1, got -1"),
        (
            {"num_entities": 2, "entity_size": 5},
            "num_entities=2 of entity_size=5 leave nothing of an input of 10",
        ),
        ({"num_reads": 0}, "num_reads must be a whole number of at least 1, got 0"),
        ({"num_hops": 2}, "num_hops=2 follows the names of neighbouring cells: .* with cell_names and"),
        ({**LINKED, "name_size": 0, "num_hops": 2}, "num_hops=2 follows the names of neighbouring cells"),
        ({"num_hops": -1}, "num_hops must be a whole number from 0 to .*, got -1"),
        ({"odometer_size": -1}, "odometer_size must be a whole number from 0 to .*, got -1"),
        ({"context_size": -1}, "context_size must be a whole number from 0 to .*, got -1"),
        ({"name_size": -2}, "name_size must be a whole number from 0 to .*, got -2"),
        ({"extra_size": 11}, "extra_size=11: there are 10 inputs besides the entities"),
        ({**LINKED, "context_size": 6}, "context_size=6 leaves nothing of entities of entity_size=6"),
        ({**LINKED, "key_size": 3}, "names are the keys: name_size=2 must equal key_size=3"),
        ({**LINKED, "name_size": 4, "key_size": 4}, "name_size=4 .* is part of the 3 numbers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_core("entity_delta", 14 if "context_size" in options else 10, options)

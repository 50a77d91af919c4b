"""The delta memory of entities: comparison with NumPy, how writes share, and what it binds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rmc_agents.cores import EntityDelta, make_core
from tests.support.cores import sequence, tiny_core, unroll_by_steps, values_and_gradients
from tests.support.oracles import entity_delta as oracle

ENTITIES = {"num_entities": 4, "entity_size": 3}


@pytest.mark.parametrize(
    ("input_size", "options"), [(3, {}), (17, ENTITIES), (7, {"num_entities": 1, "entity_size": 4})]
)
def test_step_computes_the_equations(input_size: int, options: dict[str, int]) -> None:
    core = tiny_core("entity_delta", input_size, **options)
    assert isinstance(core, EntityDelta)
    state = core.initial_state(1)
    h, memory = np.zeros(core.controller.output_size), np.zeros((core.key_size, core.value_size))
    crowded = 0
    for _ in range(6):
        x = torch.randn(1, input_size, dtype=torch.float64)
        with torch.no_grad():
            output, state = core.step(x, state)
            entities, _ = core._split(x)
            shares = core._writes(entities, state.h).shares
            crowded += int((shares < torch.sigmoid(core.share(entities)) - 1e-6).any())
        expected, h, memory = oracle.step(core, x[0].numpy(), h, memory)
        np.testing.assert_allclose(output[0].numpy(), expected, atol=1e-9)
        np.testing.assert_allclose(state.memory[0].numpy(), memory, atol=1e-9)
        np.testing.assert_allclose(state.h[0].numpy(), h, atol=1e-9)
    assert bool(crowded) == (core.num_entities > 1)  # some shares were reduced


def test_unroll_with_resets_is_a_loop_over_steps() -> None:
    core = tiny_core("entity_delta", 17, **ENTITIES)
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
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_core("entity_delta", 10, options)

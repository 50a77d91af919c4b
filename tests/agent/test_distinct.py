"""Tests of deduplication: equal observations are encoded once, with the same result."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rmc_agents.agent import encoders
from rmc_agents.agent.distinct import MIN_ROWS, find_distinct_rows
from rmc_agents.agent.encoders import Encoder
from tests.support.spaces import MAZE_SPACE


@given(kinds=st.integers(1, 200), rows=st.integers(1, 400), seed=st.integers(0, 2**31))
def test_distinct_rows_reproduce_the_batch(kinds: int, rows: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randint(0, 11, (kinds, 20), generator=generator, dtype=torch.uint8)
    codes = pool[torch.randint(kinds, (rows,), generator=generator)]
    number = torch.randint(4, (rows, 1), generator=generator)
    found = find_distinct_rows([codes, number])
    count = len(torch.unique(torch.cat([codes, number], dim=1), dim=0))
    assert (found is not None) == (rows >= MIN_ROWS and 2 * count <= rows)
    if found is not None:
        assert len(found.rows) == count
        for part in (codes, number):
            assert torch.equal(part[found.rows][found.inverse], part)


def maze_observations() -> dict[str, torch.Tensor]:
    """Return observations [16, 32] of a maze, 40 of which are distinct."""
    torch.manual_seed(0)
    kind = torch.randint(40, (16, 32))
    image = torch.randint(0, 4, (40, 7, 7, 3), dtype=torch.uint8)
    return {"image": image[kind], "direction": torch.randint(4, (40,))[kind]}


def test_deduplication_changes_neither_features_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    obs = maze_observations()
    encoder = Encoder(MAZE_SPACE, 32).double()
    upstream = torch.randn(16, 32, 32, dtype=torch.float64)
    results = []
    for search in (find_distinct_rows, lambda parts: None):
        calls: list[int] = []

        def counting(parts: list[torch.Tensor], search=search, calls=calls):
            calls.append(len(parts))
            return search(parts)

        monkeypatch.setattr(encoders, "find_distinct_rows", counting)
        encoder.zero_grad()
        features = encoder(obs)
        features.backward(upstream)
        assert calls == [2]
        results.append([features, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
    for once, all_rows in zip(*results, strict=True):
        torch.testing.assert_close(once, all_rows)


def test_encoder_encodes_each_distinct_observation_once() -> None:
    encoder = Encoder(MAZE_SPACE, 8)
    rows: list[int] = []
    encoder.linear.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[0]))
    encoder(maze_observations())
    assert rows == [40]


def test_encoder_does_not_deduplicate_continuous_observations() -> None:
    encoder = Encoder(spaces.Box(-1, 1, (3,)), 8)
    assert not encoder.deduplicate

"""Equal observations are encoded once, and nobody can tell from the result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rmc_agents import encoders
from rmc_agents.distinct import FEWEST_ROWS, distinct
from rmc_agents.encoders import Encoder


@given(kinds=st.integers(1, 200), rows=st.integers(1, 400), seed=st.integers(0, 2**31))
def test_the_rows_stand_for_all(kinds: int, rows: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randint(0, 11, (kinds, 20), generator=generator, dtype=torch.uint8)
    drawn = pool[torch.randint(kinds, (rows,), generator=generator)]
    number = torch.randint(4, (rows, 1), generator=generator)
    found = distinct([drawn, number])
    count = len(torch.unique(torch.cat([drawn, number], dim=1), dim=0))
    assert (found is not None) == (rows >= FEWEST_ROWS and 2 * count <= rows)
    if found is not None:
        assert len(found.rows) == count
        for part in (drawn, number):
            assert torch.equal(part[found.rows][found.which], part)


def maze_view() -> tuple[spaces.Dict, dict[str, torch.Tensor]]:
    """The space of a maze's observations, and [16, 32] of them of which 40 are distinct."""
    space = spaces.Dict({"image": spaces.Box(0, 255, (7, 7, 3), np.uint8), "direction": spaces.Discrete(4)})
    torch.manual_seed(0)
    which = torch.randint(40, (16, 32))
    image = torch.randint(0, 4, (40, 7, 7, 3), dtype=torch.uint8)
    return space, {"image": image[which], "direction": torch.randint(4, (40,))[which]}


def test_an_encoder_says_and_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    space, obs = maze_view()
    encoder = Encoder(space, 32).double()
    upstream = torch.randn(16, 32, 32, dtype=torch.float64)
    results = []
    for search in (distinct, lambda parts: None):
        calls: list[int] = []

        def counting(parts: list[torch.Tensor], search=search, calls=calls):
            calls.append(len(parts))
            return search(parts)

        monkeypatch.setattr(encoders, "distinct", counting)
        encoder.zero_grad()
        features = encoder(obs)
        features.backward(upstream)
        assert calls == [2]
        results.append([features, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
    for once, all_rows in zip(*results, strict=True):
        torch.testing.assert_close(once, all_rows)


def test_an_encoder_reads_each_kind_once(monkeypatch: pytest.MonkeyPatch) -> None:
    space, obs = maze_view()
    encoder = Encoder(space, 8)
    rows: list[int] = []
    encoder.linear.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[0]))
    encoder(obs)
    assert rows == [40]


def test_numbers_that_are_no_codes_are_encoded_as_they_come() -> None:
    encoder = Encoder(spaces.Box(-1, 1, (3,), np.float32), 8)
    assert not encoder.few_places

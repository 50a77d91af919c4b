"""Weights: all of them are loaded or none, and half precision is widened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rmc_agents import UsageError
from rmc_agents.runs.weights import half_precision, load_weights


def network() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(3, 2)


def test_weights_of_another_shape_are_refused_and_none_is_loaded() -> None:
    model = network()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    good = {name: x + 1 for name, x in before.items()}
    for given, message in [
        ({**good, "bias": torch.ones(3)}, r"bias: float32 \[3\], expected float32 \[2\]"),
        ({**good, "bias": torch.ones(2, dtype=torch.int64)}, r"bias: int64 \[2\], expected float32 \[2\]"),
        ({"weight": good["weight"]}, r"bias: nothing, expected float32 \[2\]"),
        ({**good, "more": torch.ones(1)}, r"more: float32 \[1\], expected nothing"),
        ({**good, **dict.fromkeys("abcd", torch.ones(1))}, "and 1 more"),
    ]:
        with pytest.raises(UsageError, match=rf"file belongs to another configuration: .*{message}"):
            load_weights(model, {"agent": given}, Path("file"))
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    load_weights(model, {"agent": good}, Path("file"))
    assert all(torch.equal(x, good[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize("payload", [{}, {"agent": 3}, {"agent": {"weight": 3}}])
def test_payload_without_weights_is_refused(payload: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="file holds no weights"):
        load_weights(network(), payload, Path("file"))


def test_half_precision_is_widened_when_loaded() -> None:
    model, other = network(), nn.Linear(3, 2)
    halves = half_precision(model.state_dict(), Path("file"))
    assert {x.dtype for x in halves.values()} == {torch.float16}
    load_weights(other, {"agent": halves}, Path("file"))
    torch.testing.assert_close(other.weight, model.weight, atol=1e-3, rtol=1e-3)
    with pytest.raises(UsageError, match="too large for half precision"):
        half_precision({"x": torch.tensor(1e6)}, Path("file"))


def test_weights_are_only_checked_on_the_meta_device() -> None:
    model = network()
    with torch.device("meta"):
        blank = nn.Linear(3, 2)
    load_weights(blank, {"agent": model.state_dict()}, Path("file"))
    with pytest.raises(UsageError, match="another configuration"):
        load_weights(blank, {"agent": nn.Linear(2, 2).state_dict()}, Path("file"))

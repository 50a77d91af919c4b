"""Cores of about the same number of parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rmc_agents.cores import CORES, Feedforward, make_core, sizes
from rmc_agents.cores.sizes import match_parameters


@pytest.mark.parametrize("parameters", [20_000, 131_000])
def test_every_core_reaches_a_number_of_parameters(any_core: str, parameters: int) -> None:
    options = match_parameters(any_core, 128, parameters)
    found = sum(p.numel() for p in make_core(any_core, 128, options).parameters())
    assert abs(found - parameters) <= 0.03 * parameters


def test_widths_keep_their_proportions_and_other_options_their_values() -> None:
    options = match_parameters("gtrxl", 64, 100_000, {"num_layers": 1, "num_heads": 8})
    assert options["num_layers"] == 1
    assert options["hidden_size"] % 8 == 0
    assert 1 < options["mlp_size"] / options["hidden_size"] < 4
    assert match_parameters("gtrxl", 64, 100_000, {"num_heads": 5})["hidden_size"] % 5 == 0
    assert match_parameters("rmc", 64, 50_000, {"forget_bias": 3.0})["forget_bias"] == 3.0


def test_default_size_is_found_again(any_core: str) -> None:
    default = make_core(any_core, 128)
    parameters = sum(p.numel() for p in default.parameters())
    core = make_core(any_core, 128, match_parameters(any_core, 128, parameters))
    assert sum(p.numel() for p in core.parameters()) == parameters


def test_matching_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    match_parameters("lru", 8, 1_000)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("core", "parameters", "options", "message"),
    [
        (
            "lstm",
            100,
            {},
            "match_parameters=100: core lstm cannot .* input of 128 numbers; the nearest .* 520",
        ),
        ("lstm", 0, {}, "match_parameters must be a whole number of at least 1, got 0"),
        ("lstm", 1e5, {}, "match_parameters must be a whole number of at least 1, got 100000.0"),
        (
            "lstm",
            10_000,
            {"hidden_size": 5},
            "chooses hidden_size of core lstm, and core_options sets hidden_",
        ),
        ("rmc", 10_000, {"key_size": 5}, "chooses head_size and key_size of core rmc, and .* sets key_size"),
        ("lstm", 10_000, {"hiden_size": 5}, "core 'lstm' has no option 'hiden_size'"),
        ("lstn", 10_000, {}, "unknown core 'lstn'"),
    ],
)
def test_errors_name_the_mistake(core: str, parameters: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_parameters(core, 128, parameters, options)


def test_width_of_a_core_of_ones_own_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(Feedforward):
        def __init__(self, input_size: int, *, breadth: int = 8) -> None:
            super().__init__(input_size, hidden_size=breadth)

    monkeypatch.setitem(CORES, "wide", Wide)
    with pytest.raises(ValueError, match=r"has no option hidden_size: add .* to rmc_agents\.cores\.sizes"):
        match_parameters("wide", 8, 900)
    monkeypatch.setitem(sizes.WIDTHS, "wide", ("breadth",))
    assert match_parameters("wide", 8, 900) == {"breadth": 100}

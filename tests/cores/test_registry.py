"""Construction of cores by name, registration of new cores, and error messages."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from rmc_agents.cores import (
    CORES,
    GRU,
    LSTM,
    RMC,
    RNN,
    DeltaRMC,
    Feedforward,
    MemoryCore,
    TracedCore,
    core_options,
    make_core,
)
from tests.support.cores import assert_correct, sequence, values_and_gradients


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names defined by the example in the docstring of `MemoryCore`, which registers "leaky"."""
    monkeypatch.setitem(CORES, "leaky", RNN)  # replaced by the example, removed after the test
    (code,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(MemoryCore) or "", re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_example_in_the_docstring_is_a_complete_core(example: dict[str, Any]) -> None:
    assert CORES["leaky"] is example["Leaky"]
    assert example["outputs"].shape == (6, 4, 8)
    assert torch.equal(example["outputs"][-1], example["state"].h)
    core = make_core("leaky", 3, {"decay": 0.5})
    assert isinstance(core, example["Leaky"])
    assert not isinstance(core, TracedCore)
    assert core_options("leaky") == {"hidden_size": 8, "decay": 0.9}


@pytest.mark.parametrize("initial", [0.0, 1.0])
def test_default_unroll_resets_to_any_initial_state(
    initial: float, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def initial_state(core: MemoryCore, batch_size: int) -> Any:
        return example["LeakyState"](torch.full((batch_size, core.output_size), initial))

    monkeypatch.setattr(example["Leaky"], "initial_state", initial_state)
    core = make_core("leaky", 3, {"decay": 0.5})
    seq = sequence(core)
    outputs, state = core.unroll(*seq)
    assert outputs.shape == (6, 4, 8)
    assert torch.equal(outputs[-1], state.h)
    assert_correct(core, seq, values_and_gradients(core, core.unroll, seq))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lstn", {}, r"unknown core 'lstn'; choose one of rmc, .*Did you mean 'lstm'\?"),
        ("xyz", {}, r"feedforward\. For a core of your own, import the module that adds it to CORES"),
        ("gru", {"hiden_size": 3}, r"core 'gru' has no option 'hiden_size'.*Did you mean 'hidden_size'\?"),
        (
            "lstm",
            {"num_slots": 3},
            r"core 'lstm' has no option 'num_slots'; it has: hidden_size, forget_bias",
        ),
        ("rnn", {"hidden_size": 0}, r"hidden_size must be a whole number of at least 1, got 0"),
        ("gru", {"hidden_size": 2.5}, r"hidden_size must be a whole number of at least 1, got 2.5"),
        ("feedforward", {"hidden_size": True}, r"hidden_size must be a whole number of at least 1, got True"),
        ("rmc", {"num_slots": -1}, r"num_slots must be a whole number of at least 1, got -1"),
        ("rmc", {"mlp_layers": 0}, r"mlp_layers must be a whole number of at least 1, got 0"),
        ("rmc", {"key_size": 0}, r"key_size must be a whole number of at least 1, got 0"),
        ("rmc", {"normalize_output": "maybe"}, r"normalize_output must be True or False, got 'maybe'"),
        ("delta_rmc", {"coupled_gates": 2}, r"coupled_gates must be True or False, got 2"),
        ("gtrxl", {"gate_bias": "high"}, r"gate_bias must be a number, got 'high'"),
        ("gated_delta", {"forget_bias": True}, r"forget_bias must be a number, got True"),
        ("rmc", {"forget_bias_end": "big"}, r"forget_bias_end must be a number or None, got 'big'"),
        ("delta_rmc", {"output_gain": False}, r"output_gain must be a number or None, got False"),
        (
            "rmc",
            {"coupled_gates": True, "input_bias": -2},
            r"input_bias=0, got gate_style='unit' and input_bias=-2\.0",
        ),
        (
            "rmc",
            {"gate_style": "units"},
            r"gate_style must be one of .*'unit', 'memory', 'none'.*got 'units'",
        ),
    ],
)
def test_errors_name_the_mistake_and_the_choices(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_core(name, 3, options)


def test_whole_numbers_are_read_as_floats_where_an_option_is_one() -> None:
    options = {"normalize_output": True, "output_gain": 1, "forget_bias": 1, "forget_bias_end": 5}
    core = make_core("rmc", 3, options)
    assert isinstance(core, RMC)
    assert core.output_gain is not None
    assert {p.dtype for p in core.parameters()} == {torch.float32}
    assert all(p.dtype == torch.float32 for p in RMC(3, normalize_output=True, output_gain=1).parameters())


@pytest.mark.parametrize("core", [RMC, LSTM, GRU, RNN, Feedforward])
def test_invalid_input_size_raises(core: type[MemoryCore]) -> None:
    with pytest.raises(ValueError, match="input_size must be a whole number of at least 1, got 0"):
        core(0)  # type: ignore[call-arg]


def test_core_options_returns_names_and_defaults() -> None:
    assert core_options("lstm") == {"hidden_size": 128, "forget_bias": 1.0}
    assert core_options("rmc")["gate_style"] == "unit"


def test_importing_cores_imports_nothing_else_of_the_package() -> None:
    code = "import sys, rmc_agents.cores; print(*[m for m in sys.modules if m.startswith('rmc_')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = r"rmc_agents(\.(tree|errors|options|cores(\..*)?))?"
    assert [name for name in result.stdout.split() if not re.fullmatch(allowed, name)] == []


def test_option_with_a_number_as_default_may_be_none() -> None:
    core = make_core("delta_rmc", 3, {"forget_bias_end": None})
    assert isinstance(core, DeltaRMC)
    assert core.rmc._gate_bias.unique().numel() == 2

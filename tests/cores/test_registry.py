"""Building cores by name, a core of one's own, and errors that say what to do."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rmc_agents.cores import CORES, GRU, LSTM, RMC, RNN, Feedforward, MemoryCore, core_options, make_core
from tests.cores.core_support import assert_equal, sequence, stepped, values_and_gradients


class DecayState(NamedTuple):
    h: Tensor


class Decay(MemoryCore):
    """h' = a h + W x."""

    def __init__(self, input_size: int, *, hidden_size: int = 8, decay: float = 0.9) -> None:
        super().__init__(input_size)
        self.linear = nn.Linear(input_size, hidden_size, bias=False)
        self.decay = decay

    @property
    def output_size(self) -> int:
        return self.linear.out_features

    def initial_state(self, batch_size: int) -> DecayState:
        return DecayState(self.linear.weight.new_ones(batch_size, self.output_size))

    def step(self, inputs: Tensor, state: DecayState) -> tuple[Tensor, DecayState]:
        h = self.decay * state.h + self.linear(inputs)
        return h, DecayState(h)


def test_a_core_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORES, "decay", Decay)
    core = make_core("decay", 3, {"decay": 0.5})
    assert isinstance(core, Decay)
    assert core_options("decay") == {"hidden_size": 8, "decay": 0.9}
    seq = sequence(core)
    outputs, state = core.unroll(*seq)
    assert outputs.shape == (6, 4, 8)
    assert torch.equal(outputs[-1], state.h)
    expected = values_and_gradients(core, lambda *s: stepped(core, *s), seq)
    assert_equal(values_and_gradients(core, core.unroll, seq), expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lstn", {}, r"unknown core 'lstn'; choose one of rmc, .*Did you mean 'lstm'\?"),
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
        (
            "rmc",
            {"gate_style": "units"},
            r"gate_style must be one of .*'unit', 'memory', 'none'.*got 'units'",
        ),
    ],
)
def test_errors_name_what_was_wrong_and_what_there_is(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_core(name, 3, options)


@pytest.mark.parametrize("core", [RMC, LSTM, GRU, RNN, Feedforward])
def test_a_bad_input_size_is_refused(core: type[MemoryCore]) -> None:
    with pytest.raises(ValueError, match="input_size must be a whole number of at least 1, got 0"):
        core(0)  # type: ignore[call-arg]


def test_options_and_their_defaults() -> None:
    assert core_options("lstm") == {"hidden_size": 128, "forget_bias": 1.0}
    assert core_options("rmc")["gate_style"] == "unit"

"""RNN, LSTM, GRU and the memoryless core: comparison with NumPy and PyTorch, and initial weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rmc_agents.cores import make_core
from tests.support.cores import sequence, tiny_core
from tests.support.oracles import classical

ORACLES: dict[str, Callable[..., tuple[classical.Array, classical.States]]] = {
    "rnn": classical.rnn_step,
    "lstm": classical.lstm_step,
    "gru": classical.gru_step,
    "feedforward": classical.feedforward_step,
}


@pytest.mark.parametrize("name", ORACLES)
def test_classical_cores_match_numpy(name: str) -> None:
    core = tiny_core(name, dtype=torch.float32)
    inputs, state, starts = sequence(core)
    outputs, last = core.unroll(inputs, state, starts)
    parameters = {n: p.detach().double().numpy() for n, p in core.state_dict().items()}
    for row in range(inputs.shape[1]):
        h = tuple(s[row].detach().double().numpy() for s in state)
        for t in range(inputs.shape[0]):
            if starts[t, row]:
                h = tuple(np.zeros_like(s) for s in h)
            output, h = ORACLES[name](parameters, inputs[t, row].detach().double().numpy(), h)
            np.testing.assert_allclose(outputs[t, row].detach().numpy(), output, atol=1e-5)
        for actual, expected in zip(last, h, strict=True):
            np.testing.assert_allclose(actual[row].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "module"), [("rnn", torch.nn.RNN), ("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)]
)
def test_gated_cores_match_pytorch(name: str, module: type[torch.nn.RNNBase]) -> None:
    core = tiny_core(name)
    reference = module(core.input_size, core.output_size).double()
    projections = {n.replace("_proj", ""): p for n, p in core.named_parameters()}
    with torch.no_grad():
        reference.weight_ih_l0.copy_(projections["input.weight"])  # type: ignore[operator]
        reference.bias_ih_l0.copy_(projections["input.bias"])  # type: ignore[operator]
        reference.weight_hh_l0.copy_(projections["hidden.weight"])  # type: ignore[operator]
        reference.bias_hh_l0.copy_(projections.get("hidden.bias", torch.tensor(0.0)))  # type: ignore[operator]
    inputs, state, starts = sequence(core)
    starts[:] = False
    outputs, last = core.unroll(inputs, state, starts)
    first = tuple(s.unsqueeze(0) for s in state)
    expected, expected_last = reference(inputs, first if name == "lstm" else first[0])
    torch.testing.assert_close(outputs, expected)
    for actual, leaf in zip(last, expected_last if name == "lstm" else (expected_last,), strict=True):
        torch.testing.assert_close(actual, leaf[0])


def test_forget_bias_is_the_initial_bias_of_the_forget_gate() -> None:
    core = make_core("lstm", 3, {"hidden_size": 4, "forget_bias": 2.5})
    assert core.input_proj.bias.tolist() == [0.0] * 4 + [2.5] * 4 + [0.0] * 8  # type: ignore[union-attr]


def test_large_update_bias_keeps_the_state() -> None:
    core = make_core("gru", 3, {"hidden_size": 4, "update_bias": 30.0})
    before = core.initial_state(2)._replace(h=torch.randn(2, 4))  # type: ignore[attr-defined]
    h, _ = core.step(torch.randn(2, 3), before)
    assert torch.allclose(h, before.h)
    assert not make_core("gru", 3, {"hidden_size": 4}).input_proj.bias.any()  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "gates"), [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_recurrent_matrices_are_orthogonal_initially(name: str, gates: int) -> None:
    core = make_core(name, 3, {"hidden_size": 6})
    for gate in dict(core.named_parameters())["hidden_proj.weight"].chunk(gates):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)


def test_feedforward_core_ignores_earlier_inputs() -> None:
    core = tiny_core("feedforward")
    inputs, state, starts = sequence(core)
    changed = inputs.detach().clone()
    changed[0] += 1
    torch.testing.assert_close(
        core.unroll(inputs, state, starts)[0][1:], core.unroll(changed, state, starts)[0][1:]
    )
    assert [s.numel() for s in state] == [0]

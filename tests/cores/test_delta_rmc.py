"""The delta memory under an RMC: comparison with NumPy, and what the RMC reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rmc_agents.cores import DeltaRMC, TracedCore
from tests.support.cores import tiny_core
from tests.support.oracles import gated_delta, rmc


@pytest.mark.parametrize("coupled", [True, False])
def test_step_computes_the_equations(coupled: bool) -> None:
    core = tiny_core("delta_rmc", coupled_gates=coupled, normalize_output=False)
    assert isinstance(core, DeltaRMC)
    parameters = {name: p.detach().numpy() for name, p in core.rmc.named_parameters()}
    state = core.initial_state(1)
    slots, associations = rmc.fresh_memory(3, 4), np.zeros((2, 3, 2))
    for _ in range(5):
        x = torch.randn(1, 3, dtype=torch.float64)
        with torch.no_grad():
            output, state = core.step(x, state)
        found, associations = gated_delta.step(core.delta, x[0].numpy(), associations)
        slots = rmc.rmc_step(
            parameters,
            np.concatenate([x[0].numpy(), found]),
            slots,
            num_heads=2,
            head_size=2,
            key_size=2,
            num_blocks=1,
            mlp_layers=2,
            gate_style="unit",
            input_bias=0.0,
            forget_bias=1.0,
            forget_bias_end=5.0,
            coupled_gates=coupled,
        )
        np.testing.assert_allclose(output[0].numpy(), np.concatenate([slots.ravel(), found]), atol=1e-9)
        np.testing.assert_allclose(state.memory[0].numpy(), slots, atol=1e-9)
        np.testing.assert_allclose(state.associations[0].numpy(), associations, atol=1e-9)


def test_rmc_reads_what_the_delta_memory_has_found() -> None:
    core = tiny_core("delta_rmc")
    x, state = torch.randn(2, 3, dtype=torch.float64), core.initial_state(2)
    other = state._replace(associations=torch.randn_like(state.associations))
    slots, changed = core.step(x, state)[1].memory, core.step(x, other)[1].memory
    assert (slots - changed).abs().amax() > 1e-4


def test_trace_agrees_with_step() -> None:
    core = tiny_core("delta_rmc")
    assert isinstance(core, TracedCore)
    x, state = torch.randn(2, 3, dtype=torch.float64), core.initial_state(2)
    output, after = core.step(x, state)
    traced, traced_after, trace = core.trace(x, state)
    torch.testing.assert_close(traced, output)
    torch.testing.assert_close(tuple(traced_after), tuple(after))
    assert trace.attention.shape[-2:] == (3, 4)

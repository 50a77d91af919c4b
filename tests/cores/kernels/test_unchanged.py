"""Cores whose methods or layers differ from their class: C computes none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmc_agents.cores import CORES, MemoryCore
from rmc_agents.cores.kernels.unchanged import are_plain, replaces
from rmc_agents.tree import map_tree
from tests.conftest import small_options

NAMES = ["rmc", "rnn", "lstm", "gru"]


def override_recur(core: type[Any]) -> type[Any]:
    class Changed(core):
        def recur(self, projected: Any, state: Any) -> Any:
            output, state = super().recur(projected, state)
            return 2 * output, state

    return Changed


def override_project(core: type[Any]) -> type[Any]:
    class Changed(core):
        def project(self, inputs: Tensor) -> Any:
            return super().project(2 * inputs)

    return Changed


def override_initial_state(core: type[Any]) -> type[Any]:
    class Changed(core):
        def initial_state(self, batch_size: int) -> Any:
            return map_tree(lambda x: x + 1, super().initial_state(batch_size))

    return Changed


def results(core: MemoryCore) -> Tensor:
    """Return the outputs of a sequence with resets."""
    inputs = torch.arange(6 * 3 * 4.0).sin().view(6, 3, 4)
    starts = torch.tensor([True, False, False, True, False, True]).unsqueeze(1).expand(6, 3)
    with torch.no_grad():
        return core.unroll(inputs, core.initial_state(3), starts.contiguous())[0]


@pytest.mark.parametrize("override", [override_recur, override_project, override_initial_state])
@pytest.mark.parametrize("name", NAMES)
def test_unroll_runs_the_methods_of_a_subclass(name: str, override: Callable[..., type[Any]]) -> None:
    torch.manual_seed(0)
    core = CORES[name](4, **small_options(name))
    changed = override(CORES[name])(4, **small_options(name))
    changed.load_state_dict(core.state_dict())
    assert not torch.allclose(results(changed), results(core))


@pytest.mark.parametrize("name", NAMES)
def test_subclass_without_changes_runs_in_c(name: str) -> None:
    core: Any = type("Same", (CORES[name],), {})(4, **small_options(name))
    assert core._has_fused_sequence(torch.zeros(1, 1, 4))


@pytest.mark.parametrize("name", NAMES)
def test_unroll_runs_patches_and_hooks(name: str) -> None:
    torch.manual_seed(0)
    core: Any = CORES[name](4, **small_options(name))
    before = results(core)
    handle = core.input_proj.register_forward_hook(lambda _layer, _inputs, output: output.mul(2))
    assert not torch.allclose(results(core), before)
    handle.remove()
    assert torch.equal(results(core), before)
    recur = core.recur
    core.recur = lambda *args: recur(*map_tree(lambda x: 2 * x, args))
    assert not torch.allclose(results(core), before)


def test_are_plain_accepts_the_layers_of_torch_only() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    linear = nn.Linear(2, 2)
    assert are_plain(linear, nn.LayerNorm(2))
    assert not are_plain(Doubled(2, 2))
    linear.forward = lambda input: input  # type: ignore[method-assign]
    assert not are_plain(linear)


def test_replaces_finds_patches() -> None:
    linear = nn.Linear(2, 2)
    assert not replaces(linear, nn.Linear, "forward")
    linear.forward = lambda input: input  # type: ignore[method-assign]
    assert replaces(linear, nn.Linear, "forward")

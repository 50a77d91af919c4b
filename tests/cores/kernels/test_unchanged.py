"""Cores whose methods or layers differ from their class: C computes none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmc_agents.cores import CORES, MemoryCore
from rmc_agents.cores.base import IndexedInputs
from rmc_agents.cores.kernels.unchanged import are_plain, replaces
from rmc_agents.tree import map_tree
from tests.conftest import small_options

NAMES = ["rmc", "rnn", "lstm", "gru", "mingru"]


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


def sequence(core: MemoryCore) -> tuple[Tensor, Any, Tensor]:
    """Return inputs, state and starts of a sequence with resets."""
    inputs = torch.arange(6 * 3 * 4.0).sin().view(6, 3, 4)
    starts = torch.tensor([True, False, False, True, False, True]).unsqueeze(1).expand(6, 3)
    return inputs, core.initial_state(3), starts.contiguous()


def results(core: MemoryCore) -> Tensor:
    """Return the outputs of a sequence with resets."""
    with torch.no_grad():
        return core.unroll(*sequence(core))[0]


@pytest.mark.parametrize("override", [override_recur, override_project, override_initial_state])
@pytest.mark.parametrize("name", [*NAMES, "gated_delta", "lru", "shm"])
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


CORES_WITH_OPTIONS = {
    **{name: (name, small_options(name)) for name in CORES},
    "rmc with gates of slots": ("rmc", {**small_options("rmc"), "gate_style": "memory"}),
    "shm with a projection": ("shm", {**small_options("shm"), "projection_size": 5}),
    "rmc without gates": ("rmc", {**small_options("rmc"), "gate_style": "none"}),
    "rmc with two blocks": ("rmc", {**small_options("rmc"), "num_blocks": 2}),
}
LAYERS = [
    (name, layer)
    for name, (core, options) in CORES_WITH_OPTIONS.items()
    for layer, module in CORES[core](4, **options).named_modules()
    if layer and type(module).forward is not nn.Module.forward
]
"""Every core, and every module in it that is called."""


@pytest.mark.parametrize("change", ["hook", "patch", "class"])
@pytest.mark.parametrize(("name", "layer"), LAYERS, ids=map("-".join, LAYERS))
def test_every_layer_of_a_core_is_called_if_it_was_changed(name: str, layer: str, change: str) -> None:
    """Hooks, patches and replaced classes change what acting and learning compute, and both agree."""
    torch.manual_seed(0)
    kind, options = CORES_WITH_OPTIONS[name]
    core = CORES[kind](4, **options)
    before, module = results(core), core.get_submodule(layer)
    if change == "hook":
        module.register_forward_hook(lambda _module, _inputs, output: output + 0.5)
    elif change == "patch":
        forward = module.forward
        module.forward = lambda x: forward(x) + 0.5  # type: ignore[method-assign]
    else:
        own: Any = type(module)
        module.__class__ = type("Changed", (own,), {"forward": lambda self, x: own.forward(self, x) + 0.5})
    after = results(core)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(MemoryCore.unroll(core, *sequence(core)), core.unroll(*sequence(core)))
    rows, ids = torch.arange(12 * 4.0).sin().view(12, 4), (torch.arange(18) % 12).view(6, 3).int()
    _, state, starts = sequence(core)
    indexed = core.unroll_indexed(IndexedInputs(rows, ids), state, starts)
    torch.testing.assert_close(indexed, core.unroll(rows[ids.long()], state, starts))
    assert core.prepare_unroll(IndexedInputs(rows, ids), state, starts) is None
    states = map_tree(lambda x: x.expand(7, *x.shape).clone(), state)
    assert core.prepare_steps(rows[:3], states, starts) is None


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

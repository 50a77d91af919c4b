"""Tiny cores, random sequences with resets, and reference ways of running them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from rmc_agents.cores import HoistedCore, MemoryCore, State, core_options, make_core, reset_rows
from rmc_agents.tree import map_tree
from tests.conftest import small_options

TINY = {
    "rmc": {"num_slots": 3, "num_heads": 2, "head_size": 2},
    "dnc": {"hidden_size": 4, "num_rows": 3, "row_size": 2, "num_reads": 2},
}
"""Options of cores of a few units; the others get `hidden_size` 5 if they have that option."""
NATIVE_CORES = ["rmc", "lstm", "gru", "rnn"]
"""The cores that are implemented in C."""
USUAL: dict[str, dict[str, Any]] = {"rmc": {"num_slots": 4, "num_heads": 4, "head_size": 16}}
"""Options of cores of a usual size; the others get `hidden_size` 64."""


def tiny_core(
    name: str, input_size: int = 3, dtype: torch.dtype = torch.float64, **options: object
) -> MemoryCore:
    """Build a core of a few units, with perturbed parameters, so that none has a special value like 0."""
    sizes = TINY.get(name, {"hidden_size": 5} if "hidden_size" in core_options(name) else small_options(name))
    core = make_core(name, input_size, {**sizes, **options}).to(dtype)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return core


def float32_core(name: str, input_size: int = 3, **options: object) -> HoistedCore:
    """Build a tiny float32 core that has an implementation in C: one of `NATIVE_CORES`."""
    return cast(HoistedCore, tiny_core(name, input_size, torch.float32, **options))


def usual_core(name: str) -> HoistedCore:
    """Build a float32 core of a usual size that has an implementation in C: one of `NATIVE_CORES`."""
    return float32_core(name, 20, **USUAL.get(name, {"hidden_size": 64}))


def arbitrary_state(core: MemoryCore, batch_size: int) -> State:
    """Return a state that the core reaches in three steps, as leaves that require gradients."""
    state = core.initial_state(batch_size)
    with torch.no_grad():
        for _ in range(3):
            state = core.step(torch.randn(batch_size, core.input_size, dtype=dtype_of(core)), state)[1]
    return map_tree(lambda s: s.detach().clone().requires_grad_(), state)


def dtype_of(core: MemoryCore) -> torch.dtype:
    return next(core.parameters()).dtype


class Sequence(NamedTuple):
    """The arguments of `MemoryCore.unroll`."""

    inputs: Tensor
    """[T, B, I], requires gradients."""
    state: State
    starts: Tensor
    """[T, B] bool."""


def sequence(core: MemoryCore, length: int = 6, batch_size: int = 4) -> Sequence:
    """Random inputs with a reset in the middle (row 0), at step 0 (row 1), at the last two steps (row 2)."""
    starts = torch.zeros(length, batch_size, dtype=torch.bool)
    starts[length // 2, 0] = True
    starts[0, 1 % batch_size] = True
    starts[length - 2 : length, 2 % batch_size] = True
    inputs = torch.randn(length, batch_size, core.input_size, dtype=dtype_of(core), requires_grad=True)
    return Sequence(inputs, arbitrary_state(core, batch_size), starts)


def unroll_by_steps(core: MemoryCore, inputs: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
    """Compute `unroll` by its definition: for each input, reset where an episode starts, then step."""
    outputs = []
    for x, start in zip(inputs, starts, strict=True):
        output, state = core.step(x, reset_rows(state, core.initial_state(len(start)), start))
        outputs.append(output)
    return torch.stack(outputs), state


def plain_unroll(core: HoistedCore) -> Callable[..., tuple[Tensor, State]]:
    """Return the loop over `project` and `recur`, without the core's fast implementation."""
    return lambda inputs, state, starts: HoistedCore.unroll(core, inputs, state, starts)


def values_and_gradients(
    core: MemoryCore, run: Callable[..., tuple[Tensor, State]], seq: Sequence
) -> dict[str, Tensor]:
    """Return outputs and last state, and the gradients of a loss on both.

    The gradients are those of the inputs, the first state and the parameters.
    """
    outputs, state = run(*seq)
    loss = outputs.sin().mean() + sum(s.cos().mean() for s in state if s.numel())
    wanted = {"inputs": seq.inputs}
    wanted |= {f"state {i}": s for i, s in enumerate(seq.state) if s.numel()}
    wanted |= dict(core.named_parameters())
    gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, materialize_grads=True)
    values = {"outputs": outputs} | {f"last state {i}": s for i, s in enumerate(state)}
    return values | {f"gradient of {name}": g for name, g in zip(wanted, gradients, strict=True)}


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Assert equal names and shapes, and equal values up to rounding."""
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            actual[name], expected[name], atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )

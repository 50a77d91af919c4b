"""Tiny cores, random sequences with resets, and reference ways of running them."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor

from rmc_agents.cores import HoistedCore, MemoryCore, State, core_options, make_core, reset_rows
from rmc_agents.cores.kernels import build
from rmc_agents.tree import map_tree
from tests.conftest import small_options
from tests.support.rounding import rounding_error

TINY = {
    "rmc": {"num_slots": 3, "num_heads": 2, "head_size": 2},
    "dnc": {"hidden_size": 4, "num_rows": 3, "row_size": 2, "num_reads": 2},
    "gated_delta": {"num_heads": 2, "key_size": 3, "value_size": 2},
    "lru": {"hidden_size": 4, "state_size": 5},
    "shm": {"hidden_size": 7, "num_rows": 11},
    "delta_rmc": {
        "num_slots": 3,
        "num_heads": 2,
        "head_size": 2,
        "delta_heads": 2,
        "delta_key_size": 3,
        "delta_value_size": 2,
    },
    "entity_delta": {"hidden_size": 5, "key_size": 3, "value_size": 2, "num_reads": 2},
    "gtrxl": {"hidden_size": 4, "num_layers": 2, "num_heads": 2, "window": 5, "mlp_size": 3},
}
"""Options of cores of a few units; the others get `hidden_size` 5 if they have that option."""
NATIVE_CORES = ["rmc", "lstm", "gru", "rnn", "mingru"]
"""The cores that are implemented in C."""
needs_native = pytest.mark.skipif(
    build.library() is None, reason="the native kernels cannot be compiled here"
)
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


def require_instructions(name: str) -> ctypes.CDLL:
    """Return the library compiled for an instruction set; skip the test where it cannot run."""
    try:
        return build.load(name)
    except build.BuildError as error:
        pytest.skip(str(error))


def narrower_instructions() -> list[str]:
    """Return the instruction sets of older processors than this one."""
    names, own = list(build.INSTRUCTIONS), build.state()
    return names[names.index(own) + 1 :] if own in names else []


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


Run = Callable[..., tuple[Tensor, State]]
"""A way of computing `MemoryCore.unroll`."""


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


Compute = Callable[[Any, Run, Sequence], dict[str, Tensor]]
"""Results of a core, by name, computed by a `Run` for a sequence."""


def unroll_by_steps(core: MemoryCore, inputs: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
    """Compute `unroll` by its definition: for each input, reset where an episode starts, then step."""
    outputs = []
    for x, start in zip(inputs, starts, strict=True):
        output, state = core.step(x, reset_rows(state, core.initial_state(len(start)), start))
        outputs.append(output)
    return torch.stack(outputs), state


def plain_unroll(core: HoistedCore) -> Run:
    """Return the loop over `project` and `recur`, without the core's fast implementation."""
    return lambda inputs, state, starts: HoistedCore.unroll(core, inputs, state, starts)


def values_and_gradients(core: MemoryCore, run: Run, seq: Sequence) -> dict[str, Tensor]:
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


def beyond_rounding(
    core: MemoryCore, seq: Sequence, found: dict[str, Tensor], compute: Compute = values_and_gradients
) -> list[str]:
    """Return the float32 results that differ from those of double precision by more than rounding.

    Norms over few numbers amplify rounding errors. By how much shows in double precision, where inputs,
    states and parameters are moved by a rounding error each.
    """
    exact = _in_double_precision(core, seq, compute)
    generator = torch.Generator().manual_seed(0)
    moved = [_in_double_precision(core, seq, compute, generator) for _ in range(4)]
    assert found.keys() == exact.keys()
    wrong = []
    for name, value in exact.items():
        assert found[name].shape == value.shape
        if not value.numel():
            continue
        magnitude = max(1.0, value.abs().max().item())
        change = max((other[name] - value).abs().max().item() for other in moved)
        bound = rounding_error(seq.starts.numel(), magnitude) + 8 * change
        error = (found[name] - value).abs().max().item()
        if not error <= bound:
            wrong.append(f"{name}: an error of {error:.2g}, at most {bound:.2g} can be rounding")
    return wrong


def assert_correct(
    core: MemoryCore, seq: Sequence, found: dict[str, Tensor], compute: Compute = values_and_gradients
) -> None:
    """Assert that float32 results of `compute` are those of double precision, up to rounding."""
    assert beyond_rounding(core, seq, found, compute) == []


def _in_double_precision(
    core: MemoryCore, seq: Sequence, compute: Compute, moved: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Return the results of stepping in float64; with `moved`, of arguments with other rounding errors."""

    def convert(x: Tensor) -> Tensor:
        x = x.detach().double()
        if moved is not None:
            noise = torch.randn(x.shape, dtype=x.dtype, generator=moved)
            x = x * (1 + torch.finfo(torch.float32).eps * noise)
        return x.requires_grad_()

    core = copy.deepcopy(core).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.copy_(convert(parameter))
    converted = Sequence(convert(seq.inputs), map_tree(convert, seq.state), seq.starts)
    return compute(core, lambda *arguments: unroll_by_steps(core, *arguments), converted)


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Assert equal names and shapes, and equal values up to rounding."""
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            actual[name], expected[name], atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )

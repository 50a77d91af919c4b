"""Tiny cores, sequences with episodes that start in the middle, and the two ways of running them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rmc_agents.cores import MemoryCore, State, core_options, make_core, reset_rows
from rmc_agents.tree import map_tree
from tests.conftest import small_options

TINY = {
    "rmc": {"num_slots": 3, "num_heads": 2, "head_size": 2},
    "dnc": {"hidden_size": 4, "num_rows": 3, "row_size": 2, "num_reads": 2},
}


def tiny_core(
    name: str, input_size: int = 3, dtype: torch.dtype = torch.float64, **options: object
) -> MemoryCore:
    """A core of a few units, all its parameters far from their special first values such as zero biases."""
    sizes = TINY.get(name, {"hidden_size": 5} if "hidden_size" in core_options(name) else small_options(name))
    core = make_core(name, input_size, {**sizes, **options}).to(dtype)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return core


def arbitrary_state(core: MemoryCore, batch_size: int) -> State:
    """A state that the core reached itself, and needs gradients."""
    state = core.initial_state(batch_size)
    with torch.no_grad():
        for _ in range(3):
            state = core.step(torch.randn(batch_size, core.input_size, dtype=dtype_of(core)), state)[1]
    return map_tree(lambda s: s.detach().clone().requires_grad_(), state)


def dtype_of(core: MemoryCore) -> torch.dtype:
    return next(core.parameters()).dtype


class Sequence(NamedTuple):
    inputs: Tensor
    state: State
    starts: Tensor


def sequence(core: MemoryCore, length: int = 6, batch_size: int = 4) -> Sequence:
    """Random inputs. One row starts anew in the middle, one at once, one twice running, one never."""
    starts = torch.zeros(length, batch_size, dtype=torch.bool)
    starts[length // 2, 0] = True
    starts[0, 1 % batch_size] = True
    starts[length - 2 : length, 2 % batch_size] = True
    inputs = torch.randn(length, batch_size, core.input_size, dtype=dtype_of(core), requires_grad=True)
    return Sequence(inputs, arbitrary_state(core, batch_size), starts)


def stepped(core: MemoryCore, inputs: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
    """What `unroll` promises, in so many words."""
    outputs = []
    for x, start in zip(inputs, starts, strict=True):
        output, state = core.step(x, reset_rows(state, core.initial_state(len(start)), start))
        outputs.append(output)
    return torch.stack(outputs), state


def values_and_gradients(core: MemoryCore, run: object, seq: Sequence) -> dict[str, Tensor]:
    """Outputs, last state, and the gradient of a function of both for inputs, first state and parameters."""
    outputs, state = run(*seq)  # type: ignore[operator]
    loss = outputs.sin().mean() + sum(s.cos().mean() for s in state if s.numel())
    wanted = {"inputs": seq.inputs}
    wanted |= {f"state {i}": s for i, s in enumerate(seq.state) if s.numel()}
    wanted |= dict(core.named_parameters())
    gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, materialize_grads=True)
    values = {"outputs": outputs} | {f"last state {i}": s for i, s in enumerate(state)}
    return values | {f"gradient of {name}": g for name, g in zip(wanted, gradients, strict=True)}


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """The same names, the same shapes, and values that differ by rounding alone."""
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            actual[name], expected[name], atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )

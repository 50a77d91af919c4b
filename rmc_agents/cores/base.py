"""The contract of a memory core: state is an argument and a result, never an attribute.

Axes: T time, B batch, I input size, H output size. The traces of cores with slots add: N slots, R rows that a
slot reads (the slots, then the input: N + 1), A heads, D slot size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rmc_agents.options import is_number
from rmc_agents.tree import map_tree

State = Any
"""A NamedTuple of tensors, each with the batch axis first: [B, ...]."""


class IndexedInputs(NamedTuple):
    """Inputs of which many are equal: those that differ, and the id of each."""

    rows: Tensor
    """[n, I]."""
    ids: Tensor
    """[...] int32 or int64, the row of each input."""

    def gather(self) -> Tensor:
        """Return all inputs [..., I]."""
        # Unlike that of an index_select, its backward pass adds in a fixed order on a GPU.
        return nn.functional.embedding(self.ids, self.rows)


class PreparedUnroll(Protocol):
    """`unroll_indexed` and its backward pass over sequences of the same sizes, without autograd.

    Its arguments stay in place; their contents may change between calls.
    """

    def forward(self, num_inputs: int) -> Tensor:
        """Return the contiguous outputs [T, B, H], valid until the next call.

        Args:
            num_inputs: number of rows of the inputs that are read, the first ones.
        """
        ...

    def backward(self, d_outputs: Tensor) -> Tensor:
        """Overwrite the gradients of the core's parameters, and return those of the inputs [n, I].

        Args:
            d_outputs: contiguous gradients of the outputs.
        """
        ...


class PreparedSteps(Protocol):
    """`step` for the steps of a rollout, without gradients; its arguments stay in place."""

    def step(self, t: int) -> Tensor:
        """Return the contiguous outputs [B, H] of step t, valid until the next call.

        It reads the state of step t, which is reset where an episode starts, and writes that of step t + 1.
        """
        ...


class MemoryCore(nn.Module, ABC):
    """Recurrent memory: reads one input per step and carries a state from step to step.

    A subclass implements `initial_state`, `step` and `output_size`. Its constructor takes `input_size` first
    and its options by keyword, each with a default. It may override `unroll` with a faster computation, which
    must give the values and gradients of the loop over `step`.

    Args:
        input_size: I.

    Raises:
        ValueError: `input_size` is not a positive integer.

    Example: a complete core, and its registration.

    ```python
    from typing import NamedTuple

    import torch
    from torch import Tensor, nn

    from rmc_agents.cores import CORES, MemoryCore, make_core


    class LeakyState(NamedTuple):
        h: Tensor  # [B, H]


    class Leaky(MemoryCore):  # h' = decay * h + W x
        def __init__(self, input_size: int, *, hidden_size: int = 8, decay: float = 0.9) -> None:
            super().__init__(input_size)
            self.linear, self.decay = nn.Linear(input_size, hidden_size, bias=False), decay

        @property
        def output_size(self) -> int:
            return self.linear.out_features

        def initial_state(self, batch_size: int) -> LeakyState:
            return LeakyState(self.linear.weight.new_zeros(batch_size, self.output_size))

        def step(self, inputs: Tensor, state: LeakyState) -> tuple[Tensor, LeakyState]:
            h = self.decay * state.h + self.linear(inputs)
            return h, LeakyState(h)


    CORES["leaky"] = Leaky
    core = make_core("leaky", input_size=3, options={"decay": 0.5})
    inputs, starts = torch.randn(6, 4, 3), torch.zeros(6, 4, dtype=torch.bool)  # [T, B, I], [T, B]
    outputs, state = core.unroll(inputs, core.initial_state(4), starts)  # [T, B, H]
    ```
    """

    capturable: ClassVar[bool] = False
    """Whether `unroll` and `step` can be recorded in a CUDA graph: they never wait for the device, and change
    nothing on the host, such as a counter. A class does not inherit it from another one."""
    reads_entities: ClassVar[bool] = False
    """Whether the core has options `num_entities` and `entity_size`, and takes the first inputs as so many
    entities. An agent feeds such a core the cells of a grid (`AgentConfig.cell_size`). With `cell_names` and
    `cell_neighbours` it gives `name_size` and `context_size`, too, and `extra_size` to cores that have that
    option (see `EntityDelta`)."""
    _anchor: Tensor

    def __init__(self, input_size: int) -> None:
        super().__init__()
        require_positive(input_size=input_size)
        self.input_size = input_size
        # Carries the core's device and dtype, also for a core without parameters.
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    @property
    @abstractmethod
    def output_size(self) -> int:
        """H, the width of the output."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """Return the state at the start of an episode, for `batch_size` rows, on the core's device."""

    @abstractmethod
    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one input: inputs [B, I], state -> output [B, H], next state."""

    def unroll(self, inputs: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Read a sequence, resetting the state where an episode starts.

        Args:
            inputs: [T, B, I].
            state: the state before the first input.
            starts: [T, B] bool; where `starts[t]` is true, that row is reset to `initial_state` before it
                reads `inputs[t]`.

        Returns:
            The outputs [T, B, H] and the state after the last input.
        """
        fresh = self.initial_state(inputs.shape[1])
        outputs = []
        # unbind, not inputs[t]: indexing in a differentiated loop makes autograd allocate a zero tensor of
        # the size of the whole sequence at every step.
        for x, start in zip(inputs.unbind(0), starts.unbind(0), strict=True):
            output, state = self.step(x, reset_rows(state, fresh, start))
            outputs.append(output)
        return torch.stack(outputs), state

    def unroll_indexed(self, inputs: IndexedInputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Read a sequence as `unroll`, of which many inputs are equal; their ids are [T, B].

        A core may override it to project each distinct input once.
        """
        return self.unroll(inputs.gather(), state, starts)

    def prepare_unroll(self, inputs: IndexedInputs, state: State, starts: Tensor) -> PreparedUnroll | None:
        """Return a faster way to compute what `unroll_indexed` does, or None if there is none.

        The parameters have gradients, which stay in place as the arguments do.
        """
        return None

    def prepare_steps(self, inputs: Tensor, states: State, starts: Tensor) -> PreparedSteps | None:
        """Return a faster way to take steps without gradients, or None if there is none.

        Args:
            inputs: [B, I] of any step.
            states: [T + 1, B, ...] before each of T steps, and after the last.
            starts: [T, B] bool, true where the state is reset before the step.
        """
        return None


class HoistedCore(MemoryCore, ABC):
    """Core whose step splits into a part of the input alone and a part that depends on the state.

    A subclass implements `project` and `recur` instead of `step`. `unroll` applies `project` to a whole
    sequence in one matrix product, so that only `recur` is left in the loop over time.
    """

    @abstractmethod
    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute what does not depend on the state: inputs [..., I] -> tensors [..., *]."""

    @abstractmethod
    def recur(self, projected: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        """Complete the step: projected [B, *], state -> output [B, H], next state."""

    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        return self.recur(self.project(inputs), state)

    def unroll(self, inputs: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        fresh = self.initial_state(inputs.shape[1])
        outputs = []
        projected = [p.unbind(0) for p in self.project(inputs)]
        for start, *x in zip(starts.unbind(0), *projected, strict=True):
            output, state = self.recur(tuple(x), reset_rows(state, fresh, start))
            outputs.append(output)
        return torch.stack(outputs), state


class SlotTrace(NamedTuple):
    """Attention and gates of one step of a core with memory slots, for figures and probes."""

    attention: Tensor
    """[B, blocks, A, N, R] attention of each slot to the slots and, last, the input; sums to 1 over R."""
    input_gate: Tensor
    """[B, N, D or 1] share of the new content that was written (1 without gates)."""
    forget_gate: Tensor
    """[B, N, D or 1] share of the old memory that was kept (0 without gates)."""


@runtime_checkable
class TracedCore(Protocol):
    """Optional interface of a core with memory slots: a step that also returns its attention and gates.

    Figures of the memory are drawn only for cores that implement it.

    Test for it with `isinstance(core, TracedCore)`. The slots are the field `memory` [B, N, D] of the state.
    """

    def trace(self, inputs: Tensor, state: State) -> tuple[Tensor, State, SlotTrace]:
        """Compute a step and its trace: inputs [B, I], state -> output [B, H], next state, trace.

        The output and the next state equal those of `step` up to rounding. May be slow; not used in training.
        """
        ...


def reset_rows(state: State, fresh: State, starts: Tensor) -> State:
    """Return `fresh` where `starts` [B] is true and `state` elsewhere.

    Selects instead of multiplying by zero: a core's initial state need not be zero, and 0 * inf is not 0.
    """
    return map_tree(lambda s, f: torch.where(starts.view(-1, *[1] * (s.ndim - 1)), f, s), state, fresh)


def gradient_of(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter, which has one."""
    assert parameter.grad is not None
    return parameter.grad


def require_number(**options: float | None) -> None:
    """Raise ValueError that names the first option that is neither a number nor None."""
    for name, value in options.items():
        if value is not None and not is_number(value):
            raise ValueError(f"{name} must be a number or None, got {value!r:.60}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless an option has one of some values."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def require_positive(**sizes: int) -> None:
    """Raise ValueError that names the first size that is not a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {size!r}")

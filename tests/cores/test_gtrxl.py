"""GTrXL: the paper's equations in NumPy, the window, chunks of any length, and memory across episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rmc_agents.cores import GTrXL
from rmc_agents.cores import gtrxl as module
from tests.support.cores import arbitrary_state, tiny_core, unroll_by_steps
from tests.support.oracles.classical import sigmoid

Array = NDArray[np.float64]


class Reference:
    """The equations for one row, with keys and values of every step, and all of its steps remembered."""

    def __init__(self, core: GTrXL) -> None:
        self.weights = {name: p.detach().numpy() for name, p in core.named_parameters()}
        self.core = core
        self.past: list[list[Array]] = [[] for _ in core.layers]

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: Array) -> Array:
        normal = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return normal * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def gate(self, name: str, x: Array, y: Array) -> Array:
        r, z, h = np.split(self.linear(f"{name}.new_proj", y), 3)
        old_r, old_z = np.split(self.linear(f"{name}.old_proj", x), 2)
        r, z = sigmoid(r + old_r), sigmoid(z + old_z)
        h = np.tanh(h + self.linear(f"{name}.candidate_proj", r * x))
        return (1 - z) * x + z * h

    def attention(self, name: str, steps: list[Array]) -> Array:
        """Attend from the last step to the latest W + 1."""
        w = {key.removeprefix(f"{name}."): p for key, p in self.weights.items() if key.startswith(name)}
        A, K, D = w["key"].shape
        query, read = (w["query_proj.weight"] @ steps[-1]).reshape(A, K), []
        for a in range(A):
            scores, values = [], []
            for distance, m in enumerate(steps[::-1][: self.core.window + 1]):
                angles = distance * 1e-4 ** (np.arange(0, D, 2) / D)
                encoding = np.stack([np.sin(angles), np.cos(angles)], -1).ravel()
                content = (query[a] + w["content_bias"][a]) @ (w["key"][a] @ m)
                position = (query[a] + w["position_bias"][a]) @ (w["position"][a] @ encoding)
                scores.append((content + position) / np.sqrt(K))
                values.append(w["value"][a] @ m)
            weights = np.exp(np.array(scores) - max(scores))
            read.append(weights / weights.sum() @ np.array(values))
        return w["output_proj.weight"] @ np.concatenate(read)

    def step(self, inputs: Array) -> Array:
        x = self.linear("input_proj", inputs)
        for i, past in enumerate(self.past):
            layer = f"layers.{i}"
            past.append(self.norm(f"{layer}.attention_norm", x))
            read = self.attention(f"{layer}.attention", past)
            x = self.gate(f"{layer}.attention_gate", x, np.maximum(read, 0))
            hidden = np.maximum(self.linear(f"{layer}.mlp.0", self.norm(f"{layer}.mlp_norm", x)), 0)
            x = self.gate(f"{layer}.mlp_gate", x, np.maximum(self.linear(f"{layer}.mlp.2", hidden), 0))
        return x


def tiny(**options: Any) -> GTrXL:
    core = tiny_core("gtrxl", **options)
    assert isinstance(core, GTrXL)
    core._encodings = module._sinusoids(core.window, core.hidden_size).double()
    return core


def test_steps_compute_the_equations_beyond_the_window() -> None:
    core = tiny()
    state, references = core.initial_state(2), [Reference(core) for _ in range(2)]
    for _ in range(3 * core.window):
        x = torch.randn(2, 3, dtype=torch.float64)
        with torch.no_grad():
            output, state = core.step(x, state)
        for row, reference in enumerate(references):
            np.testing.assert_allclose(output[row], reference.step(x[row].numpy()), rtol=1e-6, atol=1e-6)
    for row, reference in enumerate(references):
        for layer, past in enumerate(reference.past):
            kept = past[-core.window :]
            np.testing.assert_allclose(state.cache[row, layer], np.array(kept), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("window", [1, 3, module.MIN_CHUNK + 3])
@pytest.mark.parametrize("length", [1, module.MIN_CHUNK + 1, 2 * module.MIN_CHUNK + 5])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_chunks_equal_steps_in_values_and_gradients(length: int, window: int, share: float) -> None:
    core = tiny(window=window)
    state = arbitrary_state(core, 3)
    inputs = torch.randn(length, 3, 3, dtype=torch.float64, requires_grad=True)
    starts = torch.rand(length, 3) < share
    found = []
    for unroll in (core.unroll, lambda *arguments: unroll_by_steps(core, *arguments)):
        outputs, last = unroll(inputs, state, starts)
        loss = outputs.sin().sum() + last.cache.cos().sum()
        gradients = torch.autograd.grad(loss, [inputs, state.cache, *core.parameters()])
        found.append([outputs, *last, *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_one_layer_forgets_what_left_its_window() -> None:
    core = tiny(num_layers=1, window=4)
    inputs = torch.randn(8, 1, 3, dtype=torch.float64, requires_grad=True)
    outputs, _ = core.unroll(inputs, core.initial_state(1), torch.zeros(8, 1, dtype=torch.bool))
    (d_inputs,) = torch.autograd.grad(outputs[-1].sum(), [inputs])
    assert (d_inputs.abs().sum((1, 2)) > 0).tolist() == [False] * 3 + [True] * 5


def test_layers_reach_back_one_window_each() -> None:
    core = tiny(num_layers=2, window=3)
    inputs = torch.randn(8, 1, 3, dtype=torch.float64, requires_grad=True)
    outputs, _ = core.unroll(inputs, core.initial_state(1), torch.zeros(8, 1, dtype=torch.bool))
    (d_inputs,) = torch.autograd.grad(outputs[-1].sum(), [inputs])
    assert (d_inputs.abs().sum((1, 2)) > 0).tolist() == [False] + [True] * 7


def test_state_counts_the_steps_of_an_episode_and_keeps_only_those() -> None:
    core = tiny(window=4)
    starts = torch.zeros(6, 3, dtype=torch.bool)
    starts[4, 1] = starts[5, 2] = True
    inputs = torch.randn(6, 3, 3, dtype=torch.float64)
    state = core.unroll(inputs, core.initial_state(3), starts)[1]
    assert state.steps.tolist() == [4, 2, 1]
    kept = state.cache.abs().sum((1, 3)) > 0
    assert kept.tolist() == [[True] * 4, [False, False, True, True], [False, False, False, True]]


def test_gates_are_near_the_identity_at_first() -> None:
    core = GTrXL(3, gate_bias=8.0)
    inputs = torch.randn(5, 2, 3)
    with torch.no_grad():
        outputs, _ = core.unroll(inputs, core.initial_state(2), torch.zeros(5, 2, dtype=torch.bool))
        torch.testing.assert_close(outputs, core.input_proj(inputs), atol=0.02, rtol=0)


def test_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size must be a multiple of num_heads, got 10 and 4 heads"):
        GTrXL(3, hidden_size=10)

"""GTrXL: a transformer with gates that attends to a sliding window of its own activations.

Axes: T time, B batch, I input size, D width, which is also the output size, N layers, W window, A heads,
K head size, S = W + T positions that a sequence can attend to.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from rmc_agents.cores.base import MemoryCore, require_positive

MIN_CHUNK = 32
"""Fewest steps computed at once, where there are as many. Longer windows have chunks of their own length."""


class GTrXLState(NamedTuple):
    cache: Tensor
    """[B, N, W, D] normalised inputs of each layer in the latest W steps, newest last; 0 before the start."""
    steps: Tensor
    """[B] number of steps since the start of the episode, up to W: so many of the cached ones exist."""


class GTrXL(MemoryCore):
    """Gated Transformer-XL (Parisotto et al. 2020): inputs [B, I] -> output [B, D].

    With x_0 = W x, each of N layers computes

        m = layer_norm(x)                                  cached: the next W steps attend to it
        y = gate(x, relu(attention(m, cached m and m)))
        x' = gate(y, relu(W relu(W layer_norm(y))))

    and the last x' is the output. The gate is that of a GRU, and the identity map at first:

        r = sigmoid(W y + U x),  z = sigmoid(W y + U x - gate_bias),  h = tanh(W y + U (r x))
        gate(x, y) = (1 - z) x + z h

    A head's weight for the step s at distance t - s <= W is the softmax of

        ((q_t + u) . k_s + (q_t + v) . R_{t - s}) / sqrt(K)

    with q, k and values linear in m, R linear in a sinusoidal encoding of the distance, and u and v learned
    (Dai et al. 2019). Steps of earlier episodes are not attended to. A memory of N layers reaches back N W
    steps at most.

    The cache is data: gradients flow through it within a sequence, and keys and values of cached steps are
    computed from it with the present weights. Keys and values of the window are never formed: the products
    q (W_k m) and sum(a (W_v m)) are computed as (q W_k) m and W_v sum(a m).

    `unroll` computes chunks of max(W, 32) steps at once. Cost per step and batch row:
    O(I D + N (D^2 + A W D)). The state has N W D + 1 numbers, 32 KiB with the defaults, and a rollout holds
    the state before every step.

    Args:
        input_size: I.
        hidden_size: D.
        num_layers: N.
        num_heads: A; divides D.
        window: W.
        mlp_size: width of the hidden layer of a layer's MLP.
        gate_bias: initial bias of the gates towards the identity map.

    Raises:
        ValueError: a size is not a positive integer, or `hidden_size` is not a multiple of `num_heads`.
    """

    capturable = True

    def __init__(
        self,
        input_size: int,
        *,
        hidden_size: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        window: int = 64,
        mlp_size: int = 128,
        gate_bias: float = 2.0,
    ) -> None:
        super().__init__(input_size)
        require_positive(
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            window=window,
            mlp_size=mlp_size,
        )
        if hidden_size % num_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_heads, got {hidden_size} and {num_heads} heads"
            )
        self.hidden_size, self.num_layers, self.window = hidden_size, num_layers, window
        self.input_proj = nn.Linear(input_size, hidden_size)
        self.layers = nn.ModuleList(
            _Layer(hidden_size, num_heads, mlp_size, gate_bias) for _ in range(num_layers)
        )
        self.register_buffer("_encodings", _sinusoids(window, hidden_size), persistent=False)
        self._encodings: Tensor

    @property
    def output_size(self) -> int:
        return self.hidden_size

    def initial_state(self, batch_size: int) -> GTrXLState:
        size = batch_size, self.num_layers, self.window, self.hidden_size
        return GTrXLState(self._anchor.new_zeros(size), self._anchor.new_zeros(batch_size))

    def step(self, inputs: Tensor, state: GTrXLState) -> tuple[Tensor, GTrXLState]:
        starts = torch.zeros(1, inputs.shape[0], dtype=torch.bool, device=inputs.device)
        outputs, state = self._chunk(inputs.unsqueeze(0), state, starts)
        return outputs.squeeze(0), state

    def unroll(self, inputs: Tensor, state: GTrXLState, starts: Tensor) -> tuple[Tensor, GTrXLState]:
        length, outputs = max(self.window, MIN_CHUNK), []
        for first in range(0, len(inputs), length):
            chunk, flags = inputs[first : first + length], starts[first : first + length]
            output, state = self._chunk(chunk, state, flags)
            outputs.append(output)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs), state

    def _chunk(self, inputs: Tensor, state: GTrXLState, starts: Tensor) -> tuple[Tensor, GTrXLState]:
        """Compute T steps at once; the arguments and results are those of `unroll`."""
        T, W = len(inputs), self.window
        episode = starts.t().cumsum(1)  # [B, T], 0 before the first start
        visible = _visible(_newest(state.steps, W), episode)
        cache = _cleared(state.cache, starts[0])
        x, caches = self.input_proj(inputs.transpose(0, 1)), []
        for layer, past in zip(self.layers, cache.unbind(1), strict=True):
            assert isinstance(layer, _Layer)
            x, memory = layer.advance(x, past, visible, self._encodings)
            caches.append(memory[:, T:])
        last = episode[:, -1:]
        steps = (episode == last).sum(1) + torch.where(last[:, 0] == 0, state.steps.detach(), 0)
        steps = steps.clamp(max=W).to(state.steps.dtype)
        newest = torch.stack(caches, 1).to(state.cache.dtype)
        if T > 1:  # steps of episodes that have ended become 0, as in a fresh state
            newest = torch.where(_newest(steps, W).view(-1, 1, W, 1), newest, 0)
        return x.transpose(0, 1), GTrXLState(newest, steps)


class _Layer(nn.Module):
    """One layer of the transformer."""

    def __init__(self, width: int, num_heads: int, mlp_size: int, gate_bias: float) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, num_heads)
        self.attention_gate, self.mlp_gate = _Gate(width, gate_bias), _Gate(width, gate_bias)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_size), nn.ReLU(), nn.Linear(mlp_size, width), nn.ReLU())

    def advance(self, x: Tensor, past: Tensor, visible: Tensor, encodings: Tensor) -> tuple[Tensor, Tensor]:
        """Compute T steps.

        Args:
            x: [B, T, D].
            past: [B, W, D] the cache of this layer.
            visible, encodings: as in `_Attention.attend`.

        Returns:
            x' [B, T, D], and the cache with what the steps add to it [B, S, D].
        """
        normal = self.attention_norm(x)
        memory = torch.cat([past, normal], 1)
        x = self.attention_gate.mix(x, torch.relu(self.attention.attend(normal, memory, visible, encodings)))
        return self.mlp_gate.mix(x, self.mlp(self.mlp_norm(x))), memory


class _Attention(nn.Module):
    """Attention by content and distance, with several heads."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_size = num_heads, width // num_heads
        self.query_proj, self.output_proj = (nn.Linear(width, width, bias=False) for _ in range(2))
        size = num_heads, self.head_size, width
        self.key, self.value, self.position = (nn.Parameter(torch.empty(size)) for _ in range(3))
        self.content_bias = nn.Parameter(torch.zeros(num_heads, self.head_size))  # u
        self.position_bias = nn.Parameter(torch.zeros(num_heads, self.head_size))  # v
        for parameter in (self.key, self.value, self.position):
            nn.init.xavier_uniform_(parameter.view(width, width))

    def attend(self, x: Tensor, memory: Tensor, visible: Tensor, encodings: Tensor) -> Tensor:
        """Return [B, T, D].

        Args:
            x: [B, T, D] the steps that ask.
            memory: [B, S, D] what they can attend to; the latest T are these steps.
            visible: [B, T, S] what each of them may attend to.
            encodings: [W + 1, D] of the distances W to 0.
        """
        (B, T, D), S, A, K = x.shape, memory.shape[1], self.num_heads, self.head_size
        query = self.query_proj(x).view(B, T, A, K)
        positions = self.position @ encodings.t()  # [A, K, W + 1]
        # The heads of all rows in one product each: [A, B T, K] @ [A, K, *].
        content = (query + self.content_bias).permute(2, 0, 1, 3).reshape(A, B * T, K) @ self.key
        content = content.view(A, B, T, D).transpose(0, 1).reshape(B, A * T, D) @ memory.transpose(1, 2)
        distance = (query + self.position_bias).permute(2, 0, 1, 3).reshape(A, B * T, K) @ positions
        distance = _shifted(distance.view(A, B, T, -1)).transpose(0, 1)  # [B, A, T, S]
        scores = (content.view(B, A, T, S) + distance) / math.sqrt(K)
        weights = scores.masked_fill(~visible.unsqueeze(1), -torch.inf).softmax(-1)
        read = weights.view(B, A * T, S) @ memory  # [B, A T, D]
        read = read.view(B, A, T, D).transpose(0, 1).reshape(A, B * T, D) @ self.value.transpose(1, 2)
        return self.output_proj(read.view(A, B, T, K).permute(1, 2, 0, 3).reshape(B, T, D))


class _Gate(nn.Module):
    """Gate of a GRU in the place of a residual connection."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.new_proj = nn.Linear(width, 3 * width)  # r, z, h of y
        self.old_proj = nn.Linear(width, 2 * width, bias=False)  # r, z of x
        self.candidate_proj = nn.Linear(width, width, bias=False)  # h of r x
        with torch.no_grad():
            self.new_proj.bias.zero_()
            self.new_proj.bias[width : 2 * width] = -bias

    def mix(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x, replaced by a candidate as far as z says."""
        new_r, new_z, new_h = self.new_proj(y).chunk(3, dim=-1)
        old_r, old_z = self.old_proj(x).chunk(2, dim=-1)
        r, z = torch.sigmoid(new_r + old_r), torch.sigmoid(new_z + old_z)
        h = torch.tanh(new_h + self.candidate_proj(r * x))
        return torch.addcmul(x, z, h - x)


def _cleared(cache: Tensor, starts: Tensor) -> Tensor:
    """Return the cache [B, ...] with zeros in the rows where an episode starts."""
    # Selecting rows copies whole rows at once, six times as fast on a CPU as choosing number by number.
    rows = torch.cat([cache.new_zeros(1, cache[0].numel()), cache.flatten(1)])
    index = torch.where(starts, 0, torch.arange(1, cache.shape[0] + 1, device=cache.device))
    return rows.index_select(0, index).view(cache.shape)


def _newest(steps: Tensor, window: int) -> Tensor:
    """Return which of the cached steps [B, W] exist."""
    ages = torch.arange(window, 0, -1, device=steps.device)  # from the oldest to the newest, 1
    return ages <= steps.unsqueeze(1) + 0.5


def _visible(cached: Tensor, episode: Tensor) -> Tensor:
    """Return which positions a step may attend to: [B, T, S], of the cache and of the steps themselves.

    Args:
        cached: [B, W] which of the cached steps exist.
        episode: [B, T] number of the episode, 0 if it began before these steps.
    """
    W, T = cached.shape[1], episode.shape[1]
    same = episode.unsqueeze(2) == episode.unsqueeze(1)
    first = (episode == 0).unsqueeze(2) & cached.unsqueeze(1)
    band = torch.ones(T, W + T, dtype=torch.bool, device=cached.device).tril(W).triu()
    return torch.cat([first, same], 2) & band


def _shifted(scores: Tensor) -> Tensor:
    """Move the scores of step t by t positions: [..., T, W + 1] by distance -> [..., T, W + T] by position.

    What lies outside of a step's window is arbitrary.
    """
    T, distances = scores.shape[-2:]
    S = distances - 1 + T
    # With T zeros, rows are one longer than S: read as rows of S, each begins one position further on.
    return pad(scores, (0, T)).flatten(-2)[..., : T * S].unflatten(-1, (T, S))


def _sinusoids(window: int, width: int) -> Tensor:
    """Return the encodings [W + 1, D] of the distances W to 0 (Vaswani et al. 2017)."""
    distances = torch.arange(window, -1, -1.0).unsqueeze(1)
    angles = distances * (1e-4 ** (torch.arange(0, width, 2) / width))
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]

"""A direct port of RMC's equations: the reference for the speed and the values of our implementation.

Axes: T time, B batch, N slots, R rows (the slots, then the input), D slot size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rmc_agents.cores import RMC


class PortedRMC(nn.Module):
    """A one-block RMC, with its equations written down step by step.

    Everything is inside the time loop, the input's row goes through every operation, and autograd records all
    of it. It has the parameters of the RMC that it is made from, under the same names.
    """

    def __init__(self, rmc: RMC) -> None:
        super().__init__()
        D = rmc.slot_size
        self.num_slots, self.num_heads = rmc.num_slots, rmc.num_heads
        self.key_size, self.head_size = rmc.key_size, rmc.head_size
        qkv_size = rmc.num_heads * (2 * rmc.key_size + rmc.head_size)
        self.input_proj = nn.Linear(rmc.input_size, D)
        self.qkv = nn.ModuleList([nn.Linear(D, qkv_size)])
        self.qkv_norm = nn.ModuleList([nn.LayerNorm(qkv_size)])
        self.attention_norm = nn.ModuleList([nn.LayerNorm(D)])
        self.mlp = nn.ModuleList(nn.Linear(D, D) for _ in rmc.mlp)
        self.mlp_norm = nn.ModuleList([nn.LayerNorm(D)])
        self.input_gates = nn.Linear(D, 2 * D)
        self.memory_gates = nn.Linear(D, 2 * D)
        self.load_state_dict(rmc.state_dict())

    def forward(self, inputs: Tensor, starts: Tensor) -> Tensor:
        """Unroll: inputs [T, B, *], starts [T, B] -> outputs [T, B, N * D]."""
        fresh = torch.eye(self.num_slots, self.input_proj.out_features).expand(inputs.shape[1], -1, -1)
        memory, outputs = fresh, []
        for x, start in zip(inputs.unbind(0), starts.unbind(0), strict=True):
            memory = self.step(x, torch.where(start[:, None, None], fresh, memory))
            outputs.append(memory.flatten(1))
        return torch.stack(outputs)

    def step(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """Compute one step: inputs [B, *], memory [B, N, D] -> next memory."""
        x = self.input_proj(inputs).unsqueeze(1)
        rows = torch.cat([memory, x], dim=1)  # [B, R, D]
        rows = self.attention_norm[0](rows + self.attention(rows))
        hidden = rows
        for depth, layer in enumerate(self.mlp):
            hidden = layer(torch.relu(hidden) if depth > 0 else hidden)
        rows = self.mlp_norm[0](rows + hidden)
        gates = self.input_gates(x) + self.memory_gates(torch.tanh(memory))
        i, f = gates.chunk(2, dim=-1)
        return torch.sigmoid(i) * torch.tanh(rows[:, : self.num_slots]) + torch.sigmoid(f + 1) * memory

    def attention(self, rows: Tensor) -> Tensor:
        """Attend from every row to every row, [B, R, D] -> [B, R, D]."""
        qkv = self.qkv_norm[0](self.qkv[0](rows)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        q, k, v = qkv.split([self.key_size, self.key_size, self.head_size], dim=-1)
        weights = torch.softmax(q * self.key_size**-0.5 @ k.transpose(-1, -2), dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)


def require_same(rmc: RMC, port: PortedRMC) -> None:
    """Raise AssertionError unless both give the same outputs and gradients, with resets in the sequence."""
    inputs, starts = torch.randn(6, 4, rmc.input_size), torch.rand(6, 4) < 0.3
    results = []
    for module in (rmc, port):
        x = inputs.clone().requires_grad_()
        outputs = port(x, starts) if module is port else rmc.unroll(x, rmc.initial_state(4), starts)[0]
        grads = torch.autograd.grad(outputs.square().sum(), [x, *module.parameters()])
        names = [name for name, _ in module.named_parameters()]
        results.append({"outputs": outputs, "inputs": grads[0], **dict(zip(names, grads[1:], strict=True))})
    for name, value in results[0].items():
        torch.testing.assert_close(
            value, results[1][name], rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def multiply_adds(rmc: RMC) -> int:
    """Return the multiplications per step and row in all matrix products that an RMC needs."""
    N, D, F = rmc.num_slots, rmc.slot_size, rmc.num_heads * (2 * rmc.key_size + rmc.head_size)
    projections = rmc.input_size * D + (N + 1) * D * F
    attention = N * (N + 1) * rmc.num_heads * (rmc.key_size + rmc.head_size)
    return projections + attention + N * len(rmc.mlp) * D * D + (N + 1) * 2 * D * D

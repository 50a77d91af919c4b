"""Forward and backward through every memory core, against plain code and against torch's own.

    python benchmarks/cores.py            # some five minutes; writes results/cores.{json,md,png}
    python benchmarks/cores.py --quick    # does it run? seconds

RMC against a direct port of its equations, step by step, and against an `nn.LSTM` of as many parameters;
LSTM, GRU and RNN against `nn.LSTM`, `nn.GRU`, `nn.RNN`; every other core against a plain loop over its step.

Axes: T time, B batch, N slots, R rows (the slots, then the input), D slot size.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from common import Report, Row, num_threads, parse, prepare, take_turns, target, times_faster, turn
from matplotlib.figure import Figure
from torch import Tensor, nn

from rmc_agents.cores import CORES, RMC, MemoryCore, make_core
from rmc_agents.palette import OKABE_ITO

INPUT_SIZE = 128
SIZES = ((16, 32), (128, 64), (128, 512))
RMC_SIZES = {
    "rmc 4x64": {"num_slots": 4, "num_heads": 4, "head_size": 16},
    "rmc 8x256": {"num_slots": 8, "num_heads": 8, "head_size": 32},
}
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
START_RATE = 0.01

Unroll = Callable[[Tensor, Tensor], Tensor]
"""inputs [T, B, D], starts [T, B] -> outputs [T, B, H]."""


class Candidate(NamedTuple):
    module: nn.Module
    unroll: Unroll


class PortedRMC(nn.Module):
    """The equations of a one-block RMC as one would write them down: the reference for speed and values.

    Everything is inside the time loop, the input's row goes through every operation, and autograd records
    it all. Has the parameters of the RMC that it is made from, under the same names.
    """

    def __init__(self, rmc: RMC) -> None:
        super().__init__()
        D = rmc.slot_size
        self.num_slots, self.num_heads, self.key_size, self.head_size = (
            rmc.num_slots,
            rmc.num_heads,
            rmc.key_size,
            rmc.head_size,
        )
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
        fresh = torch.eye(self.num_slots, self.input_proj.out_features).expand(inputs.shape[1], -1, -1)
        memory, outputs = fresh, []
        for x, start in zip(inputs.unbind(0), starts.unbind(0), strict=True):
            memory = self.step(x, torch.where(start[:, None, None], fresh, memory))
            outputs.append(memory.flatten(1))
        return torch.stack(outputs)

    def step(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """inputs [B, *], memory [B, N, D] -> next memory."""
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
        qkv = self.qkv_norm[0](self.qkv[0](rows)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        q, k, v = qkv.split([self.key_size, self.key_size, self.head_size], dim=-1)
        weights = torch.softmax(q * self.key_size**-0.5 @ k.transpose(-1, -2), dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)


def ours(core: MemoryCore) -> Candidate:
    def unroll(inputs: Tensor, starts: Tensor) -> Tensor:
        return core.unroll(inputs, core.initial_state(inputs.shape[1]), starts)[0]

    return Candidate(core, unroll)


def plain_loop(core: MemoryCore) -> Candidate:
    """The core's own step, in the loop that every core inherits."""

    def unroll(inputs: Tensor, starts: Tensor) -> Tensor:
        return MemoryCore.unroll(core, inputs, core.initial_state(inputs.shape[1]), starts)[0]

    return Candidate(core, unroll)


def of_torch(module: nn.RNNBase) -> Candidate:
    """torch's own; it cannot begin an episode in mid-sequence, so it is spared that."""
    return Candidate(module, lambda inputs, starts: module(inputs)[0])


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def lstm_of(parameters: int) -> nn.LSTM:
    """The `nn.LSTM` with the number of parameters nearest to that."""

    def distance(hidden_size: int) -> int:
        return abs(4 * hidden_size * (INPUT_SIZE + hidden_size + 2) - parameters)

    return nn.LSTM(INPUT_SIZE, min(range(1, 4096), key=distance))


def multiply_adds(rmc: RMC) -> int:
    """Multiplications of a step of one row, in all matrix products that an RMC cannot do without."""
    N, D, F = rmc.num_slots, rmc.slot_size, rmc.num_heads * (2 * rmc.key_size + rmc.head_size)
    projections = INPUT_SIZE * D + (N + 1) * D * F
    attention = N * (N + 1) * rmc.num_heads * (rmc.key_size + rmc.head_size)
    return projections + attention + N * len(rmc.mlp) * D * D + (N + 1) * 2 * D * D


def rmc_candidates(options: dict[str, Any]) -> dict[str, Candidate]:
    core = make_core("rmc", INPUT_SIZE, options)
    assert isinstance(core, RMC)
    port = PortedRMC(core)
    require_same(core, port)
    return {
        "ours": ours(core),
        "port": Candidate(port, port),
        "nn.LSTM": of_torch(lstm_of(num_parameters(core))),
    }


def other_candidates(name: str) -> dict[str, Candidate]:
    core = make_core(name, INPUT_SIZE)
    found = {"ours": ours(core)}
    if name in TORCH:
        found["torch"] = of_torch(TORCH[name](INPUT_SIZE, core.output_size))
    if type(core).unroll is not MemoryCore.unroll:
        found["loop"] = plain_loop(core)
    return found


def require_same(core: RMC, port: PortedRMC) -> None:
    """What is compared must compute the same: values and gradients, with resets in between."""
    inputs, starts = torch.randn(6, 4, INPUT_SIZE), torch.rand(6, 4) < 0.3
    results = []
    for candidate in (ours(core), Candidate(port, port)):
        x = inputs.clone().requires_grad_()
        outputs = candidate.unroll(x, starts)
        grads = torch.autograd.grad(outputs.square().sum(), [x, *candidate.module.parameters()])
        named = [name for name, _ in candidate.module.named_parameters()]
        results.append({"outputs": outputs, "inputs": grads[0], **dict(zip(named, grads[1:], strict=True))})
    for name, value in results[0].items():
        torch.testing.assert_close(
            value, results[1][name], rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def forward_backward(candidate: Candidate, steps: int, batch: int) -> Callable[[], None]:
    """A call that runs `steps` steps of `batch` rows there and back, gradients of the inputs included."""
    inputs = torch.randn(steps, batch, INPUT_SIZE, requires_grad=True)
    starts = torch.rand(steps, batch) < START_RATE
    with torch.no_grad():
        gradient = torch.randn_like(candidate.unroll(inputs, starts))

    def call() -> None:
        candidate.unroll(inputs, starts).backward(gradient)
        inputs.grad = None
        candidate.module.zero_grad(set_to_none=True)

    return call


def affordable_steps(candidates: dict[str, Candidate], steps: int, batch: int, limit: float) -> int:
    """As many of T steps as the slowest candidate takes `limit` seconds for, and at least 8."""
    few = min(steps, 8)
    calls = {name: forward_backward(c, few, batch) for name, c in candidates.items()}
    turn(calls)
    slowest = max(turn(calls).values())
    while steps > few and slowest * steps / few > limit:
        steps //= 2
    return max(steps, few)


def measure(
    label: str, candidates: dict[str, Candidate], size: tuple[int, int], threads: int, quick: bool
) -> tuple[Row, dict[str, list[float]]]:
    """The row of one core at one size, and the seconds of every candidate."""
    steps, batch = size
    with num_threads(threads):
        run = affordable_steps(candidates, steps, batch, limit=2.0)
        calls = {name: forward_backward(c, run, batch) for name, c in candidates.items()}
        times = take_turns(calls, seconds=0.02 if quick else 4.0, rounds=(2, 2) if quick else (3, 200))
    times = {name: [t * steps / run for t in ts] for name, ts in times.items()}
    row = {"core": label, "T": steps, "B": batch, "threads": threads, "steps run": run}
    row["parameters"] = num_parameters(candidates["ours"].module)
    row |= {f"{name} ms": 1e3 * statistics.median(ts) for name, ts in times.items()}
    return row, times


def rmc_table(sizes: Sequence[tuple[int, int]], threads: Sequence[int], quick: bool) -> list[Row]:
    rows = []
    for label, options in RMC_SIZES.items():
        candidates = rmc_candidates(options)
        for size in sizes:
            for n in threads:
                row, times = measure(label, candidates, size, n, quick)
                row["times faster than port"] = times_faster(times, "ours", than="port")
                row["time of nn.LSTM"] = times_faster(times, "nn.LSTM", than="ours")
                rows.append(row)
    return rows


def others_table(sizes: Sequence[tuple[int, int]], threads: Sequence[int], quick: bool) -> list[Row]:
    rows = []
    for name in (name for name in CORES if name != "rmc"):
        candidates = other_candidates(name)
        for size in sizes:
            for n in threads:
                row, times = measure(name, candidates, size, n, quick)
                for other in ("torch", "loop"):
                    row.setdefault(f"{other} ms", None)
                for other in ("torch", "loop"):
                    known = other in times
                    row[f"times faster than {other}"] = times_faster(times, "ours", other) if known else None
                rows.append(row)
    return rows


def targets(rows: Sequence[Row]) -> list[Row]:
    """The project's own marks, which are for RMC."""
    found = {(row["core"], row["T"], row["B"], row["threads"]): row for row in rows}
    checks = []
    for n in (1, 2):
        for core in RMC_SIZES:
            for T, B in SIZES[:2]:
                measured = found.get((core, T, B, n), {}).get("times faster than port")
                what = f"{core} against its port, T={T} B={B}, threads={n}: times faster"
                checks.append(target(what, measured, at_least=3.0))
        measured = found.get(("rmc 4x64", 128, 64, n), {}).get("time of nn.LSTM")
        what = f"rmc 4x64 against nn.LSTM of as many parameters, T=128 B=64, threads={n}: times its time"
        checks.append(target(what, measured, at_most=3.0))
    return checks


def plot(tables: Sequence[tuple[str, list[Row], dict[str, str]]]) -> Figure:
    """Milliseconds of every row, a panel for each table and a mark for each candidate."""
    figure = Figure(figsize=(13, 4.2 * len(tables)), layout="constrained")
    for axes, (title, rows, series) in zip(figure.subplots(len(tables), 1), tables, strict=True):
        for (key, label), colour, marker in zip(series.items(), OKABE_ITO, "osD", strict=False):
            points = [(x, row[key]) for x, row in enumerate(rows) if row[key]]
            axes.plot(*zip(*points, strict=True), marker, color=colour, label=label, markersize=7)
        cores = [row["core"].replace("feedforward", "feed-\nforward") for row in rows]
        names = [f"{c}\n{r['T']}x{r['B']}\n{r['threads']} thr." for c, r in zip(cores, rows, strict=True)]
        axes.set_xticks(range(len(rows)), names, fontsize=6)
        axes.set_yscale("log")
        axes.set_ylabel("forward + backward [ms]")
        axes.set_xlabel("core, T x B, threads")
        axes.set_title(title, loc="left")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def main() -> None:
    args = parse(__doc__).parse_args()
    machine = prepare(args)
    sizes = ((2, 3),) if args.quick else SIZES
    threads = args.threads[:1] if args.quick else args.threads
    rmc, others = rmc_table(sizes, threads, args.quick), others_table(sizes, threads, args.quick)
    report = Report("cores", machine, {"Targets": targets(rmc), "RMC": rmc, "Other cores": others})
    small = make_core("rmc", INPUT_SIZE, RMC_SIZES["rmc 4x64"])
    assert isinstance(small, RMC)
    lstm = lstm_of(num_parameters(small))
    arithmetic = multiply_adds(small) / (4 * lstm.hidden_size * (INPUT_SIZE + lstm.hidden_size))
    report.notes = [
        f"Time of a sequence [T, B, {INPUT_SIZE}] forward and backward, gradients of inputs and of all "
        "weights; float32; medians over interleaved rounds (at least 3, for about 4 s each row).",
        f"Ours and the port begin episodes in mid-sequence with probability {START_RATE} a step; nn.LSTM, "
        "nn.GRU and nn.RNN cannot, and are spared it.",
        "Where the slowest would take over 2 s, fewer steps are run (`steps run`) and their time is "
        "multiplied up to T.",
        "The port is `PortedRMC` in benchmarks/cores.py: the equations step by step under autograd. That it "
        "gives RMC's values and gradients is checked before anything is measured.",
        f"`rmc 4x64` does {arithmetic:.2f} times the multiplications of the nn.LSTM beside it "
        f"({num_parameters(small):,} parameters, hidden size {lstm.hidden_size}).",
        "Cores other than RMC are at their default options.",
        "`loop` is the core's own step in the loop that every core inherits, inputs projected inside it.",
    ]
    figure = plot(
        [
            (
                "RMC",
                rmc,
                {
                    "ours ms": "ours",
                    "port ms": "port, step by step",
                    "nn.LSTM ms": "nn.LSTM, as many parameters",
                },
            ),
            ("Other cores", others, {"ours ms": "ours", "torch ms": "torch's own", "loop ms": "plain loop"}),
        ]
    )
    report.print()
    report.write(args.out, figure)


if __name__ == "__main__":
    main()

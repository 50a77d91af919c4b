"""Every check and measurement that needs a GPU, in one command for whoever has one.

    python benchmarks/gpu_check.py                # some ten minutes; writes results/gpu_check.{json,md,png}
    python benchmarks/gpu_check.py --quick        # smaller
    python benchmarks/gpu_check.py --device cpu   # the same code where there is no GPU: does it run?

Without a CUDA device it says so and exits with 0; with one, 0 means that every check passed and 1 that one
failed. Checked: cores, environments, rollouts, gradients and updates give a CPU's numbers; neither collecting
nor updating makes the host wait. Measured: steps per second and memory with 1024 to 16384 environments,
plain, with `torch.compile(mode="reduce-overhead")` (CUDA graphs) and with bfloat16.
"""

from __future__ import annotations

import gc
import inspect
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from common import Report, Row, parse, prepare
from matplotlib.figure import Figure
from torch import Tensor

import envs
from rmc_agents import ActorCritic, PPOConfig
from rmc_agents.cores import CORES, make_core
from rmc_agents.execution import run_networks
from rmc_agents.palette import OKABE_ITO
from rmc_agents.ppo import gae, make_optimizer, ppo_loss, update_epoch
from rmc_agents.rollout import Carry, Chunks, Rollout, collect, cut, final_values, first_carry
from rmc_agents.tree import leaves, map_tree

CHECKED_MAZE = "MiniGrid-MemoryS7-v0"  # short episodes, so that many end
MEASURED_MAZE = "MiniGrid-MemoryS13-v0"
CPU = torch.device("cpu")
TOLERANCE = 1e-3
"""Largest difference between devices, relative to the largest number of a tensor; float32 throughout."""
MINIBATCHES = 8
MODES = ("plain", "compile", "bf16", "bf16 + compile")


class CheckFailed(Exception):
    """The message says what differs, and by how much."""


class Run:
    """An agent, its environments, one rollout and what an update needs, on a device."""

    def __init__(
        self,
        core: str,
        device: torch.device,
        num_envs: int = 8,
        num_steps: int = 32,
        minibatch_size: int = 256,
        epochs: int = 4,
        maze: str = CHECKED_MAZE,
    ) -> None:
        self.env = envs.make(maze, num_envs, device)
        self.agent = ActorCritic(self.env.observation_space, self.env.action_space, core).to(device)
        self.config = PPOConfig(
            num_steps=num_steps,
            bptt_length=min(16, num_steps),
            minibatch_size=minibatch_size,
            epochs=epochs,
        )
        self.generator = torch.Generator(device).manual_seed(0)
        self.optimizer = make_optimizer(self.agent, self.config)
        self.carry: Carry = first_carry(self.agent, self.env, seed=0)
        self.rollout = Rollout.allocate(self.agent, self.carry, num_steps)

    def collect(self) -> None:
        self.carry = collect(self.agent, self.env, self.carry, self.rollout, self.generator)

    def chunks(self) -> Chunks:
        """The rollout, cut, with its advantages."""
        rollout, config = self.rollout, self.config
        advantages = gae(
            rollout.rewards,
            rollout.values,
            rollout.terminated,
            rollout.truncated,
            final_values(self.agent, rollout),
            rollout.last_value,
            config.gamma,
            config.gae_lambda,
        )
        return cut(rollout, advantages, advantages + rollout.values, config.bptt_length)

    def update(self) -> None:
        chunks = self.chunks()
        for _ in range(self.config.epochs):
            update_epoch(self.agent, self.optimizer, chunks, self.config, 0.01, self.generator)


def to_device(tree: Any, device: torch.device) -> Any:
    return map_tree(lambda x: x.to(device), tree)


def require_close(here: dict[str, Tensor], there: dict[str, Tensor]) -> str:
    """Compare tensors by name; returns the largest relative difference, in words.

    Raises:
        CheckFailed: more than the tolerance.
    """
    pairs = {key: (x.detach().double().cpu(), there[key].detach().double().cpu()) for key, x in here.items()}
    pairs = {key: pair for key, pair in pairs.items() if pair[0].numel()}
    # A tensor that is nothing but rounding is measured by the others.
    least = TOLERANCE * max(float(x.abs().max()) for x, _ in pairs.values())
    off = {key: float((x - y).abs().max() / max(x.abs().max(), least)) for key, (x, y) in pairs.items()}
    for key, difference in off.items():
        if not difference <= TOLERANCE:  # NaN is not
            raise CheckFailed(
                f"{key} differs by {difference:.1e} of its largest number, over {TOLERANCE:.0e}"
            )
    return f"largest relative difference {max(off.values()):.1e}"


def check_environment(task: str, device: torch.device, steps: int = 200) -> str:
    """The same episodes on both devices where both can draw the same; else shapes and devices alone."""
    same = "seeding" in inspect.signature(envs.NATIVE[task]).parameters
    options: dict[str, Any] = {"seeding": "farama"} if same else {}
    here, there = envs.make(task, 8, device, **options), envs.make(task, 8, "cpu", **options)
    there.action_space.seed(0)
    pairs: list[tuple[Any, Any]] = [(here.reset(0), there.reset(0))]
    for _ in range(steps):
        actions = torch.as_tensor(np.stack([there.action_space.sample() for _ in range(8)]))
        pairs.append((here.step(actions.to(device)), there.step(actions)))
    for number, (ours, theirs) in enumerate(pairs):
        for a, b in zip(leaves(ours), leaves(theirs), strict=True):
            if a.device.type != device.type:
                raise CheckFailed(f"step {number} returned a tensor on {a.device}")
            if a.shape != b.shape or a.dtype != b.dtype or (same and not torch.equal(a.cpu(), b)):
                raise CheckFailed(f"step {number} differs")
    return f"{steps} steps equal bit for bit" if same else f"shapes and types of {steps} steps equal"


def check_core(name: str, device: torch.device) -> str:
    """Outputs, last state and every gradient of a sequence with resets, here and on the CPU."""
    original = make_core(name, 24)
    inputs, starts = torch.randn(12, 5, 24), torch.rand(12, 5) < 0.2
    results = []
    for where in (device, CPU):
        core, x = deepcopy(original).to(where), inputs.to(where).requires_grad_()
        outputs, state = core.unroll(x, core.initial_state(5), starts.to(where))
        outputs.square().mean().backward()
        found: dict[str, Tensor | None] = {"outputs": outputs, "input gradient": x.grad}
        found |= {f"state {i}": leaf for i, leaf in enumerate(leaves(state))}
        found |= {f"gradient of {key}": p.grad for key, p in core.named_parameters()}
        results.append({key: value for key, value in found.items() if value is not None})
    return require_close(*results)


def check_collect(core: str, device: torch.device) -> str:
    """Evaluating a rollout gives what was stored when it was collected, on this device and on the CPU."""
    run = Run(core, device)
    run.collect()
    rollout = run.rollout
    first = map_tree(lambda x: x[0], rollout.states)
    recorded = rollout.obs, rollout.actions, rollout.rewards, rollout.starts, first
    stored = {"log_probs": rollout.log_probs, "values": rollout.values}
    details = []
    for where in (device, CPU):
        with torch.no_grad():
            log_probs, _, values = deepcopy(run.agent).to(where).evaluate(*to_device(recorded, where))
        details.append(require_close({"log_probs": log_probs, "values": values}, stored))
    return f"here: {details[0]}; CPU: {details[1]}"


def check_gradient(core: str, device: torch.device) -> str:
    """The PPO loss of one batch and its gradient, here and on the CPU."""
    run = Run(core, device)
    run.collect()
    chunks = run.chunks()
    results = []
    for where in (device, CPU):
        agent = deepcopy(run.agent).to(where)
        loss, _ = ppo_loss(agent, to_device(chunks, where), run.config, 0.01)
        loss.backward()
        gradients = {f"gradient of {key}": p.grad for key, p in agent.named_parameters()}
        results.append({"loss": loss, **{key: g for key, g in gradients.items() if g is not None}})
    return require_close(*results)


def check_update(core: str, device: torch.device) -> str:
    """Parameters after one clipped step of Adam, in learning rates, which is how far one step can go."""
    run = Run(core, device)
    run.collect()
    chunks = run.chunks()
    after = []
    for where in (device, CPU):
        agent, generator = deepcopy(run.agent).to(where), torch.Generator(where)
        optimizer = make_optimizer(agent, run.config)
        update_epoch(agent, optimizer, to_device(chunks, where), run.config, 0.01, generator)
        after.append([p.detach().cpu() for p in agent.parameters()])
    off = max(float((a - b).abs().max()) for a, b in zip(*after, strict=True)) / run.config.learning_rate
    if not off <= 0.1:
        raise CheckFailed(f"parameters differ by {off:.1e} learning rates after one step")
    return f"parameters within {off:.1e} learning rates after one step"


def check_no_waiting(core: str, device: torch.device) -> str:
    """Neither a rollout nor an update makes the host wait for the device."""
    run = Run(core, device, num_envs=64, minibatch_size=512)
    run.collect()
    run.update()
    _synchronize(device)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        run.collect()
        run.update()
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return (
        "no synchronisation in a rollout and an update"
        if device.type == "cuda"
        else "runs (a CPU never waits)"
    )


def check_bf16(core: str, device: torch.device) -> str:
    """How far bfloat16 moves the policy of one rollout: shown, and failed only if it is not finite."""
    run = Run(core, device)
    run.collect()
    chunks = run.chunks()
    install(run.agent, "bf16")
    with torch.no_grad():
        log_probs, _, values = run.agent.evaluate(
            chunks.obs, chunks.actions, chunks.rewards, chunks.starts, chunks.state
        )
    off = (log_probs - chunks.log_probs).abs().max(), (values - chunks.values).abs().max()
    if not torch.stack(off).isfinite().all():
        raise CheckFailed("bfloat16 gave numbers that are not finite")
    return f"log-probability off by at most {float(off[0]):.1e}, value by {float(off[1]):.1e}"


def install(agent: ActorCritic, mode: str) -> None:
    """Run the agent's networks in one of `MODES`.

    Raises:
        RuntimeError: it cannot be compiled.
    """
    torch._dynamo.reset()
    notes = run_networks(agent, "bf16" if "bf16" in mode else "float32", "compile" in mode)
    if notes:
        raise RuntimeError(notes[0])


def measure(core: str, device: torch.device, num_envs: int, mode: str, quick: bool) -> Row:
    """Steps per second of collecting, updating and both, and the peak of memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    steps, epochs = (8, 1) if quick else (32, 4)
    transitions = num_envs * steps
    run = Run(core, device, num_envs, steps, transitions // MINIBATCHES, epochs, MEASURED_MAZE)
    if mode != "plain":
        install(run.agent, mode)
    times: dict[str, list[float]] = {"collect": [], "update": []}
    for number in range(2 if quick else 6):
        for part, call in (("collect", run.collect), ("update", run.update)):
            _synchronize(device)
            began = time.perf_counter()
            call()
            _synchronize(device)
            if number > 0:  # the first warms up, and compiles
                times[part].append(time.perf_counter() - began)
    seconds = {part: sorted(ts)[len(ts) // 2] for part, ts in times.items()}
    return {
        "core": core,
        "environments": num_envs,
        "mode": mode,
        "steps/s": transitions / sum(seconds.values()),
        "collect steps/s": transitions / seconds["collect"],
        "update steps/s": transitions / seconds["update"],
        "peak MiB": torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
        "note": "",
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def attempt(name: str, check: Callable[[], str]) -> Row:
    """A row that says how a check went; whatever it raises is its failure."""
    try:
        return {"check": name, "passed": "yes", "detail": check()}
    except Exception as error:  # one broken check must not hide the others
        return {"check": name, "passed": "no", "detail": _words(error)}


def _words(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def checks(device: torch.device, cores: Sequence[str], tasks: Sequence[str], quick: bool) -> Iterator[Row]:
    """Run every check; a row for each."""
    steps = 20 if quick else 200
    for task in tasks:
        yield attempt(f"environment {task}", lambda task=task: check_environment(task, device, steps))
    for core in cores:
        for name, check in (
            ("core", check_core),
            ("rollout", check_collect),
            ("gradient", check_gradient),
            ("update", check_update),
            ("no waiting", check_no_waiting),
            ("bfloat16", check_bf16),
        ):
            yield attempt(f"{name}, {core}", lambda check=check, core=core: check(core, device))


def speeds(device: torch.device, cores: Sequence[str], sizes: Sequence[int], quick: bool) -> Iterator[Row]:
    """Measure every mode; a row for each, with the reason where one does not run."""
    for core in cores:
        for mode in MODES[::2] if device.type == "cpu" else MODES:  # compiling takes minutes there
            for num_envs in sizes:
                try:
                    yield measure(core, device, num_envs, mode, quick)
                except Exception as error:
                    empty = dict.fromkeys(("steps/s", "collect steps/s", "update steps/s", "peak MiB"))
                    row = {"core": core, "environments": num_envs, "mode": mode, **empty}
                    yield {**row, "note": _words(error)}


def plot(rows: Sequence[Row]) -> Figure:
    """Steps per second over the number of environments, a panel for each core."""
    cores = list(dict.fromkeys(row["core"] for row in rows))
    figure = Figure(figsize=(6 * len(cores), 4.5), layout="constrained")
    panels = figure.subplots(1, len(cores), sharey=True, squeeze=False)[0]
    for axes, core in zip(panels, cores, strict=True):
        for mode, colour, marker in zip(MODES, OKABE_ITO, "osD^", strict=False):
            own = [row for row in rows if (row["core"], row["mode"]) == (core, mode) and row["steps/s"]]
            x, y = [row["environments"] for row in own], [row["steps/s"] for row in own]
            axes.plot(x, y, marker=marker, color=colour, label=mode)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("environments")
        axes.set_title(f"{core}: rollout and update", loc="left")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("environment steps per second")
    panels[0].legend()
    return figure


def main() -> None:
    parser = parse(__doc__, threads=(1,))
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu to try this script itself")
    parser.add_argument("--cores", nargs="+", default=list(CORES), help="check these cores only")
    parser.add_argument("--tasks", nargs="+", default=list(envs.NATIVE), help="check these tasks only")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device")
        return
    args.quick = args.quick or device.type == "cpu"  # whose numbers are no result of this script
    machine = prepare(args)
    warnings.filterwarnings("ignore", category=UserWarning)  # of the compiler, about itself
    torch.set_num_threads(args.threads[0])
    torch.set_float32_matmul_precision("highest")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        machine.facts |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    sizes = ((16,) if device.type == "cpu" else (1024,)) if args.quick else (1024, 4096, 16384)
    checked = list(checks(device, args.cores, args.tasks, args.quick))
    measured_cores = [core for core in ("rmc", "lstm") if core in args.cores]
    measured = list(speeds(device, measured_cores, sizes, args.quick))
    report = Report("gpu_check", machine, {"Checks": checked, "Speed": measured})
    report.notes = [
        f"Checks against the CPU: within {TOLERANCE:.0e} of a tensor's largest number, float32 without TF32.",
        f"Speed: {MEASURED_MAZE} as tensors on the device, default agents, rollouts of "
        f"{'8 steps, one epoch' if args.quick else '32 steps, 4 epochs'} of {MINIBATCHES} minibatches, "
        f"chunks of at most 16 steps; medians of {1 if args.quick else 5} iterations after one of warm-up.",
        "compile: encoder, core and heads by torch.compile, mode reduce-overhead. bf16: torch.autocast.",
    ]
    report.print()
    report.write(args.out, plot(measured) if measured else None)
    if any(row["passed"] == "no" for row in checked):
        sys.exit(1)


if __name__ == "__main__":
    main()

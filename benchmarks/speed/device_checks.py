"""Checks that a device computes the same as a CPU: cores, environments, rollouts, gradients and updates."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rmc_envs
from benchmarks.report import Row
from rmc_agents import ActorCritic, PPOConfig
from rmc_agents.agent.acceleration import accelerate
from rmc_agents.cores import make_core
from rmc_agents.rl.optimizer import make_optimizer
from rmc_agents.rl.ppo import gae, ppo_loss
from rmc_agents.rl.rollout import (
    Carry,
    Chunks,
    Rollout,
    collect,
    final_values,
    initial_carry,
    split_into_chunks,
)
from rmc_agents.rl.update import Updater
from rmc_agents.tree import leaves, map_tree

MAZE = "MiniGrid-MemoryS7-v0"
"""Its episodes are short, so that many end."""
CPU = torch.device("cpu")
TOLERANCE = 1e-3
"""Largest difference between devices, relative to the largest number of a tensor, in float32."""


class CheckFailed(Exception):
    """A check found a difference; the message says where, and how large it is."""


class Run:
    """An agent on a device, with its environments, a rollout, and everything for an update."""

    def __init__(
        self,
        core: str,
        device: torch.device,
        num_envs: int = 8,
        num_steps: int = 32,
        minibatch_size: int = 256,
        epochs: int = 4,
        maze: str = MAZE,
    ) -> None:
        self.env = rmc_envs.make(maze, num_envs, device)
        self.agent = ActorCritic(self.env.observation_space, self.env.action_space, core).to(device)
        self.config = PPOConfig(
            num_steps=num_steps,
            bptt_length=min(16, num_steps),
            minibatch_size=minibatch_size,
            epochs=epochs,
        )
        self.generator = torch.Generator(device).manual_seed(0)
        self.updater = Updater(self.agent, make_optimizer(self.agent, self.config), self.config)
        self.carry: Carry = initial_carry(self.agent, self.env, seed=0)
        self.rollout = Rollout.allocate(self.agent, self.carry, num_steps)

    def collect(self) -> None:
        """Collect a rollout."""
        self.carry = collect(self.agent, self.env, self.carry, self.rollout, self.generator)

    def chunks(self) -> Chunks:
        """Return the rollout with its advantages, split into chunks."""
        rollout, config = self.rollout, self.config
        advantages = gae(
            rewards=rollout.rewards,
            values=rollout.values,
            terminated=rollout.terminated,
            truncated=rollout.truncated,
            final_values=final_values(self.agent, rollout),
            last_value=rollout.last_value,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
        )
        return split_into_chunks(rollout, advantages, advantages + rollout.values, config.bptt_length)

    def update(self) -> None:
        """Learn from the rollout."""
        chunks = self.chunks()
        self.updater.update(chunks, self.config.learning_rate, 0.01, self.generator)


def install(agent: ActorCritic, mode: str) -> None:
    """Run the agent's networks from now on in a mode: "plain", "compile", "bf16" or "bf16 + compile".

    Raises:
        RuntimeError: they cannot be compiled.
    """
    torch._dynamo.reset()
    notes = accelerate(agent, "bf16" if "bf16" in mode else "float32", "compile" in mode)
    # That bfloat16 is slow on some CPUs is what a benchmark may find, and no reason to stop.
    if "compile" in mode and "compiled" not in agent.networks:
        raise RuntimeError(notes[0])


def to_device(tree: Any, device: torch.device) -> Any:
    """Move all tensors of a tree to a device."""
    return map_tree(lambda x: x.to(device), tree)


def require_close(here: dict[str, Tensor], there: dict[str, Tensor]) -> str:
    """Compare tensors by name; return a text with the largest relative difference.

    Raises:
        CheckFailed: it exceeds the tolerance.
    """
    pairs = {key: (x.detach().double().cpu(), there[key].detach().double().cpu()) for key, x in here.items()}
    pairs = {key: pair for key, pair in pairs.items() if pair[0].numel()}
    # A tensor of rounding errors only is compared on the scale of the others.
    least = TOLERANCE * max(float(x.abs().max()) for x, _ in pairs.values())
    off = {key: float((x - y).abs().max() / max(x.abs().max(), least)) for key, (x, y) in pairs.items()}
    for key, difference in off.items():
        if not difference <= TOLERANCE:  # NaN is not
            raise CheckFailed(
                f"{key} differs by {difference:.1e} of its largest number, more than {TOLERANCE:.0e}"
            )
    return f"largest relative difference {max(off.values()):.1e}"


def check_environment(task: str, device: torch.device, steps: int = 200) -> str:
    """Compare episodes with the CPU's if both can draw the same numbers; else only shapes and types."""
    same = "seeding" in inspect.signature(rmc_envs.NATIVE[task]).parameters
    options: dict[str, Any] = {"seeding": "farama"} if same else {}
    here, there = rmc_envs.make(task, 8, device, **options), rmc_envs.make(task, 8, "cpu", **options)
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
    """Compare outputs, last state and all gradients of a sequence with resets."""
    # A DNC sorts its slots by numbers that may differ by rounding alone.
    dtype = torch.float64 if name == "dnc" else torch.float32
    original = make_core(name, 24).to(dtype)
    inputs, starts = torch.randn(12, 5, 24, dtype=dtype), torch.rand(12, 5) < 0.2
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
    """Evaluate a rollout on the device and on the CPU, and compare with what was stored when collecting."""
    run = Run(core, device)
    run.collect()
    rollout = run.rollout
    first = map_tree(lambda x: x[0], rollout.states)
    recorded = rollout.obs, rollout.actions, rollout.rewards, rollout.starts, first
    stored = {"log_probs": rollout.log_probs, "values": rollout.values}
    details = []
    for where in (device, CPU):
        with torch.no_grad():
            found = deepcopy(run.agent).to(where).evaluate_actions(*to_device(recorded, where))
        details.append(require_close({"log_probs": found.log_probs, "values": found.values}, stored))
    return f"here: {details[0]}; CPU: {details[1]}"


def check_gradient(core: str, device: torch.device) -> str:
    """Compare the PPO loss of one batch and its gradient."""
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
    """Compare parameters after one clipped step of Adam, in learning rates: a step moves them by up to
    one."""
    run = Run(core, device)
    run.collect()
    chunks = run.chunks()
    after = []
    for where in (device, CPU):
        agent, generator = deepcopy(run.agent).to(where), torch.Generator(where)
        updater = Updater(agent, make_optimizer(agent, run.config), run.config)
        updater.update(to_device(chunks, where), run.config.learning_rate, 0.01, generator)
        after.append([p.detach().cpu() for p in agent.parameters()])
    off = max(float((a - b).abs().max()) for a, b in zip(*after, strict=True)) / run.config.learning_rate
    if not off <= 0.1:
        raise CheckFailed(f"parameters differ by {off:.1e} learning rates after one step")
    return f"parameters within {off:.1e} learning rates after one step"


def check_no_waiting(core: str, device: torch.device) -> str:
    """Run a rollout and an update that fail if the host waits for the device."""
    run = Run(core, device, num_envs=64, minibatch_size=512)
    run.collect()
    run.update()
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        run.collect()
        run.update()
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    if device.type == "cuda":
        return "no synchronisation in a rollout and an update"
    return "runs (a CPU never waits)"


def check_bf16(core: str, device: torch.device) -> str:
    """Return how far bfloat16 changes the policy in one rollout; it fails only if a number is not finite."""
    run = Run(core, device)
    run.collect()
    chunks = run.chunks()
    install(run.agent, "bf16")
    with torch.no_grad():
        found = run.agent.evaluate_actions(
            chunks.obs, chunks.actions, chunks.rewards, chunks.starts, chunks.state
        )
    off = (found.log_probs - chunks.log_probs).abs().max(), (found.values - chunks.values).abs().max()
    if not torch.stack(off).isfinite().all():
        raise CheckFailed("bfloat16 gave numbers that are not finite")
    return f"log-probability off by at most {float(off[0]):.1e}, value by {float(off[1]):.1e}"


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def attempt(name: str, check: Callable[[], str]) -> Row:
    """Run a check; whatever it raises is its failure."""
    try:
        return {"check": name, "passed": "yes", "detail": check()}
    except Exception as error:  # one broken check must not hide the others
        return {"check": name, "passed": "no", "detail": describe(error)}


def describe(error: Exception) -> str:
    """Return the kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def run_checks(
    device: torch.device, cores: Sequence[str], tasks: Sequence[str], quick: bool
) -> Iterator[Row]:
    """Run every check; yield a row for each."""
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

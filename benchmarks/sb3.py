"""Stable-Baselines3 with our memory and our environments, against its own, in one command.

    python benchmarks/sb3.py                 # about ten minutes; writes benchmarks/results/sb3.{json,md}
    python benchmarks/sb3.py --quick         # does it run? seconds; writes nothing

1. `RecurrentPPO` with `RMCPolicy` and with `MlpLstmPolicy`: the time of a training step (rollout and update
   together) at an equal number of parameters, with the same encoder and the same environments.
2. `BatchedVecEnv` and `make_vec_env`: steps per second on the same maze.

What is compared takes turns in one process, and the ratio is the median over the rounds of the ratio
within a round: a busy machine slows both down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import minigrid  # noqa: F401 - registers its ids
import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

import envs
from rmc_agents.sb3 import BatchedVecEnv, EncoderExtractor, RMCPolicy

MAZE = "MiniGrid-MemoryS9-v0"
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    num_envs: int = 16
    n_steps: int = 128
    batch_size: int = 512
    n_epochs: int = 4
    rounds: int = 7
    vec_envs: int = 64
    vec_steps: int = 100


QUICK = Sizes(num_envs=2, n_steps=16, batch_size=16, n_epochs=1, rounds=1, vec_envs=4, vec_steps=5)


def make_model(policy: str, sizes: Sizes, **policy_kwargs: Any) -> RecurrentPPO:
    return RecurrentPPO(
        RMCPolicy if policy == "RMCPolicy" else policy,
        BatchedVecEnv(envs.make(MAZE, num_envs=sizes.num_envs)),
        n_steps=sizes.n_steps,
        batch_size=sizes.batch_size,
        n_epochs=sizes.n_epochs,
        policy_kwargs=policy_kwargs,
        seed=0,
        device="cpu",
    )


def num_parameters(model: RecurrentPPO) -> int:
    return sum(p.numel() for p in model.policy.parameters())


def lstm_of(parameters: int, sizes: Sizes) -> RecurrentPPO:
    """`MultiInputLstmPolicy` (`MlpLstmPolicy` for dictionaries) with our encoder and heads, of that size."""

    def build(hidden_size: int) -> RecurrentPPO:
        return make_model(
            "MultiInputLstmPolicy",
            sizes,
            lstm_hidden_size=hidden_size,
            features_extractor_class=EncoderExtractor,
            net_arch={"pi": [64], "vf": [64]},
        )

    hidden_size = min(range(8, 257, 2), key=lambda h: abs(num_parameters(build(h)) - parameters))
    return build(hidden_size)


def rollout_and_update(model: RecurrentPPO) -> tuple[float, float]:
    """Seconds of one rollout and of the update with it."""
    began = time.perf_counter()
    model.collect_rollouts(model.env, model.callback, model.rollout_buffer, model.n_steps)  # type: ignore
    collected = time.perf_counter()
    model.train()
    return collected - began, time.perf_counter() - collected


def compare_training(sizes: Sizes, threads: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    rmc = make_model("RMCPolicy", sizes)
    models = {
        "MlpLstmPolicy": lstm_of(num_parameters(rmc), sizes),
        "RMCPolicy": rmc,
        "RMCPolicy, core=lstm": make_model("RMCPolicy", sizes, core="lstm"),
        "RMCPolicy, core=gru": make_model("RMCPolicy", sizes, core="gru"),
    }
    for model in models.values():
        _, model.callback = model._setup_learn(10**9)  # type: ignore[attr-defined]
        rollout_and_update(model)  # warm up
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(sizes.rounds):
        for name, model in models.items():
            times[name].append(rollout_and_update(model))
    base = times["MlpLstmPolicy"]
    steps = sizes.num_envs * sizes.n_steps
    rows = []
    for name, model in models.items():
        totals = [sum(t) / sum(b) for t, b in zip(times[name], base, strict=True)]
        rows.append(
            {
                "policy": name,
                "threads": threads,
                "parameters": num_parameters(model),
                "rollout_us_per_step": 1e6 * statistics.median(t[0] for t in times[name]) / steps,
                "update_us_per_step": 1e6 * statistics.median(t[1] for t in times[name]) / steps,
                "time_of_mlp_lstm": statistics.median(totals),
            }
        )
    return rows


def steps_per_second(env: VecEnv, steps: int) -> float:
    rng = np.random.default_rng(0)
    actions = rng.integers(0, env.action_space.n, (steps, env.num_envs))  # type: ignore[attr-defined]
    began = time.perf_counter()
    for action in actions:
        env.step(action)
    return steps * env.num_envs / (time.perf_counter() - began)


def compare_environments(sizes: Sizes, threads: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    n = sizes.vec_envs
    candidates: dict[str, VecEnv] = {
        "make_vec_env": make_vec_env(MAZE, n, seed=0),
        "BatchedVecEnv": BatchedVecEnv(envs.make(MAZE, num_envs=n), seed=0),
    }
    speeds: dict[str, list[float]] = {name: [] for name in candidates}
    for env in candidates.values():
        env.reset()
        steps_per_second(env, sizes.vec_steps // 5)
    for _ in range(sizes.rounds):
        speeds["make_vec_env"].append(steps_per_second(candidates["make_vec_env"], sizes.vec_steps))
        speeds["BatchedVecEnv"].append(steps_per_second(candidates["BatchedVecEnv"], 10 * sizes.vec_steps))
    base = speeds["make_vec_env"]
    return [
        {
            "environments": name,
            "num_envs": n,
            "threads": threads,
            "steps_per_second": statistics.median(speed),
            "times_make_vec_env": statistics.median(s / b for s, b in zip(speed, base, strict=True)),
        }
        for name, speed in speeds.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    def show(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.2f}" if value < 100 else f"{value:,.0f}"

    lines = [list(rows[0]), ["---"] * len(rows[0]), *([show(v) for v in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "sb3_contrib": sb3_contrib.__version__,
        "gymnasium": gymnasium.__version__,
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing is written")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of torch")
    args = parser.parse_args()
    sizes = QUICK if args.quick else Sizes()
    torch.set_flush_denormal(True)

    def over_threads(compare: Callable[[Sizes, int], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        return [row for threads in args.threads for row in compare(sizes, threads)]

    before = machine()
    results = {
        "command": "python benchmarks/sb3.py",
        "machine": before,
        "environment": MAZE,
        "sizes": vars(sizes),
        "training": over_threads(compare_training),
        "environments": over_threads(compare_environments),
    }
    text = f"{table(results['training'])}\n\n{table(results['environments'])}\n"
    print(text)
    if not args.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "sb3.json").write_text(json.dumps(results, indent=1) + "\n")
        head = "Printed by `python benchmarks/sb3.py`; the machine and every number: `sb3.json`.\n\n"
        (RESULTS / "sb3.md").write_text(head + text)


if __name__ == "__main__":
    main()

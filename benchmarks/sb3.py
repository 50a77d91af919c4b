"""Stable-Baselines3 with our memory and our environments, against its own.

    python benchmarks/sb3.py            # some five minutes; writes results/sb3.*
    python benchmarks/sb3.py --quick    # does it run? seconds

1. A step of training, rollout and update together, in sb3-contrib's `RecurrentPPO`: with `RMCPolicy`, and
   with `MlpLstmPolicy` at an equal number of parameters, with the same encoder, heads and environments.
2. `BatchedVecEnv` and SB3's `make_vec_env`: steps per second in the same maze.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import Report, Row, num_threads, parse, prepare, take_turns, target, times_faster
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

import envs
from rmc_agents.sb3 import BatchedVecEnv, EncoderExtractor, RMCPolicy

MAZE = "MiniGrid-MemoryS9-v0"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    num_envs: int = 16
    n_steps: int = 128
    batch_size: int = 512
    n_epochs: int = 4
    vec_envs: int = 64
    vec_steps: int = 50
    rounds: int = 5


QUICK = Sizes(num_envs=2, n_steps=16, batch_size=16, n_epochs=1, vec_envs=4, vec_steps=5, rounds=1)


class Learner:
    """A model, and the time that its rollouts and updates took."""

    def __init__(self, policy: str | type[RMCPolicy], sizes: Sizes, **policy_kwargs: Any) -> None:
        self.model = RecurrentPPO(
            policy,
            BatchedVecEnv(envs.make(MAZE, num_envs=sizes.num_envs)),
            n_steps=sizes.n_steps,
            batch_size=sizes.batch_size,
            n_epochs=sizes.n_epochs,
            # What is timed is never learned: the lengths of episodes, and so the work, stay the same for all.
            learning_rate=0.0,
            policy_kwargs=policy_kwargs,
            seed=0,
            device="cpu",
        )
        self.num_parameters = sum(p.numel() for p in self.model.policy.parameters())
        self.callback: BaseCallback | None = None
        self.rollouts: list[float] = []
        self.updates: list[float] = []

    def turn(self) -> None:
        """One iteration of `learn`."""
        model = self.model
        if self.callback is None:
            _, self.callback = model._setup_learn(10**9)
        assert model.env is not None
        began = time.perf_counter()
        model.collect_rollouts(model.env, self.callback, model.rollout_buffer, model.n_steps)
        collected = time.perf_counter()
        model.train()
        self.rollouts.append(collected - began)
        self.updates.append(time.perf_counter() - collected)


def lstm_of(num_parameters: int, sizes: Sizes) -> Learner:
    """`MlpLstmPolicy`, its variant for dictionaries, with our encoder and heads, nearest to that size."""

    def build(hidden_size: int) -> Learner:
        return Learner(
            "MultiInputLstmPolicy",
            sizes,
            lstm_hidden_size=hidden_size,
            features_extractor_class=EncoderExtractor,
            net_arch={"pi": [64], "vf": [64]},
        )

    low, high = 2, 512  # the number of parameters grows with the hidden size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if build(middle).num_parameters > num_parameters else (middle, high)
    return min(build(low), build(high), key=lambda learner: abs(learner.num_parameters - num_parameters))


def compare_training(sizes: Sizes, threads: int) -> list[Row]:
    rmc = Learner(RMCPolicy, sizes)
    learners = {
        "MlpLstmPolicy": lstm_of(rmc.num_parameters, sizes),
        "RMCPolicy": rmc,
        "RMCPolicy, core=lstm": Learner(RMCPolicy, sizes, core="lstm"),
        "RMCPolicy, core=gru": Learner(RMCPolicy, sizes, core="gru"),
    }
    with num_threads(threads):
        turns = {name: learner.turn for name, learner in learners.items()}
        times = take_turns(turns, 0, (sizes.rounds, sizes.rounds))
    steps = sizes.num_envs * sizes.n_steps
    return [
        {
            "policy": name,
            "threads": threads,
            "parameters": learner.num_parameters,
            "rollout, µs a step": 1e6 * statistics.median(learner.rollouts[-sizes.rounds :]) / steps,
            "update, µs a step": 1e6 * statistics.median(learner.updates[-sizes.rounds :]) / steps,
            "time of MlpLstmPolicy": times_faster(times, "MlpLstmPolicy", name),
        }
        for name, learner in learners.items()
    ]


def stepper(env: VecEnv, steps: int) -> Callable[[], None]:
    actions = np.random.default_rng(0).integers(0, 7, (steps, env.num_envs))
    env.reset()

    def run() -> None:
        for action in actions:
            env.step(action)

    return run


def compare_environments(sizes: Sizes, threads: int) -> list[Row]:
    num_envs, longer = sizes.vec_envs, 20
    batched = BatchedVecEnv(envs.make(MAZE, num_envs=num_envs), seed=0)
    steps = {"make_vec_env": sizes.vec_steps, "BatchedVecEnv": longer * sizes.vec_steps}
    candidates = {
        "make_vec_env": stepper(make_vec_env(MAZE, num_envs, seed=0), steps["make_vec_env"]),
        "BatchedVecEnv": stepper(batched, steps["BatchedVecEnv"]),
    }
    with num_threads(threads):
        times = take_turns(candidates, 0, (sizes.rounds, sizes.rounds))
    per_step = {name: [t / steps[name] / num_envs for t in ts] for name, ts in times.items()}
    return [
        {
            "environments": name,
            "number": num_envs,
            "threads": threads,
            "steps/s": 1 / statistics.median(ts),
            "times make_vec_env": times_faster(per_step, name, "make_vec_env"),
        }
        for name, ts in per_step.items()
    ]


def targets(training: list[Row], environments: list[Row]) -> list[Row]:
    rows = []
    for row in training:
        if row["policy"] == "RMCPolicy":
            what = f"RMCPolicy's time of MlpLstmPolicy's, equal parameters, threads: {row['threads']}"
            rows.append(target(what, row["time of MlpLstmPolicy"], at_most=1.5))
    for row in environments:
        if row["environments"] == "BatchedVecEnv":
            what = (
                f"BatchedVecEnv, {row['number']} environments, times make_vec_env, threads: {row['threads']}"
            )
            rows.append(target(what, row["times make_vec_env"], at_least=20))
    return rows


def main() -> None:
    args = parse(__doc__).parse_args()
    machine = prepare(args)
    sizes = QUICK if args.quick else Sizes()
    environments = [row for n in args.threads for row in compare_environments(sizes, n)]
    training = [row for n in args.threads for row in compare_training(sizes, n)]
    tables = {
        "Targets": targets(training, environments),
        "Training": training,
        "Environments": environments,
    }
    report = Report("sb3", machine, tables)
    report.notes = [
        f"Training: {MAZE} by BatchedVecEnv, {sizes.num_envs} environments, {sizes.n_steps} steps, "
        f"batch_size {sizes.batch_size}, {sizes.n_epochs} epochs, actor and critic with a memory each, "
        "learning rate 0 so that all see episodes of the same lengths, everything else as RecurrentPPO has "
        "it. MlpLstmPolicy is its variant for dictionaries, MultiInputLstmPolicy, with RMCPolicy's encoder "
        "and heads and the hidden size that makes the parameters most nearly equal.",
        "Environments: uniformly random actions, drawn beforehand; resets within the count.",
        f"Medians over {sizes.rounds} interleaved rounds after two of warm-up; ratios within a round.",
    ]
    report.print()
    report.write(args.out)


if __name__ == "__main__":
    main()

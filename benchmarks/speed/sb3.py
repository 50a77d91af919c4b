"""Speed of our memories and environments in Stable-Baselines3, compared with SB3's own.

    python -m benchmarks.speed.sb3            # about five minutes; writes results/sb3.{json,md}
    python -m benchmarks.speed.sb3 --report   # the report from stored measurements
    python -m benchmarks.speed.sb3 --quick    # see whether it runs: seconds

1. A training step (rollout and update) of sb3-contrib's `RecurrentPPO`: `RMCPolicy` and `MlpLstmPolicy` with
   equal numbers of parameters and the same encoder, heads and environments.
2. Steps per second of `BatchedVecEnv` and of SB3's `make_vec_env` in the same maze.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

import rmc_envs
from benchmarks.common import Tables, make_parser, make_report, num_threads, speed_up, take_turns
from benchmarks.report import Row, target
from rmc_agents.sb3 import BatchedVecEnv, EncoderExtractor, RMCPolicy, without_text

MAZE = "MiniGrid-MemoryS9-v0"


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements."""

    num_envs: int = 16
    n_steps: int = 128
    batch_size: int = 512
    n_epochs: int = 4
    vec_envs: int = 64
    """Number of environments in the second comparison."""
    vec_steps: int = 50
    """Steps of `make_vec_env` per round; `BatchedVecEnv` makes 20 times as many."""
    rounds: int = 5
    """Rounds in which all candidates take turns."""


QUICK = Sizes(num_envs=2, n_steps=16, batch_size=16, n_epochs=1, vec_envs=4, vec_steps=5, rounds=1)


class Learner:
    """A model, with the seconds that each of its rollouts and updates took."""

    def __init__(self, policy: str | type[RMCPolicy], sizes: Sizes, **policy_kwargs: Any) -> None:
        self.model = RecurrentPPO(
            policy,
            BatchedVecEnv(rmc_envs.make(MAZE, num_envs=sizes.num_envs)),
            n_steps=sizes.n_steps,
            batch_size=sizes.batch_size,
            n_epochs=sizes.n_epochs,
            # Without learning, all models have episodes of the same length, so the same amount of work.
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
        """Run and time one iteration of `learn`: a rollout and its update."""
        model = self.model
        if self.callback is None:
            _, self.callback = model._setup_learn(10**9)
        assert model.env is not None
        start = time.perf_counter()
        model.collect_rollouts(model.env, self.callback, model.rollout_buffer, model.n_steps)
        collected = time.perf_counter()
        model.train()
        self.rollouts.append(collected - start)
        self.updates.append(time.perf_counter() - collected)


def make_lstm(num_parameters: int, sizes: Sizes) -> Learner:
    """Build `MlpLstmPolicy` for dictionaries with our encoder and heads and about as many parameters."""

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
    """Measure a training step with each policy."""
    rmc = Learner(RMCPolicy, sizes)
    learners = {
        "MlpLstmPolicy": make_lstm(rmc.num_parameters, sizes),
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
            "rollout (µs per step)": 1e6 * statistics.median(learner.rollouts[-sizes.rounds :]) / steps,
            "update (µs per step)": 1e6 * statistics.median(learner.updates[-sizes.rounds :]) / steps,
            "time relative to MlpLstmPolicy": speed_up(times, "MlpLstmPolicy", over=name),
        }
        for name, learner in learners.items()
    ]


def make_stepper(env: VecEnv, steps: int) -> Callable[[], None]:
    """Return a function that makes `steps` steps with random actions drawn beforehand."""
    actions = np.random.default_rng(0).integers(0, 7, (steps, env.num_envs))
    env.reset()

    def run() -> None:
        for action in actions:
            env.step(action)

    return run


def compare_environments(sizes: Sizes, threads: int) -> list[Row]:
    """Measure the steps per second of both kinds of environments."""
    num_envs, longer = sizes.vec_envs, 20
    minigrid = make_vec_env(MAZE, num_envs, seed=0, wrapper_class=without_text)
    batched = BatchedVecEnv(rmc_envs.make(MAZE, num_envs=num_envs), seed=0)
    steps = {"make_vec_env": sizes.vec_steps, "BatchedVecEnv": longer * sizes.vec_steps}
    candidates = {
        "make_vec_env": make_stepper(minigrid, steps["make_vec_env"]),
        "BatchedVecEnv": make_stepper(batched, steps["BatchedVecEnv"]),
    }
    with num_threads(threads):
        times = take_turns(candidates, 0, (sizes.rounds, sizes.rounds))
    per_step = {name: [t / steps[name] / num_envs for t in ts] for name, ts in times.items()}
    return [
        {
            "environments": name,
            "number": num_envs,
            "threads": threads,
            "steps per second": 1 / statistics.median(ts),
            "speed-up over make_vec_env": speed_up(per_step, name, over="make_vec_env"),
        }
        for name, ts in per_step.items()
    ]


def compare_with_targets(training: list[Row], environments: list[Row]) -> list[Row]:
    """Compare the measurements with their targets."""
    rows = []
    for row in training:
        if row["policy"] == "RMCPolicy":
            quantity = (
                f"RMCPolicy, time relative to MlpLstmPolicy, equal parameters, threads: {row['threads']}"
            )
            rows.append(target(quantity, row["time relative to MlpLstmPolicy"], at_most=1.5))
    for row in environments:
        if row["environments"] == "BatchedVecEnv":
            quantity = (
                f"BatchedVecEnv, {row['number']} environments, speed-up over make_vec_env, "
                f"threads: {row['threads']}"
            )
            rows.append(target(quantity, row["speed-up over make_vec_env"], at_least=20))
    return rows


def measure(args: argparse.Namespace) -> Tables:
    """Make all measurements."""
    sizes = QUICK if args.quick else Sizes()
    environments = [row for n in args.threads for row in compare_environments(sizes, n)]
    training = [row for n in args.threads for row in compare_training(sizes, n)]
    return {
        "Targets": compare_with_targets(training, environments),
        "Training": training,
        "Environments": environments,
    }


def make_notes(sizes: Sizes) -> list[str]:
    """Return how it was measured."""
    return [
        f"Training: {MAZE} in BatchedVecEnv, {sizes.num_envs} environments, {sizes.n_steps} steps, "
        f"batch_size {sizes.batch_size}, {sizes.n_epochs} epochs, a memory each for actor and critic, "
        "RecurrentPPO's defaults otherwise, but learning rate 0, so that episodes are equally long for all. "
        "MlpLstmPolicy is its variant for dictionaries, MultiInputLstmPolicy, with RMCPolicy's encoder and "
        "heads, and with the hidden size whose number of parameters is closest.",
        "Environments: uniformly random actions, drawn beforehand; resets are included.",
        f"Medians over {sizes.rounds} interleaved rounds after two rounds of warm-up; ratios within a round.",
    ]


def main() -> None:
    """Measure, and write the report."""
    args = make_parser(__doc__).parse_args()
    report = make_report("benchmarks.speed.sb3", "Speed in Stable-Baselines3", args, measure)
    report.notes = make_notes(QUICK if args.quick else Sizes())
    report.print()
    report.write(args.out)


if __name__ == "__main__":
    main()

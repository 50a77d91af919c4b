"""Speed of training on pictures: Atari's Pong with its usual preprocessing, compared with SB3's CnnPolicy.

    python -m benchmarks.speed.pictures            # about ten minutes; writes results/pictures.{json,md}
    python -m benchmarks.speed.pictures --report   # the report from stored measurements
    python -m benchmarks.speed.pictures --quick    # see whether it runs: seconds

An iteration is a rollout and its update, with the same numbers of environments, steps, minibatches and epochs
for all. All environments of a comparison run on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack, VecTransposeImage

import rmc_envs
from benchmarks.common import Tables, make_parser, make_report, num_threads, speed_up
from benchmarks.report import Row, target
from benchmarks.speed.timed_training import TimedEnv, TimedSb3, TimedTrainer, TimedVecEnv
from rmc_agents import ActorCritic, Trainer
from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.kinds import PICTURES

GAME = "ALE/Pong-v5"
SB3, SB3_LSTM = "SB3 PPO, CnnPolicy", "sb3-contrib RecurrentPPO, CnnLstmPolicy"
AGENTS = {
    "feedforward, 512 features": AgentConfig(core="feedforward", features=512),
    "feedforward": AgentConfig(core="feedforward"),
    "GRU": AgentConfig(core="gru"),
    "RMC": AgentConfig(),
}
"""Our agents by name. The first has the encoder of CnnPolicy: three convolutions and a layer of 512."""
EQUAL = "feedforward, 512 features"
"""Our agent that is compared with CnnPolicy."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements: those of SB3's zoo for Atari."""

    num_envs: int = 8
    num_steps: int = 128
    minibatch_size: int = 256
    epochs: int = 4
    rounds: int = 3
    """Rounds in which all candidates take turns, after one of warm-up."""


QUICK = Sizes(num_envs=2, num_steps=16, minibatch_size=16, epochs=1, rounds=1)


class OurTraining(TimedTrainer):
    """Training with our `Trainer` on the preprocessed game."""

    def __init__(self, config: AgentConfig, sizes: Sizes) -> None:
        env: Any = TimedEnv(rmc_envs.make(GAME, sizes.num_envs, preprocessing="atari"), walks=False)
        torch.manual_seed(0)
        agent = ActorCritic.from_config(env.observation_space, env.action_space, config)
        ppo = replace(
            PICTURES.ppo,
            num_steps=sizes.num_steps,
            minibatch_size=sizes.minibatch_size,
            epochs=sizes.epochs,
        )
        super().__init__(Trainer(agent, env, ppo, "unused"), env.watch)  # nothing is written before `run`


class Sb3Training(TimedSb3):
    """Training with Stable-Baselines3 on the game with SB3's own preprocessing, as its users set it up."""

    def __init__(self, algorithm: type[PPO] | type[RecurrentPPO], policy: str, sizes: Sizes) -> None:
        rmc_envs.resolve(GAME)  # registers it
        # As our game: actions are sometimes repeated, and frames are skipped by the preprocessing alone.
        options = {"frameskip": 1}
        games = make_atari_env(
            GAME, sizes.num_envs, seed=0, env_kwargs=options, wrapper_kwargs={"terminal_on_life_loss": False}
        )
        env = TimedVecEnv(VecTransposeImage(VecFrameStack(games, 4)), walks=False)
        model = algorithm(
            policy,
            env,
            n_steps=sizes.num_steps,
            batch_size=sizes.minibatch_size,
            n_epochs=sizes.epochs,
            learning_rate=2.5e-4,
            clip_range=0.1,
            ent_coef=0.01,
            seed=0,
            device="cpu",
        )
        super().__init__(model, env.watch)


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process, and the threads that it starts, on one core inside the context."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compare(sizes: Sizes) -> list[Row]:
    """Measure an iteration of every candidate."""
    with on_one_core(), num_threads(1):
        candidates: dict[str, OurTraining | Sb3Training] = {
            SB3: Sb3Training(PPO, "CnnPolicy", sizes),
            SB3_LSTM: Sb3Training(RecurrentPPO, "CnnLstmPolicy", sizes),
            **{name: OurTraining(config, sizes) for name, config in AGENTS.items()},
        }
        rounds = [{name: c.iterate() for name, c in candidates.items()} for _ in range(sizes.rounds + 1)][1:]
    times = {name: [sum(each[name]) for each in rounds] for name in candidates}
    learner = {name: [each[name].policy + each[name].update for each in rounds] for name in candidates}
    steps = sizes.num_envs * sizes.num_steps
    rows = []
    for name, candidate in candidates.items():
        medians = [statistics.median(part) for part in zip(*(each[name] for each in rounds), strict=True)]
        environment, policy, update = (1e6 * seconds / steps for seconds in medians)
        rows.append(
            {
                "agent": name,
                "parameters": candidate.parameters,
                "environment (µs per step)": environment,
                "policy (µs per step)": policy,
                "update (µs per step)": update,
                "steps per second": steps / statistics.median(times[name]),
                "speed-up over CnnPolicy": speed_up(times, name, over=SB3),
                "without environments": speed_up(learner, name, over=SB3),
            }
        )
    return rows


def compare_with_targets(rows: list[Row]) -> list[Row]:
    """Compare the measurements with their targets."""
    found = next(row for row in rows if row["agent"] == EQUAL)
    return [
        target(f"{EQUAL}: {column}", found[column], at_least=1)
        for column in ("speed-up over CnnPolicy", "without environments")
    ]


def measure(args: argparse.Namespace) -> Tables:
    """Make all measurements."""
    rows = compare(QUICK if args.quick else Sizes())
    return {"Targets": compare_with_targets(rows), "Training": rows}


def make_notes(sizes: Sizes) -> list[str]:
    """Return how it was measured."""
    return [
        f"{GAME}, {sizes.num_envs} environments, {sizes.num_steps} steps, minibatches of "
        f"{sizes.minibatch_size}, {sizes.epochs} epochs, one torch thread, everything on one core.",
        "Preprocessing: 84x84 gray pixels, four frames for an action, a stack of four. SB3 has its own "
        "AtariWrapper; ours is ale_py's batch.",
        "Policy: the rest of a rollout. Without environments: policy and update.",
        f"Medians over {sizes.rounds} interleaved rounds after one of warm-up; ratios within a round.",
    ]


def main() -> None:
    """Measure, and write the report."""
    args = make_parser(__doc__, threads=(1,)).parse_args()
    report = make_report("benchmarks.speed.pictures", "Speed of training on pictures", args, measure)
    report.notes = make_notes(QUICK if args.quick else Sizes())
    report.print()
    report.write(args.out)


if __name__ == "__main__":
    main()

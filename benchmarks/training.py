"""Whole training, in environment steps per second, against sb3-contrib's RecurrentPPO.

    python benchmarks/training.py            # some five minutes; writes results/training.{json,md,png}
    python benchmarks/training.py --quick    # does it run? seconds

Both sides: MiniGrid-MemoryS13-v0, 32 environments, rollouts of 128 steps, minibatches of 512 transitions, 4
epochs. Iterations (a rollout and the update with it) take turns.

How fast the other side is depends on how often episodes end, so two phases of training are measured. In the
*beginning* the policy is random and few episodes end. *Walking* is most of training: every agent soon walks
straight to the junction, and episodes take some 8 steps. There the environments are made to walk like that,
whatever the policy draws, so that nobody has to be trained first; all else is as in training.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from arithmetic import iteration_flops, product_rate
from common import Report, Row, num_threads, parse, prepare, target
from matplotlib.figure import Figure
from minigrid.wrappers import ImgObsWrapper
from parts import parts_of_a_step
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

import envs
from rmc_agents import ActorCritic, PPOConfig, Trainer
from rmc_agents.palette import OKABE_ITO

MAZE = "MiniGrid-MemoryS13-v0"
HIDDEN_SIZE = 128
AHEAD, EMPTY, LEFT, FORWARD = (3, 5), 1, 0, 2  # the cell before the agent, its code, two actions
PHASES = ("walking", "beginning")
RMC_4X64 = {"num_slots": 4, "num_heads": 4, "head_size": 16}
SHARED, SEPARATE = "sb3-contrib LSTM(128), one shared", "sb3-contrib LSTM(128), its default"
SHARED_OPTIONS = {"shared_lstm": True, "enable_critic_lstm": False, "net_arch": {"pi": [64], "vf": [64]}}


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    num_envs: int = 32
    num_steps: int = 128
    minibatch_size: int = 512
    epochs: int = 4
    rounds: int = 5


QUICK = Sizes(num_envs=2, num_steps=32, minibatch_size=32, epochs=1, rounds=1)


class Seconds(NamedTuple):
    """Where the time of one iteration went."""

    environment: float
    """Inside the environments' `step`."""
    policy: float
    """The rest of the rollout."""
    update: float
    """From the end of the rollout to the next."""


class Stopwatch:
    """Adds up the time that calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, function: Callable[..., Any], *args: Any) -> Any:
        began = time.perf_counter()
        result = function(*args)
        self.seconds += time.perf_counter() - began
        return result

    def read(self) -> float:
        """The seconds since the last reading."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class TimedEnv:
    """Our environments, with a stopwatch on `step`; they walk straight to a choice if `walks`."""

    def __init__(self, env: envs.BatchedEnv, walks: bool) -> None:
        self.env, self.walks, self.watch = env, walks, Stopwatch()

    def reset(self, seed: int | None = None) -> Any:
        self.obs: Any = self.env.reset(seed)
        return self.obs

    def step(self, actions: torch.Tensor) -> envs.Transition:
        if self.walks:
            actions = torch.where(self.obs["image"][:, AHEAD[0], AHEAD[1], 0] == EMPTY, FORWARD, LEFT)
        step = self.watch.time(self.env.step, actions)
        self.obs = step.obs
        return step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


class TimedVecEnv(VecEnvWrapper):
    """The same for SB3's."""

    def __init__(self, venv: VecEnv, walks: bool) -> None:
        super().__init__(venv)
        self.walks, self.watch = walks, Stopwatch()

    def reset(self) -> VecEnvObs:
        self.obs: Any = self.venv.reset()
        return self.obs

    def step_async(self, actions: Any) -> None:
        if self.walks:
            actions = np.where(self.obs[:, AHEAD[0], AHEAD[1], 0] == EMPTY, FORWARD, LEFT)
        self.watch.time(self.venv.step_async, actions)

    def step_wait(self) -> VecEnvStepReturn:
        result = self.watch.time(self.venv.step_wait)
        self.obs = result[0]
        return result


class Ours:
    """Our trainer; an iteration is `Trainer.iterate`, as in `python train/ppo.py`."""

    def __init__(
        self, core: str, options: dict[str, int], sizes: Sizes, bptt_length: int, walks: bool
    ) -> None:
        env: Any = TimedEnv(envs.make(MAZE, sizes.num_envs), walks)
        agent = ActorCritic(env.observation_space, env.action_space, core, options)
        config = PPOConfig(
            total_steps=10**9,
            num_steps=sizes.num_steps,
            bptt_length=bptt_length,
            minibatch_size=sizes.minibatch_size,
            epochs=sizes.epochs,
        )
        self.watch, self.parameters = env.watch, sum(p.numel() for p in agent.parameters())
        self.trainer = Trainer(agent, env, config, "unused")  # nothing is written before `run` or `save`

    def iterate(self) -> Seconds:
        began = time.perf_counter()
        figures = self.trainer.iterate()
        total = time.perf_counter() - began
        environment, collected = self.watch.read(), figures["time/collect_seconds"]
        return Seconds(environment, collected - environment, total - collected)


class Sb3:
    """RecurrentPPO as its users set it up, at our sizes."""

    def __init__(self, sizes: Sizes, shared: bool, walks: bool) -> None:
        env = TimedVecEnv(make_vec_env(MAZE, sizes.num_envs, seed=0, wrapper_class=ImgObsWrapper), walks)
        self.watch = env.watch
        self.sizes = sizes
        self.model = RecurrentPPO(
            "MlpLstmPolicy",
            env,
            n_steps=sizes.num_steps,
            batch_size=sizes.minibatch_size,
            n_epochs=sizes.epochs,
            ent_coef=0.01,
            policy_kwargs={"lstm_hidden_size": HIDDEN_SIZE, **(SHARED_OPTIONS if shared else {})},
            seed=0,
            device="cpu",
        )
        self.parameters = sum(p.numel() for p in self.model.policy.parameters())
        _, self.callback = self.model._setup_learn(10**9)
        self.watch.read()

    def iterate(self) -> Seconds:
        model = self.model
        began = time.perf_counter()
        assert model.env is not None
        model.collect_rollouts(model.env, self.callback, model.rollout_buffer, self.sizes.num_steps)
        collected = time.perf_counter()
        environment = self.watch.read()
        model.train()
        return Seconds(environment, collected - began - environment, time.perf_counter() - collected)


def candidates(sizes: Sizes, walks: bool) -> dict[str, Ours | Sb3]:
    """Everything that is measured, by name: ours at our default BPTT length and over the whole rollout."""
    short, whole = min(PPOConfig.bptt_length, sizes.num_steps), sizes.num_steps
    lstm = {"hidden_size": HIDDEN_SIZE}
    return {
        SEPARATE: Sb3(sizes, False, walks),
        SHARED: Sb3(sizes, True, walks),
        "RMC 4x64": Ours("rmc", RMC_4X64, sizes, short, walks),
        "LSTM(128)": Ours("lstm", lstm, sizes, short, walks),
        f"RMC 4x64, BPTT {whole}": Ours("rmc", RMC_4X64, sizes, whole, walks),
        f"LSTM(128), BPTT {whole}": Ours("lstm", lstm, sizes, whole, walks),
    }


def measure(sizes: Sizes, phase: str, threads: int) -> list[Row]:
    """Iterations in turns; a row for each candidate."""
    with num_threads(threads):
        runs = candidates(sizes, walks=phase == "walking")
        times: dict[str, list[Seconds]] = {name: [] for name in runs}
        for number in range(sizes.rounds + 1):
            for name, run in runs.items():
                seconds = run.iterate()
                if number > 0:  # the first warms up
                    times[name].append(seconds)
    steps = sizes.num_envs * sizes.num_steps
    rows = []
    for name, run in runs.items():
        row: Row = {"phase": phase, "agent": name, "threads": threads, "parameters": run.parameters}
        row["steps/s"] = steps / statistics.median(sum(seconds) for seconds in times[name])
        for part in Seconds._fields:
            row[f"{part} s"] = statistics.median(getattr(seconds, part) for seconds in times[name])
        for base, label in ((SEPARATE, "default"), (SHARED, "shared")):
            pairs = zip(times[base], times[name], strict=True)
            row[f"times sb3 {label}"] = statistics.median(sum(theirs) / sum(own) for theirs, own in pairs)
        rows.append(row)
    return rows


def parts(sizes: Sizes, threads: Sequence[int], seconds: float) -> list[Row]:
    """Where the time of a gradient step of ours goes, walking: a row per agent and threads."""
    found: list[Row] = []
    for n in threads:
        with num_threads(n):
            for agent, run in candidates(sizes, walks=True).items():
                if isinstance(run, Ours):
                    run.iterate()
                    found.append({"agent": agent, "threads": n, **parts_of_a_step(run.trainer, seconds)})
    return found


def startup_seconds(repeats: int) -> float:
    """Seconds of `python train/ppo.py` from nothing to one rollout of 16 steps, saved: the median."""
    script = Path(__file__).parents[1] / "train" / "ppo.py"
    tiny = ["--env", MAZE, "--num-envs", "32", "--num-steps", "16", "--total-steps", "512", "--epochs", "1"]
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            command = [sys.executable, str(script), *tiny, "--run-dir", str(Path(folder) / "run")]
            subprocess.run([*command, "--bptt-length", "16"], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def bounds(rows: Sequence[Row], sizes: Sizes) -> list[Row]:
    """How fast an iteration could be if all but its matrix products took no time."""
    config = PPOConfig(
        num_steps=sizes.num_steps,
        bptt_length=min(PPOConfig.bptt_length, sizes.num_steps),
        minibatch_size=sizes.minibatch_size,
        epochs=sizes.epochs,
    )
    measured = {(row["phase"], row["agent"], row["threads"]): row["steps/s"] for row in rows}
    found: list[Row] = []
    for threads in sorted({row["threads"] for row in rows}):
        with num_threads(threads):
            rate = product_rate()
        for agent, core, options in (
            ("RMC 4x64", "rmc", RMC_4X64),
            ("LSTM(128)", "lstm", {"hidden_size": HIDDEN_SIZE}),
        ):
            flops = sum(iteration_flops(MAZE, core, options, sizes.num_envs, config))
            most = sizes.num_envs * sizes.num_steps / (flops / rate)
            own, theirs = (measured["walking", name, threads] for name in (agent, SEPARATE))
            found.append(
                {
                    "agent": agent,
                    "threads": threads,
                    "GFLOP an iteration": flops / 1e9,
                    "GFLOP/s of a product": rate / 1e9,
                    "at most, steps/s": most,
                    "at most, times sb3": most / theirs,
                    "walking, steps/s": own,
                    "share of the most": own / most,
                }
            )
    return found


def targets(rows: Sequence[Row], quick: bool) -> list[Row]:
    found = {} if quick else {(row["phase"], row["agent"], row["threads"]): row for row in rows}
    return [
        target(
            f"{agent} against sb3-contrib's LSTM(128) ({label}), {phase}, threads={n}: times its steps/s",
            found.get((phase, agent, n), {}).get(f"times sb3 {label}"),
            at_least=wanted,
        )
        for agent, wanted in (("RMC 4x64", 10.0), ("LSTM(128)", 20.0))
        for phase in PHASES
        for label in ("default", "shared")
        for n in (1, 2)
    ]


def plot(rows: Sequence[Row]) -> Figure:
    """Microseconds of an environment step, stacked by where they go; a panel per phase and threads."""
    threads = sorted({row["threads"] for row in rows})
    figure = Figure(figsize=(7.5 * len(threads), 3.5 * len(PHASES)), layout="constrained")
    panels = figure.subplots(len(PHASES), len(threads), sharex=True, squeeze=False)
    for axes, (phase, n) in zip(panels.flat, itertools.product(PHASES, threads), strict=True):
        own = [row for row in rows if (row["phase"], row["threads"]) == (phase, n)][::-1]
        left = [0.0] * len(own)
        for part, colour in zip(Seconds._fields, OKABE_ITO, strict=False):
            # Shares of the median iteration, so that the bar is as long as its steps/s say.
            shares = [row[f"{part} s"] / sum(row[f"{p} s"] for p in Seconds._fields) for row in own]
            widths = [1e6 / row["steps/s"] * share for row, share in zip(own, shares, strict=True)]
            axes.barh([row["agent"] for row in own], widths, left=left, color=colour, label=part)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, row in enumerate(own):
            axes.annotate(f" {row['steps/s']:,.0f} steps/s", (left[y], y), va="center", fontsize=8)
        axes.set_xlim(0, 1.25 * max(1e6 / row["steps/s"] for row in rows))
        axes.set_xlabel("time of an environment step [microseconds]")
        axes.set_title(f"{MAZE}, {phase}, {n} thread{'s' * (n > 1)}", loc="left")
    panels[0, 0].legend(loc="lower right")
    return figure


def main() -> None:
    args = parse(__doc__).parse_args()
    machine = prepare(args)
    # Their advice to use another policy for pictures; MiniGrid's grid of codes is none.
    warnings.filterwarnings("ignore", module="stable_baselines3")
    sizes = QUICK if args.quick else Sizes()
    threads = args.threads[:1] if args.quick else args.threads
    rows = [row for phase in PHASES for n in threads for row in measure(sizes, phase, n)]
    startup = startup_seconds(1 if args.quick else 3)
    starts = target("from `python train/ppo.py` to a first rollout, s", startup, at_most=5.0)
    tables = {
        "Targets": [*targets(rows, args.quick), starts],
        "Training": rows,
        "Where a gradient step goes": parts(sizes, threads, 0.1 if args.quick else 4.0),
        "Bound": bounds(rows, sizes),
    }
    report = Report("training", machine, tables)
    report.notes = [
        f"{MAZE}, {sizes.num_envs} environments, {sizes.num_steps} steps, minibatches of "
        f"{sizes.minibatch_size} transitions, {sizes.epochs} epochs: "
        f"{sizes.epochs * sizes.num_envs * sizes.num_steps // sizes.minibatch_size} gradient steps an "
        f"iteration on both sides. Medians over {sizes.rounds} interleaved iterations after one of warm-up.",
        "beginning: the policy acts, at random yet. walking: the environments walk straight to a choice "
        "whatever it draws, as agents do through most of training, so that episodes take about 8 steps. "
        "sb3-contrib runs a sequence as one operation while no episode begins in a minibatch, step by step "
        "where one does; and MiniGrid's resets cost as much as many steps.",
        "sb3-contrib: RecurrentPPO('MlpLstmPolicy'), LSTM of 128, on `make_vec_env` (DummyVecEnv) with "
        "MiniGrid's ImgObsWrapper, the cheapest observation its users take; denormals are flushed for it "
        "too. `default` has an LSTM each for actor and critic and heads of two hidden layers; `shared` is "
        "cheaper, and as ours: one LSTM that the critic reads too, heads of one hidden layer of 64.",
        "It flattens 7x7x3 numbers into the LSTM; we embed them as categories and add a layer of 128 before "
        "the memory. Both act among MiniGrid's 7 actions.",
        f"Ours cuts rollouts into chunks of {PPOConfig.bptt_length} steps; sb3-contrib propagates gradients "
        f"through up to {sizes.num_steps}, so the rows with BPTT {sizes.num_steps} do the same there.",
        "environment: inside step(). policy: the rest of the rollout. update: from there to the next one "
        "(sb3-contrib computes advantages within `policy`, we within `update`).",
        "Where a gradient step goes: forward and backward of each part by itself on a minibatch of a "
        "rollout, the optimizer with the clipping before it; heads and loss are what is left of the whole.",
        "Bound: the matrix products of an iteration at the rate of a 512 x 256 x 256 product on this "
        "machine, everything else for nothing; against sb3-contrib's default while walking.",
        "`times sb3` is the median over rounds of the ratio of whole iterations within a round.",
    ]
    report.print()
    report.write(args.out, plot(rows))


if __name__ == "__main__":
    main()

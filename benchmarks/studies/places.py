"""What memories learn to hold of places: supervised, on random walks in BoxWorld through a viewport.

    python -m benchmarks.studies.places                      # all cores, three seeds: 40 minutes
    python -m benchmarks.studies.places --cores entity_delta gru --out /tmp/places
    python -m benchmarks.studies.places --report             # from the stored results
    python -m benchmarks.studies.places --quick              # tiny sizes: a few seconds

The agents of `train/ppo.py` read what a random walk sees, and only their auxiliary targets are learned: where
the gem is, and the key of each color, once they have been in view. No step is seen twice, and predictions are
judged before they are learned from.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

import rmc_envs
from benchmarks.common import Tables, make_parser, make_report
from benchmarks.report import CORE_NAMES, Row
from benchmarks.studies.control_runs import SEEDS
from rmc_agents import ActorCritic
from rmc_agents.cli.task_presets import TASK_PRESETS
from rmc_agents.cores import CORES
from rmc_agents.environment import AuxiliaryTargets
from rmc_agents.plots.style import styles
from rmc_agents.training.auxiliary import auxiliary_loss
from rmc_agents.tree import map_tree
from rmc_envs.box_world.known import SCALE
from rmc_envs.box_world.levels import NUM_COLORS

TASK, MAX_SOLUTION = "rmc/BoxWorldViewport-v0", 3
STUDIED = ("entity_delta", "delta_rmc", "gated_delta", "rmc", "gru", "lstm", "feedforward")
NUM_ENVS, CHUNK = 32, 32
LEARNING_RATE, MAX_GRAD_NORM = 1e-3, 0.5
TURNS = 0.2
"""Probability that the walk turns."""
STEPS, POINTS = 3_000_000, 24
CURVES = "Curves"
LAST = 4
"""Points of a curve whose mean is reported."""
KEYS = slice(2, 2 + 2 * NUM_COLORS)
"""Targets of the keys' rows and columns, by color."""
NOTES = [
    f"Each core: the agent of `train/ppo.py --env {TASK}`, {NUM_ENVS} environments, gradients over {CHUNK} "
    f"steps, Adam with a learning rate of {LEARNING_RATE:g}, {STEPS:,} steps of a walk that turns with a "
    f"probability of {TURNS:g}.",
    f"The correlation is that of predicted and true rows and columns, counted from the agent, in the last "
    f"{LAST} of {POINTS} parts of training. To know only the agent's own place gives about .7 for keys out "
    "of view.",
]


class Chunk(NamedTuple):
    """Steps of the walk."""

    obs: dict[str, Tensor]
    """[T, B, ...]."""
    previous: Tensor
    """[T, B] the previous actions."""
    starts: Tensor
    """[T, B]."""
    targets: AuxiliaryTargets
    """[T, B, K]."""


def measure(args: argparse.Namespace) -> Tables:
    """Train an agent with each core and seed."""
    steps, points = (4 * NUM_ENVS * CHUNK, 2) if args.quick else (STEPS, POINTS)
    curves: list[Row] = []
    for seed in args.seeds:
        for core in args.cores:
            curves += [{"core": core, "seed": seed, **row} for row in learn(core, seed, steps, points)]
            print(curves[-1], flush=True)
    return {CURVES: curves}


def summarise(curves: Sequence[Row]) -> list[Row]:
    """Return the means of the last points by core, over all seeds, and the range of seeds for keys."""
    results = []
    for core in dict.fromkeys(row["core"] for row in curves):
        seeds = dict.fromkeys(row["seed"] for row in curves if row["core"] == core)
        ends = [
            [row for row in curves if (row["core"], row["seed"]) == (core, seed)][-LAST:] for seed in seeds
        ]
        means = {
            kind: [statistics.fmean(row[kind] for row in end) for end in ends]
            for kind in (*Known.KINDS, "loss")
        }
        keys = means["keys out of view"]
        results.append(
            {"core": CORE_NAMES[core], "seeds": len(seeds)}
            | {kind: round(statistics.fmean(values), 3) for kind, values in means.items()}
            | {"seeds of keys out of view": f"{min(keys):.3f} to {max(keys):.3f}"}
        )
    return results


def learn(core: str, seed: int, steps: int, points: int) -> list[Row]:
    """Return the curve of a core: correlations and loss by the number of steps."""
    torch.manual_seed(seed)
    env = rmc_envs.make(TASK, NUM_ENVS, max_solution=MAX_SOLUTION)
    preset = TASK_PRESETS[TASK].agent
    agent = ActorCritic(
        env.observation_space,
        env.action_space,
        core,
        preset.core_options if core == preset.core else {},
        aux_size=env.aux_size,
        previous_action=preset.previous_action,
    )
    assert agent.aux_head is not None
    optimizer = torch.optim.Adam(agent.parameters(), LEARNING_RATE)
    state, rewards = agent.initial_state(NUM_ENVS), torch.zeros(CHUNK, NUM_ENVS)
    curve, known = [], Known()
    walk, done = chunks(env, seed), 0
    for point in range(1, points + 1):
        while done < steps * point / points:
            obs, previous, starts, targets = next(walk)
            output = agent.run_networks(obs, previous, rewards, starts, state)
            predictions = agent.aux_head(output.memory_output)
            loss = auxiliary_loss(predictions, targets)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(agent.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            state = map_tree(torch.detach, output.state)
            known.add(predictions.detach(), targets, loss.item())
            done += NUM_ENVS * CHUNK
        curve.append({"steps": done, **known.figures()})
        known = Known()
    return curve


def chunks(env: Any, seed: int) -> Iterator[Chunk]:
    """Walk, and return what is seen, chunk by chunk."""
    generator = torch.Generator().manual_seed(seed)
    num_actions = int(env.action_space.n)
    obs, starts = env.reset(seed), torch.ones(NUM_ENVS, dtype=torch.bool)
    actions = torch.zeros(NUM_ENVS, dtype=torch.int64)
    while True:
        steps = []
        for _ in range(CHUNK):
            steps.append((obs, actions, starts, env.auxiliary_targets()))
            turns = torch.rand(NUM_ENVS, generator=generator) < TURNS
            new = torch.randint(num_actions, (NUM_ENVS,), generator=generator)
            actions = torch.where(turns, new, actions)
            transition = env.step(actions)
            obs, starts = transition.obs, transition.done
        yield map_tree(lambda *parts: torch.stack(parts), *(Chunk(*each) for each in steps))


class Known:
    """Sums of predictions and targets, from which correlations are computed."""

    KINDS = ("keys in view", "keys out of view", "gem")

    def __init__(self) -> None:
        self.sums = {kind: torch.zeros(6, dtype=torch.float64) for kind in self.KINDS}
        self.losses: list[float] = []

    def add(self, predictions: Tensor, targets: AuxiliaryTargets, loss: float) -> None:
        """Add predictions [..., K]."""
        keys, places, weights = (
            x[..., KEYS].unflatten(-1, (-1, 2)) for x in (predictions, targets.values, targets.weights)
        )
        is_known = weights[..., 0] > 0
        in_view = is_known & (places.abs().amax(-1) < 2.5 / SCALE)
        gem = targets.weights[..., 0] > 0
        chosen = {
            "keys in view": (keys[in_view], places[in_view]),
            "keys out of view": (keys[is_known & ~in_view], places[is_known & ~in_view]),
            "gem": (predictions[..., :2][gem], targets.values[..., :2][gem]),
        }
        for kind, pair in chosen.items():
            x, y = (part.double().flatten() for part in pair)
            self.sums[kind] += torch.stack(
                [torch.ones_like(x).sum(), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
            )
        self.losses.append(loss)

    def figures(self) -> dict[str, float]:
        """Return correlations by kind, and the mean loss."""
        return {kind: correlation(sums) for kind, sums in self.sums.items()} | {
            "loss": sum(self.losses) / len(self.losses)
        }


def correlation(sums: Tensor) -> float:
    """Return the correlation of x and y from n and the sums of x, y, x^2, y^2 and xy."""
    n, x, y, xx, yy, xy = sums.tolist()
    spread = (n * xx - x * x) * (n * yy - y * y)
    return (n * xy - x * y) / spread**0.5 if spread > 0 else 0.0


def draw(tables: Tables) -> Figure:
    """Draw the correlation for keys out of view, and in view."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    points = tables[CURVES]
    looks = styles(CORES)
    for axes, kind in zip(figure.subplots(1, 2), Known.KINDS[1::-1], strict=True):
        for core in dict.fromkeys(row["core"] for row in points):
            steps = sorted({row["steps"] for row in points if row["core"] == core})
            by_step = [[r[kind] for r in points if (r["core"], r["steps"]) == (core, n)] for n in steps]
            color, marker = looks[core]
            axes.plot(
                [n / 1e6 for n in steps],
                [statistics.fmean(values) for values in by_step],
                color=color,
                marker=marker,
                markersize=3,
                label=CORE_NAMES[core],
            )
        axes.set(title=kind, xlabel="steps (millions)", ylabel="correlation", ylim=(-0.05, 1))
    figure.axes[0].legend(fontsize=8)
    return figure


def main() -> None:
    """Measure or report."""
    parser = make_parser(__doc__, threads=(1,))
    parser.add_argument("--cores", nargs="+", choices=STUDIED, default=list(STUDIED))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    args = parser.parse_args()
    if args.quick:
        args.cores, args.seeds = args.cores[:2], args.seeds[:1]
    torch.set_num_threads(args.threads[0])
    report = make_report("benchmarks.studies.places", "Places that memories hold", args, measure)
    report.tables = {"Correlation of predicted and true places": summarise(report.tables[CURVES])} | {
        CURVES: report.tables[CURVES]
    }
    report.notes = NOTES
    report.print()
    report.write(args.out, draw(report.tables))


if __name__ == "__main__":
    main()

"""Measure what scores mean: `python -m rmc_envs.measure` plays every task that has players.

python -m rmc_envs.measure                                        # half an hour
python -m rmc_envs.measure --ids popgym-AutoencodeEasy-v0         # one task; the others stay
python -m rmc_envs.measure --episodes 200 --output scores.json    # see whether it runs
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from .players import Player, RandomPlayer, play
from .references import PLAYERS, STORED, References
from .registry import native

BATCH = 500
"""Episodes that are played at once."""


def measure(env_id: str, episodes: int, seed: int = 0) -> dict[str, Any]:
    """Return the mean returns of the three players in one task, and their standard errors."""
    builder = native(env_id)
    assert builder is not None
    memoryless, reference = PLAYERS[env_id]
    result: dict[str, Any] = {}
    players: dict[str, type[Player]] = {"random": RandomPlayer, "memoryless": memoryless}
    for name, player in {**players, "reference": reference}.items():
        task = builder(num_envs=min(BATCH, episodes))
        returns = play(task, player(task, seed), episodes, seed)
        result[name] = round(float(returns.mean()), 4)
        result[f"{name} error"] = round(float(returns.std() / len(returns) ** 0.5), 4)
    return {**result, "episodes": episodes}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ids",
        nargs="+",
        choices=list(PLAYERS),
        default=list(PLAYERS),
        metavar="ID",
        help="all, if not given",
    )
    parser.add_argument("--episodes", type=int, default=2000, help="number of episodes of each player")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name(STORED), help="file to add the scores to"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)  # the fastest at these sizes
    stored = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {}
    print(f"{'task':40}" + "".join(f"{name:>24}" for name in References._fields))
    for env_id in args.ids:
        scores = stored[env_id] = measure(env_id, args.episodes)
        cells = (f"{scores[name]:.3f} +- {scores[f'{name} error']:.3f}" for name in References._fields)
        print(f"{env_id:40}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
        ordered = {each: stored[each] for each in PLAYERS if each in stored}
        args.output.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Measure what scores mean: `python -m rmc_envs.popgym.measure` plays every level of POPGym's tasks.

python -m rmc_envs.popgym.measure                                        # a quarter of an hour
python -m rmc_envs.popgym.measure --ids popgym-AutoencodeEasy-v0         # one task; the others stay
python -m rmc_envs.popgym.measure --episodes 200 --output scores.json    # see whether it runs
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from .base import PopgymTask
from .levels import POPGYM_IDS
from .players.base import Player, RandomPlayer, play
from .references import PLAYERS, STORED, References

BATCH = 500
"""Episodes that are played at once."""


def measure(env_id: str, episodes: int, seed: int = 0) -> dict[str, Any]:
    """Return the mean returns of the three players in one task, and their standard errors."""
    memoryless, reference = PLAYERS[POPGYM_IDS[env_id]().FAMILY]
    result: dict[str, Any] = {}
    players: dict[str, type[Player]] = {"random": RandomPlayer, "memoryless": memoryless}
    for name, player in {**players, "reference": reference}.items():
        task: PopgymTask = POPGYM_IDS[env_id](num_envs=min(BATCH, episodes))
        returns = play(task, player(task, seed), episodes, seed)
        result[name] = round(float(returns.mean()), 4)
        result[f"{name} error"] = round(float(returns.std() / len(returns) ** 0.5), 4)
    return {**result, "episodes": episodes}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ids", nargs="+", choices=list(POPGYM_IDS), default=list(POPGYM_IDS))
    parser.add_argument("--episodes", type=int, default=2000, help="number of episodes of each player")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name(STORED))
    args = parser.parse_args()
    torch.set_num_threads(1)  # the fastest at these sizes
    stored = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {}
    print(f"{'task':40}" + "".join(f"{name:>18}" for name in References._fields))
    for env_id in args.ids:
        scores = stored[env_id] = measure(env_id, args.episodes)
        cells = (f"{scores[name]:.3f} +- {scores[f'{name} error']:.3f}" for name in References._fields)
        print(f"{env_id:40}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
        ordered = {each: stored[each] for each in POPGYM_IDS if each in stored}
        args.output.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

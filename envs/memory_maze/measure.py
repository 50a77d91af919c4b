"""Measure how many targets players reach: `python -m rmc_envs.memory_maze.measure --size 9 --view-size 5`."""

from __future__ import annotations

import argparse

import torch

from ..players import Player, RandomPlayer, play
from .players import Memoryless, PerfectKnowledge, PerfectMemory
from .task import MemoryMaze

PLAYERS: dict[str, type[Player]] = {
    "random actions": RandomPlayer,
    "no memory": Memoryless,
    "perfect memory": PerfectMemory,
    "perfect knowledge": PerfectKnowledge,
}


def measure(task: MemoryMaze, player: type[Player], episodes: int, seed: int = 0) -> tuple[float, float]:
    """Return the mean number of targets of an episode, and its standard error."""
    returns = play(task, player(task, seed), episodes, seed)
    return float(returns.mean()), float(returns.std() / len(returns) ** 0.5)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=9, help="cells per side inside the border")
    parser.add_argument("--view-size", type=int, default=5, help="cells per side of the view")
    parser.add_argument("--episodes", type=int, default=256, help="number of episodes of each player")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the fastest at these sizes
    for name, player in PLAYERS.items():
        task = MemoryMaze(min(args.episodes, 256), size=args.size, view_size=args.view_size)
        mean, error = measure(task, player, args.episodes)
        print(f"{name:18} {mean:7.2f} +- {error:.2f}", flush=True)


if __name__ == "__main__":
    main()
